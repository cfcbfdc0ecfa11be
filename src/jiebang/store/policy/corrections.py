"""Corrections of plans in the platform's database: proposed by one person, approved by another."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import Kind
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    import asyncpg

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.policy", "corrections.sql")


class NewCorrection(msgspec.Struct, frozen=True, kw_only=True):
    """What is to stand in place of one effect in the plan of a version for a kind. None: the effect is left out."""

    pack: str
    kind: Kind
    participant: str
    effect: str
    value: Any
    was: Any
    why: str


class Correction(NewCorrection, frozen=True, kw_only=True):
    """A correction as recorded: proposed, and approved or lapsed since."""

    correction_no: int
    proposed_by: str
    proposed_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    lapsed_at: datetime | None = None


def _build_correction(row: asyncpg.Record) -> Correction:
    values = {name: msgspec.json.decode(row[name]) for name in ("value", "was")}
    return Correction(**{**dict(row), **values, "kind": Kind(row["kind"])})


async def propose(db: Database, new: NewCorrection, by: str, now: datetime) -> int:
    """Record a proposal in place of an open one for the same effect; return its number.

    The caller holds the lock of the policy's state.
    """
    place = (new.pack, new.kind.value, new.participant, new.effect)
    await db.execute(_SQL["lapse_correction"], *place, now)
    number: int = await db.fetchval(_SQL["next_correction"])
    values = (msgspec.json.encode(value).decode() for value in (new.value, new.was))
    await db.execute(_SQL["propose_correction"], number, *place, *values, new.why, by, now)
    return number


async def load_open(db: Database, number: int) -> Correction | None:
    """Return a proposal that waits for a second person."""
    row = await db.fetchrow(_SQL["open_correction"], number)
    return None if row is None else _build_correction(row)


async def approve(db: Database, number: int, by: str, now: datetime) -> None:
    """Record the second person's approval. The caller holds the lock of the policy's state."""
    await db.execute(_SQL["approve_correction"], number, by, now)


async def load_history(db: Database, limit: int) -> list[Correction]:
    """Return the latest corrections, the newest first."""
    return [_build_correction(row) for row in await db.fetch(_SQL["correction_history"], limit)]


async def load_approved(db: Database) -> list[Correction]:
    """Return every correction in force, the oldest first."""
    return [_build_correction(row) for row in await db.fetch(_SQL["approved_corrections"])]
