"""Wrong tries at proofs, by when they were made. They count over all cases and remedies of an account."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from jiebang.store.postgres.named_sql import columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "wrong_tries.sql")


class TriedProof(StrEnum):
    """What a wrong try was made at: one proof of a case, the proofs of a remedy, or freeing locked proofs."""

    PAYMENT_PASSWORD = "payment_password"  # noqa: S105 - the name of a method, not a password
    SMS_CODE = "sms_code"
    DOCUMENT = "document"
    REMEDY = "remedy"
    UNLOCK = "unlock"


class WrongTry(msgspec.Struct, frozen=True, kw_only=True):
    """One wrong try. `try_id`: unique."""

    account_id: int
    try_id: UUID
    proof: TriedProof


class TriesMade(msgspec.Struct, frozen=True):
    """How many wrong tries were made at one proof, and when the last was."""

    made: int
    last_at: datetime


async def count(db: Database, accounts: Iterable[int], since: datetime) -> Mapping[int, Mapping[TriedProof, TriesMade]]:
    """Count the wrong tries that accounts made since a time and since they last freed their proofs."""
    found: defaultdict[int, dict[TriedProof, TriesMade]] = defaultdict(dict)
    for row in await db.fetch(_SQL["wrong_tries"], sorted(set(accounts)), since):
        found[row["account_id"]][TriedProof(row["proof"])] = TriesMade(row["made"], row["last_at"])
    return found


async def add(
    db: Database, tries: Sequence[WrongTry], now: datetime, since: datetime, forget: datetime, tell_after: int
) -> set[int]:
    """Record wrong tries made now; return the accounts whose owners are to be told of theirs.

    That is at the `tell_after`-th try after `since`, once. Tries until `forget` are dropped.
    """
    rows = await db.fetch(
        _SQL["add_wrong_tries"],
        *columns(tries, "account_id", "try_id", "proof"),
        now,
        since,
        forget,
        tell_after,
    )
    return {row["account_id"] for row in rows}


async def free(db: Database, accounts: Iterable[int], now: datetime) -> None:
    """Settle the wrong tries that accounts made until now, so that their proofs are judged again."""
    await db.execute(_SQL["free_proofs"], sorted(set(accounts)), now)
