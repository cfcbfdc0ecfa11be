"""How far the workers lag behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.model.case import BUCKETS
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.postgres.pool import Database

_SQL: Final = load("jiebang.store.operations", "backlog.sql")


async def count_overdue(db: Database, before: datetime, most: int) -> int:
    """Count the cases that have been due since before `before`, up to `most`. A case at rest is not due."""
    count: int = await db.fetchval(_SQL["overdue_cases"], range(BUCKETS), before, most)
    return count
