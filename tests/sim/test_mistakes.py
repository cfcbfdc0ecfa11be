"""The simulator can fail: every planted mistake is caught, by seeds and, where it can be seen there, by the walk."""

from __future__ import annotations

import pytest

from sim.bounds import SMALL
from sim.explore import walk
from sim.groups import walk_batches
from sim.mistakes import MISTAKES
from sim.run import play_all, replay

SEEDS = 2500
"""So many seeds a planted mistake may take; most are caught within ten, the rarest here took a few hundred."""
DEMANDED = {
    "send-before-save",
    "late-try",
    "stale-version",
    "refused-wave",
    "no-mark",
    "cancel-overwrites-newer",
    "commit-over-wish",
    "spares-the-silent",
    "believes-torn",
    "trusts-lease",
    "first-grant-is-enough",
    "sent-is-granted",
    "remembers-grants",
    "newest-plan",
    "save-not-halved",
    "forgets-in-restart",
    "recover-reuses-numbers",
    "recover-ignores-confirmed",
    "recover-believes-platform",
    "recover-overlooks-forgotten",
    "recover-leaves-marks",
    "restore-opens-at-once",
    "no-recovery",
    "group-leaves-one-out",
    "group-hears-for-one",
    "group-refuses-all",
    "group-late-for-all",
    "group-sends-lost",
    "group-version-of-another",
}


def test_the_mistakes_that_were_asked_for_are_planted() -> None:
    """Dropping one from the list would drop its proof without anybody noticing."""
    assert set(MISTAKES) >= DEMANDED


@pytest.mark.parametrize("name", MISTAKES)
def test_seeds_catch(name: str) -> None:
    """A simulator that lets this slip through would let a programmer's same slip through too."""
    for seed in range(SEEDS):
        failures = play_all([seed], name).failures
        if failures:
            assert failures[0].seed == seed
            assert "ViolationError" in failures[0].violation, "the judge must see it, not a crash of the simulator"
            return
    pytest.fail(f"{name}: {MISTAKES[name].what}; not caught within {SEEDS} seeds")


@pytest.mark.parametrize("name", [name for name, mistake in MISTAKES.items() if mistake.walked])
def test_the_walk_catches(name: str) -> None:
    """The walk finds it without luck, and tells the shortest way there."""
    seen = walk(SMALL, MISTAKES[name].parts)
    assert seen.violation is not None
    assert seen.story
    assert len(seen.story) <= seen.depth + 2


@pytest.mark.parametrize("name", [name for name in MISTAKES if name.startswith("group-")])
def test_the_walk_of_batches_catches(name: str) -> None:
    """A slip in how groups are saved, asked and heard shows in some life of a batch of three, without luck."""
    seen = walk_batches(2, MISTAKES[name].parts)
    assert seen.violation is not None
    assert seen.story


def test_what_catches_a_mistake_can_be_read_step_by_step() -> None:
    """The replay of a failed seed ends in the violation that was reported, and shows what led to it."""
    failure = next(found.failures[0] for seed in range(SEEDS) if (found := play_all([seed], "late-try")).failures)
    lines: list[str] = []
    assert replay(failure.seed, "late-try", lines.append) == failure.violation
    told = "\n".join(lines)
    for word in ("submits", "saves", "sends try", "answers try", "cases:", "rows:"):
        assert word in told


def test_without_a_mistake_the_same_seeds_pass() -> None:
    """What is caught is the mistake, not the world around it."""
    assert play_all(range(60)).failures == []
