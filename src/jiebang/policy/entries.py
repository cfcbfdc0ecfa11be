"""Compile a pack's entries: rules (why not yet), consequences (what follows), alternatives (what else)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import Severity
from jiebang.model.facts import FactType
from jiebang.policy.compose import Composer, EntryScope, make_scope, owners_of, read_and
from jiebang.policy.condition import Condition, vocabulary
from jiebang.policy.pack import EARLIEST, AlternativeRule, BlockerText, ConsequenceRule, LimitText, Param, Rule
from jiebang.policy.shape import PackShape, RaisedShape, RuleShape
from jiebang.policy.source import Path, Source
from jiebang.policy.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.participants import ParticipantRegistry


class Entries(Composer):
    """Compiles rules, consequences and alternatives."""

    def __init__(
        self, document: Source, shape: PackShape, params: Mapping[str, Param], registry: ParticipantRegistry
    ) -> None:
        super().__init__(document, params, shape.items, shape.currency, registry)
        self.known = vocabulary(registry)
        self.shape = shape
        self.codes: dict[str, Path] = {shape.unavailable.code: ("unavailable",)}

    def _register_code(self, code: str, section: str, at: int) -> None:
        """Note a problem where another entry of the pack has the code already."""
        place: Path = (section, at)
        if self.codes.setdefault(code, place) != place:
            self.document.problem((*place, "code"), f"代码重复：{code}", f"two entries with the code {code}")

    def _make_scope(self, when: Condition | None, names: frozenset[str]) -> EntryScope:
        """Return the scope of an entry whose texts use `names`; all of their owners must be read."""
        owners = owners_of(names | (when.names if when is not None else frozenset()), self.registry)
        return make_scope(when, names, owners, self.registry)

    def _require_distinct(self, kinds: tuple[Kind, ...], path: Path) -> None:
        if len(set(kinds)) != len(kinds):
            self.document.problem((*path, "kinds"), "申请类型重复", "a kind is named twice")

    def rules(self) -> tuple[Rule, ...]:
        """Compile the rules."""
        rules = list[Rule]()
        for at, shape in enumerate(self.shape.rules):
            path: Path = ("rules", at)
            self._register_code(shape.code, "rules", at)
            self._require_distinct(shape.kinds, path)
            when = self.compile_when(shape.when, (*path, "when"))
            earliest_path = (*path, "remedy", "earliest")
            earliest = (
                None
                if shape.remedy.earliest is None
                else self.condition(shape.remedy.earliest, FactType.DATE, earliest_path)
            )
            known = self.known if earliest is None else {**self.known, EARLIEST: FactType.DATE}
            words = self.words(shape, path, known)
            if when is None:
                continue
            owners = owners_of(when.names, self.registry)
            if earliest is not None:
                self.require_read(earliest.names, owners, earliest_path)
            self.require_read(words.names - {EARLIEST}, owners, path)
            self.require_item_words(words.names, path)
            self._check_consent_to(shape, owners, (*path, "consent_to"))
            whom = make_scope(when, words.names, owners, self.registry)
            rules.append(
                Rule(
                    words=words,
                    kinds=frozenset(shape.kinds),
                    severity=shape.severity,
                    when=when,
                    earliest=earliest,
                    raised=whom.raised,
                    owners=owners,
                    shown=whom.shown,
                    read=whom.read,
                    consent_to=shape.consent_to,
                )
            )
        return tuple(rules)

    def _check_consent_to(self, shape: RuleShape, owners: frozenset[str], path: Path) -> None:
        wanted = shape.consent_to
        if wanted is None:
            return
        if shape.severity is not Severity.NEEDS_CONSENT:
            self.document.problem(path, "仅 needs_consent 的规则可用", "only a rule that needs_consent may have this")
        if "id" not in self.registry.item_fields.get(wanted, ()):
            self.document.problem(path, f"“{wanted}”不是带编号的明细", f"'{wanted}' is no list of items with an id")
        else:
            self.require_read([wanted], owners, path)

    def consequences(self) -> tuple[ConsequenceRule, ...]:
        """Compile the consequences."""
        asking = {rule.code: rule for rule in self.shape.rules if rule.severity is Severity.NEEDS_CONSENT}
        found = list[ConsequenceRule]()
        for at, shape in enumerate(self.shape.consequences):
            path: Path = ("consequences", at)
            self._register_code(shape.code, "consequences", at)
            self._require_distinct(shape.kinds, path)
            if shape.participant not in self.shape.owners:
                self.document.problem(
                    (*path, "participant"),
                    f"owners 中缺少“{shape.participant}”",
                    f"`owners` lacks '{shape.participant}'",
                )
            if shape.consent is not None and not set(shape.kinds) <= set(
                asking[shape.consent].kinds if shape.consent in asking else ()
            ):
                self.document.problem(
                    (*path, "consent"),
                    f"没有适用于全部所列申请类型、需同意的规则“{shape.consent}”",
                    f"there is no rule '{shape.consent}' that needs consent for all the kinds listed",
                )
            when = self.compile_when(shape.when, (*path, "when"))
            (title, explanation, lasts), whom = self._compile_texts(
                shape, ("title", "explanation", "lasts"), path, when
            )
            found.append(
                ConsequenceRule(
                    code=shape.code,
                    kinds=frozenset(shape.kinds),
                    participant=shape.participant,
                    title=title,
                    explanation=explanation,
                    lasts=lasts,
                    consent=shape.consent,
                    source=shape.source,
                    legal_basis=shape.legal_basis,
                    when=when,
                    raised=whom.raised,
                    owners=whom.owners,
                    shown=whom.shown,
                    read=whom.read,
                )
            )
        return tuple(found)

    def alternatives(self) -> tuple[AlternativeRule, ...]:
        """Compile the alternatives."""
        found = list[AlternativeRule]()
        for at, shape in enumerate(self.shape.alternatives):
            path: Path = ("alternatives", at)
            self._register_code(shape.code, "alternatives", at)
            self._require_distinct(shape.kinds, path)
            if shape.kind is not None and (shape.kind in shape.kinds or shape.kind not in self.shape.kinds):
                self.document.problem(
                    (*path, "kind"),
                    f"“{shape.kind}”须在 kinds 中有说明，且不是它所替代的类型",
                    f"'{shape.kind}' must be worded in `kinds`, and not be what it stands in for",
                )
            when = self.compile_when(shape.when, (*path, "when"))
            first = self.compile_when(shape.recommended, (*path, "recommended"))
            (title, reaches, costs), whom = self._compile_texts(shape, ("title", "reaches", "costs"), path, when)
            recommended = (
                pl.lit(value=False) if first is None else read_and(owners_of(first.names, self.registry), first)
            )
            found.append(
                AlternativeRule(
                    code=shape.code,
                    kinds=frozenset(shape.kinds),
                    kind=shape.kind,
                    title=title,
                    reaches=reaches,
                    costs=costs,
                    source=shape.source,
                    when=when,
                    raised=whom.raised,
                    first=first,
                    recommended=recommended,
                    owners=whom.owners,
                    shown=whom.shown,
                    read=whom.read,
                )
            )
        return tuple(found)

    def _compile_texts(
        self, shape: object, parts: Sequence[str], path: Path, when: Condition | None
    ) -> tuple[list[Wording], EntryScope]:
        """Return the texts of an entry, and whom its condition (None: everyone) and its texts ask about."""
        texts = [self.wording(getattr(shape, part), (*path, part), self.known) for part in parts]
        names = frozenset[str]().union(*(text.names for text in texts))
        self.require_item_words(names, path)
        return texts, self._make_scope(when, names)

    def legacy_codes(self) -> None:
        """Check that each older system's code maps to a rule, and is no code of this pack."""
        known = {rule.code for rule in self.shape.rules} | {self.shape.unavailable.code}
        for old, code in self.shape.legacy_codes.items():
            if code not in known:
                self.document.problem(("legacy_codes", old), f"没有规则“{code}”", f"there is no rule '{code}'")
            if old in self.codes or old in self.shape.reasons:
                self.document.problem(
                    ("legacy_codes", old), f"“{old}”是现行代码", f"'{old}' is a code of this pack itself"
                )

    def words(self, shape: RaisedShape, path: Path, known: Mapping[str, FactType]) -> BlockerText:
        """Compile a blocker's texts."""
        remedy = shape.remedy
        return BlockerText(
            code=shape.code,
            title=self.wording(shape.title, (*path, "title"), {}),
            explanation=self.wording(shape.explanation, (*path, "explanation"), known),
            what=self.wording(remedy.what, (*path, "remedy", "what"), known),
            where=self.wording(remedy.where, (*path, "remedy", "where"), known),
            takes=self.wording(remedy.takes, (*path, "remedy", "takes"), known),
            appeal=self.wording(shape.appeal, (*path, "appeal"), known),
            on_the_spot=remedy.on_the_spot,
            source=shape.source,
            legal_basis=shape.legal_basis,
        )

    def limits(self) -> dict[str, LimitText]:
        """Compile the texts of limits. Each that a plan of this pack causes must have some."""
        declared = self.registry.limits
        for name in sorted(self.shape.limits.keys() - declared.keys()):
            self.document.problem(
                ("limits", name), f"没有名为“{name}”的限制", f"there is no limit named '{name}'", name
            )
        for name in sorted(self._list_caused() - self.shape.limits.keys()):
            self.document.shortfall(
                ("limits",),
                f"缺少“{name}”:计划会造成此限制,须说明原因与解除办法",
                f"'{name}' is missing: a plan causes this limit, so why and how it is lifted must be told",
            )
        found = dict[str, LimitText]()
        for name, shape in self.shape.limits.items():
            if name not in declared:
                continue
            path: Path = ("limits", name)
            number = declared[name].value
            values = {"until": FactType.TIME} | ({} if number is None else {"value": number})
            title, explanation, lifted, appeal = (
                self.wording(getattr(shape, part), (*path, part), values)
                for part in ("title", "explanation", "lifted", "appeal")
            )
            other = shape.otherwise
            found[name] = LimitText(
                title=title,
                explanation=explanation,
                lifted=lifted,
                appeal=appeal,
                source=shape.source,
                legal_basis=shape.legal_basis,
                otherwise=None
                if other is None
                else (
                    self.wording(other.explanation, (*path, "otherwise", "explanation"), values),
                    self.wording(other.lifted, (*path, "otherwise", "lifted"), values),
                ),
            )
        return found

    def _list_caused(self) -> set[str]:
        """Return the limits that a plan of this pack causes."""
        caused = set[str]()
        for plan in self.shape.plans.values():
            for participant, planned in (plan.operations or {}).items():
                if participant in self.registry:
                    limits = self.registry[participant].limits
                    caused |= {one.name for one in limits if one.running or one.effect in planned.effects}
        return caused
