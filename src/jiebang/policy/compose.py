"""Compile what all sections of a pack share: conditions and texts. Each problem is noted with its place."""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from jiebang.model.facts import REQUEST, FactType
from jiebang.policy.calendar import derived_columns
from jiebang.policy.condition import Condition, ConditionError, Value, compile_condition, vocabulary
from jiebang.policy.frame import read_column
from jiebang.policy.wording import Wording, WordingError, cut, join_wording, render

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from jiebang.model.check import Text
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.pack import Param
    from jiebang.policy.source import Path, Source

_NO_VALUES: Final[Mapping[str, FactType]] = {}


def fact_of(name: str, registry: ParticipantRegistry) -> str | None:
    """Return the fact that a name denotes or is derived from; None for now, today, next_year and parameters."""
    fact = derived_columns(registry).get(name, name)
    return fact if fact in registry.facts else None


def owners_of(names: Iterable[str], registry: ParticipantRegistry) -> frozenset[str]:
    """Return the owners of the facts that `names` denote."""
    facts = (fact_of(name, registry) for name in names)
    return frozenset(registry.facts[fact].owner for fact in facts if fact is not None)


class EntryScope(msgspec.Struct, frozen=True, eq=False):
    """Whom an entry applies to. `raised`: true for them; `owners`: must be read; `shown`: facts; `read`: columns."""

    raised: pl.Expr
    owners: frozenset[str]
    shown: tuple[str, ...]
    read: tuple[str, ...]


def make_scope(
    when: Condition | None, texts: frozenset[str], owners: frozenset[str], registry: ParticipantRegistry
) -> EntryScope:
    """Make the scope of a condition (None: everyone) and of the names `texts` that the entry's texts use."""
    named = texts | (when.names if when is not None else frozenset())
    facts = {fact_of(name, registry) for name in named}
    shown = tuple(name for name in registry.facts if name in facts)
    plain = ((texts & vocabulary(registry).keys()) | set(shown)) - registry.item_fields.keys()
    return EntryScope(read_and(owners, when), owners, shown, tuple(sorted(plain)))


def read_and(owners: frozenset[str], when: Condition | None) -> pl.Expr:
    """Return an expression that is true where all `owners` were read and `when` holds, else false."""
    read = [pl.col(read_column(owner)) for owner in sorted(owners - {REQUEST})]
    holds = pl.lit(value=True) if when is None else when.expr.fill_null(value=False)
    return reduce(and_, [*read, holds])


class Composer:
    """Compiles conditions and texts; notes each problem with its place and continues."""

    def __init__(
        self,
        document: Source,
        params: Mapping[str, Param],
        items: Container[str],
        currency: str,
        registry: ParticipantRegistry,
    ) -> None:
        self.document = document
        self.registry = registry
        self.currency = currency
        self.params = params
        self.items = items
        self.values: dict[str, tuple[FactType, Value]] = {
            name: (param.type, param.value) for name, param in params.items()
        }
        self.param_types = {name: param.type for name, param in params.items()}

    def condition(self, text: str, wanted: FactType, path: Path) -> Condition | None:
        """Compile a condition; None after noting a problem."""
        try:
            return compile_condition(text, wanted, self.values, self.registry)
        except ConditionError as wrong:
            self.document.problem(path, wrong.text.zh, wrong.text.en, wrong.token, text[: wrong.offset])
            return None

    def compile_when(self, text: str | None, path: Path) -> Condition | None:
        """Compile a `when`; None, for everyone, where it is absent."""
        when = None if text is None else self.condition(text, FactType.BOOL, path)
        if when is not None and not any(fact_of(name, self.registry) for name in when.names):
            self.document.problem(path, "条件未涉及任何事实", "the condition names no fact")
        return when

    def wording(self, text: Text, path: Path, known: Mapping[str, FactType] = _NO_VALUES) -> Wording:
        """Cut a text at its places, and fill in the parameters, which are the same for everyone."""
        return join_wording(
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
                shown = render(self.values[name][1], self.param_types[name], self.currency)
                whole[-1] += (shown.zh if chinese else shown.en) + literal
            else:
                whole += [name, literal]
        return tuple(whole)

    def require_read(self, names: Iterable[str], owners: frozenset[str], path: Path) -> None:
        """Note names of an owner that the condition does not name, so that it may be unread."""
        for name in sorted(names):
            for owner in owners_of([name], self.registry) - owners - {REQUEST}:
                self.document.problem(
                    path,
                    f"“{name}”属于 {owner}，而条件未涉及该来源：未读到时无法填入",
                    f"'{name}' belongs to {owner}, which the condition does not name: it may be unread",
                )

    def look_up_param(self, reference: str, path: Path) -> Param | None:
        """Return the parameter that a reference such as `:name` names; None after noting a problem."""
        param = self.params.get(reference.removeprefix(":"))
        if param is None:
            self.document.problem(
                path, f"没有名为“{reference}”的参数", f"there is no parameter named '{reference}'", reference
            )
        return param

    def require_item_words(self, names: Iterable[str], path: Path) -> None:
        """Note lists for whose items the pack has no wording."""
        for name in sorted(names):
            if name in self.registry.item_fields and name not in self.items:
                self.document.problem(path, f"items 中缺少“{name}”的写法", f"`items` does not word '{name}'")
