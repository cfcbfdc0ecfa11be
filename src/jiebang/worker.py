"""The worker's loops: due cases, messages to people, unfinished transfers, expired answers.

Stateless: any number of workers may run.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog

from jiebang.participants.base import UNANSWERED
from jiebang.saga.backoff import exponential_wait
from jiebang.store.cases import cases
from jiebang.store.operations import leases

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key
    from jiebang.saga.coordinator import Reply
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.driving.advance import Driver
    from jiebang.usecases.periodic import Chore

_YOUNG = 50_000
"""New objects between two runs of the garbage collector."""
_AT_ONCE = timedelta(milliseconds=1)
"""The shortest time a batch is taken to have needed, so that the division has a result."""
_log = structlog.get_logger(__name__)

_LONGEST_PAUSE = timedelta(seconds=1)
"""Between two attempts to read due cases while the store does not answer."""
_LONGEST_CHORE_PAUSE = timedelta(seconds=5)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker paces itself."""

    lease: timedelta = timedelta(seconds=10)
    """The longest time from a worker's last heartbeat until another worker takes over its cases."""
    batch: int = 256
    """Most cases in a batch, to begin with. A batch takes what is due, a single case too, at once."""
    batch_limit: int = 1_024
    """What `batch` grows to at most while more cases are due than a batch takes."""
    batch_time: timedelta = timedelta(milliseconds=400)
    """Batches grow as long as they take no longer than this."""
    lanes: int = 4
    busy_poll: timedelta = timedelta(milliseconds=5)
    idle_poll: timedelta = timedelta(milliseconds=10)
    chore_poll: timedelta = timedelta(milliseconds=50)

    def next_batch(self, batch: int, cases: int, took: timedelta) -> int:
        """Return how many cases the next batch may take, after one of `cases` cases whose limit was `batch`.

        Larger batches cost less per case and take longer for each. A full one quicker than `batch_time` multiplies the
        limit by the ratio of the two, at least by two; one that `took` more than twice as long halves it; never below
        the first `batch`, because a silent participant takes as long with few cases as with many.
        """
        if took > 2 * self.batch_time:
            return max(self.batch, batch // 2)
        if cases >= batch and took <= self.batch_time:
            times = max(2, int(self.batch_time / max(took, _AT_ONCE)))
            return max(self.batch, min(self.batch_limit, times * batch))
        return batch


class Worker:
    """Leases buckets and drives their due cases in up to `lanes` batches at a time."""

    def __init__(
        self,
        *,
        worker_id: str,
        pool: Pool,
        driver: Driver,
        chores: dict[str, Chore],
        clock: Callable[[], datetime],
        pace: Pace,
        clock_off: Callable[[], timedelta | None] = lambda: None,
    ) -> None:
        """`chores`: by name. `clock`: the database's time, by which other workers judge what this one stamps.

        `clock_off`: by how much the process's own clock is off, where that is too much: then nothing is claimed.
        """
        self._id, self._pool, self._driver, self._chores = worker_id, pool, driver, chores
        self._clock, self._pace, self._clock_off = clock, pace, clock_off
        self._leased = leases.LeaseGrant(frozenset())
        self._until: datetime | None = None
        self._busy: set[Key] = set()
        self._lanes: set[asyncio.Task[None]] = set()
        self._batch = pace.batch
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask the loops to end after what they are doing."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`, then finish the batches at hand and give the buckets back."""
        # A batch makes no reference cycles, and its objects are freed with it; collecting every few hundred objects
        # took a tenth of a worker's time.
        gc.freeze()
        gc.set_threshold(_YOUNG)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._keep_leases())
            loops.create_task(self._keep_driving())
            for name, chore in self._chores.items():
                loops.create_task(self._keep_doing(name, chore))
        if self._lanes:
            await asyncio.wait(self._lanes)
        await self._driver.aclose()
        try:
            await leases.release(self._pool, self._id)
        except UNANSWERED:
            _log.warning("buckets_not_released", worker=self._id)  # the lease runs out by itself

    async def _pause(self, limit: timedelta) -> None:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _keep_leases(self) -> None:
        # Workers beat every quarter of the lease and hold for three: a dead one's buckets are taken within the whole.
        beat = self._pace.lease / 4
        while not self._stopping.is_set():
            now = self._clock()
            # If claims were not allowed at the last beat, nothing begins between here and the answer.
            still = not self._leased.may_claim and not self._busy and self._driver.still
            off = self._clock_off()
            try:
                self._leased = await leases.hold(self._pool, self._id, now, 3 * beat, still=still, clock_off=off)
                self._until = now + 3 * beat
                if self._leased.wish == "drain":
                    _log.info("worker_drained", worker=self._id)
                    self.stop()
            except UNANSWERED as error:
                _log.warning("lease_not_renewed", worker=self._id, error=type(error).__name__)
            except Exception:  # noqa: BLE001 - no row that another left may end the loop
                _log.exception("lease_not_renewed", worker=self._id)
            await self._pause(beat)

    def _list_buckets(self) -> frozenset[int]:
        """Return the buckets whose lease still runs; none when it could not be renewed in time."""
        return self._leased.buckets if self._until is not None and self._clock() < self._until else frozenset()

    async def _keep_driving(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                started = await self._start_lane()
                failures = 0
            except UNANSWERED as error:
                failures += 1
                _log.warning("due_cases_not_read", worker=self._id, error=type(error).__name__)
                await self._pause(exponential_wait(self._pace.idle_poll, failures, _LONGEST_PAUSE))
                continue
            except Exception:  # noqa: BLE001 - no case may end the loop
                _log.exception("due_cases_not_read", worker=self._id)
                await self._pause(_LONGEST_PAUSE)
                continue
            if len(self._lanes) >= self._pace.lanes:
                await asyncio.wait(self._lanes, return_when=asyncio.FIRST_COMPLETED)
            elif not started:
                await self._pause(self._pace.busy_poll if self._lanes else self._pace.idle_poll)

    async def _start_lane(self) -> bool:
        """Start one batch, if there is anything to drive."""
        if not self._leased.may_claim or self._clock_off() is not None:
            self._driver.forget()
            return False
        replied = {(reply.account_id, reply.case_no) for reply in self._driver.late}
        late = self._driver.take_late(replied - self._busy)
        keys = replied - self._busy
        busy = [key[0] for key in self._busy]
        cases_due = await cases.load_due(self._pool, sorted(self._list_buckets()), self._clock(), self._batch, busy)
        if not self._leased.may_claim:  # revoked during the read: nothing may begin after it has reported itself still
            return False
        taken = [case for case in cases_due if case.key not in self._busy]
        keys |= {case.key for case in taken}
        if not keys:
            return False
        self._busy |= keys
        lane = asyncio.create_task(self._drive(taken, late, keys))
        self._lanes.add(lane)
        lane.add_done_callback(self._lanes.discard)
        return True

    async def _drive(self, taken: list[Case], late: list[Reply], keys: set[Key]) -> None:
        started = self._clock()
        try:
            await self._driver.drive(taken, late)
            self._batch = self._pace.next_batch(self._batch, len(taken), self._clock() - started)
        except UNANSWERED as error:
            # Nothing unsaved was sent; what is saved is due again.
            _log.warning("batch_broken_off", worker=self._id, cases=len(keys), error=type(error).__name__)
            await self._pause(self._pace.idle_poll)
        except Exception:  # noqa: BLE001 - no batch may end the loop
            _log.exception("batch_failed", worker=self._id, cases=len(keys))
            await self._pause(timedelta(seconds=1))
        finally:
            self._busy -= keys

    async def _keep_doing(self, name: str, chore: Chore) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                done = await chore(self._list_buckets(), self._clock())
                failures = 0
            except Exception as error:  # noqa: BLE001 - no chore may end the loop
                failures += 1
                done = 0
                _log.warning("chore_failed", worker=self._id, chore=name, error=type(error).__name__)
            if not done:
                await self._pause(exponential_wait(self._pace.chore_poll, failures, _LONGEST_CHORE_PAUSE))
