"""A notice: a message to a person's phone or mailbox, ready to be delivered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.check import Text

MAX_NOTICES: Final = 200
"""Notices in one request to a gateway; at 5 KB each they stay below the body limit."""


class Channel(StrEnum):
    """How a notice reaches the person."""

    SMS = "sms"
    EMAIL = "email"


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One notice to one person, in both languages. It is delivered once per `message_id`, however often it is sent.

    `account`: a decimal string, as in all JSON that leaves us.
    """

    message_id: UUID
    account: Annotated[str, Meta(pattern=r"\A[1-9][0-9]{0,15}\Z")]
    channel: Channel
    text: Text


class Notices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a gateway's `POST /messages`."""

    messages: Annotated[list[Notice], Meta(min_length=1, max_length=MAX_NOTICES)]
