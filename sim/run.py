"""Many seeds, on all cores: what was seen, how much of the tables was walked, and the first seeds that failed."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import LIVE, MARKS_OF, TRANSITIONS, State
from jiebang.saga.fence import CaseOp, Op
from sim.mistakes import MISTAKES
from sim.trace import TracedWorld, story_end
from sim.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sim.world import Parts

CHUNK = 100
ENOUGH_FAILURES = 5
STATE_MOVES = tuple(f"{state} → {after}" for state in TRANSITIONS for after in State if after in TRANSITIONS[state])
"""Every transition of the state table, as the coverage names them."""
FENCE_CELLS = tuple(
    f"{op} at {place} {case_op}" for place in ("above", "below", "same") for case_op in CaseOp for op in Op
)
"""Every cell of the fence's table."""
UNREACHABLE = frozenset(cell for cell in FENCE_CELLS if cell.endswith("below tried")) | {
    "confirm at below confirmed",
    "confirm at below cancelled",
    "cancel at same confirmed",
    "confirm at same cancelled",
}
"""Cells that no history reaches while the protocol is kept; the fence holds them against other faults (unit tests)."""
GROUP_MOVES = (
    "ready → trying",
    "learnt",
    "trying → confirming",
    "trying → cancelling",
    "confirming → confirming",
    "confirming → done",
    "cancelling → cancelling",
    "cancelling → aborted",
)
"""Every step that a group of several cases takes as one."""
LETTERS = tuple(f"{state} {mark}" for state, marks in MARKS_OF.items() for mark in marks if state is not State.OPEN)
"""Every letter in every state that a save can bring about (a case is created open, not saved so)."""
FAULTS = (
    "answer lost",
    "answer repeated",
    "answered error",
    "answered pending",
    "answered refused",
    "answered stale",
    "batch of several",
    "batch poisoned at a participant",
    "batch poisoned at a step",
    "bucket held twice",
    "call halved",
    "call lost",
    "call repeated",
    "commit lost to a withdrawal",
    "facts unread",
    "group: asked again together",
    "group: call halved",
    "group: late reply to one of several",
    "group: member wishes to withdraw",
    "group: member's save lost",
    "group: parted by answers",
    "group: parted in silence",
    "group: save refused for one of several",
    "group: some heard nothing",
    "late replies",
    "learnt, then silence",
    "lease not renewed",
    "message late",
    "movement answered busy",
    "op lost in a restart",
    "op on a slow disk",
    "pack changed under live cases",
    "parked",
    "participant restarted",
    "participant silent",
    "people found out how a case ended",
    "plan of a lost case found in its papers",
    "poisoned case put off",
    "recovery broken off and begun anew",
    "recovery made a lost case again",
    "recovered once more",
    "recovery's call halved",
    "recovery saved a case",
    "recovery sent cancel",
    "recovery sent confirm",
    "recovery sent try",
    "recovery waited",
    "recovery's Try refused without a mark",
    "restored 2 at once",
    "restored 3 at once",
    "restored a participant",
    "restored the platform",
    "retried though nothing was parked",
    "save lost to another's",
    "save poisoned",
    "save torn",
    "unparked",
    "withdrawal answered 202",
    "withdrawal answered 409",
    *(f"wish to withdraw in {state}" for state in State),
    "worker died",
    "worker left",
    "worker stalled",
)
"""What must have gone wrong somewhere in a full run: faults, and where they show."""
FULL = 2000
"""From so many seeds on, a run that leaves something uncovered has failed."""


class Failure(msgspec.Struct, frozen=True):
    """A seed whose world broke a promise, and which."""

    seed: int
    violation: str


class Summary(msgspec.Struct, kw_only=True):
    """What a set of seeds showed. `moves`, `cells` and `letters` count transitions, fence cells and marks by name.

    `group_moves`: steps that several cases took as one group.
    """

    seeds: int = 0
    cases: int = 0
    events: int = 0
    simulated_ms: int = 0
    seconds: float = 0.0
    moves: Counter[str] = msgspec.field(default_factory=Counter)
    cells: Counter[str] = msgspec.field(default_factory=Counter)
    letters: Counter[str] = msgspec.field(default_factory=Counter)
    group_moves: Counter[str] = msgspec.field(default_factory=Counter)
    seen: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[Failure] = msgspec.field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Take in what other seeds showed."""
        self.seeds += other.seeds
        self.cases += other.cases
        self.events += other.events
        self.simulated_ms += other.simulated_ms
        self.moves += other.moves
        self.cells += other.cells
        self.letters += other.letters
        self.group_moves += other.group_moves
        self.seen += other.seen
        self.failures += other.failures

    def missing(self) -> list[str]:
        """What was never seen though it can be: transitions, cells of the fence, letters, steps of groups, faults."""
        return [
            *(move for move in STATE_MOVES if not self.moves[move]),
            *(cell for cell in FENCE_CELLS if not self.cells[cell] and cell not in UNREACHABLE),
            *(letter for letter in LETTERS if not self.letters[letter]),
            *(f"group: {move}" for move in GROUP_MOVES if not self.group_moves[move]),
            *(fault for fault in FAULTS if not self.seen[fault]),
        ]

    def failed(self) -> bool:
        """Whether a promise was broken, or a full run left something untried."""
        return bool(self.failures) or (self.seeds >= FULL and bool(self.missing()))


def play(seed: int, parts: Parts | None = None) -> str | None:
    """Play one seed's world; return what broke, or None."""
    return _played(World(seed, parts))


def _played(world: World) -> str | None:
    try:
        world.run()
    except Exception as broken:  # noqa: BLE001 - whatever the judged code raises in a world is a finding with a seed
        return f"{type(broken).__name__}: {broken}"
    return None


def play_all(seeds: Iterable[int], mistake: str | None = None) -> Summary:
    """Play some seeds here, one after another; stops at ENOUGH_FAILURES."""
    planted = MISTAKES[mistake] if mistake else None
    summary, started = Summary(), perf_counter()
    for seed in seeds:
        world = World(seed, planted.parts, options=planted.options(seed)) if planted else World(seed)
        world.witnessed = planted is None or planted.witness
        broken = _played(world)
        summary.seeds += 1
        summary.cases += len(world.store.cases)
        summary.events += world.events
        summary.simulated_ms += world.now
        summary.seen += world.seen
        summary.group_moves += world.group_moves
        for (before, after), times in world.store.moves.items():
            if before != after:
                summary.moves[f"{before} → {after}"] += times
        for (state, mark), times in world.letters.items():
            summary.letters[f"{state} {mark}"] += times
        for (place, case_op, op), times in world.fenced.items():
            summary.cells[f"{op} at {place} {case_op}"] += times
        if broken is not None:
            summary.failures.append(Failure(seed, broken))
            if len(summary.failures) >= ENOUGH_FAILURES:
                break
    summary.seconds = perf_counter() - started
    return summary


def play_many(
    first: int, seeds: int, processes: int, mistake: str | None = None, progress: Callable[[int], Any] | None = None
) -> Summary:
    """Play `seeds` worlds from seed `first` on several processes; `progress` is told how many more are played."""
    summary, started = Summary(), perf_counter()
    chunks = [range(at, min(at + CHUNK, first + seeds)) for at in range(first, first + seeds, CHUNK)]
    with ProcessPoolExecutor(min(processes, len(chunks)) or 1) as pool:
        parts = [pool.submit(play_all, chunk, mistake) for chunk in chunks]
        for part in as_completed(parts):
            summary.add(part.result())
            if progress is not None:
                progress(part.result().seeds)
            if len(summary.failures) >= ENOUGH_FAILURES:
                pool.shutdown(cancel_futures=True)
                break
    summary.failures.sort(key=lambda failure: failure.seed)
    summary.seconds = perf_counter() - started
    return summary


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def replay(seed: int, mistake: str | None, write: Callable[[str], None]) -> str | None:
    """Play one seed again and write down everything that happens; return what broke, or None."""
    planted = MISTAKES[mistake] if mistake else None
    world = (
        TracedWorld(seed, planted.parts, write, planted.options(seed)) if planted else TracedWorld(seed, None, write)
    )
    world.witnessed = planted is None or planted.witness
    broken = _played(world)
    for line in story_end(world):
        write(line)
    live = sum(case.state in LIVE for case in world.store.cases.values())
    write(f"{world.now} ms, {world.events} events, {len(world.store.cases)} cases, {live} of them live")
    return broken
