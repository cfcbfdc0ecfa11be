"""Analyse a pack's conditions: rules that are never or always raised, and rules that are raised only together.

A comparison of the condition language has one fact on one side, plus or minus numbers: its truth changes at one value
of that fact, so the values just below, at and just above it represent all others. What holds for every combination of
such values of a condition's facts therefore always holds: it is proven, not sampled. Where two facts are compared with
each other, or there are too many combinations, the values are only samples, and findings are warnings that say so. The
compiled condition itself is evaluated, so that there is no second implementation of its meaning.

The ranges of facts: counts and money from 0 to 2**53, days from 1800 to 2300, texts any, absent where a type can be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import sqlglot
from sqlglot import expressions as sql

from jiebang.model.check import Text
from jiebang.model.facts import FactType
from jiebang.policy.calendar import (
    NEXT_YEAR,
    NOW,
    TODAY,
    derived_columns,
    full_years,
    local_date,
    local_dates,
    start_of,
    with_calendar,
)
from jiebang.policy.condition import vocabulary
from jiebang.policy.frame import DTYPES
from jiebang.policy.shape import PackShape
from jiebang.policy.source import PackProblem, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.pack import Pack, Rule

_AT: Final = datetime(2026, 3, 15, 4, 30, tzinfo=UTC)
"""An arbitrary moment: the language has no date literals, so only distances from now matter."""
_TODAY: Final = local_date(_AT)
_FIRST: Final = date(1800, 1, 1)
_LAST: Final = date(2300, 1, 1)
_MOST: Final = 1 << 53
_AGES: Final = 225
_LIMIT: Final = 100_000
_MICROSECOND: Final = timedelta(microseconds=1)
_COMPARED: Final = (sql.EQ, sql.NEQ, sql.LT, sql.LTE, sql.GT, sql.GTE, sql.NullSafeEQ, sql.NullSafeNEQ)
_LOGIC: Final = (sql.And, sql.Or, sql.Not, sql.Paren, sql.Is, sql.Between, sql.In, *_COMPARED)
_LEAVES: Final = (sql.Column, sql.Identifier, sql.Literal, sql.Placeholder, sql.Boolean, sql.Null)
_COUNTED: Final = frozenset({FactType.INT, FactType.FEN, FactType.DATE})
_KNOWN: Final = frozenset({*_LOGIC, *_LEAVES, sql.Add, sql.Sub, sql.Neg})


class RuleFinding(msgspec.Struct, frozen=True):
    """A suspicious rule, with its place in the file. `error`: it is proven, and the rule is useless."""

    problem: PackProblem
    error: bool


class _Axis(msgspec.Struct):
    """Where a condition's truth changes: values by fact, and texts, which any text fact may equal.

    `exact`: the combinations of these values represent all others.
    """

    points: defaultdict[str, set[Any]]
    texts: set[str]
    exact: bool = True


def analyse_rules(pack: Pack, text: str, source: str) -> list[RuleFinding]:
    """Return the findings about a loaded pack's rules, in their order. `text`, `source`: its file's text and name."""
    document = Source(text, source)
    document.read(PackShape)
    axes = [_AxisFinder(rule.when.text, pack).axis() for rule in pack.rules]
    findings: list[RuleFinding] = []

    def note(at: int, words: Text, *, error: bool) -> None:
        document.problem(("rules", at, "when"), words.zh, words.en)
        findings.append(RuleFinding(document.problems[-1], error))

    plain: list[int] = []
    for at, rule in enumerate(pack.rules):
        (hits,), exact = _evaluate_all([rule], [axes[at]], pack.registry)
        if hits.any() and not hits.all():
            plain.append(at)
            continue
        how = Text("永不成立", "can never be true") if not hits.any() else Text("恒成立", "is always true")
        sure = _describe_sample(hits.len(), exact=exact)
        words = Text(f"{rule.code} 的条件{how.zh}{sure.zh}", f"the condition of {rule.code} {how.en}{sure.en}")
        note(at, words, error=exact)
    for one, other in combinations(plain, 2):
        related = _describe_relation(pack.rules[one], pack.rules[other], axes[one], axes[other], pack.registry)
        if related is not None:
            note(other, related, error=False)
    return sorted(findings, key=lambda finding: finding.problem)


def _describe_relation(
    one: Rule, other: Rule, axis: _Axis, other_axis: _Axis, registry: ParticipantRegistry
) -> Text | None:
    """Describe it where one rule is never raised without the other. Rules without a common fact are independent."""
    if not one.kinds & other.kinds or not axis.points.keys() & other_axis.points.keys():
        return None
    (first, second), exact = _evaluate_all([one, other], [axis, other_axis], registry)
    only_first, only_second = bool((first & ~second).any()), bool((second & ~first).any())
    sure = _describe_sample(first.len(), exact=exact)
    if not only_first and not only_second:
        return Text(
            f"{one.code} 与 {other.code} 总是同时成立{sure.zh}",
            f"{one.code} and {other.code} are always raised together{sure.en}",
        )
    if not exact or (only_first and only_second):
        return None
    narrow, wide = (one.code, other.code) if only_second else (other.code, one.code)
    return Text(f"{narrow} 成立时 {wide} 必成立", f"whenever {narrow} is raised, {wide} is raised too")


def _describe_sample(size: int, *, exact: bool) -> Text:
    return Text("", "") if exact else Text(f"（试了 {size} 组事实，未证明）", f" (on {size} sets of facts, not proven)")


def compare_conditions(before: Pack, old: Rule, after: Pack, new: Rule) -> tuple[bool, bool]:
    """Compare the conditions of two versions of a rule, loaded against one registry.

    Returns whether there are facts for which the old one is raised and the new one is not, and whether the answer is
    proven (True is, by the facts found).
    """
    axes = [_AxisFinder(rule.when.text, pack).axis() for rule, pack in ((old, before), (new, after))]
    (was, becomes), exact = _evaluate_all([old, new], axes, after.registry)
    passes = bool((was & ~becomes).any())
    return passes, passes or exact


class _AxisFinder:
    """Finds in the syntax tree of one condition the values at which its truth changes."""

    def __init__(self, text: str, pack: Pack) -> None:
        self.tree = sqlglot.parse_one(text, dialect="postgres")
        self.pack = pack
        self.facts, self.known = pack.registry.facts, vocabulary(pack.registry)
        self.derived = derived_columns(pack.registry)
        self.result = _Axis(defaultdict(set), set())

    def axis(self) -> _Axis:
        names: set[str] = set()
        for node in self.tree.walk():
            if type(node) not in _KNOWN:
                self.result.exact = False
            elif isinstance(node, sql.Column):
                names.add(node.name)
                if (fact := self.derived.get(node.name, node.name)) in self.facts:
                    self.result.points[fact] |= set()
            elif isinstance(node, sql.Between):
                self._pair(node.this, node.args["low"])
                self._pair(node.this, node.args["high"])
            elif isinstance(node, sql.In):
                for one in node.expressions:
                    self._pair(node.this, one)
            elif isinstance(node, _COMPARED):
                self._pair(node.this, node.expression)
        days = any(self.known.get(name) is FactType.DATE for name in names)
        mixed = days and (NOW in names or not names.isdisjoint(full_years(self.pack.registry)))
        if mixed or NEXT_YEAR in names or not names <= self.known.keys():
            self.result.exact = False  # what holds on this day may not hold on every day of the calendar
        return self.result

    def _pair(self, left: sql.Expr, right: sql.Expr) -> None:
        """Note the values at which the order of `left` and `right` changes."""
        kinds = {self._kind(left), self._kind(right)} - {None}
        if kinds == {FactType.TEXT}:
            self.result.texts |= {text for side in (left, right) if (text := self._text(side)) is not None}
        elif kinds == {FactType.BOOL}:
            return  # both sides take all their values already
        elif kinds == {FactType.TIME}:
            self._times(left, right)
        else:
            self._numbers(self._linear(left), self._linear(right))

    def _kind(self, node: sql.Expr) -> FactType | None:
        """Return the type of a side; None for a bare number, which takes the other's."""
        while isinstance(node, sql.Paren):
            node = node.this
        if isinstance(node, sql.Column):
            return self.known.get(node.name)
        if isinstance(node, (sql.Boolean, *_LOGIC)):
            return FactType.BOOL
        return FactType.TEXT if self._text(node) is not None else None

    def _text(self, node: sql.Expr) -> str | None:
        if isinstance(node, sql.Literal) and node.is_string:
            return node.name
        value = self.pack.params[node.name].value if isinstance(node, sql.Placeholder) else None
        return value if isinstance(value, str) else None

    def _times(self, left: sql.Expr, right: sql.Expr) -> None:
        facts = [node.name for node in (left, right) if isinstance(node, sql.Column) and node.name in self.facts]
        if len(facts) > 1:
            self.result.exact = False
        for fact in facts:
            self.result.points[fact] |= {_AT - _MICROSECOND, _AT, _AT + _MICROSECOND}

    def _numbers(self, left: tuple[Counter[str], int] | None, right: tuple[Counter[str], int] | None) -> None:
        if left is None or right is None:
            self.result.exact = False
            return
        factors = {name: left[0][name] - right[0][name] for name in left[0].keys() | right[0].keys()}
        factors = {name: factor for name, factor in factors.items() if factor}
        if len(factors) > 1:
            self.result.exact = False
        for name, factor in factors.items():
            at = (right[1] - left[1]) // factor
            self.result.points[self.derived.get(name, name)] |= set(self._values(name, (at - 1, at, at + 1)))

    def _linear(self, node: sql.Expr) -> tuple[Counter[str], int] | None:  # noqa: PLR0911 - a table of nodes
        """Read a side as a sum of facts and a number, dates as day numbers from the year 1; None where it is none."""
        match node:
            case sql.Paren():
                return self._linear(node.this)
            case sql.Column() if node.name == TODAY:
                return Counter(), _TODAY.toordinal()
            case sql.Column() if self.known.get(node.name) in _COUNTED:
                return Counter({node.name: 1}), 0
            case sql.Placeholder() if isinstance(value := self.pack.params[node.name].value, int):
                return Counter(), value
            case sql.Literal() if not node.is_string:
                return Counter(), int(node.name)
            case sql.Neg():
                return _add((Counter(), 0), self._linear(node.this), -1)
            case sql.Add() | sql.Sub():
                sign = -1 if isinstance(node, sql.Sub) else 1
                return _add(self._linear(node.this), self._linear(node.expression), sign)
            case _:
                return None

    def _values(self, name: str, numbers: Iterable[int]) -> Iterator[Any]:
        """Yield the fact's values for `numbers`: themselves, dates, starts of days, or dates so many years ago."""
        if name in full_years(self.pack.registry):
            numbers = [_TODAY.replace(year=_TODAY.year - years).toordinal() for years in numbers if abs(years) <= _AGES]
        elif self.known[name] is not FactType.DATE:
            yield from (number for number in numbers if 0 <= number <= _MOST)
            return
        for number in numbers:
            if _FIRST.toordinal() <= number <= _LAST.toordinal():
                day = date.fromordinal(number)
                yield start_of(day) if name in local_dates(self.pack.registry) else day


def _add(
    left: tuple[Counter[str], int] | None, right: tuple[Counter[str], int] | None, sign: int
) -> tuple[Counter[str], int] | None:
    if left is None or right is None:
        return None
    factors = Counter(left[0])
    for name, factor in right[0].items():
        factors[name] += sign * factor
    return factors, left[1] + sign * right[1]


def _evaluate_all(
    rules: Sequence[Rule], axes: Sequence[_Axis], registry: ParticipantRegistry
) -> tuple[list[pl.Series], bool]:
    """Evaluate the conditions of `rules` on every combination of values; also return whether these are a proof."""
    exact = all(axis.exact for axis in axes)
    facts = sorted({fact for axis in axes for fact in axis.points})
    texts = sorted({text for axis in axes for text in axis.texts})
    kinds = {fact: registry.facts[fact].type for fact in facts}
    texts += [f"\0{at}" for at, fact in enumerate(facts) if kinds[fact] is FactType.TEXT]
    values = [
        _all_values(kinds[fact], set().union(*(axis.points.get(fact, set()) for axis in axes)), texts) for fact in facts
    ]
    while prod(map(len, values)) > _LIMIT:
        longest = max(values, key=len)
        del longest[1::2]
        exact = False
    frame = pl.DataFrame({"": [0]})
    for fact, column in zip(facts, values, strict=True):
        series = pl.Series(fact, column, dtype=DTYPES[kinds[fact]], strict=True)
        frame = frame.join(series.to_frame(), how="cross")
    names = set().union(*(rule.when.names for rule in rules))
    combined = with_calendar(frame, names, _AT, registry)
    hits = combined.select(rule.when.expr.fill_null(value=False).alias(str(at)) for at, rule in enumerate(rules))
    return hits.get_columns(), exact


def _all_values(kind: FactType, points: set[Any], texts: Sequence[str]) -> list[Any]:
    """Return a fact's points, the ends of its range, and NULL where its type can be absent."""
    match kind:
        case FactType.INT | FactType.FEN:
            return sorted(points | {0, 1, _MOST})
        case FactType.BOOL:
            return [False, True]
        case FactType.DATE:
            return [None, *sorted(points | {_FIRST, _LAST})]
        case FactType.TIME:
            return [None, *sorted(points | {start_of(_FIRST), start_of(_LAST)})]
        case _:
            return [None, *texts]
