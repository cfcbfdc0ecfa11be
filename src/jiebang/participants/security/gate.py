"""The gate of the participant `security`: logins, which ask for an SMS code where the account must.

Every call takes a batch: one transaction locks the accounts in key order, reads, decides, and writes in one statement a
table. Each attempt carries an id from its caller, and logs in once under it. Who logs in has passed the first factor;
their password is not this participant's business.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.errors import (
    JiebangError,
    LoginCodeNeededError,
    LoginCodeRefusedError,
    TooSoonError,
    UnknownAccountError,
)
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.participants.security", "gate.sql")


class LoginCodeRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long a login's code is good, how long until another is sent, and how often it may be typed wrong."""

    lives: timedelta
    pause: timedelta
    tries: int


class LoginAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt to log in at a device. `nonce`: 16 random bytes, for the code that may have to be sent.

    `code`: the one that was sent before; None: none is offered.
    """

    request_id: UUID
    account_id: int
    device_id: str
    place: str
    nonce: bytes
    code: str | None = None


class LoginAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an attempt: the login's number and time, or why it was refused.

    `send`: the nonce of the code that the caller must send now, before it tells the refusal.
    """

    request_id: UUID
    login_id: int = 0
    at: datetime | None = None
    refusal: JiebangError | None = None
    send: bytes | None = None


class PendingCode(msgspec.Struct, frozen=True):
    """The code that an account's next login waits for."""

    nonce: bytes
    sent_at: datetime
    expires_at: datetime
    tries_left: int


@dataclass(slots=True)
class _Batch:
    """What the accounts of a batch hold; later attempts see the effects of earlier ones."""

    needs_code: dict[int, bool]
    codes: dict[int, PendingCode]
    made: dict[tuple[int, UUID], tuple[int, datetime]]
    last: dict[int, int]
    new: list[tuple[LoginAttempt, int]] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)


class LoginGate:
    """Logs people in. All methods raise OSError, TimeoutError or asyncpg's errors where the database is silent."""

    name: Final = "security"

    def __init__(
        self,
        pool: Pool,
        clock: Callable[[], datetime],
        rules: LoginCodeRules,
        derive: Callable[[int, bytes], str],
    ) -> None:
        """`derive`: returns the code of an account and a nonce."""
        self._pool, self._clock, self._rules, self._derive = pool, clock, rules, derive

    async def log_in(self, attempts: Sequence[LoginAttempt]) -> list[LoginAnswer]:
        """Log people in. Answers in the order given.

        Refused with UnknownAccountError; LoginCodeNeededError, where a code must be sent; TooSoonError, where one was
        sent just now; LoginCodeRefusedError, where the code is wrong or expired, or its tries are used up.
        """
        now, ids = self._clock(), sorted({one.account_id for one in attempts})
        async with self._pool.acquire() as connection, connection.transaction():
            locked = await connection.fetch(_SQL["lock_logins"], ids)
            codes = await connection.fetch(_SQL["login_codes"], ids)
            made = await connection.fetch(_SQL["logged_in"], ids, [one.request_id for one in attempts])
            last = await connection.fetch(_SQL["last_logins"], ids)
            batch = _Batch(
                {row["account_id"]: row["login_needs_sms"] for row in locked},
                {account_id: PendingCode(*code) for account_id, *code in codes},
                {(row["account_id"], row["made_by"]): (row["login_id"], row["at"]) for row in made},
                {row["account_id"]: row["last"] for row in last},
            )
            answers = [self._decide(batch, one, now) for one in attempts]
            if batch.new:
                await connection.execute(
                    _SQL["log_in"],
                    [one.account_id for one, _ in batch.new],
                    [number for _, number in batch.new],
                    [one.device_id for one, _ in batch.new],
                    [one.place for one, _ in batch.new],
                    [one.request_id for one, _ in batch.new],
                    now,
                )
            if kept := sorted(batch.touched & batch.codes.keys()):
                found = [batch.codes[account_id] for account_id in kept]
                await connection.execute(
                    _SQL["keep_codes"],
                    kept,
                    [code.nonce for code in found],
                    [code.sent_at for code in found],
                    [code.expires_at for code in found],
                    [code.tries_left for code in found],
                )
            if dropped := sorted(batch.touched - batch.codes.keys()):
                await connection.execute(_SQL["drop_codes"], dropped)
        return answers

    def _decide(self, batch: _Batch, one: LoginAttempt, now: datetime) -> LoginAnswer:
        refusal: JiebangError | None = None
        send: bytes | None = None
        if one.account_id not in batch.needs_code:
            refusal = UnknownAccountError(accounts=[str(one.account_id)])
        elif (one.account_id, one.request_id) not in batch.made and batch.needs_code[one.account_id]:
            refusal, send = self._ask(batch, one, now) if one.code is None else (self._judge(batch, one, now), None)
        if refusal is not None:
            return LoginAnswer(request_id=one.request_id, refusal=refusal, send=send)
        key = one.account_id, one.request_id
        if key not in batch.made:
            batch.last[one.account_id] += 1
            batch.made[key] = batch.last[one.account_id], now
            batch.new.append((one, batch.last[one.account_id]))
        login_id, at = batch.made[key]
        return LoginAnswer(request_id=one.request_id, login_id=login_id, at=at)

    def _ask(self, batch: _Batch, one: LoginAttempt, now: datetime) -> tuple[JiebangError, bytes | None]:
        """Put a new code in the place of an older one, unless that was sent just now."""
        before = batch.codes.get(one.account_id)
        if before is not None and now < before.sent_at + self._rules.pause:
            wait = before.sent_at + self._rules.pause - now
            return TooSoonError(retry_after_s=int(wait.total_seconds()) + 1), None
        expires_at = now + self._rules.lives
        batch.codes[one.account_id] = PendingCode(one.nonce, now, expires_at, self._rules.tries)
        batch.touched.add(one.account_id)
        return LoginCodeNeededError(expires_at=expires_at.isoformat()), one.nonce

    def _judge(self, batch: _Batch, one: LoginAttempt, now: datetime) -> JiebangError | None:
        """Take the code offered; a wrong one costs a try."""
        waiting = batch.codes.get(one.account_id)
        if waiting is None:
            return LoginCodeRefusedError(cause="not_sent", tries_left=0)
        if now >= waiting.expires_at:
            return LoginCodeRefusedError(cause="expired", tries_left=0)
        if waiting.tries_left == 0:
            return LoginCodeRefusedError(cause="tries_used_up", tries_left=0)
        batch.touched.add(one.account_id)
        right = self._derive(one.account_id, waiting.nonce)
        if hmac.compare_digest(right.encode(), (one.code or "").encode()):
            del batch.codes[one.account_id]
            return None
        left = waiting.tries_left - 1
        batch.codes[one.account_id] = msgspec.structs.replace(waiting, tries_left=left)
        return LoginCodeRefusedError(cause="wrong", tries_left=left)
