"""Loading a policy pack: read from YAML, checked to the end, refused whole if anything is wrong. Text in, pack out."""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.errors import PackInvalidError
from jiebang.model.facts import FACTS, ITEM_FIELDS, REQUEST, FactType
from jiebang.model.plan import DATABASES, NETWORKS, Plan
from jiebang.policy.calendar import LOCAL_DATES
from jiebang.policy.condition import VOCABULARY, Condition, ConditionError, Value, compile_condition
from jiebang.policy.frame import owner_of, read_column
from jiebang.policy.pack import (
    EARLIEST,
    MESSAGE_VALUES,
    MESSAGES,
    METHODS,
    OTHER_REASON,
    UNAVAILABLE_VALUES,
    Message,
    Pack,
    Param,
    Proofs,
    Rule,
    Words,
)
from jiebang.policy.shape import MessageShape, PackShape, ParamShape, PlanShape, ProofsShape, RaisedShape, Unit
from jiebang.policy.source import Path, Source
from jiebang.policy.wording import Wording, WordingError, cut, render, wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECONDS: Final = {Unit.SECONDS: 1, Unit.MINUTES: 60, Unit.HOURS: 3600, Unit.DAYS: 86400}
_MOST_DAYS: Final = 36_525
_CALENDAR_UNITS: Final = frozenset({Unit.DAYS, Unit.WORKING_DAYS})


def load_pack(text: str, source: str) -> Pack:
    """Read a pack from the text of its file `source`. Raises PackInvalidError with every problem and its place."""
    document = Source(text, source)
    shape = document.read(PackShape)
    pack = _Builder(document, shape).pack() if shape is not None else None
    if pack is None or document.problems:
        raise PackInvalidError(problems=[msgspec.to_builtins(problem) for problem in sorted(set(document.problems))])
    return pack


class _Builder:
    """Builds the parts of a pack, noting each problem where it stands and going on."""

    def __init__(self, document: Source, shape: PackShape) -> None:
        self.document = document
        self.shape = shape
        self.params = {name: _param(name, param) for name, param in shape.params.items()}
        self.values: dict[str, tuple[FactType, Value]] = {
            name: (param.type, param.value) for name, param in self.params.items()
        }
        self.param_types = {name: param.type for name, param in self.params.items()}

    def pack(self) -> Pack:
        shape = self.shape
        self._params()
        items = {name: line for name in shape.items if (line := self._item(name)) is not None}
        rules = self._rules()
        unavailable = self._words(shape.unavailable, ("unavailable",), UNAVAILABLE_VALUES)
        plans = {kind: plan for kind in shape.plans if (plan := self._plan(kind, shape.plans[kind])) is not None}
        proofs = {kind: one for kind in shape.proofs if (one := self._proofs(kind, shape.proofs[kind])) is not None}
        messages = {name: self._message(name, message) for name, message in shape.messages.items()}
        rules_of = {kind: tuple(rule for rule in rules if kind in rule.kinds) for kind in Kind}
        needed = {kind: _needed(rules_of[kind], plans.get(kind)) for kind in Kind}
        self._complete()
        return Pack(
            id=f"{shape.name}/{shape.version}",
            title=shape.title,
            kinds=shape.kinds,
            owners=shape.owners,
            params=self.params,
            items=items,
            rules=rules,
            unavailable=unavailable,
            plans=plans,
            proofs=proofs,
            messages=messages,
            reasons=shape.reasons,
            rules_of=rules_of,
            facts_needed=needed,
        )

    def _params(self) -> None:
        for name, param in self.shape.params.items():
            path = ("params", name)
            if name in VOCABULARY or name == EARLIEST:
                self.document.problem(
                    path, f"参数不能与事实同名：{name}", f"a parameter may not bear a fact's name: {name}"
                )
            if isinstance(param.value, str) != (param.unit is Unit.TEXT):
                self.document.problem(
                    (*path, "value"), f"值与单位 {param.unit} 不符", f"the value does not fit the unit {param.unit}"
                )
            elif isinstance(param.value, int) and param.unit in _CALENDAR_UNITS and param.value > _MOST_DAYS:
                self.document.problem((*path, "value"), f"天数至多 {_MOST_DAYS}", f"at most {_MOST_DAYS} days")

    def _complete(self) -> None:
        """What must all be there: the words for every kind, owner, message and reason, a way to prove every plan."""
        shape = self.shape
        self._missing(("kinds",), shape.kinds, Kind)
        self._missing(("owners",), shape.owners, {spec.owner for spec in FACTS.values()} - {REQUEST})
        self._missing(("messages",), shape.messages, MESSAGES)
        self._missing(("reasons",), shape.reasons, (OTHER_REASON,))
        self._missing(("proofs",), shape.proofs, shape.plans)

    def _missing(self, path: Path, have: Iterable[str], wanted: Iterable[str]) -> None:
        for name in sorted({str(name) for name in wanted} - {str(name) for name in have}):
            self.document.problem(path, f"缺少“{name}”", f"'{name}' is missing")

    def _rules(self) -> tuple[Rule, ...]:
        rules, first = list[Rule](), {self.shape.unavailable.code: 0}
        for at, shape in enumerate(self.shape.rules):
            path: Path = ("rules", at)
            if first.setdefault(shape.code, at + 1) != at + 1:
                self.document.problem(
                    (*path, "code"), f"规则代码重复：{shape.code}", f"two rules with the code {shape.code}"
                )
            if len(set(shape.kinds)) != len(shape.kinds):
                self.document.problem((*path, "kinds"), "申请类型重复", "a kind is named twice")
            when = self._condition(shape.when, FactType.BOOL, (*path, "when"))
            earliest_path = (*path, "remedy", "earliest")
            earliest = (
                None
                if shape.remedy.earliest is None
                else self._condition(shape.remedy.earliest, FactType.DATE, earliest_path)
            )
            known = VOCABULARY if earliest is None else {**VOCABULARY, EARLIEST: FactType.DATE}
            words = self._words(shape, path, known)
            if when is None:
                continue
            owners = _owners(when.names)
            if not when.names & (FACTS.keys() | LOCAL_DATES.keys()):
                self.document.problem((*path, "when"), "条件未涉及任何事实", "the condition names no fact")
            if earliest is not None:
                self._within(earliest.names, owners, earliest_path)
            self._within(words.names - {EARLIEST}, owners, path)
            self._worded(words.names, path)
            rules.append(_rule(shape.kinds, shape.severity, words, when, earliest, owners))
        return tuple(rules)

    def _within(self, names: Iterable[str], owners: frozenset[str], path: Path) -> None:
        """A text or date may only use what the condition made sure was read."""
        for name in sorted(names):
            for owner in _owners([name]) - owners - {REQUEST}:
                self.document.problem(
                    path,
                    f"“{name}”属于 {owner}，而条件未涉及该来源：未读到时无法填入",
                    f"'{name}' belongs to {owner}, which the condition does not name: it may be unread",
                )

    def _worded(self, names: Iterable[str], path: Path) -> None:
        for name in sorted(names):
            if name in ITEM_FIELDS and name not in self.shape.items:
                self.document.problem(path, f"items 中缺少“{name}”的写法", f"`items` does not word '{name}'")

    def _condition(self, text: str, wanted: FactType, path: Path) -> Condition | None:
        try:
            return compile_condition(text, wanted, self.values)
        except ConditionError as wrong:
            self.document.problem(path, wrong.text.zh, wrong.text.en, wrong.token, text[: wrong.offset])
            return None

    def _wording(self, text: Text, path: Path, known: Mapping[str, FactType]) -> Wording:
        """Cut a text at its places and write the parameters in, which are the same for everyone."""
        return wording(
            self._cut(text.zh, (*path, "zh"), known, chinese=True),
            self._cut(text.en, (*path, "en"), known, chinese=False),
        )

    def _cut(self, text: str, path: Path, known: Mapping[str, FactType], *, chinese: bool) -> tuple[str, ...]:
        try:
            parts = cut(text, {**known, **self.param_types})
        except WordingError as wrong:
            self.document.problem(path, wrong.text.zh, wrong.text.en, wrong.token)
            return ("",)
        whole = [parts[0]]
        for name, literal in zip(parts[1::2], parts[2::2], strict=True):
            if name in self.values:
                shown = render(self.values[name][1], self.param_types[name])
                whole[-1] += (shown.zh if chinese else shown.en) + literal
            else:
                whole += [name, literal]
        return tuple(whole)

    def _words(self, shape: RaisedShape, path: Path, known: Mapping[str, FactType]) -> Words:
        remedy = shape.remedy
        return Words(
            code=shape.code,
            title=self._wording(shape.title, (*path, "title"), {}),
            explanation=self._wording(shape.explanation, (*path, "explanation"), known),
            what=self._wording(remedy.what, (*path, "remedy", "what"), known),
            where=self._wording(remedy.where, (*path, "remedy", "where"), known),
            takes=self._wording(remedy.takes, (*path, "remedy", "takes"), known),
            appeal=self._wording(shape.appeal, (*path, "appeal"), known),
            on_the_spot=remedy.on_the_spot,
            source=shape.source,
            legal_basis=shape.legal_basis,
        )

    def _item(self, name: str) -> Wording | None:
        if name not in ITEM_FIELDS:
            self.document.problem(("items", name), f"“{name}”不是明细类事实", f"'{name}' is not a fact made of items")
            return None
        return self._wording(self.shape.items[name], ("items", name), ITEM_FIELDS[name])

    def _message(self, name: str, shape: MessageShape) -> Message:
        parts = {
            part: self._wording(getattr(shape, part), ("messages", name, part), MESSAGE_VALUES)
            for part in ("sms", "subject", "body")
        }
        return Message(**parts)

    def _plan(self, kind: Kind, shape: PlanShape) -> Plan | None:
        path: Path = ("plans", kind.value)
        participants = tuple(name for wave in shape.waves for name in wave)
        for at, wave in enumerate(shape.waves):
            for place, name in enumerate(wave):
                if name not in DATABASES + NETWORKS:
                    self.document.problem(
                        (*path, "waves", at, place), f"没有名为“{name}”的参与方", f"there is no participant '{name}'"
                    )
        effects = {
            name: {key: self._effect((*path, "effects", name, key), value) for key, value in effect.items()}
            for name, effect in shape.effects.items()
        }
        try:
            return Plan(
                name=f"{self.shape.name}/{self.shape.version}",
                participants=participants,
                waves=tuple(at for at, wave in enumerate(shape.waves) for _ in wave),
                effects=effects,
            )
        except ValueError as wrong:
            self.document.problem(path, f"参与方编排不成立：{wrong}", f"the plan cannot be followed: {wrong}")
            return None

    def _effect(self, path: Path, value: bool | str) -> bool | str | int:
        if isinstance(value, bool) or not value.startswith(":"):
            return value
        param = self._referred(value, path)
        return value if param is None else param.value

    def _referred(self, reference: str, path: Path) -> Param | None:
        param = self.params.get(reference.removeprefix(":"))
        if param is None:
            self.document.problem(
                path, f"没有名为“{reference}”的参数", f"there is no parameter named '{reference}'", reference
            )
        return param

    def _proofs(self, kind: Kind, shape: ProofsShape) -> Proofs | None:
        path: Path = ("proofs", kind.value)
        for at, method in enumerate(shape.methods):
            if method not in METHODS or method in shape.methods[:at]:
                known = ", ".join(METHODS)
                self.document.problem(
                    (*path, "methods", at), f"须为以下之一且不重复：{known}", f"must be one of {known}, once each"
                )
        spans = {
            name: self._span(getattr(shape, name), (*path, name))
            for name in ("case_lives", "code_lives", "code_pause", "tries_window")
        }
        counts = {
            name: self._count(getattr(shape, name), (*path, name)) for name in ("code_digits", "tries", "tries_a_day")
        }
        if None in spans.values() or None in counts.values():
            return None
        return msgspec.convert({"methods": shape.methods, **spans, **counts}, Proofs)

    def _span(self, reference: str, path: Path) -> timedelta | None:
        param = self._referred(reference, path)
        if param is None:
            return None
        if param.unit not in _SECONDS or not isinstance(param.value, int) or not 0 < param.value <= 1 << 31:
            self.document.problem(path, "须为大于零的时长参数", "must be a parameter with a length of time above zero")
            return None
        return timedelta(seconds=param.value * _SECONDS[param.unit])

    def _count(self, reference: str, path: Path) -> int | None:
        param = self._referred(reference, path)
        if param is None:
            return None
        if param.unit not in (Unit.COUNT, Unit.DIGITS) or not isinstance(param.value, int) or param.value < 1:
            self.document.problem(path, "须为大于零的数量参数", "must be a parameter with a count above zero")
            return None
        return param.value


def _param(name: str, shape: ParamShape) -> Param:
    return Param(name=name, value=shape.value, unit=shape.unit, source=shape.source, meaning=Text(shape.zh, shape.en))


def _fact_of(name: str) -> str | None:
    """The fact that a name of the vocabulary stands for or is derived from; None for now, today and parameters."""
    fact = LOCAL_DATES.get(name, name)
    return fact if fact in FACTS else None


def _owners(names: Iterable[str]) -> frozenset[str]:
    return frozenset(FACTS[fact].owner for name in names if (fact := _fact_of(name)) is not None)


def _rule(
    kinds: Iterable[Kind],
    severity: Severity,
    words: Words,
    when: Condition,
    earliest: Condition | None,
    owners: frozenset[str],
) -> Rule:
    read = [pl.col(read_column(owner)) for owner in sorted(owners - {REQUEST})]
    named = when.names | words.names
    return Rule(
        words=words,
        kinds=frozenset(kinds),
        severity=severity,
        when=when,
        earliest=earliest,
        raised=reduce(and_, [*read, when.expr.fill_null(value=False)]),
        owners=owners,
        shown=tuple(name for name in FACTS if name in {_fact_of(one) for one in named}),
    )


def _needed(rules: Iterable[Rule], plan: Plan | None) -> dict[str, tuple[str, ...]]:
    """Owners whose facts a case of one kind cannot do without: named by a rule, or tried at a version that was read."""
    named = {fact for rule in rules for name in rule.when.names if (fact := _fact_of(name)) is not None}
    owners = {FACTS[fact].owner for fact in named}
    if plan is not None:
        owners |= {owner_of(name) for name in plan.participants}
    return {
        owner: tuple(name for name, spec in FACTS.items() if spec.owner == owner and name in named)
        for owner in dict.fromkeys(spec.owner for spec in FACTS.values())
        if owner in owners and owner != REQUEST
    }
