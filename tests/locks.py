"""Waiting for others to wait: how a test knows that a statement stands before a lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


async def waiting(pool: Pool, count: int) -> None:
    """Wait until so many connections to the pool's database wait for a lock."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(PATIENCE_S):
        while await pool.fetchval(asked) < count:  # noqa: ASYNC110 - another's state, which offers no event
            await asyncio.sleep(0.01)
