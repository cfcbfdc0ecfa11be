"""Every interleaving of a small world, and the ways it can end."""

from __future__ import annotations

import msgspec
import pytest

from sim.explore import DEFAULT, SMALL, walk


def test_no_interleaving_of_the_small_world_breaks_a_promise() -> None:
    """Random worlds may miss an order of events; here there is none to miss."""
    seen = walk(SMALL)
    assert seen.violation is None
    assert seen.states > 500
    assert {"done, done", "aborted, done", "done, aborted", "withdrawn, done", "rejected, done"} <= set(seen.endings)


def test_three_participants_and_one_fault_and_one_case_with_two() -> None:
    """The default world (`python -m sim explore`) takes its time; these two slices of it run in every test run."""
    for shape in (msgspec.structs.replace(DEFAULT, faults=1), msgspec.structs.replace(DEFAULT, cases=1)):
        seen = walk(shape)
        assert seen.violation is None
        assert seen.states > 4000


def test_without_faults_everything_is_done() -> None:
    """When nothing goes wrong, every order of messages leads to one ending."""
    seen = walk(msgspec.structs.replace(DEFAULT, faults=0))
    assert seen.violation is None
    assert set(seen.endings) == {"done, done"}


@pytest.mark.parametrize("faults", [0, 1])
def test_the_walk_is_the_same_every_time(faults: int) -> None:
    """A count of states that wavers is a walk that forgets some."""
    shape = msgspec.structs.replace(SMALL, faults=faults)
    first, second = walk(shape), walk(shape)
    assert (first.states, first.transitions, first.endings) == (second.states, second.transitions, second.endings)
