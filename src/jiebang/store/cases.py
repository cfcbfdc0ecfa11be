"""Cases and their timeline in the platform's database. Every function takes a batch and one statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import msgspec

from jiebang.model.case import BROKEN_OFF, ENDED, WITHDRAWABLE, Case, Kind, Mark, State, bucket_of
from jiebang.saga.chain import canonical, digest, head, time_text
from jiebang.saga.timeline import told
from jiebang.store import quota
from jiebang.store.queries import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpg.pool import PoolConnectionProxy

    from jiebang.store.records import Record

    Database = asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

Key = tuple[int, int]
"""(account_id, case_no)."""

_SQL = load("jiebang.store", "queries.sql")


class NewCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case to open: `participants` of its plan, and when it expires unless proven."""

    account_id: int
    kind: Kind
    plan: str
    participants: int
    due_at: datetime
    device_id: str | None = None
    document_index: bytes | None = None


class Save(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stepped case with its timeline entries, and the message its end sends to the person, if any.

    `record`: the check that ended it, for `Records.keep` in the same transaction; `save` itself does not write it.
    `versions`: whether the case's versions and wallet_version are to be written too, or stand as they are.
    Saves that share the very same `entries` are told of once.
    """

    case: Case
    entries: Sequence[Mapping[str, Any]]
    template: str | None = None
    message_id: UUID | None = None
    record: Record | None = None
    versions: bool = True


class Timeline(msgspec.Struct, frozen=True):
    """One row of a case's timeline: what one save did and had learnt, entry by entry (`saga.timeline.told`)."""

    account_id: int
    case_no: int
    revision: int
    at: datetime
    entries: list[dict[str, Any]]


_KINDS, _STATES = {kind.value: kind for kind in Kind}, {state.value: state for state in State}


def from_row(row: asyncpg.Record) -> Case:
    """Build a case from its row, here and nowhere else."""
    return Case(
        account_id=row["account_id"],
        case_no=row["case_no"],
        kind=_KINDS[row["kind"]],
        state=_STATES[row["state"]],
        plan=row["plan"],
        marks=row["marks"],
        revision=row["revision"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        deadline=row["deadline"],
        attempt=row["attempt"],
        versions=tuple(row["versions"]),
        wallet_version=row["wallet_version"],
        withdraw_at=row["withdraw_at"],
        reason=row["reason"],
        device_id=row["device_id"],
        document_index=row["document_index"],
        head=row["head"],
    )


async def insert(
    db: Database, new: Sequence[NewCase], now: datetime, entries: Sequence[Mapping[str, Any]]
) -> dict[int, Case]:
    """Open a case for each account that has none alive, and return them by account.

    An account left out has a live case or is unknown.
    """
    ordered = sorted(new, key=lambda case: case.account_id)
    told = canonical(entries)
    rows = await db.fetch(
        _SQL["insert_cases"],
        [case.account_id for case in ordered],
        [bucket_of(case.account_id) for case in ordered],
        [case.kind.value for case in ordered],
        [case.plan for case in ordered],
        [Mark.UNSENT.value * case.participants for case in ordered],
        [case.due_at for case in ordered],
        [case.device_id for case in ordered],
        [case.document_index for case in ordered],
        now,
        told,
        digest(1, time_text(now), told),
    )
    return {row["account_id"]: from_row(row) for row in rows}


async def load_many(db: Database, keys: Iterable[Key]) -> dict[Key, Case]:
    """Return the cases of `keys` that exist, by key."""
    ordered = sorted(keys)
    rows = await db.fetch(_SQL["load_cases"], [key[0] for key in ordered], [key[1] for key in ordered])
    return {(row["account_id"], row["case_no"]): from_row(row) for row in rows}


async def live(db: Database, accounts: Iterable[int]) -> dict[int, Case]:
    """Return the live case of each account that has one."""
    rows = await db.fetch(_SQL["live_cases"], sorted(accounts))
    return {row["account_id"]: from_row(row) for row in rows}


class Agreed(msgspec.Struct, frozen=True):
    """One standing consent as a check reads it: rule, ids it covers (none: the whole), its case (None: any), when."""

    code: str
    what: tuple[str, ...]
    case_no: int | None
    at: str


class Known(msgspec.Struct, frozen=True):
    """What our own store knows of an account: the number of its live case, if it has one, and its consents.

    `out`: who is out of service, by participant since when (RFC 3339); the same for every account.
    """

    case_no: int | None
    consents: tuple[Agreed, ...] = ()
    out: Mapping[str, str] = MappingProxyType({})

    def agreed(self, case_no: int | None) -> list[dict[str, str | None]]:
        """Return the items of the fact `consents` for a check made for case `case_no` (None: for none yet)."""
        return [
            {"code": one.code, "item": item, "at": one.at}
            for one in self.consents
            if one.case_no in (None, case_no)
            for item in one.what or (None,)
        ]


async def known(db: Database, accounts: Iterable[int]) -> dict[int, Known]:
    """Return those of `accounts` that exist, each with its live case and consents, and who is out of service."""
    rows = await db.fetch(_SQL["known_accounts"], sorted(set(accounts)))
    out = msgspec.json.decode(rows[0]["out"], type=dict[str, str]) if rows and rows[0]["out"] else {}
    return {
        row["account_id"]: Known(
            row["case_no"],
            msgspec.json.decode(row["consents"], type=tuple[Agreed, ...]) if row["consents"] else (),
            out,
        )
        for row in rows
    }


async def of_accounts(db: Database, accounts: Iterable[int]) -> list[Case]:
    """Return every case of the accounts, ended ones too."""
    return [from_row(row) for row in await db.fetch(_SQL["cases_of_accounts"], sorted(accounts))]


async def account_page(db: Database, after: int, limit: int) -> list[int]:
    """Return the next `limit` accounts above `after`, in key order."""
    return [row["account_id"] for row in await db.fetch(_SQL["account_page"], after, limit)]


async def due(db: Database, buckets: Sequence[int], now: datetime, limit: int) -> list[Case]:
    """Return up to `limit` due cases of `buckets`, the oldest first.

    Of each bucket twice its share at most is read, however many wait there; all of it only where others hold too few.
    """
    if not buckets:
        return []
    share = -(-2 * limit // len(buckets))
    rows = await db.fetch(_SQL["due_cases"], sorted(buckets), now, limit, share)
    if len(rows) < limit and share < limit and share in Counter(row["bucket"] for row in rows).values():
        rows = await db.fetch(_SQL["due_cases"], sorted(buckets), now, limit, limit)
    return [from_row(row) for row in rows]


async def save(db: Database, saves: Iterable[Save], now: datetime) -> dict[Key, Case]:
    """Save stepped cases, guarded by revision and by a wish to withdraw; return those that were saved.

    A returned case carries its new head, and a wish to withdraw that came meanwhile. What is missing was not saved:
    nothing of it may be sent. A case that is broken off gives its slot of a quota back in the same transaction.
    """
    ordered = sorted(saves, key=lambda save: save.case.key)
    if not ordered:
        return {}
    cases = [save.case for save in ordered]
    arguments, group_of, digests = _grouped(ordered, now)
    broken_off = [case for case in cases if case.document_index is not None and case.state in BROKEN_OFF]
    if broken_off:
        async with _transaction(db) as connection:
            [answer] = await connection.fetch(_SQL["save_cases"], *arguments)
            lost = _lost(cases, answer)
            # A statement of its own: the save may have waited for a claim, whose slot its own view does not show.
            await quota.release(connection, [case for case in broken_off if case.key not in lost])
    else:
        [answer] = await db.fetch(_SQL["save_cases"], *arguments)
        lost = _lost(cases, answer)
    withdrawing = _keys(answer["withdrawing"], answer["withdrawing_no"])
    wishes = dict(zip(withdrawing, answer["withdrawn_at"] or (), strict=True))
    return {
        case.key: msgspec.structs.replace(
            case, head=head(case.head, digests[group]), withdraw_at=wishes.get(case.key) if wishes else None
        )
        for case, group in zip(cases, group_of, strict=True)
        if not lost or case.key not in lost
    }


def _grouped(ordered: Sequence[Save], now: datetime) -> tuple[list[Any], list[int], list[bytes]]:
    """Return the arguments of a save, the group of each of its cases, and the digest of each group's timeline row."""
    cases = [save.case for save in ordered]
    groups: dict[tuple[Any, ...], int] = {}
    group_of = [
        groups.setdefault(
            (
                id(save.entries),
                case.revision,
                case.state,
                case.marks,
                case.attempt,
                case.due_at,
                case.deadline,
                case.reason,
                save.template,
            ),
            len(groups),
        )
        for save, case in zip(ordered, cases, strict=True)
    ]
    told, revisions, states, marks, attempts, due, deadlines, reasons, templates = zip(*groups, strict=True)
    shared, at = {id(save.entries): save.entries for save in ordered}, time_text(now)
    texts = {each: canonical(entries) for each, entries in shared.items()}
    digests = [digest(revision, at, texts[each]) for revision, each in zip(revisions, told, strict=True)]
    versions = any(save.versions for save in ordered)
    arguments = [
        [case.account_id for case in cases],
        [case.case_no for case in cases],
        group_of,
        # Arrays that end early are filled with NULL: what stands is kept.
        ["{" + ",".join(map(str, save.case.versions)) + "}" if save.versions else None for save in ordered]
        if versions
        else [],
        [case.wallet_version for case in cases] if versions else [],
        [save.message_id for save in ordered] if any(templates) else [],
        range(len(groups)),
        revisions,
        states,
        marks,
        attempts,
        due,
        deadlines,
        reasons,
        [state in ENDED for state in states],
        [texts[each] for each in told],
        templates,
        digests,
        now,
    ]
    return arguments, group_of, digests


def _lost(cases: Sequence[Case], answer: asyncpg.Record) -> set[Key]:
    """Return the cases whose save was refused by its guard."""
    if answer["saved"] == len(cases):
        return set()
    return {case.key for case in cases}.difference(_keys(answer["accounts"], answer["case_nos"]))


def _keys(accounts: Sequence[int] | None, case_nos: Sequence[int] | None) -> list[Key]:
    return list(zip(accounts or (), case_nos or (), strict=True))


async def put_off(db: Database, keys: Iterable[Key], due_at: datetime) -> None:
    """Let cases wait until `due_at` that could not be stepped: nothing was decided of them, and nothing is saved."""
    ordered = sorted(keys)
    await db.execute(_SQL["put_off_cases"], [key[0] for key in ordered], [key[1] for key in ordered], due_at)


async def wish_withdraw(db: Database, keys: Iterable[Key], now: datetime) -> set[Key]:
    """Record a wish to withdraw; return the keys for which it can still win."""
    ordered = sorted(keys)
    rows = await db.fetch(
        _SQL["wish_withdraw"],
        [key[0] for key in ordered],
        [key[1] for key in ordered],
        now,
        [state.value for state in WITHDRAWABLE],
    )
    return {(row["account_id"], row["case_no"]) for row in rows}


async def events_after(db: Database, seen: Mapping[Key, int]) -> list[Timeline]:
    """Return the timelines of several cases, each after the revision given for it (0: from the beginning)."""
    ordered = sorted(seen)
    rows = await db.fetch(
        _SQL["events_after"],
        [key[0] for key in ordered],
        [key[1] for key in ordered],
        [seen[key] for key in ordered],
    )
    return [
        Timeline(
            row["account_id"],
            row["case_no"],
            row["revision"],
            row["at"],
            told(msgspec.json.decode(row["entries"], type=list[dict[str, Any]])),
        )
        for row in rows
    ]


@asynccontextmanager
async def _transaction(db: Database) -> AsyncIterator[Database]:
    """A transaction on a pool's connection; on a connection, a part of the transaction it is in."""
    if isinstance(db, asyncpg.Pool):
        async with db.acquire() as connection, connection.transaction():
            yield connection
    else:
        async with db.transaction():
            yield db
