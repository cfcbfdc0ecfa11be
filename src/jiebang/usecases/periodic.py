"""Periodic chores: a worker offers each a turn in every round of its loop, and they take one at intervals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

Chore = Callable[[frozenset[int], datetime], Awaitable[int]]
"""Side work for the buckets that a worker holds (outbox, transfers, purges): returns how much there was to do."""


class Schedule:
    """Says when the next turn is due: the first at once, each later one after a pause."""

    def __init__(self, every: timedelta) -> None:
        """`every`: the usual pause after a turn."""
        self._every = every
        self._next: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether a turn is due."""
        return self._next is None or now >= self._next

    def postpone(self, now: datetime, pause: timedelta | None = None) -> None:
        """Make the next turn due after `pause`, by default the usual one, from `now` on."""
        self._next = now + (self._every if pause is None else pause)

    def reset(self) -> None:
        """Make a turn due at once."""
        self._next = None


class PeriodicChore:
    """A chore done once for the whole installation, at intervals, by the worker that holds bucket 0."""

    def __init__(self, chore: Chore, every: timedelta) -> None:
        """`every`: the pause after a turn that found nothing to do."""
        self._chore, self._schedule = chore, Schedule(every)

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn if this worker holds bucket 0 and one is due; return how much there was to do."""
        if 0 not in buckets or not self._schedule.is_due(now):
            return 0
        done = await self._chore(buckets, now)
        if done:
            self._schedule.reset()
        else:
            self._schedule.postpone(now)
        return done
