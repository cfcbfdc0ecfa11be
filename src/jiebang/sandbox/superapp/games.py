"""Games, through the gate of `gaming`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.participants.gaming.gate import GameGate, GameStart
from jiebang.remote.bodies import parse_account
from jiebang.remote.tokens import TokenScope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.sandbox.service import Handler, HttpAnswer, HttpCall
    from jiebang.sandbox.superapp.door import Door


class GameBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A game to start."""

    account: Annotated[str, Meta(pattern=ACCOUNT_PATTERN)]
    game: Annotated[str, Meta(pattern="^[1-9][0-9]{0,15}$")]


class GameSession(msgspec.Struct, frozen=True, kw_only=True):
    """A playing session that began."""

    id: str
    account: str
    started_at: datetime | None


class Games:
    """The route about games."""

    def __init__(self, door: Door, gate: GameGate) -> None:
        """Take the door, and the gate that games go through."""
        self._door, self._gate = door, gate

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {("POST", "/v1/game-sessions"): self.start}

    async def start(self, call: HttpCall) -> HttpAnswer:
        """Start a game for the caller. Refused as `GameGate.start_games` says."""
        caller, asked = await self._door.enter(call, TokenScope.PLAY, GameBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)

        async def work(request_id: UUID) -> GameSession:
            one = GameStart(request_id=request_id, account_id=account_id, game_id=int(asked.game))
            [answer] = await self._gate.start_games([one])
            if answer.refusal is not None:
                raise answer.refusal
            return GameSession(id=str(answer.session_id), account=asked.account, started_at=answer.started_at)

        return await self._door.once(call, caller, work, gate=self._gate.name)
