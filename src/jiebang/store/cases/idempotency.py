"""One answer for a mutation and all its repeats: the first that is kept (docs/decisions/0007).

A key is scoped to the caller and the route. Whoever keeps an answer first, a refusal too, has decided: every other
request under the key, however late it lands, is told the same and does nothing.
`once` is the way through, and a mutation ends in one of two:

- What it does and its answer are one transaction of ours. Another under the same key waits for it.
- It works in another's database. Then the key is claimed and committed first, `held` for a while by one request; others
  meet IdempotencyInUseError. A holder that died lets go when that while has passed, and one that was taken for dead
  finds its claim gone when it comes to `keep`.

Within a transaction the key is locked before anything else, so that nobody waits crosswise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
import msgspec

from jiebang.model.errors import IdempotencyInUseError, IdempotencyReusedError
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database, Pool

_SQL = load("jiebang.store.cases", "idempotency.sql")
_COME_BACK_S: Final = 1


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """How repeated requests are met."""

    kept: timedelta = timedelta(hours=24)
    """How long an answer is kept for its Idempotency-Key."""
    held: timedelta = timedelta(seconds=30)
    """How long one request may hold a key without an answer. It gives up by then; if it died, a repeat goes on then."""
    wait: timedelta = timedelta(seconds=1)
    """How long a repeat waits for the answer of one that holds the key, before it is told to come back."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key for one mutation. `body_hash` is keyed: a body may hold a code or a password.

    `holder`: this one request, another for each repeat. `held`: how long it may hold the key without an answer.
    """

    caller: str
    route: str
    key: str
    body_hash: bytes
    expires_at: datetime
    holder: UUID
    held: timedelta = Repeats().held


class Kept(msgspec.Struct, frozen=True):
    """An answer as it was given: its status and its bytes."""

    status: int
    answer: bytes


async def recall(db: Database, claim: Claim, now: datetime) -> Kept | None:
    """Return the answer kept for the claim's key, if any.

    Raises IdempotencyReusedError for another body and IdempotencyInUseError while a request holds the key.
    """
    row = await db.fetchrow(_SQL["kept_answer"], claim.caller, claim.route, claim.key, now)
    if row is None:
        return None
    if row["body_hash"] != claim.body_hash:
        raise IdempotencyReusedError
    if row["status"] is not None:
        return Kept(row["status"], row["answer"])
    if row["held_until"] > now:
        raise IdempotencyInUseError(retry_after_s=_COME_BACK_S)
    return None


def _claimed(claim: Claim, now: datetime) -> tuple[object, ...]:
    """Return what a statement that writes a claim's row begins with."""
    return claim.caller, claim.route, claim.key, claim.body_hash, claim.expires_at, now, claim.holder


async def take(db: Database, claim: Claim, now: datetime) -> Kept | None:
    """Claim the key; None: the caller of this function now carries the mutation out, until `now + claim.held`.

    Waits for another transaction that holds the same key. Raises as `recall` does.
    """
    while not await db.fetchval(_SQL["claim_key"], *_claimed(claim, now), now + claim.held):
        kept = await recall(db, claim, now)
        if kept is not None:
            return kept
        # It was let go of or swept in between: nobody's again.
    return None


async def keep(db: Database, claim: Claim, kept: Kept) -> None:
    """Keep the answer of a claimed key. Raises IdempotencyInUseError where the claim lapsed and another took it over.

    In a transaction it comes before anything else that locks, unless `take` does.
    """
    if not await db.fetchval(
        _SQL["keep_answer"], claim.caller, claim.route, claim.key, kept.status, kept.answer, claim.holder
    ):
        raise IdempotencyInUseError(retry_after_s=_COME_BACK_S)


async def settle(pool: Database, claim: Claim, refusal: Kept, now: datetime) -> Answered:
    """Keep a refusal as the answer under the key; or return what was kept before, for that was told to somebody.

    For a mutation that was refused and left nothing behind. Raises as `recall` does.
    """
    while not await pool.fetchval(_SQL["settle_key"], *_claimed(claim, now), refusal.status, refusal.answer):
        kept = await recall(pool, claim, now)
        if kept is not None:
            return Answered(kept, replayed=True)
    return Answered(refusal, replayed=False)


@asynccontextmanager
async def held(pool: Database, claim: Claim) -> AsyncIterator[None]:
    """Hold a claimed key while its mutation is carried out in another's database.

    Gives up (TimeoutError) when the claim lapses, for from then on a repeat may carry it out; lets go of the key when
    anything is raised, so that a repeat need not wait for that.
    """
    try:
        async with asyncio.timeout(claim.held.total_seconds()):
            yield
    except Exception:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # then it lapses by itself
            await pool.execute(_SQL["release_key"], claim.caller, claim.route, claim.key, claim.holder)
        raise


async def purge(db: Database, now: datetime, limit: int) -> int:
    """Delete up to `limit` keys whose lifetime has run out; return how many."""
    done: str = await db.execute(_SQL["purge_keys"], now, limit)
    return int(done.rpartition(" ")[2])


class Answered(msgspec.Struct, frozen=True):
    """The answer of a mutation, and whether it was given before."""

    kept: Kept
    replayed: bool


Record = Callable[["Database"], Awaitable[None]]
"""Writes down what a mutation did elsewhere, in the transaction that keeps its answer."""
Elsewhere = Callable[[], Awaitable[tuple[Kept, Record | None]]]
"""What a mutation does in another's database, or anew, once its own transaction has committed. Returns its answer."""


async def once(
    pool: Pool, claim: Claim, now: datetime, work: Callable[[Database], Awaitable[Kept | Elsewhere]]
) -> Answered:
    """Carry out `work` in a transaction that also claims the key and keeps the answer; or return the kept answer.

    Where `work` returns what is yet to be done elsewhere, that is done while the key is held, and its answer kept then.
    Raises what either raises, with nothing kept, and as `recall` does. IdempotencyInUseError also when it took so long
    elsewhere that a repeat carries it out now: its answer is this one's too.
    """
    async with pool.acquire() as connection, connection.transaction():
        kept = await take(connection, claim, now)
        if kept is not None:
            return Answered(kept, replayed=True)
        came_to = await work(connection)
        if isinstance(came_to, Kept):
            await keep(connection, claim, came_to)
            return Answered(came_to, replayed=False)
    async with held(pool, claim):
        kept, record = await came_to()
        async with pool.acquire() as connection, connection.transaction():
            # The key first, as above: a repeat holds it while it waits for the record, and would wait crosswise.
            await keep(connection, claim, kept)
            if record is not None:
                await record(connection)
    return Answered(kept, replayed=False)
