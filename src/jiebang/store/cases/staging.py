"""Which cases no longer need the values that were staged for them at a participant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "staging.sql")


async def find_unneeded(db: Database, keys: Sequence[Key]) -> list[Key]:
    """Return those of `keys` whose case will never apply what was staged for it."""
    rows = await db.fetch(_SQL["not_awaited"], [account for account, _ in keys], [case_no for _, case_no in keys])
    return [(row["account_id"], row["case_no"]) for row in rows]
