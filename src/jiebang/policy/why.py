"""Explain one answer: every rule with the facts it read, its condition with their values filled in, and its result.

Rules that passed are included as well as those that were raised: a regulator asks for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import CheckAnswer, Severity, Text
from jiebang.policy.calendar import with_calendar
from jiebang.policy.condition import vocabulary
from jiebang.policy.frame import read_column
from jiebang.policy.wording import render

if TYPE_CHECKING:
    from jiebang.policy.frame import Facts
    from jiebang.policy.pack import Pack, Rule

_NAME: Final = re.compile(r"'(?:[^']|'')*'|(?P<name>:?[A-Za-z_][A-Za-z0-9_]*)")


class RuleVerdict(StrEnum):
    """A rule's result: raised, passed, raised but consented to, or unknown because a fact was unread."""

    RAISED = "raised"
    PASSED = "passed"
    AGREED = "agreed"
    UNKNOWN = "unknown"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, explained.

    `facts` and `params`: those that the condition names; `shown`: the facts as people read them; `filled`: the
    condition with values in place of names (`?` for unread ones); `unread`: owners that were not read.
    """

    code: str
    title: Text
    severity: Severity
    verdict: RuleVerdict
    condition: str
    filled: str
    facts: Mapping[str, Any]
    shown: Mapping[str, Text]
    params: Mapping[str, int | str]
    unread: tuple[str, ...]
    source: str
    legal_basis: str


def explain_answer(pack: Pack, answer: CheckAnswer, facts: Facts, row: int) -> tuple[Reason, ...]:
    """Explain `answer`, given by `pack` for row `row` of `facts`: every rule of its kind, in the pack's order.

    The last reason is the one for facts that could not be read.
    """
    rules = pack.rules_of[answer.kind]
    names = frozenset[str]().union(*(rule.when.names for rule in rules))
    frame = with_calendar(facts.frame.slice(row, 1), names, answer.checked_at, pack.registry, pack.zone)
    raised = frame.select(rule.raised.alias(rule.code) for rule in rules).row(0, named=True)
    values = frame.row(0, named=True)
    return (
        *(_explain_rule(pack, rule, answer, values, raised=raised[rule.code]) for rule in rules),
        _explain_unread(pack, answer, values),
    )


def _explain_rule(pack: Pack, rule: Rule, answer: CheckAnswer, values: Mapping[str, Any], *, raised: bool) -> Reason:
    unread = tuple(owner for owner in sorted(rule.owners) if not values.get(read_column(owner), True))
    verdict = RuleVerdict.RAISED if raised else RuleVerdict.PASSED
    if unread:
        verdict = RuleVerdict.UNKNOWN
    elif raised and rule.code in answer.consents:
        verdict = RuleVerdict.AGREED
    facts = {name: values[name] for name in sorted(rule.when.names)}
    params = {name: pack.params[name].value for name in sorted(rule.when.params)}
    return Reason(
        code=rule.code,
        title=rule.words.title.whole or Text(rule.code, rule.code),
        severity=rule.severity,
        verdict=verdict,
        condition=rule.when.text,
        filled=_fill_in(
            rule.when.text, {**facts, **{f":{name}": value for name, value in params.items()}}, bool(unread)
        ),
        facts=facts,
        shown={
            name: render(
                value,
                vocabulary(pack.registry)[name],
                pack.currency,
                pack.zone,
                pack.registry.value_words.get(name, {}),
            )
            for name, value in facts.items()
        },
        params=params,
        unread=unread,
        source=rule.words.source,
        legal_basis=rule.words.legal_basis,
    )


def _fill_in(text: str, values: Mapping[str, Any], unread: bool) -> str:
    """Replace names by values; keywords and quoted texts are left unchanged."""

    def value(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None or name not in values:
            return found[0]
        return "?" if unread and values[name] is None else _literal(values[name])

    return _NAME.sub(value, text)


def _literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case datetime() | date():
            return f"'{value.isoformat()}'"
        case str():
            quoted = value.replace("'", "''")
            return f"'{quoted}'"
    return str(value)


def _explain_unread(pack: Pack, answer: CheckAnswer, values: Mapping[str, Any]) -> Reason:
    """Explain the one for facts that could not be read: who had to be, and who was."""
    facts = {owner: bool(values[read_column(owner)]) for owner in pack.facts_needed[answer.kind]}
    unread = tuple(owner for owner, read in facts.items() if not read)
    words = pack.unavailable
    yes, no = Text("已读取", "read"), Text("未读到", "unread")
    return Reason(
        code=words.code,
        title=words.title.whole or Text(words.code, words.code),
        severity=Severity.BLOCKS,
        verdict=RuleVerdict.RAISED if unread else RuleVerdict.PASSED,
        condition="NOT (" + " AND ".join(facts) + ")",
        filled="NOT (" + " AND ".join(_literal(read) for read in facts.values()) + ")",
        facts=facts,
        shown={owner: yes if read else no for owner, read in facts.items()},
        params={},
        unread=unread,
        source=words.source,
        legal_basis=words.legal_basis,
    )
