"""Cases that ended, in the order of their ends, as far as all of them are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Kind, State
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Collection

    import asyncpg

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.retention", "ended_cases.sql")
_SETTLED: Final = timedelta(seconds=60)
"""Longer than any statement takes: a save that ended a case before it has been committed, or never will be."""


class EndedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case that ended, and how."""

    account_id: int
    case_no: int
    kind: Kind
    state: State
    plan: str
    ended_at: datetime


async def find_settled(db: Database, now: datetime) -> datetime:
    """Return a time up to which every case that ended is known, and no other will end any more."""
    found: datetime = await db.fetchval(_SQL["settled_until"], now - _SETTLED)
    return min(found, now)


async def load_ended(db: Database, after: datetime, until: datetime, limit: int) -> list[EndedCase]:
    """Return the next cases that ended, at least `limit` of them if there are as many."""
    return [_build(row) for row in await db.fetch(_SQL["ended_page"], after, until, limit)]


async def load_done_of(db: Database, accounts: Collection[int]) -> list[EndedCase]:
    """Return the cases of accounts that were carried out, in the order of their ends."""
    return [_build(row) for row in await db.fetch(_SQL["done_of"], sorted(set(accounts)))]


def _build(row: asyncpg.Record) -> EndedCase:
    return EndedCase(
        account_id=row["account_id"],
        case_no=row["case_no"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        plan=row["plan"],
        ended_at=row["ended_at"],
    )
