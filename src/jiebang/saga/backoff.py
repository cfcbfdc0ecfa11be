"""How long to wait before something that failed is tried again. Pure; the caller counts the failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import timedelta

_MOST_DOUBLINGS: Final = 16
"""So that a failure that lasts for days does not overflow timedelta."""


def exponential_wait(first: timedelta, times: int, limit: timedelta) -> timedelta:
    """Return `first` doubled `times` times (0: unchanged), but no more than `limit`."""
    return min(first * (1 << min(times, _MOST_DOUBLINGS)), limit)
