"""How a worker sizes its batches."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from jiebang.worker import Pace

PACE = Pace()
QUICK, SLOW = PACE.batch_time / 2, PACE.batch_time * 3
times = st.timedeltas(timedelta(), timedelta(seconds=10))


@given(st.lists(st.tuples(st.integers(0, 2_000), times)))
def test_a_batch_stays_between_its_limits(history: list[tuple[int, timedelta]]) -> None:
    """Too small, and a slow network would starve everybody; too large, and cases would run into their deadline."""
    batch = PACE.batch
    for cases, took in history:
        batch = PACE.next_batch(batch, min(cases, batch), took)
        assert PACE.batch <= batch <= PACE.batch_limit


def test_only_a_full_and_quick_batch_lets_the_next_grow() -> None:
    """A backlog is worked off in the cheapest way; without one nobody waits for others."""
    assert PACE.next_batch(256, 256, QUICK) == 512
    assert PACE.next_batch(256, 255, QUICK) == 256
    assert PACE.next_batch(512, 512, PACE.batch_time * 1.5) == 512
    assert PACE.next_batch(1_024, 1_024, QUICK) == 1_024
    assert PACE.next_batch(256, 256, PACE.batch_time / 3.5) == 768, "as large as would still be quick"


def test_a_slow_batch_halves_the_next() -> None:
    """On a machine that has become slow, cases would otherwise time out by the thousand."""
    assert PACE.next_batch(1_024, 10, SLOW) == 512
    assert PACE.next_batch(256, 256, SLOW) == 256
