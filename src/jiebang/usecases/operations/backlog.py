"""Say how far the workers are behind, from a reading that is seldom made: whether new cases may be taken."""

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
    """How many cases are overdue, read at most once `every` and only while somebody asks."""

    def __init__(
        self,
        platform: Pool,
        clock: Callable[[], datetime],
        *,
        most: int,
        overdue: timedelta,
        every: timedelta,
    ) -> None:
        """`most`: from so many overdue cases on, no new one is taken. `overdue`: due for longer than that."""
        self._platform, self._clock = platform, clock
        self._most, self._overdue, self._every = most, overdue, every
        self._read_at: datetime | None = None
        self._reading: asyncio.Task[None] | None = None
        self._count, self._fall_s, self._refusals_due = 0, 0.0, 0.0

    async def refuses(self) -> int:
        """Say whether one more case is too many: after how many seconds it is worth asking again, 0 if it may come.

        From half of `most` on a growing part is refused, evenly: the closer to it the more, and at it all. So what is
        taken settles at what the workers can do, instead of swinging.
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
        """Have a reading that is not much older than `every`: one under way serves all who ask meanwhile."""
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
            # Counted up to twice as many, so that it is seen how fast they grow fewer.
            count = await backlog.overdue(self._platform, now - self._overdue, 2 * self._most)
        except UNANSWERED as error:
            # Whoever submits now will hear that the platform's database is silent; that is not for this to say.
            _log.warning("backlog_unreadable", error=type(error).__name__)
            count = 0
        if self._read_at is not None and now > self._read_at:
            self._fall_s = (self._count - count) / (now - self._read_at).total_seconds()
        self._count, self._read_at = count, now
        OVERDUE.set(count)
