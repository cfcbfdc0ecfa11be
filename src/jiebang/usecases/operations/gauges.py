"""Gauges for alerts: the age of what is due, stuck, parked and half confirmed cases, busy wallets, open tasks.

Rules: docs/alerts. The worker that holds bucket 0 reads them at intervals; the others export zeros, so that a rule
takes the maximum over all workers. Labels are states, kinds of tasks and participants: nothing personal, few values.
"""

from __future__ import annotations

from collections import Counter as Count
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import Gauge

from jiebang.model.case import Mark, State
from jiebang.model.errors import JiebangError
from jiebang.store.operations import gauges, outbox, tasks
from jiebang.usecases.periodic import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jiebang.model.case import Kind
    from jiebang.model.plan import Plan
    from jiebang.store.operations.gauges import LateCases, Readings
    from jiebang.store.postgres.pool import Pool

OLDEST_DUE: Final = Gauge("jiebang_oldest_due_seconds", "For how long the oldest due case has been due")
DEAD_MESSAGES: Final = Gauge("jiebang_dead_messages", "Messages given up that nobody has replayed")
OLDEST_MESSAGE: Final = Gauge("jiebang_oldest_message_seconds", "For how long the oldest due message has been due")
STUCK: Final = Gauge("jiebang_stuck_cases", "Cases under way for much longer than their deadline", ["state"])
PARKED: Final = Gauge("jiebang_parked_cases", "Cases whose last ops wait for an operator", ["state"])
BUSY_WALLETS: Final = Gauge("jiebang_busy_wallets", "Wallets that a case may hold for longer than a lease")
OPEN_TASKS: Final = Gauge("jiebang_open_tasks", "Open tasks of operators", ["kind", "participant"])
CONFIRMING: Final = Gauge(
    "jiebang_confirming_seconds", "For how long a case past its commit point has been past its deadline without an end"
)
READ_AT: Final = Gauge("jiebang_gauges_read_timestamp_seconds", "When a worker last read these gauges")

_UNDER_WAY: Final = (State.TRYING, State.CONFIRMING, State.CANCELLING)
_SETTLED: Final = frozenset({Mark.UNSENT.value, Mark.CONFIRMED.value, Mark.CANCELLED.value})
_WALLET: Final = "wallet"


class GaugePace(msgspec.Struct, frozen=True, kw_only=True):
    """When a case is stuck, and how often gauges are read."""

    stuck_after: timedelta = timedelta(minutes=5)
    """How long past its deadline a case under way counts as stuck."""
    every: timedelta = timedelta(seconds=10)
    """How often they are read."""
    most: int = 1_000
    """Most late cases of one bucket that are counted: more are as bad."""


class Gauges:
    """The chore that reads and exports them."""

    def __init__(
        self,
        pool: Pool,
        plan_named: Callable[[str, Kind], Plan],
        *,
        lease: timedelta,
        resend_limit: timedelta,
        pace: GaugePace | None = None,
    ) -> None:
        """`plan_named`: the plan of a pack for a kind. `lease`: a worker's; `resend_limit`: the longest back-off."""
        self._pool, self._plan_named, self._lease = pool, plan_named, lease
        self._resend_limit, self._pace = resend_limit, pace or GaugePace()
        self._schedule = Schedule(self._pace.every)
        self._ours = False

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Read if this worker holds bucket 0 and a turn is due; return 0: nothing is left that could not wait."""
        if 0 not in buckets:
            if self._ours:
                self._show(gauges.Readings(due_at=None, message_at=None, late=[]), {}, now)
                DEAD_MESSAGES.set(0)
            self._ours = False
            self._schedule.reset()
            return 0
        if not self._schedule.is_due(now):
            return 0
        self._ours = True
        self._schedule.postpone(now)
        found = await gauges.read(
            self._pool,
            now=now,
            soon=now + self._resend_limit + timedelta(seconds=1),
            late_before=now - self._lease,
            stuck_before=now - self._pace.stuck_after,
            most=self._pace.most,
        )
        open_tasks = {(each.kind, each.participant): each.tasks for each in await tasks.count_open(self._pool)}
        self._show(found, open_tasks, now)
        DEAD_MESSAGES.set(await outbox.count_dead(self._pool, self._pace.most))
        READ_AT.set(now.timestamp())
        return 0

    def _show(self, found: Readings, open_tasks: Mapping[tuple[str, str], int], now: datetime) -> None:
        OLDEST_DUE.set(_age(found.due_at, now))
        OLDEST_MESSAGE.set(_age(found.message_at, now))
        stuck, parked, busy = Count[State](), Count[State](), 0
        for late in found.late:
            busy += late.cases if self._holds_wallet(late) else 0
            if late.parked:
                parked[late.state] += late.cases
            elif late.stuck:
                stuck[late.state] += late.cases
        BUSY_WALLETS.set(busy)
        CONFIRMING.set(max((_age(late.since, now) for late in found.late if late.state is State.CONFIRMING), default=0))
        for state in _UNDER_WAY:
            STUCK.labels(state).set(stuck[state])
            PARKED.labels(state).set(parked[state])
        OPEN_TASKS.clear()
        for (kind, participant), count in open_tasks.items():
            OPEN_TASKS.labels(kind, participant).set(count)

    def _holds_wallet(self, late: LateCases) -> bool:
        """Whether the wallet may be busy for these cases: it was asked and has not confirmed or cancelled yet."""
        try:
            place = self._plan_named(late.plan, late.kind).participants.index(_WALLET)
        except (JiebangError, KeyError, ValueError):
            return False
        return place < len(late.marks) and late.marks[place] not in _SETTLED


def _age(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max(0.0, (now - at).total_seconds())
