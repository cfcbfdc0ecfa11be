"""What accounts take up of what policy allows them in a window of time: cases, codes and messages of every kind.

The counts stand in the account's row. A case is counted by the statement that opens it (`cases.insert`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.store.postgres.named_sql import columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "allowances.sql")
_LARGEST: Final = (1 << 31) - 1


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """How much an account may take up in the window that began after `since`.

    `case_pause`: from its last case to the next; none after the first of the window, and longer by as much each time.
    """

    since: datetime
    case_pause: timedelta
    cases: int
    codes: int
    messages: int


UNLIMITED: Final = Allowance(
    since=datetime(9999, 12, 30, tzinfo=UTC),
    case_pause=timedelta(),
    cases=_LARGEST,
    codes=_LARGEST,
    messages=_LARGEST,
)
"""Of a policy that allows any number: its window has never begun."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What one request takes up of an account's allowance beside a case."""

    account_id: int
    codes: int
    messages: int


class TakenUp(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has taken up since `counted_since` (None: nothing yet)."""

    account_id: int
    counted_since: datetime | None
    cases_counted: int
    codes_counted: int
    messages_counted: int
    case_opened_at: datetime | None


async def take_up(db: Database, uses: Sequence[Use], allowance: Allowance, now: datetime) -> set[int]:
    """Count `uses`, one an account; return the accounts that were allowed theirs. Locks them until the end."""
    rows = await db.fetch(
        _SQL["take_up"],
        *columns(uses, "account_id", "codes", "messages"),
        allowance.since,
        now,
        allowance.codes,
        allowance.messages,
    )
    return {row["account_id"] for row in rows}


async def read(db: Database, accounts: Iterable[int]) -> dict[int, TakenUp]:
    """Return what accounts have taken up, by account."""
    rows = await db.fetch(_SQL["taken_up"], sorted(set(accounts)))
    return {row["account_id"]: TakenUp(**row) for row in rows}
