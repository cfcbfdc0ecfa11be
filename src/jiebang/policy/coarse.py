"""What of an identity stands in clear beside the sealed one: no more than rules need."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from jiebang.policy.calendar import ZONE

_OF_AGE: Final = 18
"""From this age on, rules ask no more than whether somebody has reached it (the Civil Code's full age)."""


def coarsen_birth_date(born: date, now: datetime) -> date:
    """Return a birth date as exact as rules need it.

    Whoever has been of age since the end of their year of birth is told as born on its last day: never older than they
    are, so that no rule lets anybody pass too early. Everybody else's day stays exact.
    """
    today = now.astimezone(ZONE).date()
    return date(born.year, 12, 31) if date(born.year + _OF_AGE, 12, 31) <= today else born


def find_country(region: str) -> str | None:
    """Return a foreigner's country; None for a resident, whose division is part of the document's number."""
    return region if region.isascii() and region.isalpha() else None
