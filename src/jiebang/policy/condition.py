"""Typed SQL expressions for a rule's `when` and `earliest`: checked when a pack is loaded, evaluated over columns.

The meaning is PostgreSQL's: three-valued logic, `date - date` is a number of days, `IS DISTINCT FROM` knows NULL.
sqlglot parses; the table `_NODES` is the whole language. Polars' own SQL is not used because it silently compares a
duration with a plain number, and would let every waiting time pass. Two checks are stricter than PostgreSQL's: money
is compared only with money or a literal, never with a count, and NULL is allowed only after IS.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import polars as pl
import sqlglot
from sqlglot import expressions as sql
from sqlglot.errors import SqlglotError

from jiebang.model.check import Text
from jiebang.model.facts import FactType
from jiebang.policy.calendar import NEXT_YEAR, NOW, TODAY, full_years, local_dates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jiebang.model.participants import ParticipantRegistry

Value: TypeAlias = int | bool | str | date | datetime | timedelta

_LITERAL_LIMIT: Final = 1 << 53
_NUMBERS: Final = frozenset({FactType.INT, FactType.FEN})
_TYPE_WORDS: Final[Mapping[FactType, Text]] = {
    FactType.INT: Text("数量", "a count"),
    FactType.FEN: Text("金额", "money"),
    FactType.BOOL: Text("真假值", "true or false"),
    FactType.TEXT: Text("文本", "text"),
    FactType.TIME: Text("时刻", "a time"),
    FactType.DATE: Text("日期", "a date"),
    FactType.ITEMS: Text("明细列表", "a list of items"),
}


@cache
def vocabulary(registry: ParticipantRegistry) -> Mapping[str, FactType]:
    """Return every name that a condition or text may use, with its type: facts and derived calendar columns."""
    return {
        **{spec.name: spec.type for spec in registry.facts.values()},
        **dict.fromkeys(local_dates(registry), FactType.DATE),
        **dict.fromkeys(full_years(registry), FactType.INT),
        NOW: FactType.TIME,
        TODAY: FactType.DATE,
        NEXT_YEAR: FactType.DATE,
    }


class ConditionError(Exception):
    """An expression is not in the language. `token` is the offending word, `offset` its offset in the text."""

    def __init__(self, text: Text, offset: int = 0, token: str = "") -> None:
        super().__init__(text.en)
        self.text = text
        self.offset = offset
        self.token = token


class Condition(msgspec.Struct, frozen=True, eq=False):
    """One checked expression: its text, type, polars form, and the names and parameters it uses."""

    text: str
    type: FactType
    expr: pl.Expr
    names: frozenset[str]
    params: frozenset[str]


class _TypedExpr(msgspec.Struct, frozen=True, eq=False):
    """A sub-expression: type, polars form, and whether it is a bare number (usable as count or money)."""

    type: FactType
    expr: pl.Expr
    bare: bool = False


def compile_condition(
    text: str, wanted: FactType, params: Mapping[str, tuple[FactType, Value]], registry: ParticipantRegistry
) -> Condition:
    """Check `text` against the facts of `registry` and the parameters, and compile it. Raises ConditionError.

    `params`: each parameter's type and value; the text names one as `:name`.
    """
    return _Compiler(text, params, vocabulary(registry)).condition(wanted)


class _Compiler:
    """Walks one syntax tree; types and compiles each node in one pass."""

    def __init__(self, text: str, params: Mapping[str, tuple[FactType, Value]], known: Mapping[str, FactType]) -> None:
        self.text = text
        self.known = known
        self.params = params
        self.names: set[str] = set()
        self.used: set[str] = set()

    def condition(self, wanted: FactType) -> Condition:
        tree = self._parse()
        try:
            typed = self.compile_node(tree)
        except RecursionError:
            raise ConditionError(Text("条件嵌套过深", "the condition is nested too deeply")) from None
        if typed.type is not wanted:
            raise self._error(
                tree,
                f"结果应为{_TYPE_WORDS[wanted].zh}，实为{_TYPE_WORDS[typed.type].zh}",
                f"must yield {_TYPE_WORDS[wanted].en}, but yields {_TYPE_WORDS[typed.type].en}",
            )
        return Condition(self.text, wanted, typed.expr, frozenset(self.names), frozenset(self.used))

    def _parse(self) -> sql.Expr:
        try:
            return sqlglot.parse_one(self.text, dialect="postgres")
        except RecursionError:
            raise ConditionError(Text("条件嵌套过深", "the condition is nested too deeply")) from None
        except SqlglotError as failed:
            found = getattr(failed, "errors", None) or [{}]
            token = str(found[0].get("highlight") or "")
            before = str(found[0].get("start_context") or "")
            what = str(found[0].get("description") or "it cannot be read")
            raise ConditionError(
                Text(f"不是有效的 SQL 条件（在“{token}”附近）", f"not a valid SQL condition near '{token}': {what}"),
                offset=max(self.text.find(before + token), 0) + len(before) if token else 0,
                token=token,
            ) from None

    def compile_node(self, node: sql.Expr) -> _TypedExpr:
        handler = _NODES.get(type(node))
        if handler is None:
            word = type(node).__name__
            raise self._error(node, f"条件语言不含 {word}", f"{word} is not part of the condition language")
        return handler(self, node)

    # Leaves

    def column(self, node: sql.Expr) -> _TypedExpr:
        name = node.name
        if not isinstance(node, sql.Column) or node.table or name not in self.known:
            raise self._error(node, f"没有名为“{name}”的事实", f"there is no fact named '{node.sql()}'")
        kind = self.known[name]
        if kind is FactType.ITEMS:
            raise self._error(
                node, f"“{name}”是明细，只供展示；请用其数量", f"'{name}' is a list to show; compare its count instead"
            )
        self.names.add(name)
        return _TypedExpr(kind, pl.col(name))

    def parameter(self, node: sql.Expr) -> _TypedExpr:
        name = node.name
        if name not in self.params:
            raise self._error(node, f"没有名为“:{name}”的参数", f"there is no parameter named ':{name}'")
        self.used.add(name)
        kind, value = self.params[name]
        number = isinstance(value, int) and kind is not FactType.BOOL
        return _TypedExpr(kind, pl.lit(value, dtype=pl.Int64 if number else None))

    def literal(self, node: sql.Expr) -> _TypedExpr:
        if not isinstance(node, sql.Literal) or node.is_string:
            return _TypedExpr(FactType.TEXT, pl.lit(node.name))
        if not (node.name.isascii() and node.name.isdigit()) or int(node.name) > _LITERAL_LIMIT:
            raise self._error(node, f"“{node.name}”不是整数", f"'{node.name}' is not a whole number within 2^53")
        return _TypedExpr(FactType.INT, pl.lit(int(node.name), dtype=pl.Int64), bare=True)

    def boolean(self, node: sql.Expr) -> _TypedExpr:
        return _TypedExpr(FactType.BOOL, pl.lit(bool(node.this)))

    # Logic

    def paren(self, node: sql.Expr) -> _TypedExpr:
        return self.compile_node(node.this)

    def negation(self, node: sql.Expr) -> _TypedExpr:
        return _TypedExpr(FactType.BOOL, ~self._compile_boolean(node.this))

    def conjunction(self, node: sql.Expr) -> _TypedExpr:
        return _TypedExpr(FactType.BOOL, self._compile_boolean(node.this) & self._compile_boolean(node.expression))

    def disjunction(self, node: sql.Expr) -> _TypedExpr:
        return _TypedExpr(FactType.BOOL, self._compile_boolean(node.this) | self._compile_boolean(node.expression))

    def is_(self, node: sql.Expr) -> _TypedExpr:
        if isinstance(node.expression, sql.Null):
            left = self.compile_node(node.this).expr.is_null()
        elif isinstance(node.expression, sql.Boolean):
            left = self._compile_boolean(node.this).eq_missing(pl.lit(bool(node.expression.this)))
        else:
            raise self._error(
                node.expression, "IS 之后只能是 NULL、TRUE 或 FALSE", "after IS stands NULL, TRUE or FALSE only"
            )
        return _TypedExpr(FactType.BOOL, ~left if node.args.get("negate") else left)

    # Comparisons

    def comparison(self, node: sql.Expr) -> _TypedExpr:
        return self._compare(type(node), node, self.compile_node(node.this), self.compile_node(node.expression))

    def between(self, node: sql.Expr) -> _TypedExpr:
        value = self.compile_node(node.this)
        low = self._compare(sql.GTE, node, value, self.compile_node(node.args["low"]))
        high = self._compare(sql.LTE, node, value, self.compile_node(node.args["high"]))
        return _TypedExpr(FactType.BOOL, low.expr & high.expr)

    def membership(self, node: sql.Expr) -> _TypedExpr:
        if not node.expressions:
            raise self._error(node, "IN 之后须列出各值", "IN needs a list of values")
        value = self.compile_node(node.this)
        found = [self._compare(sql.EQ, one, value, self.compile_node(one)).expr for one in node.expressions]
        return _TypedExpr(FactType.BOOL, reduce(or_, found))

    def _compare(self, kind: type[sql.Expr], node: sql.Expr, left: _TypedExpr, right: _TypedExpr) -> _TypedExpr:
        self._require_same_type(node, left, right)
        if kind in _ORDERED and left.type in (FactType.BOOL, FactType.TEXT):
            word = _TYPE_WORDS[left.type]
            raise self._error(node, f"{word.zh}不能比较大小", f"{word.en} has no order: use = or <>")
        return _TypedExpr(FactType.BOOL, _COMPARISONS[kind](left.expr, right.expr))

    # Arithmetic

    def minus(self, node: sql.Expr) -> _TypedExpr:
        value = self.compile_node(node.this)
        self._require_number(node, value)
        return _TypedExpr(value.type, -value.expr, bare=value.bare)

    def addition(self, node: sql.Expr) -> _TypedExpr:
        minus = isinstance(node, sql.Sub)
        left, right = self.compile_node(node.this), self.compile_node(node.expression)
        if left.type is FactType.DATE and right.type is FactType.DATE and minus:
            return _TypedExpr(FactType.INT, _day_number(left.expr) - _day_number(right.expr))
        if left.type is FactType.DATE and right.type is FactType.INT:
            days = -right.expr if minus else right.expr
            return _TypedExpr(FactType.DATE, (_day_number(left.expr) + days).cast(pl.Int32, strict=False).cast(pl.Date))
        self._require_number(node.this, left)
        self._require_number(node.expression, right)
        self._require_same_type(node, left, right)
        kind = right.type if left.bare else left.type
        return _TypedExpr(kind, left.expr - right.expr if minus else left.expr + right.expr, left.bare and right.bare)

    # What the nodes share

    def _compile_boolean(self, node: sql.Expr) -> pl.Expr:
        typed = self.compile_node(node)
        if typed.type is not FactType.BOOL:
            word = _TYPE_WORDS[typed.type]
            raise self._error(node, f"此处应为条件，实为{word.zh}", f"a condition must stand here, not {word.en}")
        return typed.expr

    def _require_number(self, node: sql.Expr, typed: _TypedExpr) -> None:
        if typed.type not in _NUMBERS:
            word = _TYPE_WORDS[typed.type]
            raise self._error(node, f"{word.zh}不能参与运算", f"one cannot calculate with {word.en} here")

    def _require_same_type(self, node: sql.Expr, left: _TypedExpr, right: _TypedExpr) -> None:
        numbers = left.type in _NUMBERS and right.type in _NUMBERS
        if left.type is not right.type and not (numbers and (left.bare or right.bare)):
            one, other = _TYPE_WORDS[left.type], _TYPE_WORDS[right.type]
            raise self._error(node, f"{one.zh}与{other.zh}不能相比较或运算", f"{one.en} does not go with {other.en}")

    def _error(self, node: sql.Expr, zh: str, en: str) -> ConditionError:
        """Point at the first word of `node`; sqlglot marks names and literals, and parameters not at all."""
        for inner in node.walk(bfs=False):
            if isinstance(inner, sql.Placeholder):
                at = self.text.find(f":{inner.name}")
                return ConditionError(Text(zh, en), max(at, 0), f":{inner.name}")
            if "start" in inner.meta:
                start, end = inner.meta["start"], inner.meta["end"]
                return ConditionError(Text(zh, en), start, self.text[start : end + 1])
        return ConditionError(Text(zh, en))


def _day_number(days: pl.Expr) -> pl.Expr:
    return days.to_physical().cast(pl.Int64)


_COMPARISONS: Final[Mapping[type[sql.Expr], Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    sql.EQ: lambda left, right: left == right,
    sql.NEQ: lambda left, right: left != right,
    sql.LT: lambda left, right: left < right,
    sql.LTE: lambda left, right: left <= right,
    sql.GT: lambda left, right: left > right,
    sql.GTE: lambda left, right: left >= right,
    sql.NullSafeEQ: lambda left, right: left.eq_missing(right),
    sql.NullSafeNEQ: lambda left, right: left.ne_missing(right),
}
_ORDERED: Final = frozenset({sql.LT, sql.LTE, sql.GT, sql.GTE})

_NODES: Final[Mapping[type[sql.Expr], Callable[[_Compiler, sql.Expr], _TypedExpr]]] = {
    sql.Column: _Compiler.column,
    sql.Placeholder: _Compiler.parameter,
    sql.Literal: _Compiler.literal,
    sql.Boolean: _Compiler.boolean,
    sql.Paren: _Compiler.paren,
    sql.Not: _Compiler.negation,
    sql.And: _Compiler.conjunction,
    sql.Or: _Compiler.disjunction,
    sql.Is: _Compiler.is_,
    **dict.fromkeys(_COMPARISONS, _Compiler.comparison),
    sql.Between: _Compiler.between,
    sql.In: _Compiler.membership,
    sql.Neg: _Compiler.minus,
    sql.Add: _Compiler.addition,
    sql.Sub: _Compiler.addition,
}
"""The whole language: a node that is not here is refused on load."""
