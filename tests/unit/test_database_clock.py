"""The database's time in a process whose own clock may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from jiebang.store.postgres.database_clock import ALLOWED, DatabaseClock

if TYPE_CHECKING:
    from collections.abc import Callable

AT = datetime(2026, 4, 1, tzinfo=UTC)


class Machine:
    """A machine's steady counter and its clock, which is ahead by `ahead`."""

    def __init__(self) -> None:
        self.steady = 100.0
        self.ahead = timedelta()

    def now(self) -> datetime:
        return AT + timedelta(seconds=self.steady) + self.ahead

    def clock(self) -> DatabaseClock:
        return DatabaseClock(self.now, self._count())

    def _count(self) -> Callable[[], float]:
        return lambda: self.steady

    def measure(self, clock: DatabaseClock, there_s: float = 0.0, back_s: float = 0.0) -> None:
        """Ask a database whose clock is right; its answer is made between the way there and the way back."""
        before = self.steady
        at = AT + timedelta(seconds=before + there_s)
        self.steady += there_s + back_s
        clock.take(at, before, self.steady)


@given(st.floats(-1e6, 1e6), st.floats(0, 3), st.floats(0, 3), st.floats(0, 1e4))
def test_the_time_is_the_databases_however_wrong_our_own_is(ahead: float, there: float, back: float, on: float) -> None:
    """What it stamps is judged by others: ten minutes ahead, and nobody could take a dead worker's cases."""
    machine = Machine()
    machine.ahead = timedelta(seconds=ahead)
    clock = machine.clock()
    machine.measure(clock, there, back)
    machine.steady += on
    right = AT + timedelta(seconds=machine.steady)
    assert abs(clock() - right) <= timedelta(seconds=(there + back) / 2, milliseconds=1)
    assert (clock.find_off() is not None) <= (abs(timedelta(seconds=ahead)) > ALLOWED)


def test_a_clock_that_is_off_by_more_than_two_seconds_is_found() -> None:
    """And one that is not, is not: a worker that stands idle for nothing leaves people waiting too."""
    for ahead, off in ((0, False), (1.9, False), (-1.9, False), (2.2, True), (-2.2, True), (15, True), (600, True)):
        machine = Machine()
        machine.ahead = timedelta(seconds=ahead)
        clock = machine.clock()
        assert clock.find_off() is None, "nothing is known before the first measurement"
        machine.measure(clock, 0.001, 0.001)
        assert (clock.find_off() is not None) == off, ahead


def test_a_step_shows_at_once_and_is_forgotten_when_it_is_mended() -> None:
    """Without a question: between two measurements a worker would claim under a wrong clock."""
    machine = Machine()
    clock = machine.clock()
    machine.measure(clock)
    machine.ahead = timedelta(minutes=10)
    assert clock.find_off() == timedelta(minutes=10)
    assert clock() == AT + timedelta(seconds=machine.steady)
    machine.ahead = timedelta()
    assert clock.find_off() is None


def test_a_slow_answer_does_not_replace_a_sharp_one_while_that_is_fresh() -> None:
    """On a crowded machine a round trip may take seconds, and would make the time jump."""
    machine = Machine()
    clock = machine.clock()
    machine.measure(clock, 0.001, 0.001)
    machine.measure(clock, 3.0, 0.0)
    assert abs(clock() - (AT + timedelta(seconds=machine.steady))) < timedelta(milliseconds=2)
    machine.steady += 120
    machine.measure(clock, 3.0, 0.0)
    assert abs(clock() - (AT + timedelta(seconds=machine.steady))) <= timedelta(seconds=1.6)


def test_before_the_first_measurement_it_is_the_processs_own() -> None:
    """A process that starts before its database must be able to log."""
    machine = Machine()
    machine.ahead = timedelta(seconds=7)
    assert machine.clock()() == machine.now()
