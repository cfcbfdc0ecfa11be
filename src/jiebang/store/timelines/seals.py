"""Seals on timelines in the platform's database, and the cases that they are about."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.saga.seals import BEGINNING, Leaf
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.timelines", "seals.sql")


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """One seal: the signed statement, and the cases it is about (empty where they were not read)."""

    seal_no: int
    ended_until: datetime
    moved_until: datetime
    statement: str
    cases: bytes = b""


NONE = Seal(seal_no=0, ended_until=BEGINNING, moved_until=BEGINNING, statement="")
"""The seal before the first one."""


class LiveHead(msgspec.Struct, frozen=True):
    """The head of a live case, and when it was last saved (None: that row of its timeline is gone)."""

    leaf: Leaf
    at: datetime | None


class StoredLeaf(msgspec.Struct, frozen=True):
    """What the database holds for one leaf of a seal.

    `head`: of the row at the leaf's revision, None where it is gone. `stands_at`: the revision of the case's row, None
    where the case is gone. `ended`: whether the case has ended.
    """

    leaf: Leaf
    head: bytes | None
    stands_at: int | None
    ended: bool


def _build_seal(row: asyncpg.Record, cases: bytes) -> Seal:
    return Seal(
        seal_no=row["seal_no"],
        ended_until=row["ended_until"],
        moved_until=row["moved_until"],
        statement=row["statement"],
        cases=cases,
    )


def _build_leaf(row: asyncpg.Record) -> Leaf:
    return Leaf(row["account_id"], row["case_no"], row["revision"], row["head"])


async def load_last(db: Database) -> Seal:
    """Return the last seal without its cases; `NONE` where there is none."""
    row = await db.fetchrow(_SQL["last_seal"])
    return NONE if row is None else _build_seal(row, b"")


async def load_statement(db: Database, seal_no: int) -> str | None:
    """Return the statement of a seal; None where there is no such seal."""
    statement: str | None = await db.fetchval(_SQL["seal_statement"], seal_no)
    return statement


class Standing(msgspec.Struct, frozen=True):
    """Where sealing stands: the floor (None: there is none), the database's time, and the first end not sealed yet."""

    floor: datetime | None
    at: datetime
    first_ended: datetime | None


async def load_standing(db: Database, after: datetime) -> Standing:
    """Return where sealing stands; `after`: the end of the last seal."""
    row = await db.fetchrow(_SQL["sealed_until"], after)
    assert row is not None  # noqa: S101 - a SELECT without FROM
    return Standing(row["floor"], row["at"], row["first_ended"])


async def raise_floor(db: Database, until: datetime) -> None:
    """Let no save that begins from now on end a case at or before `until`."""
    await db.execute(_SQL["raise_floor"], until)


async def find_saves_under_way(db: Database) -> frozenset[str]:
    """Return the transactions that may have read an older floor: those that use it now."""
    return frozenset(row["name"] for row in await db.fetch(_SQL["saves_under_way"]))


async def load_ended_after(db: Database, after: datetime, until: datetime, limit: int) -> tuple[list[Leaf], datetime]:
    """Return the cases that ended after `after`, the oldest first, and the time up to which they are complete.

    At most `limit`, and those that ended at the same moment as the last. None that ended after `until`.
    """
    rows = await db.fetch(_SQL["ended_cases"], after, until, limit)
    return [_build_leaf(row) for row in rows], rows[-1]["ended_at"] if rows else after


async def load_live_page(db: Database, after: int, limit: int) -> list[LiveHead]:
    """Return up to `limit` live cases of accounts above `after`, in their order."""
    return [LiveHead(_build_leaf(row), row["at"]) for row in await db.fetch(_SQL["live_heads"], after, limit)]


async def add(db: Database, seal: Seal) -> bool:
    """Append a seal to the chain; return False where another process was quicker."""
    added = await db.fetchval(
        _SQL["insert_seal"], seal.seal_no, seal.ended_until, seal.moved_until, seal.statement, seal.cases
    )
    return added is not None


async def load_of_cases(db: Database, keys: Iterable[Key]) -> dict[Key, Seal]:
    """Return the seal of each of these cases that ended, by key; those not sealed yet are left out."""
    rows = await db.fetch(_SQL["seals_of_cases"], *key_columns(keys))
    return {(row["account_id"], row["case_no"]): _build_seal(row, row["cases"]) for row in rows}


async def load_page(db: Database, after: int, limit: int) -> list[Seal]:
    """Return up to `limit` seals with a number above `after`, in order."""
    return [_build_seal(row, row["cases"]) for row in await db.fetch(_SQL["seal_page"], after, limit)]


async def load_stored_leaves(db: Database, leaves: Sequence[Leaf]) -> list[StoredLeaf]:
    """Return what the database holds for each of `leaves`."""
    rows = await db.fetch(
        _SQL["sealed_heads"],
        *columns(leaves, "account_id", "case_no", "revision"),
    )
    by_row = {(leaf.account_id, leaf.case_no, leaf.revision): leaf for leaf in leaves}
    return [
        StoredLeaf(
            by_row[row["account_id"], row["case_no"], row["revision"]],
            row["head"],
            row["stands_at"],
            row["ended_at"] is not None,
        )
        for row in rows
    ]


async def load_ended_between(db: Database, after: datetime, until: datetime, limit: int) -> list[Key]:
    """Return up to `limit` cases that ended after `after` and no later than `until`."""
    rows = await db.fetch(_SQL["ended_between"], after, until, limit)
    return [(row["account_id"], row["case_no"]) for row in rows]
