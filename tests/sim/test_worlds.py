"""Random worlds: the real coordinator and fence keep every promise under faults, and every case ends once they heal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jiebang.model.case import State
from sim.run import (
    FAULTS,
    FENCE_CELLS,
    FULL,
    GROUP_MOVES,
    LETTERS,
    STATE_MOVES,
    UNREACHABLE,
    Summary,
    cores,
    play_all,
    play_many,
    replay,
)
from sim.trace import TracedWorld
from sim.world import World

ROOT = Path(__file__).parents[2]
SEEDS = 1000


@pytest.fixture(scope="module")
def summary() -> Summary:
    return play_many(0, SEEDS, cores())


def test_no_seed_breaks_a_promise(summary: Summary) -> None:
    """All or nothing, money first, one decision, an end for everybody: for every person of every world."""
    assert summary.failures == []
    assert summary.seeds == SEEDS
    assert summary.cases > SEEDS


def test_nothing_is_left_untried(summary: Summary) -> None:
    """A transition, a letter or a fault that no world sees is one nobody has tested."""
    assert summary.missing() == []
    assert set(summary.moves) == set(STATE_MOVES)
    assert set(summary.letters) == set(LETTERS)
    assert set(summary.cells) == set(FENCE_CELLS) - UNREACHABLE
    assert set(summary.group_moves) >= set(GROUP_MOVES)


def test_a_full_run_that_leaves_something_untried_has_failed() -> None:
    """A simulator whose faults have gone quiet would pass everything."""
    tried = Summary(seeds=FULL)
    for counted, names in (
        (tried.moves, STATE_MOVES),
        (tried.cells, FENCE_CELLS),
        (tried.letters, LETTERS),
        (tried.group_moves, GROUP_MOVES),
    ):
        counted.update(names)
    tried.seen.update(FAULTS)
    assert not tried.failed()
    assert Summary(seeds=FULL - 1).failed() is False
    for counted, name in (
        (tried.moves, "in_review → withdrawn"),
        (tried.cells, "try at above tried"),
        (tried.letters, "confirming C"),
        (tried.seen, "restored the platform"),
    ):
        del counted[name]
        assert tried.missing() == [name]
        assert tried.failed()
        counted[name] = 1


NO_FAULTS = msgspec.structs.replace(
    World(7).options, accounts=6, cases=3, crowd=0, pack_changes=0, skew=0, loss=0, repeat=0, slow=0, part=0, whim=0,
    broken=0,
    pending=0, unread=0, disk=0, outages=0, restarts=0, restores=0, torn=0, die=0, poison=0, crashes=0, leaves=0,
    stalls=0, unrenewed=0, withdraw=0, review=0, never_proven=0, retries=0, fact_changes=0, transfers=0,
)  # fmt: skip


def test_every_fault_can_be_switched_off() -> None:
    """With nothing going wrong everything is done: so whatever is not, a fault has caused."""
    world = World(7, options=NO_FAULTS)
    world.run()
    assert {case.state for case in world.store.cases.values()} == {State.DONE}
    assert len(world.store.cases) == 18
    assert not set(world.seen) & {fault for fault in FAULTS if world.seen[fault]} - {"batch of several", "call halved"}


@pytest.mark.parametrize(
    ("field", "value", "shows"),
    [
        ("loss", 0.3, "call lost"),
        ("repeat", 0.3, "answer repeated"),
        ("slow", 0.3, "message late"),
        ("broken", 0.5, "parked"),
        ("disk", 0.5, "op on a slow disk"),
        ("torn", 0.5, "save torn"),
        ("poison", 0.5, "poisoned case put off"),
        ("restores", 1, "restored"),
        ("withdraw", 1.0, "withdrawal answered 202"),
        ("skew", 4000, "bucket held twice"),
    ],
)
def test_each_fault_can_be_looked_at_alone(field: str, value: float, shows: str) -> None:
    """One sort of fault by itself strikes, and breaks nothing."""
    struck = 0
    for seed in range(8):
        options = msgspec.structs.replace(NO_FAULTS, workers=3, **{field: value})
        world = World(seed, options=options)
        world.run()
        struck += world.seen[shows]
    assert struck


@pytest.mark.parametrize("seed", [3, 77, 4711])
def test_a_seed_is_one_world_told_or_untold(seed: int) -> None:
    """A failure that cannot be replayed cannot be understood; telling a world must not change it."""
    told: list[list[str]] = [[], []]
    for lines in told:
        assert replay(seed, None, lines.append) is None
    assert told[0] == told[1]
    quiet = play_all([seed])
    ignored: list[str] = []
    world = TracedWorld(seed, None, ignored.append)
    world.run()
    assert (quiet.events, quiet.simulated_ms, quiet.seen) == (world.events, world.now, world.seen)


def test_a_seed_is_the_same_world_in_another_process() -> None:
    """The seed that CI prints must fail the same way on a developer's machine: no hash order may leak in."""
    answers = []
    for salt in ("1", "2"):
        command = [sys.executable, "-m", "sim", "--seeds", "40", "--first", "900", "--processes", "1", "--json"]
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=120)  # noqa: S603 - our own interpreter and module
        answer = json.loads(done.stdout)
        assert answer.pop("seconds") > 0
        answers.append(answer)
    assert answers[0] == answers[1]
    assert answers[0]["violations"] == []
    assert answers[0]["seeds"] == 40
