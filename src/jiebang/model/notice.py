"""A notice: a message to a person's phone or mailbox, or to an organisation's mailbox, ready to be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.check import Text

MAX_NOTICES: Final = 200
"""Notices in one request to a gateway; at 5 KB each they stay below the body limit."""


class AddresseeKind(StrEnum):
    """Who is told: the person, or an organisation with which a case ended something.

    APP is the place of the signals that apps get by open standards; nothing is sent to it yet.
    """

    PERSON = "person"
    MERCHANT = "merchant"
    ENTERPRISE = "enterprise"
    PLATFORM = "platform"
    APP = "app"


class Channel(StrEnum):
    """How a notice reaches its addressee: a person by SMS and e-mail, an organisation at its mailbox with us."""

    SMS = "sms"
    EMAIL = "email"
    MAILBOX = "mailbox"


class Organisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An organisation as addressee: `id` is its own within its kind, `name` what it is called."""

    kind: AddresseeKind
    id: Annotated[str, Meta(min_length=1)]
    name: str

    def __post_init__(self) -> None:
        """Refuse a person: to a person goes what `Notice.account` names."""
        if self.kind is AddresseeKind.PERSON:
            raise ValueError("a person is no organisation")


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One notice in both languages. It is delivered once per `message_id`, however often it is sent.

    To a person: `account`, a decimal string, as in all JSON that leaves us. To an organisation: `to`, and no account,
    because whose contract it was is not for the gateway to know.
    """

    message_id: UUID
    channel: Channel
    text: Text
    account: Annotated[str, Meta(pattern=r"\A[1-9][0-9]{0,15}\Z")] | None = None
    to: Organisation | None = None

    def __post_init__(self) -> None:
        """Refuse a notice to nobody, to two at once, or by a channel that does not reach its addressee."""
        if (self.account is None) == (self.to is None) or (self.channel is Channel.MAILBOX) == (self.to is None):
            raise ValueError("a notice is to a person by sms or email, or to an organisation by mailbox")

    @property
    def lane(self) -> tuple[str, str]:
        """Whose notices it stands among; those of one lane are delivered in order."""
        return ("person", self.account or "") if self.to is None else (self.to.kind, self.to.id)


class Notices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a gateway's `POST /messages`. Notices to one addressee stand in the order in which it gets them."""

    messages: Annotated[list[Notice], Meta(min_length=1, max_length=MAX_NOTICES)]


class NoticeRefusal(msgspec.Struct, frozen=True):
    """One notice that a gateway did not take. `final`: sending it again is of no use.

    Of an addressee whose notice was refused for now, the gateway takes no later one of the same request either.
    """

    message_id: UUID
    code: Annotated[str, Meta(pattern=r"\A[A-Z0-9-]{1,64}\Z")]
    final: bool = True


class NoticesTaken(msgspec.Struct, frozen=True):
    """A gateway's answer: it took all notices but the refused ones. `taken`: how many it had not had before."""

    taken: int
    refused: list[NoticeRefusal] = []


Refusals = Mapping[UUID, NoticeRefusal]
"""The notices that a gateway did not take, by id."""


def bucket_of_addressee(kind: AddresseeKind, addressee: str) -> int:
    """Return the bucket, 0 to 255, in which all messages to an organisation are, so that one worker sends them."""
    return blake2b(f"{kind}\n{addressee}".encode(), digest_size=1).digest()[0]
