"""What operators decided that every process heeds: participants out of service, recoveries, wishes to workers."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from jiebang.model.case import ENDED, Case, bucket_of
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.store.cases import array_text
from jiebang.store.queries import load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jiebang.model.case import Key
    from jiebang.store.cases import Database

_SQL = load("jiebang.store", "operating.sql")

Wish = Literal["run", "pause", "drain"]


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """A participant out of service: since when, why and by whom. `reason` is for operators, never shown to persons."""

    participant: str
    since: datetime
    reason: str
    by: str
    back_at: datetime | None = None
    back_by: str | None = None


class Operating(msgspec.Struct, frozen=True):
    """The state that every process polls. `recovering_since`: since when a recovery stops claims and new cases."""

    recovering_since: datetime | None = None
    outages: tuple[Outage, ...] = ()


class RecoveryRun(msgspec.Struct, frozen=True, kw_only=True):
    """One recovery. `found`: what it counted, once it has ended."""

    recovery_no: int
    restored: tuple[str, ...]
    begun_by: str
    begun_at: datetime
    ended_at: datetime | None = None
    found: Mapping[str, Any] | None = None


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as its heartbeat tells. `oldest_due_at`: since when the oldest due case of its buckets waits."""

    worker_id: str
    seen_until: datetime
    state: str
    wish: str
    wished_by: str | None
    wished_at: datetime | None
    buckets: int
    oldest_due_at: datetime | None


async def state(db: Database) -> Operating:
    """Return what is decided now."""
    row = await db.fetchrow(_SQL["operating_state"])
    if row is None:
        return Operating()
    outages = msgspec.json.decode(row["outages"], type=tuple[Outage, ...]) if row["outages"] else ()
    return Operating(row["recovering_since"], outages)


async def outages(db: Database, limit: int) -> list[Outage]:
    """Return outages, past ones too, the latest first."""
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
    """Take participants out of service; what is out stays out since when it was."""
    await db.execute(_SQL["take_out"], sorted(participants), now, reason, by)


async def take_back(db: Database, participants: Collection[str], by: str, now: datetime) -> None:
    """Put participants back into service."""
    await db.execute(_SQL["take_back"], sorted(participants), now, by)


async def begin_recovery(db: Database, restored: Collection[str], by: str, now: datetime) -> RecoveryRun:
    """Begin a recovery, or go on with the one under way; what was restored adds up."""
    [row] = await db.fetch(_SQL["begin_recovery"], sorted(restored), by, now)
    return RecoveryRun(**{**row, "restored": tuple(row["restored"])})


async def end_recovery(db: Database, run: RecoveryRun, found: Mapping[str, Any], now: datetime) -> None:
    """End it: cases are claimed and opened again."""
    await db.execute(_SQL["end_recovery"], run.recovery_no, now, msgspec.json.encode(found).decode())


async def recoveries(db: Database, limit: int) -> list[RecoveryRun]:
    """Return the recoveries there were, the latest first."""
    return [
        RecoveryRun(
            **{
                **row,
                "restored": tuple(row["restored"]),
                "found": msgspec.json.decode(row["found"]) if row["found"] else None,
            }
        )
        for row in await db.fetch(_SQL["last_recoveries"], limit)
    ]


async def wish(db: Database, workers: Sequence[str] | None, wanted: Wish, by: str, now: datetime) -> list[str]:
    """Record what is wanted of `workers` (None: of all); return those that live and will read it."""
    ids = None if workers is None else sorted(workers)
    return sorted(row["worker_id"] for row in await db.fetch(_SQL["wish_of_workers"], ids, wanted, by, now))


async def workers(db: Database, now: datetime) -> list[WorkerSeen]:
    """Return every worker that lives, or died within the hour."""
    return [WorkerSeen(**row) for row in await db.fetch(_SQL["workers"], now)]


async def numbers(db: Database, after: int, upto: int, limit: int) -> dict[int, int]:
    """Return the last case number of accounts above `after` up to `upto`, the first `limit` in key order."""
    return {row["account_id"]: row["last_case_no"] for row in await db.fetch(_SQL["numbers_of"], after, upto, limit)}


async def numbers_among(db: Database, accounts: Collection[int]) -> dict[int, int]:
    """Return the last case number of each of these accounts; one that is unknown is absent."""
    return {row["account_id"]: row["last_case_no"] for row in await db.fetch(_SQL["numbers_among"], sorted(accounts))}


async def raise_numbers(db: Database, last: Mapping[int, int], now: datetime) -> int:
    """Raise case numbers by account, making the accounts that are missing; return how many accounts that touched."""
    ordered = sorted(last.items())
    done = await db.execute(_SQL["raise_numbers"], [one[0] for one in ordered], [one[1] for one in ordered], now)
    return int(done.rpartition(" ")[2])


async def forget_wishes(db: Database, cases: Iterable[Case]) -> None:
    """Take wishes to withdraw from cases as they were read."""
    ordered = sorted(cases, key=lambda case: case.key)
    columns = ([getattr(case, name) for case in ordered] for name in ("account_id", "case_no", "revision"))
    await db.execute(_SQL["forget_wishes"], *columns)


async def make_again(db: Database, made: Mapping[Case, Sequence[Mapping[str, Any]]], now: datetime) -> set[Key]:
    """Insert cases that the platform lost, each with its number, its state and its first timeline entries.

    Return those that were inserted.
    """
    cases = sorted(made, key=lambda case: case.key)
    told = [canonical(made[case]) for case in cases]
    rows = await db.fetch(
        _SQL["make_again"],
        [case.account_id for case in cases],
        [case.case_no for case in cases],
        [bucket_of(case.account_id) for case in cases],
        [case.kind.value for case in cases],
        [case.state.value for case in cases],
        [case.plan for case in cases],
        [case.marks for case in cases],
        [case.due_at for case in cases],
        [case.reason for case in cases],
        [array_text(case.versions) for case in cases],
        [case.state in ENDED for case in cases],
        now,
        told,
        [digest(1, time_text(now), entries) for entries in told],
    )
    return {(row["account_id"], row["case_no"]) for row in rows}
