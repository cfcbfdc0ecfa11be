"""What the file of a declarative participant may say. docs/participants-sdk.md says the same in words."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.participants.personal_data import HeldDataShape

LARGEST: Final = (1 << 53) - 1
Name = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,39}\Z")]
Code = Annotated[str, Meta(pattern=r"\A[A-Z][A-Z0-9]*(-[A-Z0-9]+)*\Z", max_length=64)]
Number = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Size = Annotated[int, Meta(ge=0, le=LARGEST)]
Version = Annotated[int, Meta(ge=1, le=999)]
Word = Annotated[str, Meta(max_length=200)]


class DataCentre(StrEnum):
    """The embedded server that a database stands on."""

    SHENZHEN = "shenzhen"
    GUIYANG = "guiyang"


class ColumnType(StrEnum):
    """The type of a column. `fen`: money. `reservation`: true from a Try to its Confirm or Cancel, and only then."""

    INT = "int"
    FEN = "fen"
    BOOL = "bool"
    TEXT = "text"
    TIME = "time"
    DATE = "date"
    RESERVATION = "reservation"


class EffectType(StrEnum):
    """The type of an effect."""

    INT = "int"
    BOOL = "bool"
    TEXT = "text"


class Direction(StrEnum):
    """Which change of an effect protects people less."""

    MORE = "more"
    LESS = "less"


class ColumnShape(msgspec.Struct, frozen=True):
    """A column. `least`, `most`: bounds of a number, or of a text's length; `among`: the words that it may be.

    `default`: of rows that say nothing; `optional`: it may be absent. `since`: the version of the tables that it came
    with.
    """

    type: ColumnType
    least: Size = 0
    most: Size | None = None
    among: tuple[Word, ...] = ()
    default: Number | bool | Word | None = None
    optional: bool = False
    since: Version = 1


class TableShape(msgspec.Struct, frozen=True):
    """A table of things that an account has many of. `ends_with_case`: they are dead once a Confirm is done."""

    columns: dict[Name, ColumnShape]
    ends_with_case: bool
    since: Version = 1


class FactShape(msgspec.Struct, frozen=True):
    """A fact, by exactly one of: a `column` of the account, the `count` of a table's rows, its `items` by `fields`."""

    zh: Word
    en: Word
    column: Name | None = None
    count: Name | None = None
    items: Name | None = None
    fields: tuple[Name, ...] = ()


class EffectShape(msgspec.Struct, frozen=True):
    """An effect that a Confirm takes, with its bounds."""

    type: EffectType
    least: Size = 0
    most: Size | None = None
    among: tuple[Word, ...] = ()
    weaker: Direction | None = None


class RefusalShape(msgspec.Struct, frozen=True, rename={"equals": "is"}):
    """When a Try is refused, by exactly one of: the column `is` a value, is `above` a number, or is `present`."""

    column: Name
    equals: Number | bool | Word | None = None
    above: Number | None = None
    present: bool | None = None


class WriteShape(msgspec.Struct, frozen=True):
    """What a Confirm writes into a column, by exactly one of these.

    `to`: a value. `effect`: that effect's. `at_most`: the smaller of the column's and the effect's. `minutes_from_now`,
    `hours_from_now`, `days_from_now`: the time so much later as the effect says. `now`: the time. `absent`: nothing.
    A plan that omits the effect changes nothing.
    """

    to: Number | bool | Word | None = None
    effect: Name | None = None
    at_most: Name | None = None
    minutes_from_now: Name | None = None
    hours_from_now: Name | None = None
    days_from_now: Name | None = None
    now: bool | None = None
    absent: bool | None = None


class OperationDescribed(msgspec.Struct, frozen=True):
    """An operation. `while_tried`: the reservations that its Try sets, and its Confirm or Cancel takes off.

    `missing`: the code that refuses an account without a row; without it there is nothing to do, and that is granted.
    """

    effects: dict[Name, EffectShape] = {}
    refuse: dict[Code, RefusalShape] = {}
    missing: Code | None = None
    while_tried: tuple[Name, ...] = ()
    confirm: dict[Name, WriteShape] = {}


class ParticipantShape(msgspec.Struct, frozen=True):
    """The whole file."""

    participant: Name
    server: DataCentre
    columns: dict[Name, ColumnShape]
    operations: dict[Name, OperationDescribed]
    tables: dict[Name, TableShape] = {}
    facts: dict[Name, FactShape] = {}
    personal_data: tuple[HeldDataShape, ...] = ()
