"""Which cases may have caused the limits of an account: the newest done ones of each kind, and the one under way."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import Kind, State
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.checks", "limit_causes.sql")


class LimitCause(msgspec.Struct, frozen=True):
    """A case that may have caused a limit."""

    case_no: int
    kind: Kind
    state: State
    created_at: datetime
    ended_at: datetime | None


async def read(db: Database, accounts: Iterable[int]) -> dict[int, list[LimitCause]]:
    """Return the cases of those of `accounts` that exist, by account, in order of their number."""
    found: dict[int, list[LimitCause]] = {}
    for row in await db.fetch(_SQL["read_causes"], sorted(set(accounts))):
        causes = found.setdefault(row["account_id"], [])
        if row["case_no"] is not None:
            causes.append(
                LimitCause(row["case_no"], Kind(row["kind"]), State(row["state"]), row["created_at"], row["ended_at"])
            )
    return found
