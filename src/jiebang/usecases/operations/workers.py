"""Workers: list them, and pause, drain or resume them; each follows the wish at its next heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.operations import worker_registry
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.store.operations.worker_registry import Wish, WorkerStatus
    from jiebang.store.postgres.pool import Database


async def list_workers(pool: Database, now: datetime) -> list[WorkerStatus]:
    """Return every worker that is alive or died within the last hour."""
    return await worker_registry.load_workers(pool, now)


async def set_wish(pool: Database, ids: Sequence[str] | None, wish: Wish, by: str, now: datetime) -> list[str]:
    """Record the wish for workers (`ids` None: all); return those alive, which will follow it.

    "pause": finish what is at hand and claim nothing; "drain": the same, then end; "run": go on. Raises
    InvalidInputError without a name.
    """
    require_text("by", by)
    return await worker_registry.record_wish(pool, ids, wish, by, now)
