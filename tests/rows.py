"""Rows for tests of the participants' databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

AT = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
BOUND: Mapping[str, Any] = {
    "state": "active",
    "level": 2,
    "document_type": "resident_id",
    "sealed": b"\0" * 40,
    "document_index": b"\1" * 32,
    "birth_date": date(1990, 5, 17),
    "region": None,
    "changed_at": AT,
}
"""What an active identity has beside its key."""


async def insert(pool: Pool, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows with equal columns."""
    columns = list(rows[0])
    schema, name = table.split(".")
    records = [tuple(row[column] for column in columns) for row in rows]
    await pool.copy_records_to_table(name, schema_name=schema, columns=columns, records=records)


async def insert_accounts(pool: Pool, owner: str, accounts: Sequence[int], **columns: Any) -> None:
    """Insert account rows: an active identity, or the columns' defaults, with `columns` instead."""
    own = {**(BOUND if owner == "identity" else {}), **columns}
    await insert(pool, f"{owner}.account", [{"account_id": account, **own} for account in accounts])
