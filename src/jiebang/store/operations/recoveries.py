"""Recoveries after a restore from backup: their runs, and the writes that only a recovery may make."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import ENDED, Case, bucket_of
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.store.cases.cases import format_array
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "recoveries.sql")


class RecoveryRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a recovery. `restored`: the databases restored, by participant or "platform"."""

    recovery_no: int
    restored: tuple[str, ...]
    begun_by: str
    begun_at: datetime


async def read_under_way_since(db: Database) -> datetime | None:
    """Return since when a recovery has stopped claims and new cases; None where none is under way."""
    since: datetime | None = await db.fetchval(_SQL["under_way_since"])
    return since


async def begin_recovery(db: Database, restored: Collection[str], by: str, now: datetime) -> RecoveryRun:
    """Begin a recovery, or continue the one under way, adding to what was restored."""
    [row] = await db.fetch(_SQL["begin_recovery"], sorted(restored), by, now)
    return RecoveryRun(**{**row, "restored": tuple(row["restored"])})


async def end_recovery(db: Database, run: RecoveryRun, found: Mapping[str, Any], now: datetime) -> None:
    """End a recovery: from then on cases are claimed and opened again."""
    await db.execute(_SQL["end_recovery"], run.recovery_no, now, msgspec.json.encode(found).decode())


async def load_numbers(db: Database, after: int, upto: int, limit: int) -> dict[int, int]:
    """Return the last case number of accounts above `after` up to `upto`, the first `limit` in key order."""
    return {row["account_id"]: row["last_case_no"] for row in await db.fetch(_SQL["numbers_of"], after, upto, limit)}


async def load_numbers_among(db: Database, accounts: Collection[int]) -> dict[int, int]:
    """Return the last case number of each of these accounts; an unknown one is absent."""
    return {row["account_id"]: row["last_case_no"] for row in await db.fetch(_SQL["numbers_among"], sorted(accounts))}


async def raise_numbers(db: Database, last: Mapping[int, int], now: datetime) -> int:
    """Raise the last case numbers of accounts, inserting missing accounts; return how many accounts changed."""
    status = await db.execute(_SQL["raise_numbers"], *key_columns(last.items()), now)
    return int(status.rpartition(" ")[2])


async def forget_wishes(db: Database, cases: Iterable[Case]) -> None:
    """Delete the wishes to withdraw of cases whose revision is still the one read."""
    ordered = sorted(cases, key=lambda case: case.key)
    await db.execute(_SQL["forget_wishes"], *columns(ordered, "account_id", "case_no", "revision"))


async def recreate_cases(db: Database, made: Mapping[Case, Sequence[Mapping[str, Any]]], now: datetime) -> set[Key]:
    """Insert cases that the platform lost, each with its number, state and first timeline entries.

    Return those that were inserted.
    """
    cases = sorted(made, key=lambda case: case.key)
    entries = [canonical(made[case]) for case in cases]
    rows = await db.fetch(
        _SQL["make_again"],
        *columns(cases, "account_id", "case_no"),
        [bucket_of(case.account_id) for case in cases],
        *columns(cases, "kind", "state", "plan", "marks", "due_at", "reason"),
        [format_array(case.versions) for case in cases],
        [case.state in ENDED for case in cases],
        now,
        entries,
        [digest(1, time_text(now), text) for text in entries],
    )
    return {(row["account_id"], row["case_no"]) for row in rows}
