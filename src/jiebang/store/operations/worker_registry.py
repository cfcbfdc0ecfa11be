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
    """One worker at its last heartbeat. `oldest_due_at`: since when the oldest due case of its buckets has waited.

    `clock_off_ms`: by how much its own clock is ahead of the database's where that is too much; it then claims nothing.
    """

    worker_id: str
    seen_until: datetime
    state: str
    wish: str
    wished_by: str | None
    wished_at: datetime | None
    clock_off_ms: int | None
    buckets: int
    oldest_due_at: datetime | None


class FreedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker whose buckets an operator freed. `seen_until`: until when its heartbeat held (None: there was none)."""

    worker_id: str
    freed_at: datetime
    freed_by: str
    buckets: int
    seen_until: datetime | None


async def record_wish(db: Database, workers: Sequence[str] | None, wanted: Wish, by: str, now: datetime) -> list[str]:
    """Record a wish for `load_workers` (None: all); return the live ones, which will read it."""
    ids = None if workers is None else sorted(workers)
    return sorted(row["worker_id"] for row in await db.fetch(_SQL["wish_of_workers"], ids, wanted, by, now))


async def load_workers(db: Database, now: datetime) -> list[WorkerStatus]:
    """Return every worker that is live or died within the last hour."""
    return [WorkerStatus(**row) for row in await db.fetch(_SQL["workers"], now)]


async def free(db: Database, worker_id: str, by: str, now: datetime) -> FreedWorker | None:
    """Delete a worker's leases and heartbeat, and record who did it; None where there are neither."""
    row = await db.fetchrow(_SQL["free_worker"], worker_id, by, now)
    return None if row is None else FreedWorker(worker_id=worker_id, freed_at=now, freed_by=by, **row)


async def load_freed(db: Database, limit: int) -> list[FreedWorker]:
    """Return the last `limit` times that an operator freed a worker's buckets."""
    return [FreedWorker(**row) for row in await db.fetch(_SQL["freed_workers"], limit)]
