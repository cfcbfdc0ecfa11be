"""One answer for a mutation and all its repeats: the first that is stored (docs/decisions/0007).

A key is scoped to the caller and the route. The first stored answer, even a refusal, is final: every other request
under the key, however late it arrives, gets the same answer and does nothing.

`run_once` carries a mutation out in one of two ways:

- The mutation and its answer are one transaction of our database. Another request under the same key waits for it.
- The mutation works in another database. Then the key is claimed and committed first, and held by this request for a
  limited time; others get IdempotencyInUseError. The claim of a request that died expires, and a request that was taken
  for dead finds its claim gone when it calls `keep`.

Within a transaction the key is locked before anything else, which rules out deadlocks.

Answers hold balances, merchants and places of logins: they are stored encrypted, under a key that the claim brings and
no database has, and are read until they expire. Caller, route, key, status and expiry are authenticated: an answer that
was changed, moved to another key or given a longer life does not open. What an earlier version kept stands in clear
until it expires.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jiebang.model.errors import AnswerUnreadableError, IdempotencyInUseError, IdempotencyReusedError
from jiebang.store.encryption import NONCE_BYTES
from jiebang.store.postgres.faults import UNANSWERED
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database, Pool

_SQL = load("jiebang.store.cases", "idempotency.sql")
_COME_BACK_S: Final = 1
_ENCRYPTED: Final = b"\1"
"""The first byte of an encrypted answer; one in clear begins as JSON does."""


class RepeatPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How repeated requests are handled."""

    kept: timedelta = timedelta(hours=24)
    """How long an answer is kept for its Idempotency-Key."""
    held: timedelta = timedelta(seconds=30)
    """How long one request may hold a key without an answer: it gives up by then, and a repeat may take over."""
    wait: timedelta = timedelta(seconds=1)
    """How long a repeat waits for the answer of the request that holds the key, before it is told to retry later."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key for one mutation. Hashes of bodies are keyed: a body may contain a code or a password.

    `body_hash`: of what the body says. `sent_hash`: of its bytes as sent, which earlier versions kept instead: a repeat
    of a request that came before an upgrade is known by it. `answers_key`: 32 bytes, under which the answer is stored;
    a repeat brings the same. `holder`: an id of this one request; a repeat has another. `hold`: how long it may hold
    the key without an answer.
    """

    caller: str
    route: str
    key: str
    body_hash: bytes
    answers_key: bytes
    sent_hash: bytes = b""
    expires_at: datetime
    holder: UUID
    held: timedelta = RepeatPolicy().held


class KeptAnswer(msgspec.Struct, frozen=True):
    """An answer as it was sent: its status and its bytes."""

    status: int
    answer: bytes


async def recall(db: Database, claim: Claim, now: datetime) -> KeptAnswer | None:
    """Return the answer stored for the claim's key, if any.

    Raises IdempotencyReusedError for another body, IdempotencyInUseError while a request holds the key, and
    AnswerUnreadableError for an answer that was changed, or encrypted under another key.
    """
    row = await db.fetchrow(_SQL["kept_answer"], claim.caller, claim.route, claim.key, now)
    if row is None:
        return None
    if row["body_hash"] not in (claim.body_hash, claim.sent_hash):
        raise IdempotencyReusedError
    if row["status"] is not None:
        return KeptAnswer(row["status"], _decrypt(claim, row["status"], row["expires_at"], row["answer"]))
    if row["held_until"] > now:
        raise IdempotencyInUseError(retry_after_s=_COME_BACK_S)
    return None


def _encrypt(claim: Claim, kept: KeptAnswer) -> bytes:
    """Return an answer as it is stored. The nonce is derived: of this request and answer, no other has it."""
    bound = _associated_data(claim, kept.status, claim.expires_at)
    nonce = hmac.digest(claim.answers_key, claim.holder.bytes + bound + kept.answer, hashlib.sha256)[:NONCE_BYTES]
    return _ENCRYPTED + nonce + AESGCM(claim.answers_key).encrypt(nonce, kept.answer, bound)


def _decrypt(claim: Claim, status: int, expires_at: datetime, stored: bytes) -> bytes:
    if not stored.startswith(_ENCRYPTED):
        return stored
    nonce, encrypted = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
    try:
        return AESGCM(claim.answers_key).decrypt(nonce, encrypted, _associated_data(claim, status, expires_at))
    except (InvalidTag, ValueError):
        raise AnswerUnreadableError from None


def _associated_data(claim: Claim, status: int, expires_at: datetime) -> bytes:
    """Return what is authenticated beside the answer."""
    return msgspec.json.encode([claim.caller, claim.route, claim.key, status, expires_at.astimezone(UTC)])


def _claim_arguments(claim: Claim, now: datetime) -> tuple[object, ...]:
    """Return the first arguments of a statement that writes a claim's row."""
    return claim.caller, claim.route, claim.key, claim.body_hash, claim.expires_at, now, claim.holder


async def take(db: Database, claim: Claim, now: datetime) -> KeptAnswer | None:
    """Claim the key. None: it is claimed, and the caller carries the mutation out, until `now + claim.held`.

    Waits for another transaction that holds the same key. Raises as `recall` does.
    """
    while not await db.fetchval(_SQL["claim_key"], *_claim_arguments(claim, now), now + claim.held, claim.sent_hash):
        kept = await recall(db, claim, now)
        if kept is not None:
            return kept
        # It was released or purged in between: free again.
    return None


async def keep(db: Database, claim: Claim, kept: KeptAnswer) -> None:
    """Store the answer of a claimed key. Raises IdempotencyInUseError where the claim expired and another took it over.

    Within a transaction, call it before anything else that locks, unless `take` came first.
    """
    if not await db.fetchval(
        _SQL["keep_answer"], claim.caller, claim.route, claim.key, kept.status, _encrypt(claim, kept), claim.holder
    ):
        raise IdempotencyInUseError(retry_after_s=_COME_BACK_S)


async def settle(pool: Database, claim: Claim, refusal: KeptAnswer, now: datetime) -> MutationResult:
    """Store a refusal as the answer under the key, or return the answer stored before: somebody may have received it.

    For a mutation that was refused and left no trace. Raises as `recall` does.
    """
    answer = refusal.status, _encrypt(claim, refusal), claim.sent_hash
    while not await pool.fetchval(_SQL["settle_key"], *_claim_arguments(claim, now), *answer):
        kept = await recall(pool, claim, now)
        if kept is not None:
            return MutationResult(kept, replayed=True)
    return MutationResult(refusal, replayed=False)


@asynccontextmanager
async def hold(pool: Database, claim: Claim) -> AsyncIterator[None]:
    """Hold a claimed key while its mutation is carried out in another database.

    Raises TimeoutError when the claim expires, because a repeat may carry the mutation out from then on. Releases the
    key on any exception, so that a repeat need not wait for the expiry.
    """
    try:
        async with asyncio.timeout(claim.held.total_seconds()):
            yield
    except Exception:
        with suppress(*UNANSWERED):  # then it expires by itself
            await pool.execute(_SQL["release_key"], claim.caller, claim.route, claim.key, claim.holder)
        raise


async def purge(db: Database, now: datetime, limit: int) -> int:
    """Delete up to `limit` expired keys; return how many."""
    status: str = await db.execute(_SQL["purge_keys"], now, limit)
    return int(status.rpartition(" ")[2])


class MutationResult(msgspec.Struct, frozen=True):
    """The answer of a mutation, and whether it was stored before."""

    kept: KeptAnswer
    replayed: bool


WriteRecord = Callable[["Database"], Awaitable[None]]
"""Records what a mutation did in another database, in the transaction that stores its answer."""
LaterWork = Callable[[], Awaitable[tuple[KeptAnswer, WriteRecord | None]]]
"""The part of a mutation that runs after its own transaction has committed, in another database or a new transaction.

Returns the answer."""


async def run_once(
    pool: Pool, claim: Claim, now: datetime, work: Callable[[Database], Awaitable[KeptAnswer | LaterWork]]
) -> MutationResult:
    """Carry out `work` in a transaction that also claims the key and stores the answer; or return the stored answer.

    Where `work` returns a function, that is called after the commit while the key is held, and its answer is stored.
    Raises what either raises, with nothing stored, and as `recall` does. IdempotencyInUseError also when the function
    took so long that a repeat carries the mutation out now, whose answer then counts for both.
    """
    async with pool.acquire() as connection, connection.transaction():
        kept = await take(connection, claim, now)
        if kept is not None:
            return MutationResult(kept, replayed=True)
        result = await work(connection)
        if isinstance(result, KeptAnswer):
            await keep(connection, claim, result)
            return MutationResult(result, replayed=False)
    async with hold(pool, claim):
        kept, record = await result()
        async with pool.acquire() as connection, connection.transaction():
            # The key is locked first, as above: a repeat locks it before it waits for the record.
            await keep(connection, claim, kept)
            if record is not None:
                await record(connection)
    return MutationResult(kept, replayed=False)
