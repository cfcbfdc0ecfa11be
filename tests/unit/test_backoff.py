"""The one back-off: what waits, waits longer each time, and never breaks on a number."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from jiebang.saga.backoff import exponential_wait

FIRST, LIMIT = timedelta(milliseconds=10), timedelta(seconds=1)


def test_a_wait_doubles_up_to_its_limit() -> None:
    """A wait that does not grow hammers what is down; one without a limit leaves people waiting once it is back."""
    waits = [exponential_wait(FIRST, times, LIMIT) / FIRST for times in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 100, 100]


@given(st.integers(0, 10**9))
def test_what_fails_for_days_waits_no_longer_and_breaks_nothing(times: int) -> None:
    """A number that no timedelta holds would end a worker that has failed to read its due cases for a minute."""
    assert FIRST <= exponential_wait(FIRST, times, LIMIT) <= LIMIT
