"""Participants' declarations: names, databases, facts and operations of each, stated once.

A declaration is in the participant's own package (`jiebang.participants.<owner>`); all other code gets what it needs
to know about participants from a `ParticipantRegistry`, made from a set of declarations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum
from typing import Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.facts import OWN_FACTS, FactSpec, FactType
from jiebang.model.limits import LimitSpec
from jiebang.model.personal_data import HeldData
from jiebang.model.plan import PlannedOperation

_LARGEST: Final = (1 << 53) - 1
_LONGEST: Final = 4_096


class Weaker(StrEnum):
    """Which change of an effect protects people less."""

    MORE = "more"
    LESS = "less"


class ValueType(msgspec.Struct, frozen=True):
    """The type of an effect, or of a value that a case brings: `int`, `bool`, `str`, `date` or `bytes`.

    `least` and `most` bound a number, the length of a text in characters, and of bytes (at most 4,096 unless said
    otherwise). `among`: the words that a text may be, those that protect most first. Together they must admit only
    what the column that takes the value admits, whatever the row holds: a Confirm may not fail. `weaker`: the direction
    in which a change of an effect protects people less (None: none is known).
    """

    kind: type
    least: int = 0
    most: int = _LARGEST
    among: tuple[str, ...] = ()
    weaker: Weaker | None = None

    def __post_init__(self) -> None:
        """Bound texts and bytes of which nothing else is said."""
        if self.kind in (str, bytes) and self.most == _LARGEST:
            msgspec.structs.force_setattr(self, "most", _LONGEST)

    def fault(self, value: object) -> Text | None:
        """Describe what is wrong with a value, in both languages; None if nothing is."""
        if type(value) is not self.kind:
            word = _WORDS[self.kind]
            return Text(f"应为{word.zh}", f"must be {word.en}")
        if isinstance(value, str) and _UNSTORABLE.search(value):
            return Text("不得含有空字符或不成对的代理字符", "must hold no NUL character and no unpaired surrogate")
        if self.among and value not in self.among:
            known = ", ".join(self.among)
            return Text(f"应为以下之一：{known}", f"must be one of {known}")
        size = len(value) if isinstance(value, (str, bytes)) else value
        if type(size) is not int or self.least <= size <= self.most:
            return None
        bounds = Text(f"{self.least} 至 {self.most}", f"{self.least} to {self.most}")
        if self.kind is int:
            return Text(f"应为 {bounds.zh}", f"must be {bounds.en}")
        return Text(f"长度应为 {bounds.zh}", f"its length must be {bounds.en}")


_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""Characters that no text of PostgreSQL can hold."""
_UNKNOWN_EFFECT: Final = Text("不是此操作的效果", "is no effect of this operation")
_WORDS: Final[Mapping[type, Text]] = {
    int: Text("整数", "a whole number"),
    bool: Text("真假值", "true or false"),
    str: Text("文本", "a text"),
    date: Text("日期", "a date"),
    bytes: Text("字节串", "bytes"),
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a participant. All SQL is over its account row `a`.

    `effects`: the effects that Confirm supports, by name; one that a plan omits changes nothing (None, for a remote
    participant: any effects). `given`: the values that a case must bring, by name; most operations have none.
    `refusals`: code -> condition under which a Try is refused; the first that holds applies. Conditions read neither
    the fence nor a column of `on_try`. `missing`: the code that refuses a Try of an account without a row (None: it is
    granted, as there is nothing to do). `on_try`, `on_confirm`, `on_cancel`: column -> expression. `on_confirm` also
    sees the effects as `e` (NULL for an omitted one) and the time as `e.now`. `refusals`, `on_try` and `on_confirm` see
    the given values as `g`. `on_cancel` undoes `on_try`, and leaves an untried row unchanged. All operations of a
    participant that name a column in `on_cancel` must have the same expression for it, so that a case whose plan was
    lost in a restore can be cancelled too.

    A Confirm and a Cancel must not fail, whatever admitted effects, given values and rows they meet: no expression of
    theirs may, and what it yields is admitted by its column and the CHECKs of the table.
    """

    effects: Mapping[str, ValueType] | None = {}
    given: Mapping[str, ValueType] = {}
    refusals: Mapping[str, str] = {}
    missing: str | None = None
    on_try: Mapping[str, str] = {}
    on_confirm: Mapping[str, str] = {}
    on_cancel: Mapping[str, str] = {}

    def find_fault(self, effects: Mapping[str, Any]) -> tuple[str, Text] | None:
        """Return the first effect that Confirm could not apply, with what is wrong with it; None if it applies all."""
        declared = self.effects
        if declared is None:
            return None
        for name, value in effects.items():
            fault = declared[name].fault(value) if name in declared else _UNKNOWN_EFFECT
            if fault is not None:
                return name, fault
        return None


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One participant. `owner`: its schema, and the owner of its facts; its folder is the package `package`.

    `databases`: the embedded server (`shenzhen` or `guiyang`) of each database, by name; one database for each data
    centre that keeps a copy. Without any it is a remote participant, named `owner`. `facts`: those that it owns;
    `facts_sql`: the query over accounts `$1::bigint[]` that returns account_id, facts_version and a column for each.
    `value_words`: by fact, the text for each value that the participant answers as a code word. `limits`: what it may
    restrict; `limits_sql`: the query over accounts `$1::bigint[]` at `$2::timestamptz` that returns a row for each
    limit in force: account_id, name, value, used, until (`LimitReading`). `operations`: by name.
    `formerly`: the operation that applies where none is named, in a plan or message of the old form without operation
    names; None for a participant that never had that form. `migrations`: (name, SQL) of each, from version 1 on, for a
    participant that has no folder of them. `personal_data`: what its tables hold of people, for one that has no file
    `personal_data.yaml`.
    """

    owner: str
    package: str
    databases: Mapping[str, str] = {}
    facts: tuple[FactSpec, ...] = ()
    facts_sql: str = ""
    value_words: Mapping[str, Mapping[str, Text]] = {}
    limits: tuple[LimitSpec, ...] = ()
    limits_sql: str = ""
    operations: Mapping[str, Operation]
    formerly: str | None = None
    migrations: tuple[tuple[str, str], ...] = ()
    personal_data: tuple[HeldData, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in plans, pools and messages."""
        return tuple(self.databases) or (self.owner,)

    @property
    def stages(self) -> bool:
        """Whether any operation has given values, so that the participant has a table of staged values."""
        return any(operation.given for operation in self.operations.values())

    def operation(self, name: str) -> tuple[str, Operation]:
        """Return an operation with its name. An empty `name` means `formerly`. Raises KeyError."""
        known = name or self.formerly or ""
        return known, self.operations[known]


def _require_sound(declared: Declaration) -> None:
    """Raise ValueError where a participant's operations contradict each other."""
    if declared.formerly is not None and declared.formerly not in declared.operations:
        raise ValueError(f"{declared.owner}: there is no operation {declared.formerly!r}")
    undone = dict[str, str]()
    for name, operation in declared.operations.items():
        for column, value in operation.on_cancel.items():
            if undone.setdefault(column, value) != value:
                raise ValueError(f"{declared.owner}: two operations undo {column!r} in two ways")
        if "account_id" in operation.given or (operation.given and not declared.databases):
            raise ValueError(f"{declared.owner}: {name!r} cannot be given that")
    if bool(declared.limits) != bool(declared.limits_sql) or (declared.limits and not declared.databases):
        raise ValueError(f"{declared.owner}: limits, and the query that reads them, come together")
    for limit in declared.limits:
        effects = [one.effects or {} for one in declared.operations.values()]
        if limit.effect is not None and not any(limit.effect in known for known in effects):
            raise ValueError(f"{declared.owner}: no operation has the effect {limit.effect!r}")


class ParticipantRegistry:
    """All participants of an installation, and what is derived from their declarations.

    `databases` and `networks`: names, in order of declaration. `placement`: the embedded server of each database.
    `facts`: every fact by name, those of no participant last; `owned`: their names by owner; `item_fields`: the fields
    of each fact of type ITEMS; `value_words`: as in the declarations; `limits`: every limit by name. Registries
    compare and hash by identity, so that derived values can be cached.
    """

    def __init__(self, declarations: Iterable[Declaration]) -> None:
        """Raises ValueError where two declare the same owner, name or fact, or one is inconsistent."""
        self.declarations = tuple(declarations)
        self._of = {name: each for each in self.declarations for name in each.names}
        owners = [each.owner for each in self.declarations]
        specs = [*(fact for each in self.declarations for fact in each.facts), *OWN_FACTS]
        if len(self._of) != sum(len(each.names) for each in self.declarations) or len(set(owners)) != len(owners):
            raise ValueError("a participant is declared twice")
        self.facts: Mapping[str, FactSpec] = {spec.name: spec for spec in specs}
        if len(self.facts) != len(specs):
            raise ValueError("a fact is declared twice")
        for each in self.declarations:
            if any(fact.owner != each.owner for fact in each.facts):
                raise ValueError(f"{each.owner}: it declares the facts of another owner")
            _require_sound(each)
        self.databases = tuple(name for each in self.declarations for name in each.databases)
        self.networks = tuple(name for each in self.declarations if not each.databases for name in each.names)
        self.placement: Mapping[str, str] = {
            name: server for each in self.declarations for name, server in each.databases.items()
        }
        self.owned: Mapping[str, tuple[str, ...]] = {
            owner: tuple(name for name, spec in self.facts.items() if spec.owner == owner)
            for owner in dict.fromkeys(spec.owner for spec in specs)
        }
        self.item_fields: Mapping[str, Mapping[str, FactType]] = {
            name: spec.fields for name, spec in self.facts.items() if spec.type is FactType.ITEMS
        }
        self.limits: Mapping[str, LimitSpec] = {one.name: one for each in self.declarations for one in each.limits}
        if len(self.limits) != sum(len(each.limits) for each in self.declarations):
            raise ValueError("a limit is declared twice")
        self.value_words = {fact: words for each in self.declarations for fact, words in each.value_words.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all participants, databases first."""
        return (*self.databases, *self.networks)

    def __contains__(self, name: object) -> bool:
        return name in self._of

    def __getitem__(self, name: str) -> Declaration:
        """Return the declaration of the participant of this name. Raises KeyError."""
        return self._of[name]

    def of_owner(self, owner: str) -> Declaration | None:
        """Return the declaration of an owner; None for the platform itself and for unknown owners."""
        return next((each for each in self.declarations if each.owner == owner), None)

    def owner_of(self, name: str) -> str:
        """Return the owner (of schema and facts) of a participant's name; any other name is returned unchanged."""
        declared = self._of.get(name)
        return name if declared is None else declared.owner

    def copies(self, owner: str) -> tuple[str, ...]:
        """Return the names that hold copies of an owner's facts; the owner itself where it is not declared."""
        declared = self.of_owner(owner)
        return (owner,) if declared is None else declared.names

    def formerly(self, name: str, effects: Mapping[str, Any] | None = None) -> PlannedOperation:
        """Return the operation of a plan of the old form, without operation names. Raises KeyError without one."""
        operation, _ = self._of[name].operation("")
        return PlannedOperation(operation, effects or {})
