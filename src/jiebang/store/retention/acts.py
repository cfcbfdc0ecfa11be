"""The record of acts on what law keeps: who read, held or released what, when, and for which purpose."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.retention", "acts.sql")


class ActOnRetained(StrEnum):
    """What was done with what law keeps."""

    READ = "read"
    HOLD = "hold"
    RELEASE = "release"


class RetentionAct(msgspec.Struct, frozen=True, kw_only=True):
    """One act on record."""

    account_id: int
    act: ActOnRetained
    purpose: str
    done_by: str
    at: datetime


async def record(db: Database, act: RetentionAct, act_id: UUID) -> None:
    """Record an act."""
    await db.execute(_SQL["record_act"], act.account_id, act_id, act.act.value, act.purpose, act.done_by, act.at)


async def load_acts(db: Database, since: datetime, limit: int) -> list[RetentionAct]:
    """Return the newest acts since a time, the newest first."""
    return [
        RetentionAct(
            account_id=row["account_id"],
            act=ActOnRetained(row["act"]),
            purpose=row["purpose"],
            done_by=row["done_by"],
            at=row["at"],
        )
        for row in await db.fetch(_SQL["list_acts"], since, limit)
    ]
