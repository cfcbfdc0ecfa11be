"""The workers: which there are, and what is wanted of them; each heeds it at its next heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.operations import worker_registry
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.store.operations.worker_registry import Wish, WorkerSeen
    from jiebang.store.postgres.pool import Database


async def list_workers(pool: Database, now: datetime) -> list[WorkerSeen]:
    """Return every worker that lives, or died within the hour."""
    return await worker_registry.workers(pool, now)


async def set_wish(pool: Database, ids: Sequence[str] | None, wish: Wish, by: str, now: datetime) -> list[str]:
    """Record what is wanted of workers (None: of all); return those that live and will heed it.

    "pause": finish what is at hand and claim nothing; "drain": the same, and end; "run": go on. Raises
    InvalidInputError without a name.
    """
    require_text("by", by)
    return await worker_registry.wish(pool, ids, wish, by, now)
