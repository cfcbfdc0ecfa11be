"""Operators' tasks in the platform's database: raised and closed in batches, acknowledged by people."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import bucket_of
from jiebang.store.cases.cases import from_row
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import asyncpg

    from jiebang.model.case import Case, Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "tasks.sql")


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task to raise. `place`: the participant's position in the case's marks, with the `op` that it has not answered.

    `note`: what is known when it is raised, later what was found out.
    """

    account_id: int
    case_no: int
    kind: str
    participant: str
    place: int | None = None
    op: str | None = None
    why: str | None = None
    note: str | None = None


class Task(NewTask, frozen=True, kw_only=True):
    """A task as recorded."""

    raised_at: datetime
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    closed_at: datetime | None = None


class TaskCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks of one kind are open because of one participant."""

    kind: str
    participant: str
    tasks: int
    oldest_at: datetime


def _build_task(row: asyncpg.Record) -> Task:
    return Task(**{name: value for name, value in row.items() if name != "bucket"})


async def load_suspects(
    db: Database, buckets: Collection[int], due_by: datetime, attempts: int, limit: int
) -> list[tuple[Case, datetime | None]]:
    """Return decided cases that may need an operator, each with when it entered its state."""
    rows = await db.fetch(_SQL["suspects"], sorted(buckets), due_by, attempts, limit)
    return [(from_row(row), row["since"]) for row in rows]


async def raise_tasks(db: Database, new: Iterable[NewTask], now: datetime) -> int:
    """Raise tasks; return how many were opened or changed."""
    rows = list(new)
    if not rows:
        return 0
    raised = await db.fetch(
        _SQL["raise_tasks"],
        *columns(rows, "account_id", "case_no", "kind", "participant"),
        [bucket_of(task.account_id) for task in rows],
        *columns(rows, "place", "op", "why"),
        now,
        [task.note for task in rows],
    )
    return len(raised)


async def close_done(db: Database, buckets: Collection[int], now: datetime) -> int:
    """Close tasks of these buckets whose op is done; return how many."""
    return len(await db.fetch(_SQL["close_done"], sorted(buckets), now))


async def close_decided(db: Database, accounts: Collection[int], undecided: Collection[Key], now: datetime) -> None:
    """Close the tasks `load_undecided` of these accounts, except for the cases that are still `load_undecided`."""
    await db.execute(_SQL["close_decided"], sorted(accounts), *key_columns(undecided), now)


async def load_undecided(db: Database, accounts: Collection[int]) -> set[Key]:
    """Return the cases of these accounts that a recovery left undecided and whose task is open."""
    return {(row["account_id"], row["case_no"]) for row in await db.fetch(_SQL["undecided_of"], sorted(accounts))}


async def load_open(db: Database, limit: int) -> list[Task]:
    """Return open tasks, the oldest first."""
    return [_build_task(row) for row in await db.fetch(_SQL["open_tasks"], limit)]


async def count_open(db: Database) -> list[TaskCount]:
    """Return the number of open tasks by kind and participant."""
    return [TaskCount(**row) for row in await db.fetch(_SQL["count_open"])]


async def load_of_cases(db: Database, keys: Collection[Key]) -> list[Task]:
    """Return every task of the given cases, including closed ones."""
    return [_build_task(row) for row in await db.fetch(_SQL["tasks_of"], *key_columns(keys))]


async def acknowledge(db: Database, keys: Collection[Key], by: str, now: datetime) -> set[Key]:
    """Record who handles the open tasks of the given cases; return the cases whose tasks were unacknowledged."""
    rows = await db.fetch(_SQL["acknowledge"], *key_columns(keys), by, now)
    return {(row["account_id"], row["case_no"]) for row in rows}


async def close_by_hand(db: Database, keys: Collection[Key], note: str, by: str, now: datetime) -> set[Key]:
    """Close the tasks `load_undecided` of the given cases; return the cases that had one."""
    rows = await db.fetch(_SQL["close_by_hand"], *key_columns(keys), now, note, by)
    return {(row["account_id"], row["case_no"]) for row in rows}


async def load_stuck(
    db: Database, due_by: datetime, heard_before: datetime, attempts: int, limit: int
) -> list[tuple[Case, datetime]]:
    """Return stuck cases, each with the time of its last save, the longest silent first."""
    rows = await db.fetch(_SQL["stuck_cases"], due_by, heard_before, attempts, limit)
    return [(from_row(row), row["heard_at"]) for row in rows]


async def load_confirming(db: Database, due_by: datetime, limit: int) -> list[Case]:
    """Return cases past the commit point that have not ended, the longest first."""
    return [from_row(row) for row in await db.fetch(_SQL["confirming_cases"], due_by, limit)]
