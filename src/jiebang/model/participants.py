"""Participants as they are declared: each says once who it is, what it knows, and what it can be asked to do.

A declaration stands in the participant's own folder (`jiebang.participants.<owner>`); everything else that has to know
something of participants is given a `ParticipantRegistry`, which a set of declarations makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.facts import OWN_FACTS, FactSpec, FactType
from jiebang.model.plan import PlannedOperation

_LARGEST: Final = (1 << 53) - 1


class ValueType(msgspec.Struct, frozen=True):
    """The type of an effect, or of a value that a case brings: `int`, `bool`, `str`, `date` or `bytes`.

    `least` and `most` bound a number, the length of a text in characters, and of bytes.
    """

    kind: type
    least: int = 0
    most: int = _LARGEST

    def fault(self, value: object) -> Text | None:
        """Say what is wrong with a value, in both languages; None where nothing is."""
        if type(value) is not self.kind:
            word = _WORDS[self.kind]
            return Text(f"应为{word.zh}", f"must be {word.en}")
        if isinstance(value, str) and "\0" in value:
            return Text("不得含有空字符", "must hold no NUL character")
        size = len(value) if isinstance(value, (str, bytes)) else value
        if type(size) is int and not self.least <= size <= self.most:
            if self.kind is int:
                return Text(f"应为 {self.least} 至 {self.most}", f"must be {self.least} to {self.most}")
            return Text(f"长度应为 {self.least} 至 {self.most}", f"its length must be {self.least} to {self.most}")
        return None


_WORDS: Final[Mapping[type, Text]] = {
    int: Text("整数", "a whole number"),
    bool: Text("真假值", "true or false"),
    str: Text("文本", "a text"),
    date: Text("日期", "a date"),
    bytes: Text("字节串", "bytes"),
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a participant can be asked to do. All SQL is over its account row `a`.

    `effects`: those that Confirm knows, by name; a plan that leaves one out changes nothing by it (None, for a party
    across the network: it takes whatever a plan says). `given`: the values that a case must bring, by name; there are
    none of most. `refusals`: code -> condition under which a Try is refused, the first that holds; it reads neither the
    fence nor a column of `on_try`. `missing`: code that refuses a Try of an account without a row (None: nothing to do
    there, granted). `on_try`, `on_confirm`, `on_cancel`: column -> expression. `on_confirm` also sees the effects as
    `e` (NULL where the plan leaves one out) and the time as `e.now`. `refusals`, `on_try` and `on_confirm` see what the
    case brought as `g`. `on_cancel` undoes `on_try`, and leaves an untried row alone. What it
    says of a column all operations of the participant say that name it, so that a case whose plan was lost in a restore
    can be cancelled too.
    """

    effects: Mapping[str, ValueType] | None = {}
    given: Mapping[str, ValueType] = {}
    refusals: Mapping[str, str] = {}
    missing: str | None = None
    on_try: Mapping[str, str] = {}
    on_confirm: Mapping[str, str] = {}
    on_cancel: Mapping[str, str] = {}


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One participant. `owner`: its schema, and the owner of its facts; its folder is the package `package`.

    `databases`: each database's name and the embedded server that holds it (`shenzhen` or `guiyang`), one for each data
    centre that keeps a copy; without any it is a party across the network, and `owner` is its name. `facts`: those that
    it owns, and `facts_sql` the query over accounts `$1::bigint[]` that returns account_id, facts_version and a column
    for each. `value_words`: by fact, what a person reads for each of its values where the participant answers with a
    word of its own. `operations`: by name. `formerly`: the operation that is meant where none is named (a plan or a
    message of the form before operations had names); none for a participant that is younger than that.
    """

    owner: str
    package: str
    databases: Mapping[str, str] = {}
    facts: tuple[FactSpec, ...] = ()
    facts_sql: str = ""
    value_words: Mapping[str, Mapping[str, Text]] = {}
    operations: Mapping[str, Operation]
    formerly: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names that plans, pools and messages know it by."""
        return tuple(self.databases) or (self.owner,)

    @property
    def stages(self) -> bool:
        """Whether a case may bring it something, so that it keeps a table of what is staged."""
        return any(operation.given for operation in self.operations.values())

    def operation(self, name: str) -> tuple[str, Operation]:
        """Return an operation with its name, which may be left out where it may be. Raises KeyError."""
        known = name or self.formerly or ""
        return known, self.operations[known]


def _require_sound(declared: Declaration) -> None:
    """Raise ValueError where the operations of a participant do not go together."""
    if declared.formerly is not None and declared.formerly not in declared.operations:
        raise ValueError(f"{declared.owner}: there is no operation {declared.formerly!r}")
    undone = dict[str, str]()
    for name, operation in declared.operations.items():
        for column, value in operation.on_cancel.items():
            if undone.setdefault(column, value) != value:
                raise ValueError(f"{declared.owner}: two operations undo {column!r} in two ways")
        if "account_id" in operation.given or (operation.given and not declared.databases):
            raise ValueError(f"{declared.owner}: {name!r} cannot be given that")


class ParticipantRegistry:
    """Every participant of an installation, and what follows from their declarations.

    `databases` and `networks`: names, in order of declaration. `placement`: the embedded server of each database.
    `facts`: every fact by name, those of no participant last; `owned`: their names by owner; `item_fields`: the fields
    of each fact of type ITEMS; `value_words`: as in the declarations. Two registries are never equal: it is hashed by
    what it is, so that what is derived from it can be kept.
    """

    def __init__(self, declarations: Iterable[Declaration]) -> None:
        """Raises ValueError where two declare the same owner, name or fact, or one an operation that is not there."""
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
        self.value_words = {fact: words for each in self.declarations for fact, words in each.value_words.items()}

    def __contains__(self, name: object) -> bool:
        return name in self._of

    def __getitem__(self, name: str) -> Declaration:
        """Return the declaration of the participant of this name. Raises KeyError."""
        return self._of[name]

    def of_owner(self, owner: str) -> Declaration | None:
        """Return the declaration of an owner; None for the platform's own, and for strangers."""
        return next((each for each in self.declarations if each.owner == owner), None)

    def owner_of(self, name: str) -> str:
        """Return the owner (schema, and owner of facts) behind a name; what is no participant is its own."""
        declared = self._of.get(name)
        return name if declared is None else declared.owner

    def copies(self, owner: str) -> tuple[str, ...]:
        """Return the names of those that hold copies of one owner's facts; the owner itself where none is declared."""
        declared = self.of_owner(owner)
        return (owner,) if declared is None else declared.names

    def formerly(self, name: str, effects: Mapping[str, Any] | None = None) -> PlannedOperation:
        """Return what a plan of the form before operations had names means. Raises KeyError where it means nothing."""
        operation, _ = self._of[name].operation("")
        return PlannedOperation(operation, effects or {})
