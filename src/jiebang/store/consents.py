"""What people agreed to: bound to exactly the things they were shown, kept as a record after it was taken back."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from jiebang.store.queries import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.store.cases import Database

_SQL = load("jiebang.store", "remedies.sql")


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """A consent to rule `code` for the items `what`. `case_no`: the one case it was given with; None: any."""

    account_id: int
    code: str
    what: tuple[str, ...]
    given_at: datetime
    case_no: int | None = None
    withdrawn_at: datetime | None = None

    def covers(self, case_no: int | None) -> bool:
        """Say whether it speaks for a check made for case `case_no` (None: for none yet)."""
        return self.withdrawn_at is None and self.case_no in (None, case_no)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A consent about to be given. `what` holds at least one id."""

    account_id: int
    consent_id: UUID
    code: str
    what: tuple[str, ...]
    case_no: int | None = None


def _consent(row: asyncpg.Record) -> Consent:
    return Consent(**{**row, "what": tuple(row["what"])})


async def give(db: Database, given: Sequence[Given], now: datetime) -> None:
    """Record consents, each in the place of its account's standing one to the same rule. Call in a transaction."""
    await withdraw(db, [(one.account_id, one.code) for one in given], now)
    await db.execute(
        _SQL["give_consents"],
        [one.account_id for one in given],
        [one.consent_id for one in given],
        [one.code for one in given],
        [msgspec.json.encode(one.what).decode() for one in given],
        [one.case_no for one in given],
        now,
    )


async def withdraw(db: Database, keys: Iterable[tuple[int, str]], now: datetime) -> list[Consent]:
    """Take back the standing consents of (account, code); return those that stood."""
    ordered = sorted(set(keys))
    rows = await db.fetch(_SQL["withdraw_consents"], [key[0] for key in ordered], [key[1] for key in ordered], now)
    return [_consent(row) for row in rows]


async def standing(db: Database, accounts: Iterable[int]) -> dict[int, list[Consent]]:
    """Return what each account has agreed to and not taken back."""
    found: defaultdict[int, list[Consent]] = defaultdict(list)
    for row in await db.fetch(_SQL["standing_consents"], sorted(set(accounts))):
        found[row["account_id"]].append(_consent(row))
    return dict(found)
