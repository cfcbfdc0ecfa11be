"""Working days: deadlines of reviews are promises to people, and two weeks around Spring Festival are not two weeks."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.policy.workdays import after_working_days, announced_until, is_working_day, working_days_between

DAYS = st.dates(date(2004, 1, 1), date(2030, 12, 31))

KNOWN = [
    # General Office of the State Council, arrangements for 2025 and 2026, and for 2020 with its extension.
    ("a Wednesday", date(2026, 11, 18), True),
    ("a Sunday", date(2026, 11, 22), False),
    ("New Year's Day", date(2026, 1, 1), False),
    ("the bridge after it", date(2026, 1, 2), False),
    ("the Sunday worked for the bridge", date(2026, 1, 4), True),
    ("the Saturday worked before Spring Festival", date(2026, 2, 14), True),
    ("the eve of Spring Festival", date(2026, 2, 16), False),
    ("the last day of Spring Festival", date(2026, 2, 23), False),
    ("the day after it", date(2026, 2, 24), True),
    ("the Saturday worked after it", date(2026, 2, 28), True),
    ("a Monday for Tomb-Sweeping Day on a Sunday", date(2026, 4, 6), False),
    ("National Day's last", date(2026, 10, 7), False),
    ("the Saturday worked for it", date(2026, 10, 10), True),
    ("Mid-Autumn within National Day", date(2025, 10, 6), False),
    ("the Sunday worked for it", date(2025, 9, 28), True),
    ("Spring Festival as extended in 2020", date(2020, 1, 31), False),
    ("29 February, a Thursday", date(2024, 2, 29), True),
    ("the last day of 2024, a Tuesday", date(2024, 12, 31), True),
    ("a holiday of a year not announced", date(2031, 10, 1), False),
]


@pytest.mark.parametrize(("day", "worked"), [(day, worked) for _, day, worked in KNOWN], ids=[one[0] for one in KNOWN])
def test_days_as_the_state_council_announced_them(day: date, worked: bool) -> None:
    """A person told "by the 10th" would wait in vain, or a reviewer be called late for a day nobody works."""
    assert is_working_day(day) is worked


def test_a_deadline_over_a_golden_week() -> None:
    """15 working days from 18 September 2026: Mid-Autumn and National Day lie between, two weekend days are worked."""
    assert after_working_days(date(2026, 9, 18), 15) == date(2026, 10, 15)


def test_a_deadline_over_spring_festival() -> None:
    """The ninth of ten days falls on the Saturday that is worked in exchange."""
    assert after_working_days(date(2026, 2, 13), 1) == date(2026, 2, 14)
    assert after_working_days(date(2026, 2, 14), 1) == date(2026, 2, 24)
    assert after_working_days(date(2026, 2, 13), 6) == date(2026, 2, 28)


def test_a_deadline_over_the_turn_of_the_year() -> None:
    """From the last announced year into the next: provisional, but without a gap or an error."""
    assert after_working_days(date(2025, 12, 30), 3) == date(2026, 1, 5)
    assert announced_until() >= date(2026, 12, 31)
    last = announced_until()
    assert after_working_days(last, 15) > last + timedelta(days=15)


def test_no_working_day_is_counted_for_nothing() -> None:
    assert after_working_days(date(2026, 10, 1), 0) == date(2026, 10, 1)
    assert working_days_between(date(2026, 10, 8), date(2026, 10, 8)) == 0
    assert working_days_between(date(2026, 10, 8), date(2026, 10, 1)) == 0


@pytest.mark.parametrize("count", [-1, 10_001])
def test_an_absurd_count_is_refused(count: int) -> None:
    """A pack's absurd number must not keep a processor busy for ever."""
    with pytest.raises(ValueError, match="a count of working days"):
        after_working_days(date(2026, 1, 1), count)


@pytest.mark.parametrize("day", [date(2000, 12, 31), date(2101, 1, 1)])
def test_years_without_known_holidays_are_refused(day: date) -> None:
    with pytest.raises(ValueError, match="no public holidays are known"):
        is_working_day(day)


@given(DAYS, st.integers(1, 40))
def test_a_deadline_is_a_working_day_with_as_many_before_it(day: date, count: int) -> None:
    """Whatever the calendar: the promise and the count of days used up must agree."""
    until = after_working_days(day, count)
    assert is_working_day(until)
    assert working_days_between(day, until) == count
    assert working_days_between(day, until - timedelta(days=1)) == count - 1


@given(DAYS, st.integers(0, 20), st.integers(0, 20))
def test_waiting_twice_is_waiting_once(day: date, first: int, second: int) -> None:
    """A deadline that is lengthened must not depend on how many steps it took."""
    assert after_working_days(after_working_days(day, first), second) == after_working_days(day, first + second)


@given(st.integers(2008, 2026))
def test_a_year_has_as_many_working_days_as_law_gives(year: int) -> None:
    """104 or more weekend days and 11 holidays (13 since 2025): exchange moves days and makes none."""
    worked = sum(is_working_day(date(year, 1, 1) + timedelta(days=ahead)) for ahead in range(365))
    assert 245 <= worked <= 253
