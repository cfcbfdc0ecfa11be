"""The workers there are, as their heartbeats tell, and what operators want of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "worker_registry.sql")

Wish = Literal["run", "pause", "drain"]


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as its heartbeat tells. `oldest_due_at`: since when the oldest due case of its buckets waits."""

    worker_id: str
    seen_until: datetime
    state: str
    wish: str
    wished_by: str | None
    wished_at: datetime | None
    buckets: int
    oldest_due_at: datetime | None


async def wish(db: Database, workers: Sequence[str] | None, wanted: Wish, by: str, now: datetime) -> list[str]:
    """Record what is wanted of `workers` (None: of all); return those that live and will read it."""
    ids = None if workers is None else sorted(workers)
    return sorted(row["worker_id"] for row in await db.fetch(_SQL["wish_of_workers"], ids, wanted, by, now))


async def workers(db: Database, now: datetime) -> list[WorkerSeen]:
    """Return every worker that lives, or died within the hour."""
    return [WorkerSeen(**row) for row in await db.fetch(_SQL["workers"], now)]
