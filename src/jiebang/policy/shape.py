"""The shape of a policy pack's YAML, declared once; `source.Source.read` holds every document to it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)*$")]
Sql = Annotated[str, msgspec.Meta(max_length=2000)]
Reference = Annotated[str, msgspec.Meta(pattern=r"^:[a-z][a-z0-9_]*$")]
"""A parameter, named as conditions name it. Numbers stand in `params` and nowhere else."""
Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
LegalBasis = Annotated[str, msgspec.Meta(pattern=r"^platform$|^.+ / .+ art\. ?\d+")]
"""`platform` for the platform's own policy, else a law with its article, in Chinese / and in English."""


class Unit(StrEnum):
    """What a parameter's number counts."""

    FEN = "fen"
    COUNT = "count"
    DIGITS = "digits"
    SECONDS = "seconds"
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"
    WORKING_DAYS = "working_days"
    MONTHS = "months"
    YEARS = "years"
    TEXT = "text"


class ParamShape(msgspec.Struct, frozen=True):
    """One number of policy: its value, unit, source, and what it means."""

    value: Number | str
    unit: Unit
    source: str
    zh: str
    en: str


class RemedyShape(msgspec.Struct, frozen=True):
    """What to do, where, whether on the spot, how long it takes; `earliest`: SQL for the first day it can pass."""

    what: Text
    where: Text
    on_the_spot: bool
    takes: Text
    earliest: Sql | None = None


class RaisedShape(msgspec.Struct, frozen=True, kw_only=True):
    """What every blocker says."""

    code: Code
    title: Text
    explanation: Text
    remedy: RemedyShape
    appeal: Text
    source: str
    legal_basis: LegalBasis


class RuleShape(RaisedShape, frozen=True, kw_only=True):
    """One rule: for which kinds, how severe, and when: an SQL condition over facts and `:params`."""

    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    severity: Severity
    when: Sql


class PlanShape(msgspec.Struct, frozen=True):
    """Waves of participants in Try order, and the JSON object that each one's Confirm gets."""

    waves: Annotated[tuple[Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)]
    effects: dict[Name, dict[Name, bool | str]] = {}


class ProofsShape(msgspec.Struct, frozen=True):
    """What a case of one kind asks for before it is proven; every number by reference."""

    methods: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    case_lives: Reference
    code_digits: Reference
    code_lives: Reference
    code_pause: Reference
    tries: Reference
    tries_a_day: Reference
    tries_window: Reference


class MessageShape(msgspec.Struct, frozen=True):
    """The texts of one message: the short one for the phone, and the e-mail."""

    sms: Text
    subject: Text
    body: Text


class PackShape(msgspec.Struct, frozen=True, kw_only=True):
    """A whole pack as it stands in its file."""

    name: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    title: Text
    kinds: dict[Kind, Text]
    owners: dict[Name, Text]
    params: dict[Name, ParamShape]
    items: dict[Name, Text]
    rules: Annotated[tuple[RuleShape, ...], msgspec.Meta(min_length=1)]
    unavailable: RaisedShape
    plans: dict[Kind, PlanShape]
    proofs: dict[Kind, ProofsShape]
    messages: dict[Name, MessageShape]
    reasons: dict[Code, Text]
