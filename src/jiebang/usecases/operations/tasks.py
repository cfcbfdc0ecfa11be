"""Operators' tasks: raised and closed by a chore of the workers, acknowledged and closed by people.

A case past its decision needs a person when a participant refused its Confirm or Cancel twice (parked), goes unanswered
for longer than a limit (silent), or when a recovery could not decide it: each is a task, raised by a worker's chore and
closed by it once the op is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Mark, State
from jiebang.model.errors import JiebangError
from jiebang.saga.coordinator import Timing
from jiebang.saga.fence import Op
from jiebang.store.operations import tasks
from jiebang.store.operations.tasks import NewTask, Task
from jiebang.usecases.operations.on_record import require_text
from jiebang.usecases.periodic import Schedule

if TYPE_CHECKING:
    from jiebang.model.case import Key
    from jiebang.model.plan import Plan
    from jiebang.store.postgres.pool import Database, Pool

PARKED: Final = frozenset({Mark.CONFIRM_PARKED.value, Mark.CANCEL_PARKED.value})
OWED: Final = frozenset({Mark.CONFIRM_SENT.value, Mark.CONFIRM_REFUSED, Mark.CANCEL_SENT, Mark.CANCEL_REFUSED})
SOON: Final = timedelta(seconds=1)
RESENT: Final = 2
"""From so many resends on, an op may be one that goes unanswered."""
_BATCH: Final = 1_000


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a case needs a person. Technical limits of this installation."""

    silent: timedelta = timedelta(minutes=2)
    """How long a Confirm or Cancel may go unanswered, and a case under way without a save."""
    every: timedelta = timedelta(seconds=2)
    """How often a worker looks."""


class TaskWatch:
    """A chore: raises tasks for the cases of a worker's buckets, and closes those whose op is done."""

    def __init__(
        self,
        pool: Pool,
        plan_of: Callable[[Case], Plan],
        *,
        limits: TaskLimits,
        timing: Timing,
        last_silence: Callable[[str, Op], str | None] = lambda _participant, _op: None,
    ) -> None:
        """`timing`: the coordinator's; its longest wait between resends bounds which cases can be silent.

        `last_silence`: what was last heard of why a participant does not answer an op; the note of a silent task.
        """
        self._last_silence = last_silence
        self._pool, self._plan_of, self._limits, self._timing = pool, plan_of, limits, timing
        self._schedule = Schedule(limits.every)

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Look if a turn is due; return 0: nothing is left that could not wait."""
        if not buckets or not self._schedule.is_due(now):
            return 0
        due_by = now + self._timing.resend_limit + SOON
        found = await tasks.load_suspects(self._pool, buckets, due_by, RESENT, _BATCH)
        new_tasks = [task for case, since in found for task in self._find_owed(case, since, now)]
        await tasks.raise_tasks(self._pool, new_tasks, now)
        await tasks.close_done(self._pool, buckets, now)
        self._schedule.postpone(now)
        return 0

    def _find_owed(self, case: Case, since: datetime | None, now: datetime) -> list[NewTask]:
        try:
            names = self._plan_of(case).participants
        except (KeyError, JiebangError):
            return []
        silent = since is not None and now - since >= self._limits.silent
        found = list[NewTask]()
        for place, (name, mark) in enumerate(zip(names, case.marks, strict=False)):
            if mark in PARKED or (silent and mark in OWED):
                op = Op.CONFIRM if case.state is State.CONFIRMING else Op.CANCEL
                found.append(
                    NewTask(
                        account_id=case.account_id,
                        case_no=case.case_no,
                        kind="parked" if mark in PARKED else "silent",
                        participant=name,
                        place=place,
                        op=op.value,
                        note=None if mark in PARKED else self._last_silence(name, op),
                    )
                )
        return found


async def list_open(pool: Database, limit: int) -> list[Task]:
    """Return the open tasks, the oldest first, at most `limit`."""
    return await tasks.load_open(pool, limit)


async def list_open_of(pool: Database, keys: Collection[Key]) -> list[Task]:
    """Return the open tasks of cases."""
    return [task for task in await tasks.load_of_cases(pool, keys) if task.closed_at is None]


async def acknowledge(pool: Database, keys: Collection[Key], by: str, now: datetime) -> set[Key]:
    """Record that `by` takes care of the open tasks of cases; the first to do so stays. Return the cases that had any.

    Raises InvalidInputError without a name.
    """
    require_text("by", by)
    return await tasks.acknowledge(pool, keys, by, now)


async def close(pool: Database, keys: Collection[Key], note: str, by: str, now: datetime) -> set[Key]:
    """Close the undecided tasks of cases with the finding (`note`). Return the cases that had any.

    All others close by themselves. Raises InvalidInputError without a name.
    """
    require_text("by", by)
    return await tasks.close_by_hand(pool, keys, note, by, now)
