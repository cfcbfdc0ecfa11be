"""`python -m sim`: random worlds by seed, and `python -m sim explore`: every interleaving of a small one."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from sim.explore_command import HELP as EXPLORE_HELP
from sim.explore_command import check_mistake, explore
from sim.run import GROUP_MOVES, LETTERS, STATE_MOVES, UNREACHABLE, Summary, cores, play_many, replay

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

HELP = """解绑事务的确定性模拟器 / Deterministic simulator of the saga.

每个种子是一个世界：真实的协调器、栅栏、租约与恢复决策，经历崩溃、停顿、时钟偏差、丢失、重复、
延迟、乱序、拒绝、静默、保存结果不明、毒申请、慢磁盘、策略包更换、资金变动、撤回与从备份恢复；随后世界痊愈，每个申请都必须结束。
One seed is one world: the real coordinator, fence, leases and recovery decision through crashes, stalls, skewed clocks,
losses, repeats, delays, reorderings, refusals, silence, torn saves, poisoned cases, slow disks, changed packs,
movements of funds, withdrawals and restores from backup; then the world heals and every case must end.

\b
  python -m sim --seeds 100000             种子 0 至 99999 / seeds 0 to 99999
  python -m sim --seeds 500 --first 7000   种子 7000 起 / from seed 7000
  python -m sim --seed 4711                逐步重放一个世界 / replay one world step by step
  python -m sim --mistake late-try         植入一个错误，看它被发现 / plant a mistake and watch it caught
  python -m sim explore                    遍历小世界的每一种交错 / every interleaving of a small world

有违例，或两千个以上的种子仍有未覆盖之处，退出码为 1 / Exits 1 when a promise was broken, or when two thousand
seeds or more leave a transition, a letter, a cell of the fence or a fault untried.
"""


@app.callback(invoke_without_command=True, help=HELP)
def simulate(
    context: typer.Context,
    seeds: Annotated[int, typer.Option(min=1, help="多少个种子 / how many seeds")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="第一个种子 / the first seed")] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="只重放这个种子并打印经过 / replay this one, told")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="进程数，默认为核数 / processes; default: cores")] = None,
    mistake: Annotated[str | None, typer.Option(help="植入的错误；? 列出全部 / planted mistake; ? lists them")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="以 JSON 输出结果 / result as JSON")] = False,
) -> None:
    """Play random worlds, unless a command was named."""
    if context.invoked_subcommand is not None:
        return
    check_mistake(mistake)
    if seed is not None:
        broken = replay(seed, mistake, lambda line: print(line, file=sys.stderr if as_json else sys.stdout))
        if as_json:
            print(json.dumps({"seed": seed, "violation": broken}, ensure_ascii=False))
        else:
            print(f"违例 / VIOLATION  {broken}" if broken else "无违例 / no violation")
        raise typer.Exit(1 if broken else 0)
    summary = _with_progress(first, seeds, processes or cores(), mistake)
    if as_json:
        print(json.dumps(_as_json(first, summary), ensure_ascii=False))
    else:
        _print_summary(first, summary, mistake)
    raise typer.Exit(1 if summary.failed() else 0)


def _with_progress(first: int, seeds: int, processes: int, mistake: str | None) -> Summary:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=seeds)
        return play_many(first, seeds, processes, mistake, lambda more: bar.advance(task, more))


def _as_json(first: int, summary: Summary) -> dict[str, object]:
    return {
        "first": first,
        "seeds": summary.seeds,
        "cases": summary.cases,
        "events": summary.events,
        "simulated_seconds": summary.simulated_ms // 1000,
        "seconds": round(summary.seconds, 2),
        "transitions": dict(summary.moves),
        "fence_cells": dict(summary.cells),
        "letters": dict(summary.letters),
        "group_steps": dict(summary.group_moves),
        "never_happened": summary.missing(),
        "seen": dict(summary.seen),
        "violations": [{"seed": one.seed, "violation": one.violation} for one in summary.failures],
    }


def _print_summary(first: int, summary: Summary, mistake: str | None) -> None:
    rate = summary.seeds / summary.seconds if summary.seconds else 0
    print(f"种子 / seeds {first} – {first + summary.seeds - 1}: {summary.seconds:.1f} s, {rate:.0f}/s")
    print(
        f"申请 / cases {summary.cases:,} · 事件 / events {summary.events:,} · "
        f"模拟时间 / simulated {summary.simulated_ms / 3_600_000:.1f} h"
    )
    print("状态转换 / transitions of the state table:")
    for move in STATE_MOVES:
        print(f"  {move:<28} {summary.moves[move]:>10,}")
    print("成组转换 / steps of groups of several cases:")
    for move in GROUP_MOVES:
        print(f"  {move:<28} {summary.group_moves[move]:>10,}")
    print("各状态中的标记 / letters by state:")
    for state in dict.fromkeys(letter.split(" ")[0] for letter in LETTERS):
        told = (f"{one.split(' ')[1]} {summary.letters[one]:,}" for one in LETTERS if one.split(" ")[0] == state)
        print(f"  {state:<14} {' · '.join(told)}")
    print("栅栏 / cells of the fence:")
    for cell in sorted(summary.cells):
        print(f"  {cell:<28} {summary.cells[cell]:>10,}")
    print(f"  守约时到不了 / never reached while the protocol is kept: {len(UNREACHABLE - set(summary.cells))}")
    print("经历 / what it went through:")
    for what, times in sorted(summary.seen.items()):
        print(f"  {what:<40} {times:>10,}")
    if missing := summary.missing():
        print(f"从未发生 / never happened: {', '.join(missing)}")
    again = f" --mistake {mistake}" if mistake else ""
    for failure in summary.failures:
        print(f"违例 / VIOLATION  seed {failure.seed}: {failure.violation}")
        print(f"  重放 / replay: python -m sim --seed {failure.seed}{again}")
    if not summary.failures:
        print("无违例 / no violation")


app.command(name="explore", help=EXPLORE_HELP)(explore)

if __name__ == "__main__":
    app(prog_name="python -m sim")
