"""Evaluation: a pack's rules over the facts of a batch, all accounts at once, and the words for those that hit.

Rules run as columns, so that a thousand accounts cost little more than one; texts are filled only where a rule was
raised. A rule that names an unread fact is never raised and never passed: the owner's FACT-UNAVAILABLE stands for it.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from jiebang.model.check import Blocker, CheckAnswer, Remedy, Severity, Text
from jiebang.model.facts import FACTS, ITEM_FIELDS, FactType
from jiebang.policy.calendar import start_of, with_calendar
from jiebang.policy.condition import VOCABULARY
from jiebang.policy.frame import OWNED, Facts, read_column
from jiebang.policy.pack import EARLIEST, Pack, Rule, Words
from jiebang.policy.wording import fill, render, render_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jiebang.model.case import Kind

_LAST_DAY: Final = date(9999, 12, 30)
"""No date beyond what Python and a reader can hold: a fact may be absurd, an answer may not fail on it."""


def evaluate(pack: Pack, facts: Facts, kind: Kind, now: datetime) -> list[CheckAnswer]:
    """Answer for every account of `facts`, in their order, every blocker at once. `now` is time-zone aware."""
    frame, hits = raised(pack, facts, kind, now)
    blockers: list[list[Blocker]] = [[] for _ in facts.accounts]
    for rule in pack.rules_of[kind]:
        rows = hits[rule.code].arg_true()
        if rows.len():
            for row, blocker in zip(rows.to_list(), _explained(pack, rule, frame, facts, rows), strict=True):
                blockers[row].append(blocker)
    for owner, named in pack.facts_needed[kind].items():
        read = frame[read_column(owner)]
        if not read.all():
            blocker = _unavailable(pack, owner, named)
            for row in (~read).arg_true().to_list():
                blockers[row].append(blocker)
    return [
        CheckAnswer(
            account_id=account,
            kind=kind,
            pack=pack.id,
            checked_at=now,
            passes=all(blocker.severity is Severity.INFORMS for blocker in blockers[row]),
            blockers=tuple(blockers[row]),
            versions={name: versions[row] for name, versions in facts.versions.items()},
        )
        for row, account in enumerate(facts.accounts)
    ]


def raised(pack: Pack, facts: Facts, kind: Kind, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run the rules of `kind`: the facts with their calendar columns, and a boolean column for each rule's code."""
    rules = pack.rules_of[kind]
    names: set[str] = set()
    for rule in rules:
        names |= rule.when.names | rule.words.names
        if rule.earliest is not None:
            names |= rule.earliest.names
    frame = with_calendar(facts.frame, names, now)
    return frame, frame.select(rule.raised.alias(rule.code) for rule in rules)


def _explained(pack: Pack, rule: Rule, frame: pl.DataFrame, facts: Facts, rows: pl.Series) -> Iterable[Blocker]:
    """Word one rule for the accounts that raised it."""
    plain = sorted((rule.words.names - {EARLIEST} - ITEM_FIELDS.keys()) | (set(rule.shown) - ITEM_FIELDS.keys()))
    columns: list[Any] = [pl.col(name) for name in plain]
    if rule.earliest is not None:
        columns.append(rule.earliest.expr.clip(upper_bound=_LAST_DAY).alias(EARLIEST))
    for row, values in zip(rows.to_list(), frame[rows].select(columns).iter_rows(named=True), strict=True):
        lists = {name: facts.items[name][row] for name in rule.shown if name in ITEM_FIELDS}
        earliest = values.pop(EARLIEST, None)
        yield _worded(
            rule.words,
            rule.severity,
            _rendered(pack, rule.words.names, {**values, EARLIEST: earliest}, lists),
            {name: lists[name] if name in lists else values[name] for name in rule.shown},
            None if earliest is None else start_of(earliest),
        )


def _rendered(
    pack: Pack,
    names: Iterable[str],
    values: Mapping[str, Any],
    lists: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Text]:
    texts: dict[str, Text] = {}
    for name in names:
        if name in lists:
            texts[name] = render_items(lists[name], pack.items[name], ITEM_FIELDS[name])
        else:
            texts[name] = render(values[name], VOCABULARY.get(name, FactType.DATE))
    return texts


def _worded(
    words: Words,
    severity: Severity,
    texts: Mapping[str, Text],
    shown: Mapping[str, Any],
    earliest: datetime | None = None,
) -> Blocker:
    return Blocker(
        code=words.code,
        severity=severity,
        title=fill(words.title, texts),
        explanation=fill(words.explanation, texts),
        remedy=Remedy(
            what=fill(words.what, texts),
            where=fill(words.where, texts),
            on_the_spot=words.on_the_spot,
            takes=fill(words.takes, texts),
            earliest=earliest,
        ),
        source=words.source,
        legal_basis=words.legal_basis,
        appeal=fill(words.appeal, texts),
        facts=shown,
    )


def _unavailable(pack: Pack, owner: str, named: Sequence[str]) -> Blocker:
    """The blocker for an owner that could not be read: it names the facts that are missing."""
    facts = named or [name for name in OWNED[owner] if name not in ITEM_FIELDS]
    texts = {
        "owner": pack.owners[owner],
        "facts": Text("、".join(FACTS[name].zh for name in facts), "; ".join(FACTS[name].en for name in facts)),
    }
    return _worded(pack.unavailable, Severity.BLOCKS, texts, {"owner": owner, "facts": list(facts)})
