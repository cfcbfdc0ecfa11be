"""Working days in mainland China: weekends, public holidays, and the days worked in their stead (调休).

Holidays come from the package `holidays`, which carries every arrangement that the State Council has announced; that
of a year is announced in the November before. For years beyond, the package computes what the regulation on public
holidays itself fixes (全国年节及纪念日放假办法), and nobody can know the days worked in exchange: such a count is
provisional, may move by a few days once the arrangement is out, and is right again with the package's next release.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

import holidays

_MOST: Final = 10_000
_LAST_YEAR: Final = 2100
"""As far as the package computes the Chinese calendar."""


@lru_cache(maxsize=64)
def _around(year: int) -> holidays.HolidayBase:
    """The holidays of a year; its last days may be worked in exchange for the first of the next."""
    return holidays.country_holidays("CN", years=range(year, min(year + 2, _LAST_YEAR + 1)), expand=False)


@lru_cache(maxsize=1)
def announced_until() -> date:
    """Return the last day whose arrangement has been announced; later ones are provisional.

    Read from the package: every announced year since 2008 has days worked in exchange, and no computed one has.
    """
    year = 2025
    while year < _LAST_YEAR and any(day.year == year + 1 for day in _around(year + 1).weekend_workdays):
        year += 1
    return date(year, 12, 31)


def is_working_day(day: date) -> bool:
    """Whether `day`, a calendar day in Shanghai, is worked. Raises ValueError beyond the year 2100 or before 2001."""
    if not 2001 <= day.year <= _LAST_YEAR:  # noqa: PLR2004 - the package's first announced year
        message = f"no public holidays are known for {day.year}"
        raise ValueError(message)
    return bool(_around(day.year).is_working_day(day))


def after_working_days(day: date, count: int) -> date:
    """Return the `count`-th working day after `day`, which itself does not count; 0 is `day`, worked or not.

    A deadline of so many working days is met until the end of the day returned. Raises ValueError for a negative count,
    one beyond 10,000, and days without known holidays.
    """
    if not 0 <= count <= _MOST:
        message = f"a count of working days is 0 to {_MOST}, not {count}"
        raise ValueError(message)
    while count:
        day += timedelta(days=1)
        count -= is_working_day(day)
    return day


def working_days_between(first: date, last: date) -> int:
    """Count the working days after `first`, up to and with `last`; 0 where `last` is not after `first`."""
    span = (last - first).days
    return sum(is_working_day(first + timedelta(days=ahead)) for ahead in range(1, span + 1))
