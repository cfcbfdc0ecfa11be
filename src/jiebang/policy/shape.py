"""The shape of a policy pack's YAML; `source.Source.read` checks documents against it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.policy.devices import DeviceRule
from jiebang.policy.wording import YUAN

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Code = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)*$")]
Sql = Annotated[str, msgspec.Meta(max_length=2000)]
Reference = Annotated[str, msgspec.Meta(pattern=r"^:[a-z][a-z0-9_]*$")]
"""A parameter, named as conditions name it. Numbers stand in `params` and nowhere else."""
Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
OldCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A code that an older system showed, such as a bare number."""
LegalBasis = Annotated[str, msgspec.Meta(pattern=r"^platform$|^.+ / .+ art\. ?\d+")]
"""`platform` for the platform's own policy, else a law with its article, in Chinese / and in English."""


ZoneName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]{0,63}$")]
"""A zone of the IANA database."""
Kinds = Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]


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
    """The texts of a blocker."""

    code: Code
    title: Text
    explanation: Text
    remedy: RemedyShape
    appeal: Text
    source: str
    legal_basis: LegalBasis


class RuleShape(RaisedShape, frozen=True, kw_only=True):
    """One rule: for which kinds, how severe, and when: an SQL condition over facts and `:params`.

    `consent_to` (only with `needs_consent`): the list of items each of which must be agreed to; without it, one consent
    to the rule is enough.
    """

    kinds: Kinds
    severity: Severity
    when: Sql
    consent_to: Name | None = None


class ConsequenceShape(msgspec.Struct, frozen=True, kw_only=True):
    """What follows at one participant, for whom (`when`; everyone without it), and for how long it lasts.

    `consent`: the code of the rule that asks for the person's agreement to it.
    """

    code: Code
    kinds: Kinds
    participant: Name
    title: Text
    explanation: Text
    lasts: Text
    source: str
    legal_basis: LegalBasis
    when: Sql | None = None
    consent: Code | None = None


class AlternativeShape(msgspec.Struct, frozen=True, kw_only=True):
    """What else could reach the goal of `kinds`: another `kind`, or something outside (none).

    `when`: for whom (everyone without it). `recommended`: for whom it comes first (nobody without it).
    """

    code: Code
    kinds: Kinds
    title: Text
    reaches: Text
    costs: Text
    source: str
    kind: Kind | None = None
    when: Sql | None = None
    recommended: Sql | None = None


class OperationShape(msgspec.Struct, frozen=True):
    """What one participant does: the operation, by its name, and the effects that its Confirm applies."""

    operation: Name
    effects: dict[Name, bool | str] = {}


class PlanShape(msgspec.Struct, frozen=True):
    """Waves of participants in Try order, and what each of them does.

    A plan without `operations` is of the form before operations had names: `effects` are those of each participant, and
    each does what it did then.
    """

    waves: Annotated[tuple[Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)]
    operations: dict[Name, OperationShape] | None = None
    effects: dict[Name, dict[Name, bool | str]] | None = None


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


class QuotaShape(msgspec.Struct, frozen=True, kw_only=True):
    """How often a document may be used for identity changes: by cases of which kinds, and how often a calendar year.

    `used_up`: the rule that a submission beyond it raises, which starts the cooling-off; `cooling`: the rule that
    stands while the cooling-off lasts, so that nothing is started anew.
    """

    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    per_year: Reference
    used_up: Code
    cooling: Code


class IdentityShape(msgspec.Struct, frozen=True, kw_only=True):
    """Which identities a case may bring: on which documents, of people of at least which age."""

    documents: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    least_age: Reference


class DevicesShape(msgspec.Struct, frozen=True, kw_only=True):
    """From which device each act must come, one rule for every act of `policy.devices.Act`."""

    proof: DeviceRule
    code: DeviceRule
    cash_out: DeviceRule
    remedy: DeviceRule
    confirmation: DeviceRule
    consent: DeviceRule
    withdrawal: DeviceRule
    consent_withdrawal: DeviceRule


class UseLimitsShape(msgspec.Struct, frozen=True):
    """How many cases, codes and messages of every kind there may be in the window of `protection`."""

    cases: Reference
    codes: Reference
    messages: Reference


class UnlockShape(msgspec.Struct, frozen=True):
    """The way out of locked proofs: on the primary device, with all proofs at once.

    `pause`: from the last wrong try until then; `tries`: the wrong ones allowed at that, in the window of wrong tries.
    """

    pause: Reference
    tries: Reference


class ProtectionShape(msgspec.Struct, frozen=True):
    """Pauses and caps against thieves and nuisances.

    `window`: the time over which an account and a network address may take up what `account` and `address` say;
    `case_pause`: what an account waits before its third case of the window, as much longer before each further one;
    `tell_after`: at which wrong try the owner is told.
    """

    window: Reference
    case_pause: Reference
    account: UseLimitsShape
    address: UseLimitsShape
    tell_after: Reference
    unlock: UnlockShape


class RetentionShape(msgspec.Struct, frozen=True, kw_only=True):
    """What law keeps of an identity that a case of `kinds` ended: for how many years, by which law, for what alone."""

    code: Code
    kinds: Kinds
    years: Reference
    legal_basis: LegalBasis
    purpose: Text


class MessageShape(msgspec.Struct, frozen=True):
    """The texts of one message: the short one for the phone, and the e-mail."""

    sms: Text
    subject: Text
    body: Text


class LimitTextShape(msgspec.Struct, frozen=True):
    """Why a limit is in force, and how it is lifted."""

    explanation: Text
    lifted: Text


class LimitShape(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a limit in force that a case caused; `otherwise`: of one that no case did.

    The texts may use `{value}`, the number that it is limited to, and `{until}`.
    """

    title: Text
    explanation: Text
    lifted: Text
    appeal: Text
    source: str
    legal_basis: LegalBasis
    otherwise: LimitTextShape | None = None


class PackShape(msgspec.Struct, frozen=True, kw_only=True):
    """A whole pack as in its file."""

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
    quota: QuotaShape | None = None
    identity: IdentityShape | None = None
    devices: DevicesShape | None = None
    protection: ProtectionShape | None = None
    retentions: tuple[RetentionShape, ...] | None = None
    consequences: tuple[ConsequenceShape, ...] = ()
    alternatives: tuple[AlternativeShape, ...] = ()
    limits: dict[Name, LimitShape] = {}
    legacy_codes: dict[OldCode, Code] = {}
    time_zone: ZoneName = "Asia/Shanghai"
    remedies: dict[Name, Code] = {}
    currency: Annotated[str, msgspec.Meta(pattern=r"^[^\s0-9{}.,-]{1,4}$")] = YUAN
