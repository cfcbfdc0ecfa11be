"""Outages: participants that operators took out of service, since when, why and by whom."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Collection

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "outages.sql")


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """A participant out of service: since when, why and by whom. `reason` is for operators, never shown to people."""

    participant: str
    since: datetime
    reason: str
    by: str
    back_at: datetime | None = None
    back_by: str | None = None


async def load_outages(db: Database, limit: int) -> list[Outage]:
    """Return outages, including past ones: current ones first, then the latest first."""
    return [
        Outage(
            participant=row["participant"],
            since=row["out_since"],
            reason=row["reason"],
            by=row["out_by"],
            back_at=row["back_at"],
            back_by=row["back_by"],
        )
        for row in await db.fetch(_SQL["outage_history"], limit)
    ]


async def take_out(db: Database, participants: Collection[str], reason: str, by: str, now: datetime) -> None:
    """Take participants out of service; one that is out already keeps its outage."""
    await db.execute(_SQL["take_out"], sorted(participants), now, reason, by)


async def take_back(db: Database, participants: Collection[str], by: str, now: datetime) -> None:
    """Put participants back into service."""
    await db.execute(_SQL["take_back"], sorted(participants), now, by)
