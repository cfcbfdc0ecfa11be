"""Limits: what restricts an account now, as its participant declares and reads it, and as policy words it.

A limit is enforced by the gate of its participant; this is what other services and the person are told of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.facts import FactType


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that a participant may put on an account, as declared.

    `title`: what is limited. `value`: the type of the number that it is limited to; None: it is off altogether, or
    asks for something. A case causes it by `effect`, the effect of its plan that sets it; or, where `running`, by being
    under way at the participant.
    """

    name: str
    title: Text
    value: FactType | None = None
    effect: str | None = None
    running: bool = False


class LimitReading(msgspec.Struct, frozen=True):
    """A limit in force, as read: the number it is limited to, how much of that was used today, and its known end."""

    name: str
    value: int | None = None
    used: int | None = None
    until: datetime | None = None


class LimitInForce(msgspec.Struct, frozen=True, kw_only=True):
    """A limit in force with all that law wants told of it: why, since and until when, and how it is lifted.

    `case_no` and `kind`: of the case that caused it; None: no case of ours did. `since`: when that case ended (for a
    limit of a case under way: when it was opened); None where no case caused it, or its end is being saved now.
    `until` None: until it is lifted. The texts are the pack's; None where the version in force has none for it.
    """

    participant: str
    owner: Text
    name: str
    title: Text
    value: int | None
    used: int | None
    value_type: FactType | None
    case_no: int | None
    kind: Kind | None
    since: datetime | None
    until: datetime | None
    explanation: Text | None = None
    lifted: Text | None = None
    appeal: Text | None = None
    source: str | None = None
    legal_basis: str | None = None


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What restricts one account now. `unread`: participants that did not answer: what they restrict is unknown."""

    account_id: int
    pack: str
    read_at: datetime
    limits: Sequence[LimitInForce]
    unread: Sequence[str] = ()
