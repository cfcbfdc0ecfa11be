"""A loaded policy pack: every number, rule and text of policy, versioned. `policy/load.py` makes one from its file.

A pack is fully checked: conditions are typed and compiled, the places in every text are known, and every plan has a
shape that the coordinator can follow.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.facts import FactType
from jiebang.model.participants import ParticipantRegistry
from jiebang.model.plan import Plan
from jiebang.policy.calendar import ZONE
from jiebang.policy.condition import Condition
from jiebang.policy.devices import Devices
from jiebang.policy.protection import Protection
from jiebang.policy.shape import Unit
from jiebang.policy.source import PackProblem
from jiebang.policy.wording import YUAN, Wording, fill

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCUMENT: Final = "document"
"""The method of proof by the document of the identity that the case brings."""
METHODS: Final = ("payment_password", "sms_code", DOCUMENT)
"""The methods of proof that this version can ask for (domain.md §4)."""
REMEDIES: Final = ("cash_out", "red_packets", "auto_debits", "logins", "device_handover")
"""The remedies that can be carried out on the spot; a pack says which of its rules each clears."""
MESSAGES: Final = (
    "case_requested",
    "sms_code",
    "case_done",
    "case_aborted",
    "case_rejected",
    "case_withdrawn",
    "case_expired",
    "remedy_code",
    "remedy_done",
)
"""The messages for which every pack must have texts."""
MESSAGE_VALUES: Final[Mapping[str, FactType]] = {
    "case": FactType.TEXT,
    "kind": FactType.TEXT,
    "at": FactType.TIME,
    "code": FactType.TEXT,
    "expires_at": FactType.TIME,
    "reason": FactType.TEXT,
    "remedy": FactType.TEXT,
    "receipt": FactType.TEXT,
}
"""The values that a message's texts may use, beside parameters. `remedy`: the title of the rule that it clears;
`receipt`: the head of the case's timeline."""
UNAVAILABLE_VALUES: Final[Mapping[str, FactType]] = {"owner": FactType.TEXT, "facts": FactType.TEXT}
EARLIEST: Final = "earliest"
OTHER_REASON: Final = "OTHER"

_UNIT_TYPES: Final = {Unit.FEN: FactType.FEN, Unit.TEXT: FactType.TEXT}


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One number of policy. `value` is an int in `unit`, or a str where the unit is `text`."""

    name: str
    value: int | str
    unit: Unit
    source: str
    meaning: Text

    @property
    def type(self) -> FactType:
        """The type a condition sees: money is money, every other number a count."""
        return _UNIT_TYPES.get(self.unit, FactType.INT)


class BlockerText(msgspec.Struct, frozen=True, kw_only=True):
    """A blocker's texts, ready to be filled."""

    code: str
    title: Wording
    explanation: Wording
    what: Wording
    where: Wording
    takes: Wording
    appeal: Wording
    on_the_spot: bool
    source: str
    legal_basis: str

    @property
    def names(self) -> frozenset[str]:
        """Every value that one of the texts asks for."""
        texts = (self.title, self.explanation, self.what, self.where, self.takes, self.appeal)
        return frozenset().union(*(text.names for text in texts))


class Rule(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One rule, compiled. `raised` yields true where every owner it names was read and `when` is true, else false.

    `consent_to`: the list each of whose items must be agreed to, where the rule needs consent to each.
    """

    words: BlockerText
    kinds: frozenset[Kind]
    severity: Severity
    when: Condition
    earliest: Condition | None
    raised: pl.Expr
    owners: frozenset[str]
    shown: tuple[str, ...]
    """The facts whose values raised it: those of the condition, and those its texts show."""
    read: tuple[str, ...]
    """The columns that its texts and `shown` need, lists apart."""
    consent_to: str | None = None

    @property
    def code(self) -> str:
        """The rule's code."""
        return self.words.code


class ConsequenceRule(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One consequence, compiled: whom it applies to (`raised`), and its texts. `shown` and `read` as in Rule."""

    code: str
    kinds: frozenset[Kind]
    participant: str
    title: Wording
    explanation: Wording
    lasts: Wording
    consent: str | None
    source: str
    legal_basis: str
    when: Condition | None
    raised: pl.Expr
    owners: frozenset[str]
    shown: tuple[str, ...]
    read: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Every value that one of the texts asks for."""
        return self.title.names | self.explanation.names | self.lasts.names


class AlternativeRule(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One alternative, compiled: whom it is shown to (`raised`), to whom it is recommended, and its texts.

    `recommended` yields true where every owner that `first` names was read and it holds.
    """

    code: str
    kinds: frozenset[Kind]
    kind: Kind | None
    title: Wording
    reaches: Wording
    costs: Wording
    source: str
    when: Condition | None
    raised: pl.Expr
    first: Condition | None
    recommended: pl.Expr
    owners: frozenset[str]
    shown: tuple[str, ...]
    read: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Every value that one of the texts asks for."""
        return self.title.names | self.reaches.names | self.costs.names


class Proofs(msgspec.Struct, frozen=True, kw_only=True):
    """The proofs that a case of one kind needs, and for how long it waits for them."""

    methods: tuple[str, ...]
    case_lives: timedelta
    code_digits: int
    code_lives: timedelta
    code_pause: timedelta
    tries: int
    tries_a_day: int
    tries_window: timedelta


class QuotaRule(msgspec.Struct, frozen=True, kw_only=True):
    """How often a document may be used for identity changes (`shape.QuotaShape` says what each field is)."""

    kinds: frozenset[Kind]
    per_year: int
    used_up: str
    cooling: str


class IdentityRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which identities a case may bring (`shape.IdentityShape` says what each field is)."""

    documents: tuple[str, ...]
    least_age: int


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What law keeps of an identity that ended (`shape.RetentionShape` says what each field is)."""

    code: str
    years: int
    law: Text
    purpose: Text


class MessageText(msgspec.Struct, frozen=True):
    """The wording of one message to a person's phone and e-mail."""

    sms: Wording
    subject: Wording
    body: Wording


class LimitText(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a limit in force (`shape.LimitShape` says what each field is)."""

    title: Wording
    explanation: Wording
    lifted: Wording
    appeal: Wording
    source: str
    legal_basis: str
    otherwise: tuple[Wording, Wording] | None = None
    """The explanation, and how it is lifted, where no case caused it."""


class Pack(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One version of one policy. `id` is name and version, as in `app/1`; a case's plan is named so.

    `registry`: the participants that it was loaded against.
    """

    registry: ParticipantRegistry
    id: str
    title: Text
    kinds: Mapping[Kind, Text]
    owners: Mapping[str, Text]
    params: Mapping[str, Param]
    items: Mapping[str, Wording]
    rules: tuple[Rule, ...]
    unavailable: BlockerText
    plans: Mapping[Kind, Plan]
    proofs: Mapping[Kind, Proofs]
    messages: Mapping[str, MessageText]
    reasons: Mapping[str, Text]
    rules_of: Mapping[Kind, tuple[Rule, ...]]
    facts_needed: Mapping[Kind, Mapping[str, tuple[str, ...]]]
    """By kind: the owners that must be readable, each with its facts that the kind's rules and consequences name."""
    consequences: tuple[ConsequenceRule, ...] = ()
    alternatives: tuple[AlternativeRule, ...] = ()
    limits: Mapping[str, LimitText] = {}
    """What is told of each limit in force, by the name that its participant declares."""
    legacy_codes: Mapping[str, str] = {}
    """Codes of older systems, each with the code of the rule that it stood for."""
    consequences_of: Mapping[Kind, tuple[ConsequenceRule, ...]] = {}
    alternatives_of: Mapping[Kind, tuple[AlternativeRule, ...]] = {}
    currency: str = YUAN
    """The sign before an amount of money."""
    zone: ZoneInfo = ZONE
    """The time zone of the rules' days and of the dates and times in texts."""
    remedies: Mapping[str, str] = {}
    """The rule that each remedy on the spot (REMEDIES) clears; without one, this policy does not offer the remedy."""
    names_of: Mapping[Kind, frozenset[str]] = {}
    """By kind: every name that a rule, consequence or alternative uses."""
    quota: QuotaRule | None = None
    """None: this policy counts no identity changes."""
    identity: IdentityRule | None = None
    """Which identities a case may bring; None: no kind of this policy asks for a document."""
    shortfalls: tuple[PackProblem, ...] = ()
    """Where a version from the store falls short of what is admitted now; a pack with any is not admitted."""
    devices: Devices = {}
    """From which device each act must come."""
    protection: Protection | None = None
    """None: this policy has no pauses and caps."""
    retentions: Mapping[Kind, Retention] | None = None
    """By kind, what law keeps of the identity; nothing, of a kind without one. None: the version says nothing of it."""

    @property
    def offered(self) -> list[str]:
        """The kinds that can be submitted, by name."""
        return sorted(kind.value for kind in self.plans)

    def reason(self, codes: str) -> Text:
        """Return the text of why a case ended. `codes`: the case's `reason`, codes separated by commas."""
        texts = [self._look_up_text(code) for code in codes.split(",")]
        return Text("\uff1b".join(text.zh for text in texts), "; ".join(text.en for text in texts))

    def _look_up_text(self, code: str) -> Text:
        titles = {rule.code: rule.words.title.whole for rule in self.rules}
        return titles.get(code) or self.reasons.get(code) or self.reasons[OTHER_REASON]


def fill_message(pack: Pack, template: str, kind: Kind, values: Mapping[str, Text]) -> tuple[Text, Text, Text]:
    """Fill a message of the pack about a case of `kind`: (sms, subject, body).

    `template`_`kind`, as in `case_done_close_payment`, is taken where the pack has it: what has ended, and what comes
    next, differs by kind. `values`: rendered, by name as in MESSAGE_VALUES. Raises KeyError for an unknown template or
    a missing value.
    """
    words = pack.messages.get(f"{template}_{kind.value}") or pack.messages[template]
    return fill(words.sms, values), fill(words.subject, values), fill(words.body, values)
