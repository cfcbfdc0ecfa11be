"""`python -m sim explore`: walk the small worlds, several at a time, and say what was seen under which bounds."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from sim.bounds import SMALL, WORLDS
from sim.explore import Walk, walk
from sim.groups import BatchWalk, walk_batches
from sim.mistakes import MISTAKES
from sim.run import FENCE_CELLS, STATE_MOVES, UNREACHABLE, cores
from sim.turns import SLIPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.states import Bounds, Shape


BATCHES = "batches"
DEPARTURES = 2
"""How often the life of a batch departs from the plain one, at most."""


def told(bounds: Bounds) -> str:
    """Say the bounds of a world in a line."""
    accounts = " + ".join(_told(shape) for shape in bounds.accounts)
    return f"{accounts}; ≤{bounds.faults} 故障/faults, ≤{bounds.transfers} 转账/transfers"


def _told(shape: Shape) -> str:
    parties = ", ".join(f"{name} {wave}" for name, wave in zip(shape.parties, shape.waves, strict=True))
    more = [", 审核/reviews"] * shape.reviews + [", 无撤回/no withdrawals"] * (not shape.withdrawals)
    return f"{shape.cases} 申请/cases × (参与方及波次/participants and waves: {parties}{''.join(more)})"


HELP = """遍历小世界的每一种交错 / Walk every interleaving of small worlds.

真实的协调器、栅栏与保存守卫；每到一个状态就检查 docs/protocol.md 的 P1 至 P9;违例时打印最短经过,退出码 1。
The real coordinator, fence and guard; every state reached is checked for P1 to P9 of docs/protocol.md. On a violation
the shortest way there is told, and the exit code is 1. What is abstracted, and why that loses nothing, is said in
sim/account.py and sim/turns.py. Those worlds step one case at a time; before them, every way that one batch of three
cases can go is walked (sim/groups.py), each case held to what it would have done alone.
世界逐个申请推进;在此之前,先遍历三个申请成批推进的每一种走法,每个申请都须与单独推进时一致。

不计作故障:消息或应答丢失、延迟、重复、乱序;工作进程遗忘所知、凭旧副本行事;随时撤回;过期。
At no cost of a fault: messages and replies lost, delayed, repeated, overtaken; workers that forget, or stand still and
act on old copies; withdrawals at any moment; expiry.
计作故障:保存后未发完即崩溃、Try 被拒、Confirm 或 Cancel 出错、静默至截止、复检遇阻、事实变动。
A fault: a worker that dies between its save and some sends, a Try refused, a Confirm or Cancel in error, silence until
the deadline, a blocker at the re-check, a fact that changes.

\b
世界 / worlds:
""" + "\n".join(f"  {bounds.name:<13} {told(bounds)}" for bounds in (*WORLDS, SMALL))


def check_mistake(mistake: str | None) -> None:
    """Exit with the list of planted mistakes unless `mistake` is one of them, or none was asked for."""
    if mistake is None or mistake in MISTAKES:
        return
    print("可植入的错误 / mistakes that can be planted:")
    for name, planted in MISTAKES.items():
        print(f"  {name:<26} {planted.what}")
    raise typer.Exit(0 if mistake == "?" else 2)


def explore(
    world: Annotated[list[str] | None, typer.Option(help="只走这些世界 / only these worlds")] = None,
    small: Annotated[bool, typer.Option("--small", help="只走小世界，数秒 / the small world alone, seconds")] = False,
    faults: Annotated[int | None, typer.Option(min=0, max=3, help="改变故障次数 / another number of faults")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="进程数，默认为核数 / processes; default: cores")] = None,
    mistake: Annotated[str | None, typer.Option(help="植入的错误；? 列出全部 / planted mistake; ? lists them")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="以 JSON 输出结果 / result as JSON")] = False,
) -> None:
    """Walk the worlds that were asked for."""
    check_mistake(mistake)
    by_name = {bounds.name: bounds for bounds in (*WORLDS, SMALL)}
    unknown = [name for name in world or () if name not in by_name]
    if unknown:
        print(f"没有这样的世界 / no such world: {', '.join(unknown)}; {', '.join(by_name)}")
        raise typer.Exit(2)
    chosen: Sequence[Bounds] = [by_name[name] for name in world] if world else (SMALL,) if small else WORLDS
    if faults is not None:
        chosen = [msgspec.structs.replace(bounds, faults=faults) for bounds in chosen]
    batches = None if world or small else _batches(mistake, faults)
    if batches is not None and not as_json:
        _print_batches(batches)
    seen = []
    for bounds, walked in _walked(chosen, mistake, processes or cores()):
        seen.append(walked)
        if not as_json:
            _print_walk(bounds, walked)
    if as_json:
        told_batches = [] if batches is None else [{**msgspec.to_builtins(batches), "name": BATCHES}]
        print(json.dumps([*told_batches, *(_as_json(one) for one in seen)], ensure_ascii=False))
    else:
        _print_coverage(seen)
    broken = any(one.violation for one in seen) or (batches is not None and batches.violation is not None)
    raise typer.Exit(1 if broken else 0)


def walk_named(bounds: Bounds, mistake: str | None) -> Walk:
    """Walk one world, with a planted mistake if one is named."""
    parts = MISTAKES[mistake].parts if mistake else None
    return walk(bounds, parts, habits=SLIPS.get(mistake or ""))


def _batches(mistake: str | None, departures: int | None) -> BatchWalk:
    parts = MISTAKES[mistake].parts if mistake else None
    with Console(stderr=True).status(f"{BATCHES} …"):
        return walk_batches(DEPARTURES if departures is None else departures, parts)


def _print_batches(seen: BatchWalk) -> None:
    print(f"{BATCHES}: 三个申请成批、成组 / three cases in a batch and in groups")
    print(f"  过程 / lives {seen.lives:,} · 请求 / needs {seen.needs:,} · {seen.seconds:.1f} s")
    for move, times in sorted(seen.group_moves.items()):
        print(f"  成组 / as a group {move:<28} {times:>9,}")
    for what, times in sorted(seen.seen.items()):
        print(f"  {what:<46} {times:>9,}")
    if seen.violation is None:
        print("  无违例 / no violation", flush=True)
        return
    for number, line in enumerate(seen.story, 1):
        print(f"  {number:>3}. {line}")
    print(f"  违例 / VIOLATION  {seen.violation}", flush=True)


def _walked(chosen: Sequence[Bounds], mistake: str | None, processes: int) -> Iterator[tuple[Bounds, Walk]]:
    console = Console(stderr=True)
    with ProcessPoolExecutor(min(processes, len(chosen))) as pool, console.status("…") as status:
        walks = {pool.submit(walk_named, bounds, mistake): bounds for bounds in chosen}
        for done, future in enumerate(as_completed(walks)):
            yield walks[future], future.result()
            status.update(f"{done + 1}/{len(walks)} 世界 / worlds")


def _as_json(seen: Walk) -> dict[str, object]:
    return {**msgspec.structs.asdict(seen), "endings": dict(seen.endings), "seconds": round(seen.seconds, 2)}


def _print_walk(bounds: Bounds, seen: Walk) -> None:
    print(f"{bounds.name}: {told(bounds)}")
    print(
        f"  状态 / states {seen.states:,} · 账户状态 / account states {seen.account_states:,} · "
        f"步 / transitions {seen.transitions:,} · 深度 / depth {seen.depth} · {seen.seconds:.1f} s"
    )
    if seen.violation is None:
        print(f"  结局 / ways it ended {len(seen.endings)} · 无违例 / no violation", flush=True)
        return
    print("  最短经过 / the shortest way there:")
    for number, line in enumerate(seen.story, 1):
        print(f"  {number:>3}. {line}")
    print(f"  违例 / VIOLATION  {seen.violation}", flush=True)


def _print_coverage(seen: Sequence[Walk]) -> None:
    moves = Counter(move for one in seen for move in one.moves)
    cells = Counter(cell for one in seen for cell in one.cells)
    print("状态转换，在几个世界里发生过 / transitions of the state table, in how many of the worlds:")
    for move in STATE_MOVES:
        print(f"  {move:<28} {moves[move] or '从未 / never':>5}")
    reachable = [cell for cell in FENCE_CELLS if cell not in UNREACHABLE]
    missed = [cell for cell in reachable if not cells[cell]]
    print(
        f"栅栏的格子 / cells of the fence: {len(reachable) - len(missed)} / {len(reachable)}"
        f"{'; 从未 / never: ' + ', '.join(missed) if missed else ''}"
    )
    print(
        f"合计 / in all: 状态 / states {sum(one.states for one in seen):,} · "
        f"步 / transitions {sum(one.transitions for one in seen):,}"
    )
