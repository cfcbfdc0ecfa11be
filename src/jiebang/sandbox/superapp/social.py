"""Social life: moments and friend requests, through the gate of `social`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.participants.social.gate import FriendRequest, MomentPost
from jiebang.remote.bodies import parse_account
from jiebang.remote.tokens import TokenScope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.participants.social.gate import SocialParticipant
    from jiebang.sandbox.service import Handler, HttpAnswer, HttpCall
    from jiebang.sandbox.superapp.door import Door

Account = Annotated[str, Meta(pattern=ACCOUNT_PATTERN)]
Words = Annotated[str, Meta(min_length=1, max_length=2000)]


class MomentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A moment to post, with up to nine images."""

    account: Account
    body: Words
    images: Annotated[int, Meta(ge=0, le=9)] = 0
    visibility: Literal["all", "some", "self"] = "all"


class FriendRequestBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to be somebody's friend. `from` is the sender's account."""

    sender: Account = msgspec.field(name="from")
    to: Account
    greeting: Words


class MomentPosted(msgspec.Struct, frozen=True, kw_only=True):
    """A moment as it was posted."""

    id: str
    account: str
    posted_at: datetime | None


class FriendRequestSent(msgspec.Struct, frozen=True, kw_only=True):
    """A friend request that reached its receiver."""

    id: UUID
    account: str
    to: str


class Social:
    """The routes about moments and friends."""

    def __init__(self, door: Door, social: SocialParticipant) -> None:
        """Take the door, and the gate that they go through."""
        self._door, self._social = door, social

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {("POST", "/v1/moments"): self.post, ("POST", "/v1/friend-requests"): self.ask}

    async def post(self, call: HttpCall) -> HttpAnswer:
        """Post a moment in the caller's own account. Refused as `SocialParticipant.post_moments` says."""
        caller, asked = await self._door.enter(call, TokenScope.SOCIAL_WRITE, MomentBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)

        async def work(request_id: UUID) -> MomentPosted:
            one = MomentPost(
                request_id=request_id,
                account_id=account_id,
                body=asked.body,
                images=asked.images,
                visibility=asked.visibility,
            )
            [answer] = await self._social.post_moments([one])
            if answer.refusal is not None:
                raise answer.refusal
            return MomentPosted(id=str(answer.moment_id), account=asked.account, posted_at=answer.posted_at)

        return await self._door.once(call, caller, work, gate=self._social.name)

    async def ask(self, call: HttpCall) -> HttpAnswer:
        """Ask somebody to be the caller's friend. Refused as `SocialParticipant.ask_friends` says."""
        caller, asked = await self._door.enter(call, TokenScope.SOCIAL_WRITE, FriendRequestBody)
        sender, receiver = parse_account(asked.sender, "from"), parse_account(asked.to, "to")
        caller.require_account(sender)

        async def work(request_id: UUID) -> FriendRequestSent:
            one = FriendRequest(request_id=request_id, sender=sender, receiver=receiver, greeting=asked.greeting)
            [answer] = await self._social.ask_friends([one])
            if answer.refusal is not None:
                raise answer.refusal
            return FriendRequestSent(id=request_id, account=asked.sender, to=asked.to)

        return await self._door.once(call, caller, work, gate=self._social.name)
