"""Evaluate a pack over the facts of a batch, all accounts at once, and fill the texts of each account's answer.

Rules, consequences and alternatives are evaluated as columns, so that a thousand accounts cost little more than one;
texts are filled only where something was raised. A rule that names an unread fact is neither raised nor passed: the
owner's FACT-UNAVAILABLE is raised instead. A rule that needs consent and has it is no blocker; its consequence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import polars as pl

from jiebang.model.check import Alternative, Blocker, CheckAnswer, Consequence, Remedy, Severity, Text
from jiebang.model.facts import CONSENTS, FactType
from jiebang.policy.calendar import start_of, with_calendar
from jiebang.policy.condition import vocabulary
from jiebang.policy.frame import Facts, read_column
from jiebang.policy.pack import EARLIEST, AlternativeRule, BlockerText, ConsequenceRule, Pack, Rule
from jiebang.policy.wording import fill, render, render_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from jiebang.model.case import Kind

_LAST_DAY: Final = date(9999, 12, 30)
"""Later dates are capped: an absurd fact must not make an answer fail."""
_NO_WORDS: Final[Mapping[str, Text]] = {}
_FIRST: Final = "recommended:"
_EARLIEST: Final = "earliest:"

Entry = TypeVar("Entry")


def evaluate(pack: Pack, facts: Facts, kind: Kind, now: datetime, *, whole: bool = True) -> list[CheckAnswer]:
    """Answer for every account of `facts`, in their order. `now` is time-zone aware.

    Without `whole` the answers have no consequences and no alternatives; all else is the same.
    """
    frame = with_calendar(facts.frame, pack.names_of[kind], now, pack.registry, pack.zone)
    wanted = [pl.nth(0)]  # a column of the batch's length, for literals to follow
    wanted += [rule.raised.alias(rule.code) for rule in pack.rules_of[kind]]
    wanted += [
        rule.earliest.expr.clip(upper_bound=_LAST_DAY).alias(_EARLIEST + rule.code)
        for rule in pack.rules_of[kind]
        if rule.earliest is not None
    ]
    if whole:
        wanted += [one.raised.alias(one.code) for one in pack.consequences_of[kind]]
        wanted += [option.raised.alias(option.code) for option in pack.alternatives_of[kind]]
        wanted += [option.recommended.alias(_FIRST + option.code) for option in pack.alternatives_of[kind]]
    hits = frame.select(wanted)
    builder = _AnswerBuilder(pack, kind, frame, facts, hits)
    blockers, consents = builder.blockers()
    consequences = builder.consequences(consents) if whole else [()] * len(facts.accounts)
    alternatives = builder.alternatives() if whole else [()] * len(facts.accounts)
    versions = _list_versions(pack, facts, kind)
    return [
        CheckAnswer(
            account_id=account,
            kind=kind,
            pack=pack.id,
            checked_at=now,
            passes=all(blocker.severity is Severity.INFORMS for blocker in blockers[row]),
            blockers=tuple(blockers[row]),
            versions=versions[row],
            consequences=tuple(consequences[row]),
            alternatives=tuple(alternatives[row]),
            consents=tuple(consents[row]),
            offered=kind in pack.plans,
            time_zone=pack.zone.key,
        )
        for row, account in enumerate(facts.accounts)
    ]


def run_rules(pack: Pack, facts: Facts, kind: Kind, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run the rules of `kind`; return the facts with calendar columns, and a boolean column for each rule's code."""
    frame = with_calendar(facts.frame, pack.names_of[kind], now, pack.registry, pack.zone)
    return frame, frame.select(rule.raised.alias(rule.code) for rule in pack.rules_of[kind])


def _list_versions(pack: Pack, facts: Facts, kind: Kind) -> list[dict[str, int | None]]:
    """Return each account's versions by participant; an unread one that this kind does not need is left out."""
    needed = pack.facts_needed[kind]
    built = [dict(zip(facts.versions, row, strict=True)) for row in zip(*facts.versions.values(), strict=True)]
    for name in facts.versions:
        if pack.registry.owner_of(name) not in needed and None in facts.versions[name]:
            for row in built:
                if row[name] is None:
                    del row[name]
    return built or [{} for _ in facts.accounts]


class _AnswerBuilder:
    """Builds the parts of answers from the columns. `hits`: a boolean column for each code."""

    def __init__(self, pack: Pack, kind: Kind, frame: pl.DataFrame, facts: Facts, hits: pl.DataFrame) -> None:
        self._pack, self._kind, self._frame, self._facts, self._hits = pack, kind, frame, facts, hits
        self._size = len(facts.accounts)
        self._columns: dict[str, list[Any]] = {}

    def _rows(self, code: str) -> list[int]:
        hits = self._hits[code]
        return [row for row, hit in enumerate(hits.to_list()) if hit] if hits.any() else []

    def _column(self, name: str) -> list[Any]:
        """Return a column as a list of Python values, converted once for all rules that show it."""
        if name not in self._columns:
            self._columns[name] = self._frame[name].to_list()
        return self._columns[name]

    def blockers(self) -> tuple[list[list[Blocker]], list[list[str]]]:
        """Return each account's blockers, and the codes of the rules it has consented to."""
        blockers: list[list[Blocker]] = [[] for _ in range(self._size)]
        consents: list[list[str]] = [[] for _ in range(self._size)]
        for rule in self._pack.rules_of[self._kind]:
            rows = self._rows(rule.code)
            if rule.severity is Severity.NEEDS_CONSENT and rows:
                agreed = {row for row in rows if has_agreed(rule, self._facts, row)}
                for row in agreed:
                    consents[row].append(rule.code)
                rows = [row for row in rows if row not in agreed]
            make = partial(_blocker, rule.words, rule.severity, self._pack.zone)
            for row, blocker in self._build_each(rule, rule.words.names, rows, make, self._days(rule, rows)):
                blockers[row].append(blocker)
        for owner, named in self._pack.facts_needed[self._kind].items():
            read = self._frame[read_column(owner)]
            if not read.all():
                blocker = _make_unavailable(self._pack, owner, named)
                for row in (~read).arg_true().to_list():
                    blockers[row].append(blocker)
        return blockers, consents

    def consequences(self, consents: Sequence[Sequence[str]]) -> list[list[Consequence]]:
        """Return each account's consequences, each with the consent given to it."""
        found: list[list[Consequence]] = [[] for _ in range(self._size)]
        for one in self._pack.consequences_of[self._kind]:
            rows = self._rows(one.code)
            given = [one.consent if one.consent in consents[row] else None for row in rows]
            for row, consequence in self._build_each(one, one.names, rows, partial(_consequence, one), given):
                found[row].append(consequence)
        return found

    def alternatives(self) -> list[list[Alternative]]:
        """Return each account's alternatives, the recommended first."""
        found: list[list[Alternative]] = [[] for _ in range(self._size)]
        for option in self._pack.alternatives_of[self._kind]:
            rows = self._rows(option.code)
            recommended = self._hits[_FIRST + option.code].to_list()
            make = partial(_alternative, option, offered=option.kind in self._pack.plans)
            first = [recommended[row] for row in rows]
            for row, alternative in self._build_each(option, option.names, rows, make, first):
                found[row].append(alternative)
        return [sorted(options, key=lambda option: not option.recommended) for options in found]

    def _days(self, rule: Rule, rows: Sequence[int]) -> list[date | None]:
        """Return the earliest day on which each of `rows` can pass a rule."""
        if rule.earliest is None or not rows:
            return [None] * len(rows)
        days = self._hits[_EARLIEST + rule.code].to_list()
        return [days[row] for row in rows]

    def _build_each(
        self,
        entry: Rule | ConsequenceRule | AlternativeRule,
        names: frozenset[str],
        rows: Sequence[int],
        make: Callable[[Mapping[str, Text], Mapping[str, Any], Any], Entry],
        beside: Sequence[Any],
    ) -> Iterator[tuple[int, Entry]]:
        """Yield for each row what `make` returns for its rendered values, shown facts and item of `beside`.

        Rows with equal values share one result, which most rows of a large batch do.
        """
        lists = [name for name in entry.shown if name in self._pack.registry.item_fields]
        columns = [self._column(name) for name in entry.read] if rows else []
        made: dict[tuple[Any, ...], Entry] = {}
        for row, more in zip(rows, beside, strict=True):
            values = tuple(column[row] for column in columns)
            built = None if lists else made.get((*values, more))
            if built is None:
                items = {name: self._facts.items[name][row] for name in lists}
                named = dict(zip(entry.read, values, strict=True))
                if EARLIEST in names:
                    named[EARLIEST] = more
                shown = {name: items[name] if name in items else named[name] for name in entry.shown}
                built = made[*values, more] = make(self._render_values(names, named, items), shown, more)
            yield row, built

    def _render_values(
        self, names: Iterable[str], values: Mapping[str, Any], items: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, Text]:
        currency, zone, registry = self._pack.currency, self._pack.zone, self._pack.registry
        known, value_words = vocabulary(registry), registry.value_words
        return {
            name: render_items(items[name], self._pack.items[name], registry.item_fields[name], currency, zone)
            if name in items
            else render(
                values.get(name), known.get(name, FactType.DATE), currency, zone, value_words.get(name, _NO_WORDS)
            )
            for name in names
        }


def has_agreed(rule: Rule, facts: Facts, row: int) -> bool:
    """Whether the account consented to a rule: as a whole, or to every item of its list `consent_to`."""
    given = [consent.get("item") for consent in facts.items[CONSENTS][row] if consent.get("code") == rule.code]
    if rule.consent_to is None or not given:
        return bool(given)
    wanted = {item.get("id") for item in facts.items[rule.consent_to][row]}
    return bool(wanted) and None not in wanted and wanted <= set(given)


def _blocker(
    words: BlockerText,
    severity: Severity,
    zone: ZoneInfo,
    texts: Mapping[str, Text],
    shown: Mapping[str, Any],
    earliest: date | None = None,
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
            earliest=None if earliest is None else start_of(earliest, zone),
        ),
        source=words.source,
        legal_basis=words.legal_basis,
        appeal=fill(words.appeal, texts),
        facts=shown,
    )


def _consequence(
    one: ConsequenceRule, texts: Mapping[str, Text], shown: Mapping[str, Any], consent: str | None
) -> Consequence:
    return Consequence(
        code=one.code,
        participant=one.participant,
        title=fill(one.title, texts),
        explanation=fill(one.explanation, texts),
        lasts=fill(one.lasts, texts),
        consent=consent,
        source=one.source,
        legal_basis=one.legal_basis,
        facts=shown,
    )


def _alternative(
    option: AlternativeRule, texts: Mapping[str, Text], shown: Mapping[str, Any], recommended: bool, *, offered: bool
) -> Alternative:
    return Alternative(
        code=option.code,
        kind=option.kind,
        recommended=recommended,
        offered=offered,
        title=fill(option.title, texts),
        reaches=fill(option.reaches, texts),
        costs=fill(option.costs, texts),
        source=option.source,
        facts=shown,
    )


def _make_unavailable(pack: Pack, owner: str, named: Sequence[str]) -> Blocker:
    """Return the blocker for an owner that could not be read; it names the missing facts."""
    registry = pack.registry
    facts = named or [name for name in registry.owned[owner] if name not in registry.item_fields]
    specs = [registry.facts[name] for name in facts]
    texts = {
        "owner": pack.owners[owner],
        "facts": Text("、".join(spec.zh for spec in specs), "; ".join(spec.en for spec in specs)),
    }
    return _blocker(pack.unavailable, Severity.BLOCKS, pack.zone, texts, {"owner": owner, "facts": list(facts)})
