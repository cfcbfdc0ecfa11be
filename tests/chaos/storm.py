"""What is done to an installation: a storm is a list of troubles made from a seed, each at its time, over by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import UNANSWERED
from jiebang.sandbox.faults import LIES, FaultKind, NetworkFault, Phase
from jiebang.store.postgres.embedded import find_postmaster_pid, placement
from tests.chaos.proxy import FAIR, Way, Weather

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.app import App
    from jiebang.sandbox.control import Control
    from jiebang.sandbox.processes import Sandbox, SandboxProcess
    from tests.chaos.disk import SmallDisk
    from tests.chaos.proxy import Proxy

_WORKERS: Final = ("worker-1", "worker-2")
_APIS: Final = ("api", "api-2")
SERVERS: Final = ("shenzhen", "guiyang")
CENTRE: Final = "guiyang"
"""The data centre that goes, and the server whose disk is small."""
_BLACK: Final = Weather(requests=Way.DROP, answers=Way.DROP)
CUTS: Final[Mapping[str, Weather]] = {
    "requests held back": Weather(requests=Way.HOLD),
    "answers held back": Weather(answers=Way.HOLD),
    "both held back": Weather(requests=Way.HOLD, answers=Way.HOLD),
    "requests lost": Weather(requests=Way.DROP),
    "answers lost": Weather(answers=Way.DROP),
    "both lost": _BLACK,
    "ends lost": Weather(requests=Way.ENDLESS, answers=Way.ENDLESS),
    "closed": Weather(open=False),
    "slow": Weather(bytes_a_second=20_000),
}
_FAULTS: Final[Mapping[str, NetworkFault]] = {
    "slow": NetworkFault(FaultKind.SLOW, ms=700),
    "very slow": NetworkFault(FaultKind.SLOW, ms=2_500),
    "silent before": NetworkFault(FaultKind.SILENT),
    "silent after": NetworkFault(FaultKind.SILENT, phase=Phase.AFTER),
    "refuses": NetworkFault(FaultKind.REFUSE, share=0.3),
    "twice": NetworkFault(FaultKind.TWICE),
    "breaks": NetworkFault(FaultKind.BREAK, share=0.05),
    "dies": NetworkFault(FaultKind.DIE, phase=Phase.DURING, count=2),
    **{f"lies: {kind}": NetworkFault(kind, count=4) for kind in sorted(LIES)},
}


class Trouble(msgspec.Struct, frozen=True, order=True):
    """One thing done to one target, `at` seconds into the storm and for `lasts` seconds."""

    at: float
    kind: str
    target: str
    lasts: float = 0.0


@dataclass(slots=True, kw_only=True)
class Stage:
    """What a storm can reach. `paths`: the proxies by what they lead to; `disk`: or why there is none."""

    home: Path
    app: App
    processes: Mapping[str, SandboxProcess]
    outside: Sandbox
    paths: Mapping[str, Proxy]
    controls: Mapping[str, Control]
    disk: SmallDisk | str
    switching: asyncio.Lock = field(default_factory=asyncio.Lock)


def plan(seed: int, *, rounds: int, lasts: float, gap: float, centre_lasts: float, disk_lasts: float) -> list[Trouble]:
    """Make a storm: `rounds` times everything that there is, in an order and at targets that the seed decides.

    `lasts`: the longest a trouble lasts; `gap`: the longest until the next begins; the data centre is gone and the disk
    full once. All in seconds.
    """
    dice = random.Random(seed)  # noqa: S311 - replayable
    every: list[tuple[str, Sequence[str], float]] = []
    paths = [*placement(PARTICIPANTS), *PARTICIPANTS.networks, "phone", "superapp", *_APIS]
    for _ in range(rounds):
        every += [("kill", (worker,), 0.0) for worker in _WORKERS]
        every += [("kill", _APIS, 0.0), ("kill", PARTICIPANTS.networks, 0.0)]
        every += [("kill", (other,), 0.0) for other in ("phone", "superapp")]
        every += [("kill server", SERVERS, 0.0), ("kill backend", SERVERS, 0.0)]
        every += [("end backend", SERVERS, 0.0)] * 2
        every += [("freeze", _WORKERS, lasts)]
        every += [("reset", paths, 0.0)] * 3
        every += [(f"cut: {cut}", paths, lasts) for cut in CUTS]
        every += [(f"network: {fault}", PARTICIPANTS.networks, 2 * lasts) for fault in _FAULTS]
    dice.shuffle(every)
    every.insert(len(every) // 2, ("data centre gone", (CENTRE,), centre_lasts))
    every.insert(5 * len(every) // 6, ("disk full", (CENTRE,), disk_lasts))
    at, storm = gap, list[Trouble]()
    for kind, targets, most in every:
        part = 1 if kind in ("data centre gone", "disk full", "freeze") else dice.uniform(0.3, 1)
        storm.append(Trouble(round(at, 2), kind, dice.choice(targets), round(most * part, 2)))
        at += dice.uniform(0.1, gap)
    return storm


async def rage(
    stage: Stage, storm: Sequence[Trouble], gusts: int, lull: Callable[[], Awaitable[object]]
) -> list[tuple[Trouble, str]]:
    """Let it come in gusts, each trouble at its time; return what each did, in order. Afterwards everything is healed.

    A `lull` comes before each gust: whatever the machine's speed, people then get on, and meet the lies still to come.
    """
    done, size = list[str](), -(-len(storm) // gusts)
    try:
        for first in range(0, len(storm), size):
            await lull()
            done += await _gust(stage, storm[first : first + size])
    finally:
        await heal(stage)
    return list(zip(storm, done, strict=True))


async def _gust(stage: Stage, troubles: Sequence[Trouble]) -> list[str]:
    began = asyncio.get_running_loop().time() - troubles[0].at

    async def one(trouble: Trouble) -> str:
        await asyncio.sleep(began + trouble.at - asyncio.get_running_loop().time())
        strike = _STRIKES[trouble.kind.partition(":")[0]]
        try:
            return await strike(stage, trouble)
        except UNANSWERED as error:  # it met another trouble
            return f"missed: {type(error).__name__}"

    return await asyncio.gather(*(one(trouble) for trouble in troubles))


async def heal(stage: Stage) -> None:
    """End all troubles, whatever of them there still is."""
    for path in stage.paths.values():
        path.turn(FAIR)
    for process in stage.processes.values():
        _signal(process.pid, signal.SIGCONT)
    if not isinstance(stage.disk, str):
        stage.disk.empty()
    for control in stage.controls.values():
        await _switch(stage, control, on=(), off=set(FaultKind))


def _signal(pid: int | None, number: signal.Signals) -> bool:
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


async def _kill(stage: Stage, trouble: Trouble) -> str:
    process = {**stage.processes, **stage.outside.processes}[trouble.target]
    return "killed" if _signal(process.pid, signal.SIGKILL) else "missed: not running"


async def _freeze(stage: Stage, trouble: Trouble) -> str:
    """Stop a worker beyond its lease, as a machine that swaps does, and let it wake and go on as if nothing were."""
    pid = stage.processes[trouble.target].pid
    if not _signal(pid, signal.SIGSTOP):
        return "missed: not running"
    await asyncio.sleep(trouble.lasts)
    return "woke" if _signal(pid, signal.SIGCONT) else "killed in its sleep"


async def _kill_server(stage: Stage, trouble: Trouble) -> str:
    pid = find_postmaster_pid(stage.home, trouble.target)
    return "killed" if _signal(pid, signal.SIGKILL) else "missed: not running"


async def _backends(stage: Stage, server: str) -> list[int]:
    database = next(name for name, at in placement(PARTICIPANTS).items() if at == server)
    rows = await stage.app.pools[database].fetch(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'jiebang' AND pid <> pg_backend_pid() ORDER BY pid"
    )
    return [row["pid"] for row in rows]


async def _one_backend(stage: Stage, trouble: Trouble, number: signal.Signals) -> str:
    pids = await _backends(stage, trouble.target)
    if not pids:
        return "missed: nobody is connected"
    return "struck" if _signal(random.Random(trouble.at).choice(pids), number) else "missed: gone"  # noqa: S311


async def _kill_backend(stage: Stage, trouble: Trouble) -> str:
    """Kill one connection's process, upon which PostgreSQL throws everybody out and recovers."""
    return await _one_backend(stage, trouble, signal.SIGKILL)


async def _end_backend(stage: Stage, trouble: Trouble) -> str:
    """Have one connection's process end, as an administrator does."""
    return await _one_backend(stage, trouble, signal.SIGTERM)


async def _reset(stage: Stage, trouble: Trouble) -> str:
    return f"{stage.paths[trouble.target].cut()} connections"


async def _cut(stage: Stage, trouble: Trouble) -> str:
    weather = CUTS[trouble.kind.removeprefix("cut: ")]
    path = stage.paths[trouble.target]
    path.turn(weather)
    there = path.cut() if not weather.open else path.connections
    await asyncio.sleep(trouble.lasts)
    # Of two cuts of one path the earlier to end ends both; every third leaves what it broke half open, for ever.
    path.turn(FAIR, forget=int(trouble.at * 100) % 3 == 0)
    return f"{there} connections"


async def _centre_gone(stage: Stage, trouble: Trouble) -> str:
    """Take a data centre away: its server dies, and nobody is told, because the way there is gone too."""
    paths = [stage.paths[name] for name, at in placement(PARTICIPANTS).items() if at == trouble.target]
    for path in paths:
        path.turn(_BLACK)
    _signal(find_postmaster_pid(stage.home, trouble.target), signal.SIGKILL)
    until = asyncio.get_running_loop().time() + trouble.lasts
    while asyncio.get_running_loop().time() < until:
        for path in paths:
            path.turn(_BLACK, forget=True)  # whatever other trouble ended here meanwhile
        await asyncio.sleep(0.1)
    for path in paths:
        path.turn(FAIR)
    return f"{len(paths)} databases"


async def _disk_full(stage: Stage, trouble: Trouble) -> str:
    """Fill the disk, and write until the server has noticed, in its tables and in its log of changes."""
    disk = stage.disk
    if isinstance(disk, str):
        return f"skipped: {disk}"
    await asyncio.to_thread(disk.fill)
    noticed = set[str]()
    database = next(name for name, at in placement(PARTICIPANTS).items() if at == trouble.target)
    until = asyncio.get_running_loop().time() + trouble.lasts
    while asyncio.get_running_loop().time() < until:
        try:
            await stage.app.pools[database].execute("SELECT pg_logical_emit_message(false, 'chaos', 'x', true)")
            await stage.app.pools[database].execute("SELECT pg_switch_wal()")
        except UNANSWERED as error:
            noticed.add(type(error).__name__)
        await asyncio.sleep(0.05)
    disk.empty()
    return f"the server said {', '.join(sorted(noticed)) or 'nothing'}"


async def _network(stage: Stage, trouble: Trouble) -> str:
    """Give a network a fault for a while; a lie until it was told so often, or the storm is over."""
    fault, control = _FAULTS[trouble.kind.removeprefix("network: ")], stage.controls[trouble.target]
    await _switch(stage, control, on=[fault], off=set())
    await asyncio.sleep(trouble.lasts)
    if fault.kind not in LIES:
        await _switch(stage, control, on=(), off={fault.kind})
    return "done"


async def _switch(stage: Stage, control: Control, *, on: Sequence[NetworkFault], off: Collection[FaultKind]) -> None:
    """Switch a network's faults on and off; one that is dead just now is told once it lives again."""
    async with stage.switching:
        while True:
            try:
                there = [fault for fault in await control.faults() if fault.kind not in off]
                return await control.set_faults([*there, *on])
            except OSError:
                await asyncio.sleep(0.1)


_STRIKES: Final[Mapping[str, Callable[[Stage, Trouble], Awaitable[str]]]] = {
    "kill": _kill,
    "freeze": _freeze,
    "kill server": _kill_server,
    "kill backend": _kill_backend,
    "end backend": _end_backend,
    "reset": _reset,
    "cut": _cut,
    "data centre gone": _centre_gone,
    "disk full": _disk_full,
    "network": _network,
}
