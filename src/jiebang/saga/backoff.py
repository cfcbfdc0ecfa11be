"""How long to wait before something that failed is tried again. Pure; whoever waits counts the failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import timedelta

_MOST_DOUBLINGS: Final = 16
"""What fails for days must not make numbers that no timedelta holds."""


def doubled(first: timedelta, times: int, limit: timedelta) -> timedelta:
    """Return `first` doubled so many `times` (0: as it is), at most `limit`."""
    return min(first * (1 << min(times, _MOST_DOUBLINGS)), limit)
