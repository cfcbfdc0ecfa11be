"""Consents: bound to exactly the items that the person was shown, and kept as a record after they are withdrawn."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from jiebang.model.case import State
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "consents.sql")


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """A consent to rule `code` for items `what` (none: the whole). `case_no`: the one case it is for; None: any."""

    account_id: int
    code: str
    what: tuple[str, ...]
    given_at: datetime
    case_no: int | None = None
    withdrawn_at: datetime | None = None


class NewConsent(msgspec.Struct, frozen=True, kw_only=True):
    """A consent to record; fields as in `Consent`."""

    account_id: int
    consent_id: UUID
    code: str
    what: tuple[str, ...]
    case_no: int | None = None


def _build_consent(row: asyncpg.Record) -> Consent:
    return Consent(**{**row, "what": tuple(row["what"])})


async def give(db: Database, given: Sequence[NewConsent], now: datetime) -> None:
    """Record consents, each replacing its account's standing one to the same rule. Call within a transaction."""
    await withdraw(db, [(one.account_id, one.code) for one in given], now)
    await db.execute(
        _SQL["give_consents"],
        *columns(given, "account_id", "consent_id", "code"),
        [msgspec.json.encode(one.what).decode() for one in given],
        [one.case_no for one in given],
        now,
    )


async def withdraw(db: Database, keys: Iterable[tuple[int, str]], now: datetime) -> list[Consent]:
    """Withdraw the standing consents of (account, code); return those that were withdrawn."""
    rows = await db.fetch(_SQL["withdraw_consents"], *key_columns(set(keys)), now)
    return [_build_consent(row) for row in rows]


async def lock_live_case(db: Database, account_id: int) -> tuple[int, State] | None:
    """Lock the account's live case until the transaction ends; return its number and state, None where it has none."""
    row = await db.fetchrow(_SQL["lock_live_case"], account_id)
    return None if row is None else (row["case_no"], State(row["state"]))
