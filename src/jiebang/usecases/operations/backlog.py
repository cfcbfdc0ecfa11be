"""Backlog: how far the workers are behind, read now and then, and whether a new case may be accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import Gauge

from jiebang.participants.base import UNANSWERED
from jiebang.store.operations import backlog

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

OVERDUE: Final = Gauge("jiebang_overdue_cases", "Cases due for longer than they should be, as last read")

_NEXT_READING_S: Final = 1.0
_LONGEST_S: Final = 60

_log = structlog.get_logger(__name__)


class Backlog:
    """How many cases are overdue, read at most once per `every`, and only while requests come."""

    def __init__(
        self,
        platform: Pool,
        clock: Callable[[], datetime],
        *,
        most: int,
        overdue: timedelta,
        every: timedelta,
    ) -> None:
        """`most`: with so many overdue cases no new one is accepted. `overdue`: due for longer than this."""
        self._platform, self._clock = platform, clock
        self._most, self._overdue, self._every = most, overdue, every
        self._read_at: datetime | None = None
        self._reading: asyncio.Task[None] | None = None
        self._count, self._fall_s, self._refusals_due = 0, 0.0, 0.0

    async def seconds_to_wait(self) -> int:
        """Return after how many seconds a refused request may be repeated; 0: one more case is accepted.

        From half of `most` on a growing share is refused, spread evenly; at `most`, all. So the rate of accepted cases
        settles at what the workers can do, without oscillation.
        """
        await self._refresh()
        half = self._most / 2
        self._refusals_due += min(max((self._count - half) / half, 0.0), 1.0)
        if self._refusals_due < 1:
            return 0
        self._refusals_due -= 1
        if self._fall_s <= 0:
            return _LONGEST_S if self._count >= self._most else ceil(_NEXT_READING_S)
        return min(max(ceil((self._count - half) / self._fall_s), 1), _LONGEST_S)

    async def _refresh(self) -> None:
        """Make sure that the reading is not much older than `every`. Concurrent callers share one read."""
        age = None if self._read_at is None else self._clock() - self._read_at
        if age is not None and age < self._every:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        if age is None or age > 2 * self._every:
            await asyncio.wait({self._reading}, timeout=self._every.total_seconds())

    async def _read(self) -> None:
        now = self._clock()
        try:
            # Counted up to twice as many, so that the rate at which they fall is seen.
            count = await backlog.count_overdue(self._platform, now - self._overdue, 2 * self._most)
        except UNANSWERED as error:
            # A submission will fail by itself if the platform's database is silent.
            _log.warning("backlog_unreadable", error=type(error).__name__)
            count = 0
        if self._read_at is not None and now > self._read_at:
            self._fall_s = (self._count - count) / (now - self._read_at).total_seconds()
        self._count, self._read_at = count, now
        OVERDUE.set(count)
