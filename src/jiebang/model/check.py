"""The answer of a check: everything that stands in the way, with values and remedies, in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from jiebang.model.case import Kind


class Text(msgspec.Struct, frozen=True):
    """One text in Chinese and English; both always filled."""

    zh: str
    en: str


class Severity(StrEnum):
    """What a raised rule does: stops the case, asks for consent first, or only tells."""

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

    `consent`: the code of the rule by which the person was asked to agree, and did; None where nobody is asked or where
    they have not agreed yet. `facts` are the person's own values in it.
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
    """Something else that could reach the person's goal, and what it would cost them.

    `kind`: what to ask for instead (None: nothing of ours). `offered`: that kind can be submitted today.
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
    """What a check found for one account.

    `passes`: no blocker of severity `blocks`, and none of `needs_consent` that the person has not agreed to; `consents`
    are the codes of those they agreed to. `offered`: a case of this kind can be submitted. `alternatives`: the
    recommended first. `versions`: the facts_version by participant at which it was read, None for one that could not be
    read. `time_zone`: whose days the texts and `earliest` are of.
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
