"""The answer of a check: everything that blocks a case, with values and remedies, in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from jiebang.model.case import Kind


class Text(msgspec.Struct, frozen=True):
    """One text in Chinese and English; both are always given."""

    zh: str
    en: str


class Severity(StrEnum):
    """What a raised rule does: blocks the case, asks for consent first, or only informs."""

    BLOCKS = "blocks"
    NEEDS_CONSENT = "needs_consent"
    INFORMS = "informs"


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """How to clear a blocker: what to do, where, on the spot or not, how long, and the earliest time it can pass."""

    what: Text
    where: Text
    on_the_spot: bool
    takes: Text
    earliest: datetime | None = None


class Blocker(msgspec.Struct, frozen=True, kw_only=True):
    """One raised rule. `facts` are the values that raised it; `legal_basis` a law with article, or "platform"."""

    code: str
    severity: Severity
    title: Text
    explanation: Text
    remedy: Remedy
    source: str
    legal_basis: str
    appeal: Text
    facts: Mapping[str, Any]


class Consequence(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that will happen to this person when the case is done, at `participant`.

    `consent`: the code of the rule by which the person agreed to it; None where no rule asks, or they have not agreed.
    `facts`: the person's own values in it.
    """

    code: str
    participant: str
    title: Text
    explanation: Text
    lasts: Text
    consent: str | None = None
    source: str
    legal_basis: str
    facts: Mapping[str, Any]


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """Another way to the person's goal, and what it would cost them.

    `kind`: the kind of case to submit instead (None: none of ours). `offered`: that kind can be submitted today.
    """

    code: str
    kind: Kind | None
    recommended: bool
    offered: bool
    title: Text
    reaches: Text
    costs: Text
    source: str
    facts: Mapping[str, Any]


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check for one account.

    `passes`: no blocker of severity `blocks`, and none of `needs_consent` without the person's consent; `consents`: the
    codes of those with it. `offered`: a case of this kind can be submitted. `alternatives`: the recommended first.
    `versions`: by participant, the facts_version that was read, None where it could not be read. `time_zone`: the zone
    of the days in texts and in `earliest`.
    """

    account_id: int
    kind: Kind
    pack: str
    checked_at: datetime
    passes: bool
    blockers: tuple[Blocker, ...]
    versions: Mapping[str, int | None]
    consequences: tuple[Consequence, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    consents: tuple[str, ...] = ()
    offered: bool = True
    time_zone: str = "Asia/Shanghai"
