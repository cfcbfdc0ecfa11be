"""The registered workers, by their heartbeats, and operators' wishes for them."""

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


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at its last heartbeat. `oldest_due_at`: since when the oldest due case of its buckets has waited."""

    worker_id: str
    seen_until: datetime
    state: str
    wish: str
    wished_by: str | None
    wished_at: datetime | None
    buckets: int
    oldest_due_at: datetime | None


async def record_wish(db: Database, workers: Sequence[str] | None, wanted: Wish, by: str, now: datetime) -> list[str]:
    """Record a wish for `load_workers` (None: all); return the live ones, which will read it."""
    ids = None if workers is None else sorted(workers)
    return sorted(row["worker_id"] for row in await db.fetch(_SQL["wish_of_workers"], ids, wanted, by, now))


async def load_workers(db: Database, now: datetime) -> list[WorkerStatus]:
    """Return every worker that is live or died within the last hour."""
    return [WorkerStatus(**row) for row in await db.fetch(_SQL["workers"], now)]
