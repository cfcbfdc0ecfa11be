"""Every interleaving of small worlds: what must hold in each state, and that the walk sees what breaks it."""

from __future__ import annotations

import msgspec
import pytest

from sim.bounds import SMALL, WORLDS
from sim.explore import walk
from sim.groups import walk_batches
from sim.mistakes import MISTAKES
from sim.run import FAULTS, FENCE_CELLS, GROUP_MOVES, UNREACHABLE
from sim.states import Bounds, Shape
from sim.turns import SLIPS

PAIR = Bounds(
    name="pair", accounts=(Shape(parties=("identity", "wallet"), waves=(0, 1), cases=1),) * 2, faults=0, transfers=1
)
REVIEWED = msgspec.structs.replace(
    SMALL, accounts=(msgspec.structs.replace(SMALL.accounts[0], reviews=True, cases=1),), faults=1
)
CALM = msgspec.structs.replace(
    SMALL, accounts=(msgspec.structs.replace(SMALL.accounts[0], withdrawals=False),), faults=0, transfers=0
)
IN_STATE_TABLE = {
    "open → in_review", "open → ready", "open → withdrawn", "open → expired", "open → rejected",
    "in_review → ready", "in_review → rejected", "in_review → withdrawn",
    "ready → trying", "ready → withdrawn", "ready → rejected",
    "trying → confirming", "trying → cancelling", "confirming → done", "cancelling → aborted",
}  # fmt: skip


def test_no_interleaving_of_the_small_world_breaks_a_promise() -> None:
    """Random worlds may miss an order of events; here there is none to miss."""
    seen = walk(SMALL)
    assert seen.violation is None
    assert seen.states > 5000
    assert {"done, done", "aborted, done", "done, aborted", "untouched, done", "done, withdrawn"} <= set(seen.endings)
    assert set(FENCE_CELLS) - UNREACHABLE <= set(seen.cells)


def test_a_batch_does_for_each_case_what_it_would_have_done_alone() -> None:
    """One case stands for its whole group: whoever is told something else must not be taken along by the others."""
    seen = walk_batches(1)
    assert seen.violation is None
    assert seen.lives > 200
    assert set(GROUP_MOVES) - {"trying → cancelling"} <= set(seen.group_moves)
    assert {fault for fault in FAULTS if fault.startswith("group: ")} <= set(seen.seen)


def test_two_accounts_with_a_transfer_between_them() -> None:
    """Neither account may see the other's case, nor may a transfer or a case wait for ever for the other."""
    seen = walk(PAIR)
    assert seen.violation is None
    assert {"done | done", "aborted | done", "done | rejected"} <= set(seen.endings)


def test_every_transition_of_the_state_table_is_taken() -> None:
    """A transition that no walk takes is one that nobody has checked."""
    seen = walk(REVIEWED)
    assert seen.violation is None
    assert set(seen.moves) >= IN_STATE_TABLE


def test_without_faults_everything_ends_done_or_expired() -> None:
    """When nothing goes wrong but a person who never comes, every order of messages leads to the same end."""
    seen = walk(CALM)
    assert seen.violation is None
    assert set(seen.endings) == {"done, done", "done, expired", "untouched, done", "untouched, expired"}


@pytest.mark.parametrize("bounds", [CALM, msgspec.structs.replace(SMALL, faults=1)], ids=["calm", "one fault"])
def test_hearing_every_set_of_replies_reaches_no_other_state(bounds: Bounds) -> None:
    """The walk hears only the sets that can make a difference; were that untrue, it would be blind to the others."""
    every = tuple(msgspec.structs.replace(shape, every_subset=True) for shape in bounds.accounts)
    few, all_sets = walk(bounds), walk(msgspec.structs.replace(bounds, accounts=every))
    assert all_sets.violation is None
    assert (few.states, few.account_states, few.endings) == (
        all_sets.states, all_sets.account_states, all_sets.endings,
    )  # fmt: skip


def test_the_walk_is_the_same_every_time() -> None:
    """A count of states that wavers is a walk that forgets some."""
    first, second = walk(REVIEWED), walk(REVIEWED)
    assert (first.states, first.transitions, first.endings) == (second.states, second.transitions, second.endings)


WORKERS_AND_STORES = (
    *SLIPS, "save-forgets-wish", "no-revision", "rollback-is-over", "number-reused", "gives-up",
)  # fmt: skip


@pytest.mark.parametrize("name", WORKERS_AND_STORES)
def test_slips_of_workers_and_stores_are_seen(name: str) -> None:
    """These slips are the driver's, not the coordinator's; tests/sim/test_mistakes.py plants the coordinator's."""
    seen = walk(SMALL, MISTAKES[name].parts, habits=SLIPS.get(name))
    assert seen.violation is not None
    assert seen.violation.split(" → ")[-1].startswith("P")
    assert len(seen.story) <= seen.depth


def test_a_story_tells_every_step_to_the_violation() -> None:
    """Whoever reads a violation must be able to follow it from nothing to the broken promise."""
    seen = walk(SMALL, MISTAKES["never-busy"].parts)
    assert seen.violation is not None
    assert seen.story[0] == "the person submits case 1"
    assert not any(line.startswith("…") for line in seen.story)
    assert "P3: money moves between the wallet's Try and its Confirm or Cancel" in seen.violation


def test_the_worlds_hold_what_the_protocol_names() -> None:
    """docs/protocol.md says what is checked; a world that shrinks would make it untrue."""
    everything = next(bounds for bounds in WORLDS if bounds.name == "everything")
    assert len(everything.accounts) == 2
    assert everything.transfers
    assert everything.faults
    assert everything.accounts[0].cases == 2
    assert len(everything.accounts[0].parties) == 4
    assert max(bounds.faults for bounds in WORLDS) == 3
