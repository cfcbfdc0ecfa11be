"""Backtest a pack over a whole population: who would pass, what stops the others, what a change would do.

The population is a LazyFrame, so that it may be larger than memory. Every account becomes one number with a bit for
each rule it raises; equal numbers are counted in a single pass, and all else is computed from these few counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from itertools import chain
from operator import or_
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.facts import REQUEST
from jiebang.policy.calendar import derived_columns, with_calendar
from jiebang.policy.frame import DTYPES, read_column
from jiebang.policy.pack import BlockerText, Pack, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

_BITS: Final = 63
"""Bits of one column; a pack with more rules takes several columns."""
ACCOUNT: Final = "account_id"


class RuleStop(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's effect on the population. `accounts`: how many raise it; `alone`: how many only it stops."""

    code: str
    title: Text
    severity: Severity
    accounts: int
    alone: int


class Combination(msgspec.Struct, frozen=True):
    """How many accounts are stopped by exactly these rules."""

    codes: tuple[str, ...]
    accounts: int


class FunnelStep(msgspec.Struct, frozen=True):
    """One step of the funnel: how many accounts pass this rule and all before it, in the pack's order."""

    code: str
    left: int


class BacktestOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One version's result. `passes`: accounts that nothing stops; `with_consent`: with those that lack only consent.

    `stops`: in the pack's order, including rules that only inform. `combinations`: all that occur, of rules that stop,
    the most frequent first. `funnel`: of the rules that stop.
    """

    pack: str
    accounts: int
    passes: int
    with_consent: int
    stops: tuple[RuleStop, ...]
    combinations: tuple[Combination, ...]
    funnel: tuple[FunnelStep, ...]


class Shift(msgspec.Struct, frozen=True):
    """A change of one rule: how many accounts raise it before and after."""

    code: str
    before: int
    after: int


class BacktestDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A changed version's effect: `gained` accounts pass only under it, `lost` ones only without it."""

    gained: int
    lost: int
    shifts: tuple[Shift, ...]


class BacktestReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a backtest. `changed` and `difference`: None unless a changed version was run too."""

    kind: Kind
    as_of: datetime
    outcome: BacktestOutcome
    changed: BacktestOutcome | None = None
    difference: BacktestDifference | None = None


class PopulationError(ValueError):
    """The population lacks columns that the pack needs, or they have the wrong type. `columns`: their names."""

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(f"columns missing or of the wrong type: {', '.join(columns)}")
        self.columns = tuple(columns)


class _Bits(msgspec.Struct, frozen=True):
    """One version's bits: bit i of an account's number says that rule i is raised; then one for each unread owner."""

    pack: Pack
    rules: tuple[Rule, ...]
    owners: tuple[str, ...]

    @property
    def unavailable(self) -> int:
        """The index of the bit, above all in the columns, for an unread owner that a kind needs."""
        return len(self.rules) + len(self.owners)

    def codes(self, kind: Kind) -> list[_Code]:
        """Return the codes that may be raised for `kind`, in order: its rules, then the one for unread facts."""
        words = self.pack.unavailable
        rules = [
            _Code(1 << bit, rule.words, rule.severity) for bit, rule in enumerate(self.rules) if kind in rule.kinds
        ]
        return [*rules, _Code(1 << self.unavailable, words, Severity.BLOCKS)]

    def reducer(self, kind: Kind) -> Callable[[int], int]:
        """Return a function that reduces an account's number to the bits of `kind`."""
        rules = sum(code.bit for code in self.codes(kind)[:-1])
        readable = self.pack.facts_needed[kind]
        owners = sum(1 << len(self.rules) + at for at, one in enumerate(self.owners) if one in readable)
        unavailable = 1 << self.unavailable
        return lambda number: number & rules | (unavailable if number & owners else 0)

    def columns(self, name: str) -> list[pl.Expr]:
        """Return the accounts' numbers as columns of up to `_BITS` bits each."""
        raised = [rule.raised for rule in self.rules] + [~pl.col(read_column(one)) for one in self.owners]
        return [
            reduce(
                or_, (one.cast(pl.UInt64) * (1 << bit) for bit, one in enumerate(raised[first : first + _BITS]))
            ).alias(f"{name}:{first}")
            for first in range(0, len(raised), _BITS)
        ]


class _Code(msgspec.Struct, frozen=True):
    bit: int
    words: BlockerText
    severity: Severity


def backtest(
    pack: Pack, population: pl.LazyFrame, kinds: Sequence[Kind], now: datetime, *, changed: Pack | None = None
) -> tuple[BacktestReport, ...]:
    """Run `pack`, and `changed` if given, over `population` as if everybody asked at `now`; a report for each kind.

    The columns are those of `frame.Facts.frame`; columns that no rule names are not read. Nobody counts as having
    consented. Raises PopulationError.
    """
    versions = [_bits(one, kinds) for one in ([pack] if changed is None else [pack, changed])]
    wanted = {
        name: dtype for one in versions for kind in kinds for name, dtype in columns_needed(one.pack, kind).items()
    }
    have = population.collect_schema()
    wrong = [name for name, dtype in wanted.items() if have.get(name) != dtype]
    if wrong:
        raise PopulationError(wrong)
    names = frozenset().union(*(rule.when.names for one in versions for rule in one.rules))
    columns = [one.columns(str(at)) for at, one in enumerate(versions)]
    keys = [column.meta.output_name() for each in columns for column in each]
    counted = (
        with_calendar(population, names, now, pack.registry, pack.zone)
        .select(*chain(*columns))
        .group_by(keys)
        .agg(pl.len())
    )
    groups: Counter[tuple[int, ...]] = Counter()
    for *parts, count in counted.collect(engine="streaming").iter_rows():
        groups[tuple(_join_numbers(parts, [len(each) for each in columns]))] += count
    return tuple(_report(versions, kind, now, groups) for kind in kinds)


def _bits(pack: Pack, kinds: Sequence[Kind]) -> _Bits:
    rules = tuple(rule for rule in pack.rules if rule.kinds & set(kinds))
    owners = dict.fromkeys(owner for kind in kinds for owner in pack.facts_needed[kind] if owner != REQUEST)
    return _Bits(pack, rules, tuple(owners))


def _join_numbers(parts: Sequence[int], lengths: Iterable[int]) -> Iterable[int]:
    at = 0
    for length in lengths:
        yield sum(part << (_BITS * place) for place, part in enumerate(parts[at : at + length]))
        at += length


def columns_needed(pack: Pack, kind: Kind) -> Mapping[str, pl.DataType]:
    """Return the columns that a population must have for `pack` and `kind`, with their types."""
    facts, of = pack.registry.facts, derived_columns(pack.registry)
    names = {of.get(name, name) for rule in pack.rules_of[kind] for name in rule.when.names} & facts.keys()
    read = {read_column(owner): pl.Boolean() for owner in pack.facts_needed[kind]}
    return {name: DTYPES[facts[name].type] for name in sorted(names)} | read


def _report(
    versions: Sequence[_Bits], kind: Kind, now: datetime, groups: Mapping[tuple[int, ...], int]
) -> BacktestReport:
    reducers = [version.reducer(kind) for version in versions]
    pairs: Counter[tuple[int, ...]] = Counter()
    for numbers, count in groups.items():
        pairs[tuple(one(number) for one, number in zip(reducers, numbers, strict=True))] += count
    outcomes = [_outcome(version, kind, _side(pairs, at)) for at, version in enumerate(versions)]
    if len(versions) == 1:
        return BacktestReport(kind=kind, as_of=now, outcome=outcomes[0])
    stopping = [_stopping_bits(version.codes(kind)) for version in versions]
    return BacktestReport(
        kind=kind,
        as_of=now,
        outcome=outcomes[0],
        changed=outcomes[1],
        difference=_difference(stopping, pairs, outcomes),
    )


def _side(pairs: Mapping[tuple[int, ...], int], at: int) -> Counter[int]:
    found: Counter[int] = Counter()
    for numbers, count in pairs.items():
        found[numbers[at]] += count
    return found


def _stopping_bits(codes: Iterable[_Code]) -> int:
    return sum(code.bit for code in codes if code.severity is not Severity.INFORMS)


def _outcome(version: _Bits, kind: Kind, counted: Counter[int]) -> BacktestOutcome:
    codes = version.codes(kind)
    stops, blocks = _stopping_bits(codes), sum(code.bit for code in codes if code.severity is Severity.BLOCKS)
    together: Counter[int] = Counter()
    for number, count in counted.items():
        together[number & stops] += count
    combinations = [
        Combination(tuple(code.words.code for code in codes if number & code.bit), count)
        for number, count in together.items()
        if number
    ]
    funnel, gone = list[FunnelStep](), 0
    for code in codes:
        if code.bit & stops:
            gone |= code.bit
            funnel.append(
                FunnelStep(code.words.code, sum(count for number, count in together.items() if not number & gone))
            )
    return BacktestOutcome(
        pack=version.pack.id,
        accounts=counted.total(),
        passes=together[0],
        with_consent=sum(count for number, count in counted.items() if not number & blocks),
        stops=tuple(
            RuleStop(
                code=code.words.code,
                title=code.words.title.whole or Text(code.words.code, code.words.code),
                severity=code.severity,
                accounts=sum(count for number, count in counted.items() if number & code.bit),
                alone=together[code.bit],
            )
            for code in codes
        ),
        combinations=tuple(sorted(combinations, key=lambda one: (-one.accounts, one.codes))),
        funnel=tuple(funnel),
    )


def _difference(
    stopping: Sequence[int], pairs: Mapping[tuple[int, ...], int], outcomes: Sequence[BacktestOutcome]
) -> BacktestDifference:
    moved: Counter[tuple[bool, bool]] = Counter()
    for (old, new), count in pairs.items():
        moved[bool(old & stopping[0]), bool(new & stopping[1])] += count
    before, after = ({stop.code: stop.accounts for stop in outcome.stops} for outcome in outcomes)
    shifts = tuple(
        Shift(code, before.get(code, 0), after.get(code, 0))
        for code in dict.fromkeys([*before, *after])
        if before.get(code) != after.get(code)
    )
    return BacktestDifference(gained=moved[True, False], lost=moved[False, True], shifts=shifts)
