"""A person's contacts, chat groups, messages, moments and friend requests."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.fields import Id, Instant, LongText, OptionalText, PopulationRecord, ShortText


class ContactRecord(PopulationRecord):
    """Somebody the person knows, by account."""

    added_at: Instant
    contact_id: Id
    remark: OptionalText
    starred: bool


class GroupRecord(PopulationRecord):
    """A chat group as the person sees it."""

    group_id: Id
    joined_at: Instant
    name: ShortText
    role: Literal["owner", "admin", "member"]
    left_at: Instant | None = None


class MemberRecord(PopulationRecord):
    """A member of one of those groups."""

    group_id: Id
    member_id: Id
    nickname: OptionalText


class MessageRecord(PopulationRecord):
    """A message: of a chat with one person (`peer_id`) or in a group (`group_id`), never both."""

    message_id: Id
    sent_at: Instant
    kind: Literal["text", "sticker", "image", "voice", "video", "file", "link", "location"]
    body: LongText
    media: ShortText | None
    peer_id: Id | None
    group_id: Id | None
    sender_id: Id
    recalled_at: Instant | None = None


class MomentRecord(PopulationRecord):
    """A moment that the person posted."""

    moment_id: Id
    posted_at: Instant
    body: LongText
    images: Annotated[int, Meta(ge=0, le=9)]
    visibility: Literal["all", "some", "self"]
    deleted_at: Instant | None = None


class FriendRequestRecord(PopulationRecord):
    """A friend request that came in."""

    request_id: Id
    sent_at: Instant
    sender_id: Id
    greeting: OptionalText
    state: Literal["waiting", "accepted", "declined", "blocked"]
    ended_at: Instant | None = None


class SocialRecord(PopulationRecord):
    """Contacts, groups, messages, moments."""

    nickname: OptionalText = ""
    email: Annotated[str, Meta(min_length=3, max_length=254)] | None = None
    contacts: list[ContactRecord] = []
    chat_groups: list[GroupRecord] = []
    group_members: list[MemberRecord] = []
    messages: list[MessageRecord] = []
    moments: list[MomentRecord] = []
    friend_requests: list[FriendRequestRecord] = []
