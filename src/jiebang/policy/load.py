"""Load a policy pack from YAML. All problems are collected, and a pack with any is refused as a whole."""

from __future__ import annotations

from datetime import timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError, PackInvalidError
from jiebang.model.facts import REQUEST
from jiebang.model.plan import Plan
from jiebang.policy.bounds import MOST_CHANGES, MOST_DAYS, OWN_METHODS, UNIT_BOUNDS, hold
from jiebang.policy.calendar import ZONE
from jiebang.policy.compose import fact_of
from jiebang.policy.condition import Condition
from jiebang.policy.devices import Act
from jiebang.policy.documents import BROUGHT_DOCUMENTS
from jiebang.policy.entries import Entries
from jiebang.policy.operations import compile_operations
from jiebang.policy.pack import (
    DOCUMENT,
    EARLIEST,
    MESSAGE_VALUES,
    MESSAGES,
    METHODS,
    OTHER_REASON,
    REMEDIES,
    UNAVAILABLE_VALUES,
    AlternativeRule,
    ConsequenceRule,
    IdentityRule,
    MessageText,
    Pack,
    Param,
    Proofs,
    QuotaRule,
    Retention,
    Rule,
)
from jiebang.policy.protection import PROOF_LOCK, WRONG_TRIES, Protection, UseLimits
from jiebang.policy.retention import MOST_YEARS
from jiebang.policy.shape import (
    IdentityShape,
    MessageShape,
    PackShape,
    ParamShape,
    PlanShape,
    ProofsShape,
    ProtectionShape,
    QuotaShape,
    RetentionShape,
    Unit,
    UseLimitsShape,
)
from jiebang.policy.source import Path, Source
from jiebang.policy.wording import Wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jiebang.model.participants import ParticipantRegistry

_SECONDS: Final = {Unit.SECONDS: 1, Unit.MINUTES: 60, Unit.HOURS: 3600, Unit.DAYS: 86400}
_LONGEST: Final = 1 << 31
_NUMBER_LIMIT: Final = 1 << 53
_DIGITS: Final = len(str(_NUMBER_LIMIT))
_SPANS: Final = ("case_lives", "code_lives", "code_pause", "tries_window")
_COUNTS: Final = ("code_digits", "tries", "tries_a_day")
_MOST_COUNTED: Final = 1_000_000
_CALENDAR_UNITS: Final = frozenset({Unit.DAYS, Unit.WORKING_DAYS})


def load_pack(
    text: str,
    source: str,
    registry: ParticipantRegistry,
    changed: Mapping[str, str] = MappingProxyType({}),
    *,
    stored: bool = False,
) -> Pack:
    """Read a pack from the text of its file `source`. Raises PackInvalidError with every problem and its place.

    `registry`: the participants whose facts rules may name, and whose operations plans may name. `changed`: replacement
    values of parameters, by name, as text. `stored`: it was admitted before, perhaps by an earlier jiebang: where it
    falls short of today's floors and bounds it is loaded all the same, with its proofs held at them, and says so in
    `shortfalls`; an effect that cannot be applied is left for the participant to refuse. Raises InvalidInputError for
    an unknown parameter, or a value that does not fit its unit.
    """
    document = Source(text, source)
    shape = document.read(PackShape)
    if shape is not None and changed:
        shape = _with_params(shape, changed)
    pack = _Builder(document, shape, registry).pack() if shape is not None else None
    problems = {*document.problems, *(() if stored else document.shortfalls)}
    if pack is None or problems:
        raise PackInvalidError(problems=[msgspec.to_builtins(problem) for problem in sorted(problems)])
    return msgspec.structs.replace(pack, shortfalls=tuple(sorted(set(document.shortfalls))))


def _with_params(shape: PackShape, changed: Mapping[str, str]) -> PackShape:
    params = dict(shape.params)
    for name, typed in changed.items():
        if name not in params:
            near = get_close_matches(name, params, n=5, cutoff=0.3)
            known = "、".join(near), ", ".join(near)
            reason = Text(f"没有此参数。相近的有:{known[0]}", f"there is no such parameter. Near ones: {known[1]}")
            raise InvalidInputError(field=name, reason=reason)
        old = params[name]
        value: int | str = typed
        if old.unit is not Unit.TEXT:
            if not (typed.isascii() and typed.isdigit()) or len(typed) > _DIGITS or int(typed) > _NUMBER_LIMIT:
                reason = Text(f"须为非负整数(单位 {old.unit})", f"must be a whole number, 0 or more, in {old.unit}")
                raise InvalidInputError(field=name, reason=reason)
            value = int(typed)
        params[name] = msgspec.structs.replace(old, value=value)
    return msgspec.structs.replace(shape, params=params)


class _Builder(Entries):
    """Builds the parts of a pack; notes each problem with its place and continues."""

    def __init__(self, document: Source, shape: PackShape, registry: ParticipantRegistry) -> None:
        params = {name: _param(name, param) for name, param in shape.params.items()}
        super().__init__(document, shape, params, registry)

    def pack(self) -> Pack:
        shape = self.shape
        self._check_params()
        items = {name: line for name in shape.items if (line := self._item(name)) is not None}
        rules = self.rules()
        unavailable = self.words(shape.unavailable, ("unavailable",), UNAVAILABLE_VALUES)
        plans = {kind: plan for kind in shape.plans if (plan := self._plan(kind, shape.plans[kind])) is not None}
        proofs = {kind: one for kind in shape.proofs if (one := self._proofs(kind, shape.proofs[kind])) is not None}
        messages = {name: self._message(name, message) for name, message in shape.messages.items()}
        consequences, alternatives = self.consequences(), self.alternatives()
        rules_of = {kind: tuple(rule for rule in rules if kind in rule.kinds) for kind in Kind}
        consequences_of = {kind: tuple(one for one in consequences if kind in one.kinds) for kind in Kind}
        alternatives_of = {kind: tuple(one for one in alternatives if kind in one.kinds) for kind in Kind}
        needed = {
            kind: _list_facts_needed(rules_of[kind], consequences_of[kind], plans.get(kind), self.registry)
            for kind in Kind
        }
        self.legacy_codes()
        self._check_remedies()
        self._require_complete({owner for owners in needed.values() for owner in owners})
        return Pack(
            registry=self.registry,
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
            consequences=consequences,
            alternatives=alternatives,
            limits=self.limits(),
            legacy_codes=shape.legacy_codes,
            currency=shape.currency,
            zone=self._zone(),
            remedies=shape.remedies,
            consequences_of=consequences_of,
            alternatives_of=alternatives_of,
            names_of={kind: _list_names(rules_of[kind], consequences_of[kind], alternatives_of[kind]) for kind in Kind},
            quota=None if shape.quota is None else self._quota(shape.quota),
            devices={} if shape.devices is None else {act: getattr(shape.devices, act.value) for act in Act},
            identity=None if shape.identity is None else self._identity(shape.identity),
            protection=None if shape.protection is None else self._protection(shape.protection),
            retentions=None if shape.retentions is None else self._retentions(shape.retentions),
        )

    def _check_params(self) -> None:
        for name, param in self.shape.params.items():
            path = ("params", name)
            if name in self.known or name == EARLIEST:
                self.document.problem(
                    path, f"参数不能与事实同名：{name}", f"a parameter may not bear a fact's name: {name}"
                )
            if isinstance(param.value, str) != (param.unit is Unit.TEXT):
                self.document.problem(
                    (*path, "value"), f"值与单位 {param.unit} 不符", f"the value does not fit the unit {param.unit}"
                )
            elif isinstance(param.value, int) and param.unit in _CALENDAR_UNITS and param.value > MOST_DAYS:
                self.document.problem((*path, "value"), f"天数至多 {MOST_DAYS}", f"at most {MOST_DAYS} days")
            elif isinstance(param.value, int):
                least, most = UNIT_BOUNDS[param.unit]
                if not least <= param.value <= most:
                    self.document.shortfall(
                        (*path, "value"),
                        f"单位为 {param.unit} 的数须为 {least} 至 {most}",
                        f"a number of {param.unit} must be {least} to {most}",
                    )

    def _require_complete(self, owners: set[str]) -> None:
        """Note what is missing: texts for kinds, owners, messages and reasons in use, and proofs for each plan."""
        shape = self.shape
        used = [entry.kinds for entry in shape.rules]
        used += [entry.kinds for entry in shape.consequences] + [entry.kinds for entry in shape.alternatives]
        self._note_missing(("kinds",), shape.kinds, {*shape.plans, *(kind for kinds in used for kind in kinds)})
        self._note_missing(("owners",), shape.owners, owners)
        protected = shape.protection is not None
        self._note_missing(("messages",), shape.messages, (*MESSAGES, WRONG_TRIES) if protected else MESSAGES)
        self._note_missing(("reasons",), shape.reasons, (OTHER_REASON, PROOF_LOCK) if protected else (OTHER_REASON,))
        self._note_missing(("proofs",), shape.proofs, shape.plans)
        brings = any(DOCUMENT in one.methods for one in shape.proofs.values())
        self._note_missing((), () if shape.identity is None else ("identity",), ("identity",) if brings else ())

    def _zone(self) -> ZoneInfo:
        name = self.shape.time_zone
        try:
            zone = ZoneInfo(name)
            pl.Series([], dtype=pl.Datetime("us", name))  # it knows fewer: the server's own `localtime` is none
        except (ValueError, OSError, KeyError, pl.exceptions.ComputeError):
            self.document.problem(("time_zone",), f"没有时区“{name}”", f"there is no time zone '{name}'", name)
            return ZONE
        if self.shape.quota is not None and zone != ZONE:
            self.document.problem(
                ("time_zone",),
                f"有 quota 时须为 {ZONE}：次数按其自然年计",
                f"must be {ZONE} where there is a quota: its years are counted there",
                name,
            )
        return zone

    def _check_remedies(self) -> None:
        """Check that each remedy on the spot names a rule that can be cleared on the spot."""
        spots = {rule.code for rule in self.shape.rules if rule.remedy.on_the_spot}
        for name, code in self.shape.remedies.items():
            path: Path = ("remedies", name)
            if name not in REMEDIES:
                known = ", ".join(REMEDIES)
                self.document.problem(path, f"须为以下之一：{known}", f"must be one of {known}")
            elif code not in spots or list(self.shape.remedies.values()).count(code) > 1:
                self.document.problem(
                    path,
                    f"“{code}”不是可当场处理的规则，或重复",
                    f"'{code}' is no rule cleared on the spot, or stands twice",
                )

    def _note_missing(self, path: Path, have: Iterable[str], wanted: Iterable[str]) -> None:
        for name in sorted({str(name) for name in wanted} - {str(name) for name in have}):
            self.document.problem(path, f"缺少“{name}”", f"'{name}' is missing")

    def _item(self, name: str) -> Wording | None:
        if name not in self.registry.item_fields:
            self.document.problem(("items", name), f"“{name}”不是明细类事实", f"'{name}' is not a fact made of items")
            return None
        return self.wording(self.shape.items[name], ("items", name), self.registry.item_fields[name])

    def _message(self, name: str, shape: MessageShape) -> MessageText:
        parts = {
            part: self.wording(getattr(shape, part), ("messages", name, part), MESSAGE_VALUES)
            for part in ("sms", "subject", "body")
        }
        return MessageText(**parts)

    def _plan(self, kind: Kind, shape: PlanShape) -> Plan | None:
        path: Path = ("plans", kind.value)
        participants = tuple(name for wave in shape.waves for name in wave)
        for at, wave in enumerate(shape.waves):
            for place, name in enumerate(wave):
                if name not in self.registry:
                    self.document.problem(
                        (*path, "waves", at, place), f"没有名为“{name}”的参与方", f"there is no participant '{name}'"
                    )
        known = [name for name in participants if name in self.registry]
        try:
            return Plan(
                name=f"{self.shape.name}/{self.shape.version}",
                participants=participants,
                waves=tuple(at for at, wave in enumerate(shape.waves) for _ in wave),
                operations=compile_operations(self, shape, known, path),
            )
        except ValueError as wrong:
            self.document.problem(path, f"参与方编排不成立：{wrong}", f"the plan cannot be followed: {wrong}")
            return None

    def _proofs(self, kind: Kind, shape: ProofsShape) -> Proofs | None:
        path: Path = ("proofs", kind.value)
        for at, method in enumerate(shape.methods):
            if method not in METHODS or method in shape.methods[:at]:
                known = ", ".join(METHODS)
                self.document.problem(
                    (*path, "methods", at), f"须为以下之一且不重复：{known}", f"must be one of {known}, once each"
                )
        spans = {name: self._bounded_span(getattr(shape, name), (*path, name)) for name in _SPANS}
        counts = {name: self._bounded_count(getattr(shape, name), (*path, name)) for name in _COUNTS}
        if not OWN_METHODS.intersection(shape.methods):
            known = ", ".join(sorted(OWN_METHODS))
            self.document.shortfall(
                (*path, "methods"),
                f"至少须有一种只有本人掌握的验证：{known}（短信验证码不足以证明）",
                f"one method must be the person's own: {known} (a code by SMS alone proves too little)",
            )
        if None in spans.values() or None in counts.values():
            return None
        if (tries := counts["tries"] or 0) > (counts["tries_a_day"] or 0):
            self.document.shortfall(
                (*path, "tries_a_day"),
                f"不得少于每个申请可错的次数（{tries}）",
                f"must not be below the tries of one case ({tries})",
            )
        return msgspec.convert({"methods": shape.methods, **spans, **counts}, Proofs)

    def _quota(self, shape: QuotaShape) -> QuotaRule | None:
        rules = {rule.code: frozenset(rule.kinds) for rule in self.shape.rules}
        for name, code in (("used_up", shape.used_up), ("cooling", shape.cooling)):
            if not rules.get(code, frozenset()).issuperset(shape.kinds):
                self.document.problem(
                    ("quota", name),
                    f"没有适用于全部所列申请类型的规则“{code}”",
                    f"there is no rule '{code}' for all the kinds listed",
                )
        per_year = self._count(shape.per_year, ("quota", "per_year"))
        if per_year is None:
            return None
        if per_year > MOST_CHANGES:
            self.document.problem(("quota", "per_year"), f"至多 {MOST_CHANGES} 次", f"at most {MOST_CHANGES}")
            return None
        return QuotaRule(kinds=frozenset(shape.kinds), per_year=per_year, used_up=shape.used_up, cooling=shape.cooling)

    def _identity(self, shape: IdentityShape) -> IdentityRule | None:
        for at, document in enumerate(shape.documents):
            if document not in BROUGHT_DOCUMENTS or document in shape.documents[:at]:
                known = ", ".join(BROUGHT_DOCUMENTS)
                self.document.problem(
                    ("identity", "documents", at),
                    f"须为以下之一且不重复：{known}",
                    f"must be one of {known}, once each",
                )
        age = self._age(shape.least_age, ("identity", "least_age"))
        return None if age is None else IdentityRule(documents=shape.documents, least_age=age)

    def _age(self, reference: str, path: Path) -> int | None:
        param = self.look_up_param(reference, path)
        if param is not None and (param.unit is not Unit.YEARS or not isinstance(param.value, int)):
            self.document.problem(path, "须为以年计的参数", "must be a parameter in years")
            return None
        return None if param is None else int(param.value)

    def _protection(self, shape: ProtectionShape) -> Protection | None:
        spans = {
            name: self._span(reference, ("protection", *path))
            for name, path, reference in (
                ("window", ("window",), shape.window),
                ("case_pause", ("case_pause",), shape.case_pause),
                ("unlock_pause", ("unlock", "pause"), shape.unlock.pause),
            )
        }
        counts = {
            name: self._count_up_to(_MOST_COUNTED, reference, ("protection", *path))
            for name, path, reference in (
                ("tell_after", ("tell_after",), shape.tell_after),
                ("unlock_tries", ("unlock", "tries"), shape.unlock.tries),
            )
        }
        least = [self._count(proofs.tries_a_day, ("proofs", kind.value)) for kind, proofs in self.shape.proofs.items()]
        if (counts["tell_after"] or 0) > min((tries for tries in least if tries is not None), default=_MOST_COUNTED):
            self.document.problem(
                ("protection", "tell_after"),
                "大于 tries_a_day:验证锁定之前本人不会得到通知",
                "is above tries_a_day: the owner would never be told",
            )
        limits = {name: self._use_limits(getattr(shape, name), ("protection", name)) for name in ("account", "address")}
        if None in (*spans.values(), *counts.values(), *limits.values()):
            return None
        return msgspec.convert({**spans, **counts, **limits}, Protection)

    def _retentions(self, shapes: tuple[RetentionShape, ...]) -> dict[Kind, Retention]:
        found = dict[Kind, Retention]()
        for at, shape in enumerate(shapes):
            path: Path = ("retentions", at)
            if shape.legal_basis == "platform":
                self.document.problem(
                    (*path, "legal_basis"),
                    "须为法律及条款：平台自身不得留存",
                    "must be a law: the platform keeps nothing",
                )
                continue
            param = self.look_up_param(shape.years, (*path, "years"))
            if param is None:
                continue
            if param.unit is not Unit.YEARS or not isinstance(param.value, int) or not 0 < param.value <= MOST_YEARS:
                self.document.problem(
                    (*path, "years"),
                    f"须为 1 至 {MOST_YEARS} 的年数参数",
                    f"must be a parameter of 1 to {MOST_YEARS} years",
                )
                continue
            zh, _, en = shape.legal_basis.partition(" / ")
            one = Retention(code=shape.code, years=param.value, law=Text(zh, en), purpose=shape.purpose)
            for kind in shape.kinds:
                if kind in found:
                    self.document.problem(
                        (*path, "kinds"), f"“{kind}”已有留存规定", f"'{kind.value}' has a retention already"
                    )
                found[kind] = one
        return found

    def _use_limits(self, shape: UseLimitsShape, path: Path) -> UseLimits | None:
        counts = {
            name: self._count_up_to(_MOST_COUNTED, getattr(shape, name), (*path, name))
            for name in ("cases", "codes", "messages")
        }
        return None if None in counts.values() else msgspec.convert(counts, UseLimits)

    def _count_up_to(self, most: int, reference: str, path: Path) -> int | None:
        count = self._count(reference, path)
        if count is not None and count > most:
            self.document.problem(path, f"至多 {most}", f"at most {most}")
            return None
        return count

    def _span(self, reference: str, path: Path) -> timedelta | None:
        param = self.look_up_param(reference, path)
        if param is None:
            return None
        if param.unit not in _SECONDS or not isinstance(param.value, int) or not 0 < param.value <= _LONGEST:
            self.document.problem(path, "须为大于零的时长参数", "must be a parameter with a length of time above zero")
            return None
        return timedelta(seconds=param.value * _SECONDS[param.unit])

    def _bounded_span(self, reference: str, path: Path) -> timedelta | None:
        span = self._span(reference, path)
        if span is None:
            return None
        param = self.params[reference.removeprefix(":")]
        return timedelta(seconds=self._hold(path[-1], span // timedelta(seconds=1), param))

    def _hold(self, name: str | int, value: int, param: Param) -> int:
        """Return a number of proofs within its bounds; note at its parameter where it was not."""
        held, fault = hold(str(name), value)
        if fault is not None:
            self.document.shortfall(("params", param.name, "value"), fault.zh, fault.en)
        return held

    def _bounded_count(self, reference: str, path: Path) -> int | None:
        count = self._count(reference, path)
        return None if count is None else self._hold(path[-1], count, self.params[reference.removeprefix(":")])

    def _count(self, reference: str, path: Path) -> int | None:
        param = self.look_up_param(reference, path)
        if param is None:
            return None
        if param.unit not in (Unit.COUNT, Unit.DIGITS) or not isinstance(param.value, int) or param.value < 1:
            self.document.problem(path, "须为大于零的数量参数", "must be a parameter with a count above zero")
            return None
        return param.value


def _param(name: str, shape: ParamShape) -> Param:
    return Param(name=name, value=shape.value, unit=shape.unit, source=shape.source, meaning=Text(shape.zh, shape.en))


def _list_facts_needed(
    rules: Iterable[Rule], consequences: Iterable[ConsequenceRule], plan: Plan | None, registry: ParticipantRegistry
) -> dict[str, tuple[str, ...]]:
    """Owners whose facts a case of one kind cannot do without.

    Named by a rule; or by a consequence, which must be told before anything is submitted; or tried at a version that
    was read.
    """
    used: set[str] = set()
    owners = {registry.owner_of(name) for name in plan.participants} if plan is not None else set()
    for rule in rules:
        used |= rule.when.names
    for one in consequences:
        used |= _list_used(one.when, one.names)
    named = {fact for name in used if (fact := fact_of(name, registry)) is not None}
    owners |= {registry.facts[fact].owner for fact in named}
    return {
        owner: tuple(name for name in facts if name in named)
        for owner, facts in registry.owned.items()
        if owner in owners and owner != REQUEST
    }


def _list_names(
    rules: Iterable[Rule], consequences: Iterable[ConsequenceRule], options: Iterable[AlternativeRule]
) -> frozenset[str]:
    """Return every name that the entries of one kind use."""
    names: set[str] = set()
    for rule in rules:
        names |= _list_used(rule.when, rule.words.names) | _list_used(rule.earliest)
    for one in consequences:
        names |= _list_used(one.when, one.names)
    for option in options:
        names |= _list_used(option.when, option.names) | _list_used(option.first)
    return frozenset(names)


def _list_used(condition: Condition | None, texts: frozenset[str] = frozenset()) -> frozenset[str]:
    return texts if condition is None else texts | condition.names
