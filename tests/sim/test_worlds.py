"""Random worlds: the real coordinator and fence keep every promise under faults, and every case ends once they heal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.run import FENCE_CELLS, STATE_MOVES, UNREACHABLE, Summary, cores, play_all, play_many, replay
from sim.trace import TracedWorld

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


def test_every_transition_of_the_state_table_is_walked(summary: Summary) -> None:
    """A transition no world takes is one nobody has tested under faults."""
    moves, cells = summary.missing()
    assert moves == []
    assert cells == []
    assert set(summary.moves) == set(STATE_MOVES)
    assert set(summary.cells) == set(FENCE_CELLS) - UNREACHABLE


def test_the_worlds_do_go_wrong(summary: Summary) -> None:
    """A simulator whose faults have gone quiet would pass everything."""
    for what in (
        "answered error",
        "answered pending",
        "answered refused",
        "commit lost to a withdrawal",
        "message lost",
        "message repeated",
        "movement answered busy",
        "parked",
        "save lost to another's",
        "worker died",
        "worker stalled",
    ):
        assert summary.seen[what] > 0, what


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
