"""How much there is, for whoever shows how far a walk over all of it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.operations import gauges

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database


async def count_accounts(pool: Database) -> int:
    """Return how many accounts there are. Reads them all."""
    return await gauges.count_accounts(pool)
