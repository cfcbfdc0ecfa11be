"""The gate of the participant `gaming`: games are started, unless a case has suspended a minor's games meanwhile.

Every call takes a batch: one transaction locks the accounts in key order, reads, decides, and writes in one statement.
Each start carries an id from its caller and happens once under it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.errors import GamesOffError, JiebangError, NoSuchGameError, UnknownAccountError
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.participants.gaming", "gate.sql")


class GameStart(msgspec.Struct, frozen=True, kw_only=True):
    """A game to start. `request_id`: chosen by the caller."""

    request_id: UUID
    account_id: int
    game_id: int


class GameStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a start: the number and time of the playing session, or why it was refused."""

    request_id: UUID
    session_id: int = 0
    started_at: datetime | None = None
    refusal: JiebangError | None = None


class GameGate:
    """Starts games. All methods raise OSError, TimeoutError or asyncpg's errors where the database is silent."""

    name: Final = "gaming"

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        """Use `pool`, which belongs to its opener."""
        self._pool, self._clock = pool, clock

    async def start_games(self, starts: Sequence[GameStart]) -> list[GameStarted]:
        """Start games. Answers in the order given.

        Refused with UnknownAccountError, GamesOffError (a case is under way, and playing time is guarded), or
        NoSuchGameError (the account may not play that one).
        """
        now, ids = self._clock(), sorted({one.account_id for one in starts})
        async with self._pool.acquire() as connection, connection.transaction():
            suspended = {
                row["account_id"]: row["suspended"] for row in await connection.fetch(_SQL["lock_players"], ids)
            }
            games = {tuple(row) for row in await connection.fetch(_SQL["games"], ids)}
            requests = [one.request_id for one in starts]
            made = {
                (row["account_id"], row["made_by"]): (row["session_id"], row["started_at"])
                for row in await connection.fetch(_SQL["started"], ids, requests)
            }
            last = {row["account_id"]: row["last"] for row in await connection.fetch(_SQL["last_sessions"], ids)}
            answers, new = list[GameStarted](), list[tuple[GameStart, int]]()
            for one in starts:
                key = one.account_id, one.request_id
                refusal = None if key in made else _find_reason(one, suspended, games)
                if refusal is not None:
                    answers.append(GameStarted(request_id=one.request_id, refusal=refusal))
                    continue
                if key not in made:
                    last[one.account_id] += 1
                    made[key] = last[one.account_id], now
                    new.append((one, last[one.account_id]))
                session_id, at = made[key]
                answers.append(GameStarted(request_id=one.request_id, session_id=session_id, started_at=at))
            if new:
                await connection.execute(
                    _SQL["start"],
                    [one.account_id for one, _ in new],
                    [number for _, number in new],
                    [one.game_id for one, _ in new],
                    [one.request_id for one, _ in new],
                    now,
                )
        return answers


def _find_reason(one: GameStart, suspended: dict[int, bool], games: set[tuple[int, ...]]) -> JiebangError | None:
    if one.account_id not in suspended:
        return UnknownAccountError(accounts=[str(one.account_id)])
    if suspended[one.account_id]:
        return GamesOffError()
    return None if (one.account_id, one.game_id) in games else NoSuchGameError(game=str(one.game_id))
