"""The rival of the check's benches: zen-engine, one row at a time, with the very rules of a pack.

Each condition is translated from its SQL into zen's expression language: three-valued logic becomes a guard against
null, days and times become numbers, which costs zen nothing as its facts are made so beforehand. What it finds is
compared with what our evaluation finds on the same facts before anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import polars as pl
import sqlglot
import zen  # PyPI: zen-engine
from sqlglot import expressions as sql

from jiebang.model.facts import REQUEST
from jiebang.policy.pack import Pack, Rule

Engine = Callable[[dict[str, Any]], list[bool]]
"""Evaluates rules for one account: facts in, raised or not in the order of the rules out."""


def _name(column: str) -> str:
    return column.replace(":", "_")


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _infix(word: str) -> Callable[[Any, _Say, Mapping[str, Any]], str]:
    return lambda node, say, _params: f"({say(node.this)} {word} {say(node.expression)})"


_Say = Callable[[Any], str]
_FORMS: Final[Mapping[type[sql.Expr], Callable[[Any, _Say, Mapping[str, Any]], str]]] = {
    sql.Column: lambda node, _say, _params: node.name,
    sql.Placeholder: lambda node, _say, params: _literal(params[node.name]),
    sql.Literal: lambda node, _say, _params: _literal(node.name) if node.is_string else node.name,
    sql.Boolean: lambda node, _say, _params: _literal(node.this),
    sql.Null: lambda _node, _say, _params: "null",
    sql.Paren: lambda node, say, _params: f"({say(node.this)})",
    sql.Not: lambda node, say, _params: f"(not ({say(node.this)}))",
    sql.Neg: lambda node, say, _params: f"(-{say(node.this)})",
    sql.Is: lambda node, say, _params: (
        f"({say(node.this)} {'!=' if node.args.get('negate') else '=='} {say(node.expression)})"
    ),
    sql.Between: lambda node, say, _params: (
        f"({say(node.this)} >= {say(node.args['low'])} and {say(node.this)} <= {say(node.args['high'])})"
    ),
    sql.In: lambda node, say, _params: f"({say(node.this)} in [{', '.join(map(say, node.expressions))}])",
    **{
        kind: _infix(word)
        for kind, word in {
            sql.EQ: "==",
            sql.NEQ: "!=",
            sql.LT: "<",
            sql.LTE: "<=",
            sql.GT: ">",
            sql.GTE: ">=",
            sql.Add: "+",
            sql.Sub: "-",
            sql.NullSafeEQ: "==",
            sql.NullSafeNEQ: "!=",
        }.items()
    },
}


def _expression(node: sql.Expr, params: Mapping[str, Any]) -> str:
    """Translate one node. Raises KeyError for one of another language than the rules'."""
    return _FORMS[type(node)](node, lambda inner: _expression(inner, params), params)


def _guarded(node: sql.Expr, params: Mapping[str, Any]) -> str:
    """Translate a condition that is false where a value it compares is null, as SQL has it."""
    match node:
        case sql.Paren():
            return _guarded(node.this, params)
        case sql.And() | sql.Or():
            word = "and" if isinstance(node, sql.And) else "or"
            return f"({_guarded(node.this, params)} {word} {_guarded(node.expression, params)})"
        case sql.Is() | sql.NullSafeEQ() | sql.NullSafeNEQ():
            return _expression(node, params)
    names = sorted({column.name for column in node.find_all(sql.Column)})
    return f"({' and '.join([*(f'{name} != null' for name in names), _expression(node, params)])})"


def translated(rule: Rule, pack: Pack) -> str:
    """Return a rule of `pack` in zen's expression language: true where it is raised."""
    params = {name: param.value for name, param in pack.params.items()}
    read = [f"read_{owner}" for owner in sorted(rule.owners - {REQUEST})]
    when = _guarded(sqlglot.parse_one(rule.when.text, dialect="postgres"), params)
    return " and ".join([*read, f"({when})"])


def decision(pack: Pack, rules: Sequence[Rule]) -> Engine:
    """Return the rules as zen is meant to be used: one decision graph, evaluated for one account."""
    expressions = [
        {"id": str(at), "key": rule.code.replace("-", "_"), "value": translated(rule, pack)}
        for at, rule in enumerate(rules)
    ]
    place = {"position": {"x": 0, "y": 0}}
    graph = {
        "nodes": [
            {"id": "in", "type": "inputNode", "name": "in", **place},
            {"id": "do", "type": "expressionNode", "name": "do", "content": {"expressions": expressions}, **place},
            {"id": "out", "type": "outputNode", "name": "out", **place},
        ],
        "edges": [
            {"id": "1", "type": "edge", "sourceId": "in", "targetId": "do"},
            {"id": "2", "type": "edge", "sourceId": "do", "targetId": "out"},
        ],
    }
    made = zen.ZenEngine().create_decision(json.dumps(graph))
    keys = [one["key"] for one in expressions]

    def evaluate(facts: dict[str, Any]) -> list[bool]:
        found = made.evaluate(facts)["result"]
        return [found[key] for key in keys]

    return evaluate


def expression(pack: Pack, rules: Sequence[Rule]) -> Engine:
    """Return the rules as the fastest thing zen can do: one compiled expression, a list of all rules' results."""
    made = zen.compile_expression(f"[{', '.join(translated(rule, pack) for rule in rules)}]")
    return lambda facts: list(made.evaluate(facts))


def contexts(frame: pl.DataFrame, names: frozenset[str]) -> list[dict[str, Any]]:
    """Return the facts of each row of `frame` as zen takes them: a mapping, days and times as numbers."""
    wanted = [column for column in frame.columns if column in names or column.startswith("read:")]
    days = [name for name in wanted if frame[name].dtype in (pl.Date, pl.Datetime("us", "UTC"))]
    return frame.select(wanted).with_columns(pl.col(days).to_physical()).rename(_name).to_dicts()
