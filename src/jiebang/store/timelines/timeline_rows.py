"""Rows of timelines in the platform's database: as people read them, and as an audit verifies them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.saga.chain import ChainHead, ChainRow
from jiebang.saga.timeline import expand_entries
from jiebang.store.postgres.named_sql import key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database, Pool

_SQL = load("jiebang.store.timelines", "timeline_rows.sql")


class TimelineRow(msgspec.Struct, frozen=True):
    """One row of a case's timeline: what one save did and had learnt, entry by entry (`saga.timeline`)."""

    account_id: int
    case_no: int
    revision: int
    at: datetime
    entries: list[dict[str, Any]]


async def read_after(db: Database, seen: Mapping[Key, int]) -> list[TimelineRow]:
    """Return the timelines of several cases, each after the revision given for it (0: from the beginning)."""
    ordered = sorted(seen)
    rows = await db.fetch(_SQL["rows_after"], *key_columns(ordered), [seen[key] for key in ordered])
    return [
        TimelineRow(
            row["account_id"],
            row["case_no"],
            row["revision"],
            row["at"],
            expand_entries(msgspec.json.decode(row["entries"], type=list[dict[str, Any]])),
        )
        for row in rows
    ]


async def walk(pool: Pool, after: int, upto: int, rows_at_once: int) -> AsyncIterator[tuple[ChainHead, list[ChainRow]]]:
    """Yield each case of the accounts above `after` up to `upto` with its timeline, holding one case at a time."""
    case: ChainHead | None = None
    rows: list[ChainRow] = []
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        async for record in connection.cursor(_SQL["walk"], after, upto, prefetch=rows_at_once):
            key = (record["account_id"], record["case_no"])
            if case is None or key != (case.account_id, case.case_no):
                if case is not None:
                    yield case, rows
                stands = (record[name] for name in ("revision", "state", "head", "created_at", "reason"))
                case, rows = ChainHead(*key, *stands), []
            if record["row_revision"] is not None:
                rows.append(ChainRow(record["row_revision"], record["at"], record["entries"], record["row_head"]))
    if case is not None:
        yield case, rows


async def read_recorded(db: Database, keys: Iterable[Key]) -> dict[Key, list[ChainRow]]:
    """Return the timelines of cases as they were recorded, each row in order."""
    ordered = sorted(keys)
    timelines: dict[Key, list[ChainRow]] = {key: [] for key in ordered}
    for row in await db.fetch(_SQL["recorded_rows"], *key_columns(ordered)):
        timelines[row["account_id"], row["case_no"]].append(
            ChainRow(row["revision"], row["at"], row["entries"], row["head"])
        )
    return timelines


async def find_orphans(db: Database, after: int, upto: int, limit: int) -> list[tuple[int, int, int]]:
    """Return up to `limit` rows whose case is gone, in a range of accounts, each as (account, case, revision)."""
    return [
        (row["account_id"], row["case_no"], row["revision"])
        for row in await db.fetch(_SQL["orphaned_rows"], after, upto, limit)
    ]
