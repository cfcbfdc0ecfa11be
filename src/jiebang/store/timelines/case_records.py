"""Records: hashes of what stands beside the timelines in the platform's database, which the seals hold."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.store.postgres.named_sql import key_columns, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.case import Key
    from jiebang.saga.seals import Leaf
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.timelines", "case_records.sql")


async def load_records(db: Database, keys: Sequence[Key], *, whole: bool) -> Mapping[Key, bytes]:
    """Return the record of each case: `whole`, as it ended; otherwise, of what is the same from its opening on."""
    if not keys:
        return {}
    rows = await db.fetch(_SQL["case_records"], *key_columns(keys), whole)
    return {(row["account_id"], row["case_no"]): row["record"] for row in rows}


async def add_records(db: Database, leaves: Sequence[Leaf], *, whole: bool) -> list[Leaf]:
    """Return the leaves with the records of their cases; a case that is gone is left out."""
    records = await load_records(db, [(leaf.account_id, leaf.case_no) for leaf in leaves], whole=whole)
    return [
        msgspec.structs.replace(leaf, record=records[leaf.account_id, leaf.case_no])
        for leaf in leaves
        if (leaf.account_id, leaf.case_no) in records
    ]


async def load_registers(db: Database, until: datetime) -> dict[str, bytes]:
    """Return a hash of each table of what the installation itself decided until a time, by the table's name."""
    return {row["name"]: row["hash"] for row in await db.fetch(_SQL["registers"], until)}


async def find_numbers_set_back(db: Database, after: int, upto: int, limit: int) -> list[int]:
    """Return up to `limit` accounts of a range whose last case number lies below one that was given."""
    return [row["account_id"] for row in await db.fetch(_SQL["numbers_set_back"], after, upto, limit)]


async def is_policy_activated(db: Database) -> bool:
    """Whether the version of policy in force is the one that was activated last."""
    return bool(await db.fetchval(_SQL["policy_in_force"]))
