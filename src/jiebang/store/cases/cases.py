"""Cases in the platform's database. Every function takes a batch and executes one statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from jiebang.model.case import BROKEN_OFF, ENDED, WITHDRAWABLE, Case, Key, Kind, Mark, State, bucket_of
from jiebang.saga.batch import Save, SaveOutcome
from jiebang.saga.chain import canonical, digest, head, time_text
from jiebang.saga.coordinator import condition
from jiebang.store.cases.allowances import UNLIMITED, Allowance
from jiebang.store.checks import quota
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "cases.sql")


class NewCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case to open: `participants` of its plan, and when it expires unless proven.

    `device_id`, `by_service`: who opens it, as in `Origin`. `codes`, `messages`: how many it causes until its end,
    counted against what the account is allowed.
    """

    account_id: int
    kind: Kind
    plan: str
    participants: int
    due_at: datetime
    device_id: str | None = None
    document_index: bytes | None = None
    by_service: bool = False
    codes: int = 0
    messages: int = 0


class SaveResult(SaveOutcome, frozen=True, kw_only=True, gc=False):
    """The result of saving `saves`. `digests`: of each group's timeline row."""

    saves: Sequence[Save]
    digests: Sequence[bytes]

    def kept(self) -> dict[Key, Case]:
        """Return the saved cases as they are now: with new heads, and with a wish to withdraw that came meanwhile.

        A case that is missing was not saved: nothing may be sent for it.
        """
        return {
            case.key: msgspec.structs.replace(
                case,
                **condition(save.stepped),
                head=head(case.head, digest),
                withdraw_at=self.wishes.get(case.key),
            )
            for save, digest in zip(self.saves, self.digests, strict=True)
            for case in save.cases
            if case.key not in self.lost
        }


_KINDS, _STATES = {kind.value: kind for kind in Kind}, {state.value: state for state in State}


def from_row(row: asyncpg.Record) -> Case:
    """Build a case from its row: all columns of the table in their order; further columns are ignored.

    By position, because looking columns up by name took half of the time that a worker spent on a row.
    """
    (
        account_id,
        case_no,
        _bucket,
        kind,
        state,
        plan,
        marks,
        versions,
        wallet_version,
        revision,
        attempt,
        created_at,
        due_at,
        rests_until,
        deadline,
        withdraw_at,
        _ended_at,
        reason,
        device_id,
        document_index,
        head,
        by_service,
        *_,
    ) = row
    return Case(
        account_id=account_id,
        case_no=case_no,
        kind=_KINDS[kind],
        state=_STATES[state],
        plan=plan,
        marks=marks,
        revision=revision,
        created_at=created_at,
        due_at=rests_until or due_at,
        deadline=deadline,
        attempt=attempt,
        versions=tuple(versions),
        wallet_version=wallet_version,
        withdraw_at=withdraw_at,
        reason=reason,
        device_id=device_id,
        document_index=document_index,
        head=head,
        by_service=by_service,
    )


async def insert(
    db: Database,
    new: Sequence[NewCase],
    now: datetime,
    entries: Sequence[Mapping[str, Any]],
    allowance: Allowance = UNLIMITED,
) -> dict[int, Case]:
    """Open a case for each account that has no live one, and return them by account.

    An account that is missing has a live case, is unknown, or is beyond its allowance.
    """
    ordered = sorted(new, key=lambda case: case.account_id)
    text = canonical(entries)
    rows = await db.fetch(
        _SQL["insert_cases"],
        [case.account_id for case in ordered],
        [bucket_of(case.account_id) for case in ordered],
        *columns(ordered, "kind", "plan"),
        [Mark.UNSENT.value * case.participants for case in ordered],
        *columns(ordered, "due_at", "device_id", "document_index"),
        now,
        text,
        digest(1, time_text(now), text),
        *columns(ordered, "by_service", "codes", "messages"),
        allowance.since,
        allowance.case_pause,
        allowance.cases,
        allowance.codes,
        allowance.messages,
    )
    return {row["account_id"]: from_row(row) for row in rows}


async def set_documents(db: Database, documents: Mapping[Key, bytes]) -> set[Key]:
    """Set the blind index of the document whose quota each open case uses: that of the identity which it brings.

    Returns the cases that are open; each is locked until the transaction ends.
    """
    keys = sorted(documents)
    rows = await db.fetch(_SQL["set_documents"], *key_columns(keys), [documents[key] for key in keys])
    return {(row["account_id"], row["case_no"]) for row in rows}


async def load_many(db: Database, keys: Iterable[Key]) -> dict[Key, Case]:
    """Return the cases of `keys` that exist, by key."""
    rows = await db.fetch(_SQL["load_cases"], *key_columns(keys))
    return {(row["account_id"], row["case_no"]): from_row(row) for row in rows}


async def load_live(db: Database, accounts: Iterable[int]) -> dict[int, Case]:
    """Return the live case of each account that has one."""
    rows = await db.fetch(_SQL["live_cases"], sorted(accounts))
    return {row["account_id"]: from_row(row) for row in rows}


async def load_of_accounts(db: Database, accounts: Iterable[int]) -> list[Case]:
    """Return every case of the accounts, including ended ones."""
    return [from_row(row) for row in await db.fetch(_SQL["cases_of_accounts"], sorted(accounts))]


async def load_account_page(db: Database, after: int, limit: int) -> list[int]:
    """Return the next `limit` accounts above `after`, in key order."""
    return [row["account_id"] for row in await db.fetch(_SQL["account_page"], after, limit)]


async def load_due(
    db: Database, buckets: Sequence[int], now: datetime, limit: int, but: Iterable[int] = ()
) -> list[Case]:
    """Return up to `limit` due cases of `buckets`, except those of the accounts `but`, the oldest first.

    At most twice its fair share of `limit` is read of each bucket; more only where the other buckets hold too few.
    """
    if not buckets:
        return []
    share, excluded = -(-2 * limit // len(buckets)), list(but)
    rows = await db.fetch(_SQL["due_cases"], sorted(buckets), now, limit, share, excluded)
    if len(rows) < limit and share < limit and share in Counter(row["bucket"] for row in rows).values():
        rows = await db.fetch(_SQL["due_cases"], sorted(buckets), now, limit, limit, excluded)
    return [from_row(row) for row in rows]


async def save(db: Database, saves: Sequence[Save], now: datetime) -> SaveResult:
    """Save stepped cases, guarded by revision and by a wish to withdraw.

    A case that is broken off releases its quota slot in the same transaction.
    """
    if not saves:
        return SaveResult(saves=(), digests=())
    arguments, digests = _build_arguments(saves, now)
    broken_off = [
        case
        for save in saves
        if save.stepped.state in BROKEN_OFF
        for case in save.cases
        if case.document_index is not None
    ]
    if broken_off:
        async with _transaction(db) as connection:
            [answer] = await connection.fetch(_SQL["save_cases"], *arguments)
            lost = _find_lost(saves, answer)
            # A separate statement: the save may have waited for a claim whose slot its own snapshot does not show.
            await quota.release(connection, [case for case in broken_off if case.key not in lost])
    else:
        [answer] = await db.fetch(_SQL["save_cases"], *arguments)
        lost = _find_lost(saves, answer)
    withdrawing = _keys(answer["withdrawing"], answer["withdrawing_no"])
    wishes = dict(zip(withdrawing, answer["withdrawn_at"] or (), strict=True))
    return SaveResult(saves=saves, digests=digests, lost=lost, wishes=wishes)


def _build_arguments(saves: Sequence[Save], now: datetime) -> tuple[list[Any], list[bytes]]:
    """Return the arguments of `save_cases`, and the digest of each group's timeline row."""
    firsts, at = [save.stepped for save in saves], time_text(now)
    entries = [canonical(save.entries) for save in saves]
    digests = [digest(first.revision, at, text) for first, text in zip(firsts, entries, strict=True)]
    own = _own_columns([(case, group, save.versions) for group, save in enumerate(saves) for case in save.cases])
    arguments = [
        *own,
        range(len(saves)),
        *columns(firsts, "revision", "state", "marks", "attempt", "due_at", "deadline", "reason"),
        [case.state in ENDED for case in firsts],
        entries,
        [save.template for save in saves],
        digests,
        now,
    ]
    return arguments, digests


def _own_columns(rows: list[tuple[Case, int, bool]]) -> list[Any]:
    """Return the columns that differ from case to case; `unnest` fills a column that ends early with NULL.

    Rows are written in key order, so that two saves cannot deadlock.
    """
    grouped = rows[-1][1] > 0
    if grouped:
        rows.sort(key=lambda row: row[0].key)
    versions = any(row[2] for row in rows)
    return [
        [case.account_id for case, _, _ in rows],
        [case.case_no for case, _, _ in rows],
        [group for _, group, _ in rows] if grouped else [],
        [format_array(case.versions) if written else None for case, _, written in rows] if versions else [],
        [case.wallet_version if written else None for case, _, written in rows] if versions else [],
    ]


@lru_cache(maxsize=4_096)
def format_array(versions: tuple[int, ...]) -> str:
    """Return versions as a PostgreSQL array literal. Cached: most cases of a batch have the same versions."""
    return "{" + ",".join(map(str, versions)) + "}"


def _find_lost(saves: Sequence[Save], answer: asyncpg.Record) -> AbstractSet[Key]:
    """Return the cases whose save the guard refused."""
    if answer["saved"] == sum(len(save.cases) for save in saves):
        return frozenset()
    return {case.key for save in saves for case in save.cases}.difference(_keys(answer["accounts"], answer["case_nos"]))


def _keys(accounts: Sequence[int] | None, case_nos: Sequence[int] | None) -> list[Key]:
    return list(zip(accounts or (), case_nos or (), strict=True))


async def look_again_at(db: Database, keys: Iterable[Key], due_at: datetime) -> None:
    """Make cases under way due at `due_at`, without deciding anything about them."""
    await db.execute(_SQL["put_off_cases"], *key_columns(keys), due_at)


async def put_off(db: Database, keys: Iterable[Key], due_at: datetime) -> None:
    """Postpone cases that could not be stepped until `due_at`, without saving a step."""
    await look_again_at(db, keys, due_at)


async def wish_withdraw(db: Database, keys: Iterable[Key], now: datetime) -> set[Key]:
    """Record a wish to withdraw; return the keys for which it can still win."""
    rows = await db.fetch(
        _SQL["wish_withdraw"],
        *key_columns(keys),
        now,
        [state.value for state in WITHDRAWABLE],
    )
    return {(row["account_id"], row["case_no"]) for row in rows}


@asynccontextmanager
async def _transaction(db: Database) -> AsyncIterator[Database]:
    """Open a transaction on a connection of the pool; on a connection, one nested in the transaction it is in."""
    if isinstance(db, asyncpg.Pool):
        async with db.acquire() as connection, connection.transaction():
            yield connection
    else:
        async with db.transaction():
            yield db
