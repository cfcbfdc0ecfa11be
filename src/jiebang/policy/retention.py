"""How long law keeps something: whole calendar years, to the day."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from jiebang.policy.calendar import local_date, start_of

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MOST_YEARS: Final = 100


def find_end(began: datetime, years: int, zone: ZoneInfo) -> tuple[date, datetime]:
    """Return the last day on which something is kept, and the instant at which that day ends in `zone`.

    The day on which it began is not counted, and the last day is the one of the same date; where its month has none,
    the month's last (Civil Code arts. 201, 202).
    """
    first = local_date(began, zone)
    year = first.year + years
    last = first.replace(year=year, day=min(first.day, monthrange(year, first.month)[1]))
    return last, start_of(last + timedelta(days=1), zone).astimezone(UTC)


def count_days_left(until: date, now: datetime, zone: ZoneInfo) -> int:
    """Return how many days something is still kept, the last day included; 0 or less: its time has ended."""
    return (until - local_date(now, zone)).days + 1
