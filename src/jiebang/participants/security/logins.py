"""The participant `security`, with the confirmation of abnormal logins by the person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.errors import AccountBusyError, JiebangError, NothingToClearError, UnknownAccountError
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.security import DECLARATION
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_NAME: Final = "security"
_SQL: Final = load("jiebang.participants.security", "logins.sql")


class LoginConfirmation(msgspec.Struct, frozen=True, kw_only=True):
    """A person's confirmation that these abnormal logins were their own.

    `remedy_id`: chosen by the caller; the same id names the same confirmation.
    """

    remedy_id: UUID
    account_id: int
    logins: tuple[int, ...]


class LoginConfirmationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a confirmation: the logins that it confirmed, or why it was refused."""

    remedy_id: UUID
    logins: tuple[int, ...] = ()
    refusal: JiebangError | None = None


class SecurityParticipant(DatabaseParticipant):
    """The participant `security`. The caller of `confirm_logins` has authenticated the person."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        """Use `pool`, which belongs to its opener."""
        super().__init__(_NAME, DECLARATION, pool, clock)

    async def confirm_logins(self, confirmations: Sequence[LoginConfirmation]) -> list[LoginConfirmationResult]:
        """Record that logins were the person's own, so that they no longer block. Answers in the order given.

        Refused with UnknownAccountError, AccountBusyError, or NothingToClearError (a login named is not an unconfirmed
        abnormal one); then none of the confirmation's logins changes. A repeat gets the first answer.
        """
        ids = sorted({one.account_id for one in confirmations})
        async with self._pool.acquire() as connection, connection.transaction():
            tried = {row["account_id"]: row["tried"] for row in await connection.fetch(_SQL["lock"], ids)}
            rows = await connection.fetch(_SQL["unconfirmed"], ids, [one.remedy_id for one in confirmations])
            unconfirmed = {(row["account_id"], row["login_id"]) for row in rows if row["confirmed_by"] is None}
            confirmed = {
                (row["account_id"], row["confirmed_by"], row["login_id"]) for row in rows if row["confirmed_by"]
            }
            answers, writes = list[LoginConfirmationResult](), list[tuple[int, int, UUID]]()
            for one in confirmations:
                done = tuple(sorted(each[2] for each in confirmed if each[:2] == (one.account_id, one.remedy_id)))
                refusal = None if done else _find_refusal(one, tried, unconfirmed)
                if not done and refusal is None:
                    done = tuple(sorted(set(one.logins)))
                    unconfirmed -= {(one.account_id, login) for login in done}
                    writes += [(one.account_id, login, one.remedy_id) for login in done]
                answers.append(LoginConfirmationResult(remedy_id=one.remedy_id, logins=done, refusal=refusal))
            if writes:
                await connection.execute(
                    _SQL["confirm"], *([write[at] for write in writes] for at in range(3)), self._clock()
                )
        return answers


def _find_refusal(
    one: LoginConfirmation, tried: dict[int, bool], unconfirmed: set[tuple[int, int]]
) -> JiebangError | None:
    if one.account_id not in tried:
        return UnknownAccountError(accounts=[str(one.account_id)])
    if tried[one.account_id]:
        return AccountBusyError(participant=_NAME)
    missing = sorted({login for login in one.logins if (one.account_id, login) not in unconfirmed})
    return NothingToClearError(items=[str(each) for each in missing]) if missing or not one.logins else None
