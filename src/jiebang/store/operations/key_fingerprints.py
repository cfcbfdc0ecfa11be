"""Fingerprints of the installation's keys, by which a host with other keys is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jiebang.store.postgres.pool import Database

_LOCK: Final = 0x6A696562_6B657973  # "jieb", "keys"
_SQL = load("jiebang.store.operations", "key_fingerprints.sql")


async def lock(db: Database) -> None:
    """Let no other process record keys until the transaction ends."""
    await db.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def load_fingerprints(db: Database) -> dict[str, bytes]:
    """Return the recorded fingerprint of each key, by name; of one that was rotated the newest."""
    return {row["name"]: row["fingerprint"] for row in await db.fetch(_SQL["recorded"])}


async def holds_people(db: Database) -> bool:
    """Whether the installation has accounts."""
    return bool(await db.fetchval(_SQL["holds_people"]))


async def record(db: Database, fingerprints: Mapping[str, bytes], now: datetime) -> None:
    """Record fingerprints of keys that are new, or new ones of keys that were rotated."""
    await db.execute(_SQL["record"], list(fingerprints), list(fingerprints.values()), now)
