"""Chores that take a turn every so often, not each time that a worker comes by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

Chore = Callable[[frozenset[int], datetime], Awaitable[int]]
"""Side work for the buckets a worker holds (outbox, transfers, purges): returns how much there was to do."""


class Schedule:
    """Says whether it is time for a turn: at once to begin with, then after a pause."""

    def __init__(self, every: timedelta) -> None:
        """`every`: the usual pause after a turn."""
        self._every = every
        self._next: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Whether it is time."""
        return self._next is None or now >= self._next

    def postpone(self, now: datetime, pause: timedelta | None = None) -> None:
        """Wait from `now` on, for `pause` if one is given, else the usual time."""
        self._next = now + (self._every if pause is None else pause)

    def reset(self) -> None:
        """Begin again: the next turn may be taken at once."""
        self._next = None


class Seldom:
    """A chore that is one for the whole installation: whoever holds bucket 0 carries it out, `every` so often."""

    def __init__(self, chore: Chore, every: timedelta) -> None:
        """`every`: the pause after a turn that found nothing to do."""
        self._chore, self._schedule = chore, Schedule(every)

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn if it is ours and due; return how much there was to do."""
        if 0 not in buckets or not self._schedule.is_due(now):
            return 0
        done = await self._chore(buckets, now)
        if done:
            self._schedule.reset()
        else:
            self._schedule.postpone(now)
        return done
