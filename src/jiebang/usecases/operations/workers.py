"""Workers: list them, pause, drain or resume them, each at its next heartbeat, and free the buckets of a dead one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.store.operations import worker_registry
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.store.operations.worker_registry import FreedWorker, Wish, WorkerStatus
    from jiebang.store.postgres.pool import Database

_NO_SUCH: Final = Text("没有这个进程,也没有它的桶", "there is no such worker, and it holds no bucket")


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


async def free(pool: Database, worker_id: str, by: str, now: datetime) -> FreedWorker:
    """Free the buckets of a dead worker before its lease runs out; recorded with who did it.

    One that is alive takes its share again at its next heartbeat. Raises InvalidInputError without a name, and for a
    worker that has no heartbeat and no bucket.
    """
    require_text("by", by)
    freed = await worker_registry.free(pool, worker_id, by, now)
    if freed is None:
        raise InvalidInputError(field="ID", reason=_NO_SUCH)
    return freed


async def list_freed(pool: Database, limit: int) -> list[FreedWorker]:
    """Return the last `limit` workers whose buckets were freed."""
    return await worker_registry.load_freed(pool, limit)
