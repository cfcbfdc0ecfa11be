"""How many accounts there are, for commands that show the progress of a walk over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.operations import gauges

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database


async def count_accounts(pool: Database) -> int:
    """Return the number of accounts. Scans the whole table."""
    return await gauges.count_accounts(pool)
