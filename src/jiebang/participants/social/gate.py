"""The gate of the participant `social`: moments are posted and friends are asked for within what restricts an account.

Every function takes a batch: one transaction locks the accounts in key order, reads what they may, decides, and writes
in one statement. Each request carries an id from its caller and is done once under it: a repeat gets the first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import (
    FriendUnavailableError,
    InvalidInputError,
    JiebangError,
    MomentsLimitError,
    UnknownAccountError,
)
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.social import DECLARATION
from jiebang.policy.calendar import ZONE, local_date
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.participants.social", "gate.sql")


class MomentPost(msgspec.Struct, frozen=True, kw_only=True):
    """A moment to post. `request_id`: chosen by the caller. `visibility`: all, some or self."""

    request_id: UUID
    account_id: int
    body: str
    images: int = 0
    visibility: str = "all"


class PostedMoment(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a post: the moment's number and time, or why it was refused."""

    request_id: UUID
    moment_id: int = 0
    posted_at: datetime | None = None
    refusal: JiebangError | None = None


class FriendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to be somebody's friend. `request_id`: chosen by the caller."""

    request_id: UUID
    sender: int
    receiver: int
    greeting: str


class FriendRequestAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a friend request: sent, or why it was refused."""

    request_id: UUID
    refusal: JiebangError | None = None


class SocialParticipant(DatabaseParticipant):
    """The participant `social`. The callers of its gate have authenticated the person.

    All methods raise OSError, TimeoutError or asyncpg's errors when the database does not answer; then nothing changed.
    """

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        """Use `pool`, which belongs to its opener."""
        super().__init__("social", DECLARATION, pool, clock)

    async def post_moments(self, posts: Sequence[MomentPost]) -> list[PostedMoment]:
        """Post moments, as many a Shanghai day as each account may. Answers in the order given.

        Refused with UnknownAccountError, or MomentsLimitError (how many a day, and when the next may be posted).
        """
        now, ids = self._clock(), sorted({one.account_id for one in posts})
        midnight = datetime.combine(local_date(now), time(), ZONE)
        async with self._pool.acquire() as connection, connection.transaction():
            most = {row["account_id"]: row["moments_per_day"] for row in await connection.fetch(_SQL["lock"], ids)}
            counts = await connection.fetch(_SQL["moments"], ids, midnight)
            today, last = ({row["account_id"]: row[name] for row in counts} for name in ("today", "last"))
            posted = {
                (row["account_id"], row["made_by"]): (row["moment_id"], row["posted_at"])
                for row in await connection.fetch(_SQL["posted"], ids, [one.request_id for one in posts])
            }
            answers, new = list[PostedMoment](), list[tuple[MomentPost, int]]()
            for one in posts:
                if (refusal := _find_refusal(one, most, today, midnight, posted)) is not None:
                    answers.append(PostedMoment(request_id=one.request_id, refusal=refusal))
                    continue
                if (one.account_id, one.request_id) not in posted:
                    today[one.account_id] += 1
                    last[one.account_id] += 1
                    posted[one.account_id, one.request_id] = last[one.account_id], now
                    new.append((one, last[one.account_id]))
                moment_id, at = posted[one.account_id, one.request_id]
                answers.append(PostedMoment(request_id=one.request_id, moment_id=moment_id, posted_at=at))
            if new:
                await connection.execute(
                    _SQL["post"],
                    [one.account_id for one, _ in new],
                    [number for _, number in new],
                    [one.body for one, _ in new],
                    [one.images for one, _ in new],
                    [one.visibility for one, _ in new],
                    [one.request_id for one, _ in new],
                    now,
                )
        return answers

    async def ask_friends(self, requests: Sequence[FriendRequest]) -> list[FriendRequestAnswer]:
        """Send friend requests. Answers in the order given.

        Refused with InvalidInputError (to oneself), UnknownAccountError (the sender), or FriendUnavailableError: there
        is no such receiver, or they block friend requests; which of them is not told, the receiver's row keeps it.
        """
        now = self._clock()
        ids = sorted({each for one in requests for each in (one.sender, one.receiver)})
        async with self._pool.acquire() as connection, connection.transaction():
            blocks = {
                row["account_id"]: row["friend_requests_blocked"] for row in await connection.fetch(_SQL["lock"], ids)
            }
            numbers = await connection.fetch(_SQL["last_requests"], ids)
            last = {row["account_id"]: row["last"] for row in numbers}
            asked = {
                (row["account_id"], row["made_by"]): row["blocked"]
                for row in await connection.fetch(_SQL["asked"], ids, [one.request_id for one in requests])
            }
            answers, new = list[FriendRequestAnswer](), list[tuple[FriendRequest, int, bool]]()
            for one in requests:
                refusal = _find_wrong(one, blocks)
                key = one.receiver, one.request_id
                if refusal is None and key not in asked:
                    asked[key] = blocks[one.receiver]
                    last[one.receiver] += 1
                    new.append((one, last[one.receiver], asked[key]))
                if refusal is None and asked[key]:
                    refusal = FriendUnavailableError()
                answers.append(FriendRequestAnswer(request_id=one.request_id, refusal=refusal))
            if new:
                await connection.execute(
                    _SQL["ask"],
                    [one.receiver for one, _, _ in new],
                    [number for _, number, _ in new],
                    [one.sender for one, _, _ in new],
                    [one.greeting for one, _, _ in new],
                    [blocked for _, _, blocked in new],
                    [one.request_id for one, _, _ in new],
                    now,
                )
        return answers


def _find_refusal(
    one: MomentPost,
    most: dict[int, int | None],
    today: dict[int, int],
    midnight: datetime,
    posted: dict[tuple[int, UUID], tuple[int, datetime]],
) -> JiebangError | None:
    if one.account_id not in most:
        return UnknownAccountError(accounts=[str(one.account_id)])
    limit = most[one.account_id]
    if limit is None or today[one.account_id] < limit or (one.account_id, one.request_id) in posted:
        return None
    return MomentsLimitError(limit=limit, until=(midnight + timedelta(days=1)).isoformat())


def _find_wrong(one: FriendRequest, blocks: dict[int, bool]) -> JiebangError | None:
    """Return why a request is refused whatever its receiver allows."""
    if one.sender == one.receiver:
        return InvalidInputError(field="to", reason=Text("不能加自己为好友", "not to oneself"))
    if one.sender not in blocks:
        return UnknownAccountError(accounts=[str(one.sender)])
    return None if one.receiver in blocks else FriendUnavailableError()
