"""Answers kept for repeated mutations, claimed in the mutation's own transaction (design.md, "Security").

A key is scoped to the caller and the route. Of two requests with the same key, one executes; the other waits for its
commit and gets the kept answer. A request that fails rolls its claim back with everything else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.errors import IdempotencyReusedError
from jiebang.store.queries import load

if TYPE_CHECKING:
    import asyncpg

    from jiebang.store.cases import Database

_SQL = load("jiebang.store", "requests.sql")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key for one mutation. `body_hash` is keyed: a body may hold a code or a password."""

    caller: str
    route: str
    key: str
    body_hash: bytes
    expires_at: datetime


class Kept(msgspec.Struct, frozen=True):
    """An answer as it was given: its status and its bytes."""

    status: int
    answer: bytes


async def recall(db: Database, claim: Claim, now: datetime) -> Kept | None:
    """Return the answer kept for the claim's key, if any. Raises IdempotencyReusedError for another body."""
    row = await db.fetchrow(_SQL["kept_answer"], claim.caller, claim.route, claim.key, now)
    if row is None:
        return None
    if row["body_hash"] != claim.body_hash:
        raise IdempotencyReusedError
    return None if row["status"] is None else Kept(row["status"], row["answer"])


async def take(db: Database, claim: Claim, now: datetime) -> Kept | None:
    """Claim the key; None: the caller of this function now carries the mutation out.

    Waits for another transaction that holds the same key. Raises IdempotencyReusedError for another body. A key claimed
    and committed without an answer (a mutation of another database that was cut off) may be carried out again.
    """
    taken = await db.fetchval(
        _SQL["claim_key"], claim.caller, claim.route, claim.key, claim.body_hash, claim.expires_at, now
    )
    return None if taken else await recall(db, claim, now)


async def keep(db: Database, claim: Claim, kept: Kept) -> None:
    """Keep the answer of a claimed key; the first one stays."""
    await db.execute(_SQL["keep_answer"], claim.caller, claim.route, claim.key, kept.status, kept.answer)


async def purge(db: Database, now: datetime, limit: int) -> int:
    """Delete up to `limit` keys whose lifetime has run out; return how many."""
    done: str = await db.execute(_SQL["purge_keys"], now, limit)
    return int(done.rpartition(" ")[2])


class Answered(msgspec.Struct, frozen=True):
    """The answer of a mutation, and whether it was given before."""

    kept: Kept
    replayed: bool


async def once(
    pool: asyncpg.Pool[asyncpg.Record], claim: Claim, now: datetime, work: Callable[[Database], Awaitable[Kept]]
) -> Answered:
    """Carry out `work` in a transaction that also claims the key and keeps the answer; or return the kept answer.

    Raises what `work` raises, with nothing done and nothing claimed, and IdempotencyReusedError.
    """
    async with pool.acquire() as connection, connection.transaction():
        kept = await take(connection, claim, now)
        if kept is not None:
            return Answered(kept, replayed=True)
        kept = await work(connection)
        await keep(connection, claim, kept)
        return Answered(kept, replayed=False)
