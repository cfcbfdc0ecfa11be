"""The platform database's time, as this process knows it: what one process stamps, another judges by the same clock.

The time is measured by a round trip, and counted on from there with the machine's steady counter. No statement of a
case asks for it. The process's own clock is only compared with it: a step of either shows at once, without a question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import Gauge

from jiebang.clock import utc_now
from jiebang.store.postgres.faults import UNANSWERED

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database

CLOCK_OFF_GAUGE: Final = Gauge(
    "jiebang_clock_off_seconds", "By how much this process's own clock is ahead of the platform's database"
)
ALLOWED: Final = timedelta(seconds=2)
"""By how much a process's own clock may be off before it claims nothing."""
REFRESHED: Final = timedelta(seconds=2)
"""Between two measurements."""
_STALE_S: Final = 60.0
"""A measurement older than this is replaced by any other, however long that one's round trip was."""

_log = structlog.get_logger(__name__)


class DatabaseClock:
    """A clock, to be called for the time. Until the first measurement it is the process's own."""

    def __init__(self, own: Callable[[], datetime] = utc_now, steady: Callable[[], float] = time.monotonic) -> None:
        """`own`: the process's clock; `steady`: seconds that no step of a clock changes."""
        self._own, self._steady = own, steady
        self._measured: tuple[datetime, float] | None = None
        """The database's time, and the steady seconds at that moment."""
        self._unsure_s = 0.0
        """Half the round trip: by how much that may be wrong."""
        self._told = False

    def __call__(self) -> datetime:
        """Return the database's time."""
        if self._measured is None:
            return self._own()
        at, since = self._measured
        return at + timedelta(seconds=self._steady() - since)

    @property
    def ahead(self) -> timedelta:
        """By how much the process's own clock is ahead of the database's; below zero: behind."""
        return self._own() - self() if self._measured is not None else timedelta()

    def find_off(self) -> timedelta | None:
        """Return `ahead` where it exceeds what is allowed and what a measurement may be wrong by; None otherwise."""
        ahead = self.ahead
        return ahead if abs(ahead) > ALLOWED + timedelta(seconds=self._unsure_s) else None

    async def measure(self, db: Database) -> None:
        """Ask the database for its time. Raises UNANSWERED."""
        before = self._steady()
        at: datetime = await db.fetchval("SELECT clock_timestamp()")
        after = self._steady()
        self.take(at, before, after)

    def take(self, at: datetime, before: float, after: float) -> None:
        """Take a measurement: the database said `at` between two moments of the steady counter.

        One whose round trip took longer tells less, and replaces a sharper one only once that is old.
        """
        unsure = (after - before) / 2
        if self._measured is not None and unsure > 2 * self._unsure_s + 0.05 and after - self._measured[1] < _STALE_S:
            return
        self._measured, self._unsure_s = (at, before + unsure), unsure
        self._tell()

    def _tell(self) -> None:
        ahead, is_off = round(self.ahead.total_seconds(), 3), self.find_off() is not None
        CLOCK_OFF_GAUGE.set(ahead)
        if is_off and not self._told:
            _log.error("clock_off", ahead_s=ahead, allowed_s=ALLOWED.total_seconds())
        elif self._told and not is_off:
            _log.info("clock_right_again", ahead_s=ahead)
        self._told = is_off

    async def run(self, db: Database, every: timedelta = REFRESHED) -> None:
        """Measure again and again until cancelled. While the database is silent the last measurement goes on."""
        silent = False
        while True:
            await asyncio.sleep(every.total_seconds())
            try:
                await self.measure(db)
                silent = False
            except UNANSWERED as error:
                if not silent:  # once: others log what the silence means to them
                    _log.warning("clock_not_measured", error=type(error).__name__)
                silent = True
