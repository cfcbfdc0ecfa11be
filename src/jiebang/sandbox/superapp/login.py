"""Logins, through the gate of `security`; the code that one asks for is sent to the person's phone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.check import Text
from jiebang.model.errors import NotAllowedError, ParticipantUnavailableError
from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.model.notice import Channel, Notice
from jiebang.participants.security.gate import LoginAttempt, LoginCodeRules, LoginGate
from jiebang.remote.bodies import parse_account
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.tokens import TokenScope
from jiebang.usecases.cases.codes import NO_CASE, derive_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.sandbox.service import Handler, HttpAnswer, HttpCall
    from jiebang.sandbox.superapp.door import Door
    from jiebang.store.postgres.pool import Pool

RULES: Final = LoginCodeRules(lives=timedelta(minutes=5), pause=timedelta(seconds=60), tries=5)
"""This app's own rules for the codes of its logins."""
_DIGITS: Final = 6

SendNotices = Callable[["Sequence[Notice]"], Awaitable[None]]
"""Brings notices to phones. Raises OSError unless all were taken."""


class LoginBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A login of the account's person at the device that their token names. `code`: the one sent to their phone."""

    account: Annotated[str, Meta(pattern=ACCOUNT_PATTERN)]
    place: Annotated[str, Meta(min_length=1, max_length=64)]
    code: Annotated[str, Meta(pattern="^[0-9]{6}$")] | None = None


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A login that happened."""

    id: str
    account: str
    at: datetime | None


class Login:
    """The route about logins. Its codes are derived under a key of this process: after a restart new ones are sent."""

    def __init__(self, door: Door, pool: Pool, clock: Callable[[], datetime], send: SendNotices) -> None:
        """Take the door, the database of `security`, and what brings codes to phones."""
        self._door, self._send, self._key = door, send, secrets.token_bytes(32)
        self._gate = LoginGate(pool, clock, RULES, self._derive)

    def _derive(self, account_id: int, nonce: bytes) -> str:
        return derive_code(self._key, account_id, NO_CASE, nonce, _DIGITS)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {("POST", "/v1/logins"): self.log_in}

    async def log_in(self, call: HttpCall) -> HttpAnswer:
        """Log the caller in.

        Refused as `LoginGate.log_in` says; NotAllowedError for a token without a device, ParticipantUnavailableError
        where no code can be sent now.
        """
        caller, asked = await self._door.enter(call, TokenScope.LOGIN, LoginBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)
        if caller.device is None:
            raise NotAllowedError(device="missing")
        device = caller.device

        async def work(request_id: UUID) -> LoggedIn:
            attempt = LoginAttempt(
                request_id=request_id,
                account_id=account_id,
                device_id=device,
                place=asked.place,
                nonce=os.urandom(16),
                code=asked.code,
            )
            [answer] = await self._gate.log_in([attempt])
            if answer.send is not None:
                code = self._derive(account_id, answer.send)
                notice = Notice(UUID(bytes=answer.send), asked.account, Channel.SMS, _word(code))
                try:
                    await self._send([notice])
                except OSError as error:  # a TimeoutError too
                    raise ParticipantUnavailableError(participant=GATEWAY) from error
            if answer.refusal is not None:
                raise answer.refusal
            return LoggedIn(id=str(answer.login_id), account=asked.account, at=answer.at)

        return await self._door.once(call, caller, work, gate=self._gate.name)


def _word(code: str) -> Text:
    minutes = RULES.lives // timedelta(minutes=1)
    return Text(
        f"【微信】验证码 {code}，用于登录，{minutes} 分钟内有效。切勿告知任何人。",
        f"[WeChat] {code} is your code to log in, valid for {minutes} minutes. Tell nobody.",
    )
