"""Reads the file of a declarative participant and finds its mistakes, all at once, each with line and column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from jiebang.participants.configured import RESERVED_NAMES
from jiebang.participants.core import CENTURY_DAYS, CENTURY_HOURS, CENTURY_MINUTES
from jiebang.participants.declarative.build import build_declaration
from jiebang.participants.declarative.shape import (
    LARGEST,
    ColumnShape,
    ColumnType,
    EffectShape,
    EffectType,
    OperationDescribed,
    ParticipantShape,
    RefusalShape,
    TableShape,
    WriteShape,
)
from jiebang.participants.declarative.sql_words import SQL_WORDS
from jiebang.policy.source import PackProblem, Source

if TYPE_CHECKING:
    from jiebang.model.participants import Declaration

Path = tuple[str | int, ...]
OUR_COLUMNS: Final = frozenset({"account_id", "facts_version", "case_no", "case_op", "epoch", "now"})
"""Columns of the fence, and the time that a Confirm sees."""
_OUR_TABLES: Final = frozenset({"account", "staged", "schema_migration"})
_TIMES: Final = ("_at", "_until", "_since")
_FALSE: Final = (ColumnType.BOOL, ColumnType.RESERVATION)
"""The types whose default is false."""
_NUMBERS: Final = (ColumnType.INT, ColumnType.FEN)
_SPANS: Final[Mapping[str, int]] = {
    "minutes_from_now": CENTURY_MINUTES,
    "hours_from_now": CENTURY_HOURS,
    "days_from_now": CENTURY_DAYS,
}
_FITTING: Final[Mapping[EffectType, tuple[ColumnType, ...]]] = {
    EffectType.INT: _NUMBERS,
    EffectType.BOOL: (ColumnType.BOOL,),
    EffectType.TEXT: (ColumnType.TEXT,),
}


def load_declaration(
    text: str, file: str, names: Collection[str], facts: Collection[str]
) -> tuple[Declaration | None, list[PackProblem]]:
    """Read a file. Returns the declaration, or None with everything that is wrong with it.

    `names`, `facts`: those of other participants, which it cannot have.
    """
    source = Source(text, file)
    shape = source.read(ParticipantShape)
    if shape is None:
        return None, source.problems
    _Reader(source, shape).check(names, facts)
    if source.problems:
        return None, source.problems
    return build_declaration(shape), []


class _Reader:
    """Holds a file that has the right shape against what a participant must be."""

    def __init__(self, source: Source, shape: ParticipantShape) -> None:
        self._source, self._shape = source, shape

    def check(self, names: Collection[str], facts: Collection[str]) -> None:
        shape, note = self._shape, self._source.problem
        if shape.participant in names or shape.participant in RESERVED_NAMES or shape.participant in SQL_WORDS:
            note(("participant",), "此名称已另有所指", "that name means something else already")
        for name, column in shape.columns.items():
            self._check_column(("columns", name), name, column, born=1)
        for name, table in shape.tables.items():
            self._check_table(("tables", name), name, table)
        self._check_versions()
        for name in shape.facts:
            self._check_fact(name, facts)
        self._check_personal_data()
        if not shape.operations:
            note(("operations",), "至少须有一项操作", "needs at least one operation")
        for name, operation in shape.operations.items():
            self._check_operation(("operations", name), operation)

    def _check_column(self, path: Path, name: str, column: ColumnShape, *, born: int) -> None:
        note = self._source.problem
        if name in OUR_COLUMNS or name in SQL_WORDS:
            note(path, f"列名“{name}”已另有所指", f"the column name '{name}' means something else already")
        if (column.type is ColumnType.TIME) != name.endswith(_TIMES):
            zh, en = (
                "时间列(且仅时间列)须以 _at、_until 或 _since 结尾",
                "a time, and only it, ends with _at, _until or _since",
            )
            note(path, zh, en)
        if (column.type is ColumnType.FEN) != name.endswith("_fen"):
            note(path, "金额列(且仅金额列)须以 _fen 结尾", "money, and only it, ends with _fen")
        if column.type not in (*_NUMBERS, ColumnType.TEXT) and (column.least or column.most is not None):
            note(path, "此类型没有 least 与 most", "this type has no least and most")
        if column.most is not None and column.least > column.most:
            note((*path, "least"), "least 大于 most", "least is above most")
        if column.among and column.type is not ColumnType.TEXT:
            note((*path, "among"), "只有文本有 among", "only a text has among")
        if column.since < born:
            note((*path, "since"), "早于所在的表", "is older than its table")
        self._check_default(path, column, born=born)

    def _check_default(self, path: Path, column: ColumnShape, *, born: int) -> None:
        note, silent = self._source.problem, column.default is None
        if not silent and not fits(column, column.default):
            note((*path, "default"), "默认值不符合此列", "the default does not fit the column")
        if not silent and column.optional:
            note((*path, "optional"), "有默认值的列不会缺失", "a column with a default is never absent")
        if column.type is ColumnType.RESERVATION and (not silent or column.optional or path[0] != "columns"):
            zh = "reservation 只用于账户的列,且没有 default 与 optional"
            note(path, zh, "a reservation is a column of the account, without default and optional")
        must = path[0] == "columns" or column.since > born
        if must and silent and not column.optional and column.type not in _FALSE:
            note(path, "须有 default,或 optional: true", "needs a default, or optional: true")

    def _check_table(self, path: Path, name: str, table: TableShape) -> None:
        note = self._source.problem
        if name in _OUR_TABLES or name in SQL_WORDS or name in self._shape.columns:
            note(path, f"表名“{name}”已另有所指", f"the table name '{name}' means something else already")
        for column, one in table.columns.items():
            if column == f"{name}_id":
                note((*path, "columns", column), "此列由平台给出", "the platform makes this column")
            self._check_column((*path, "columns", column), column, one, born=table.since)

    def _check_versions(self) -> None:
        """Demand that the versions of the tables are counted from 1 without gaps."""
        shape = self._shape
        found = {one.since for one in shape.columns.values()} | {one.since for one in shape.tables.values()}
        found |= {one.since for table in shape.tables.values() for one in table.columns.values()}
        top = max(found, default=1)
        lacking = set(range(2, top)) - found
        if lacking:
            first = min(lacking)
            self._source.problem(
                ("columns",), f"缺少版本 {first} 的内容(since)", f"nothing came with version {first} (since)"
            )

    def _check_fact(self, name: str, taken: Collection[str]) -> None:
        shape, note, path = self._shape, self._source.problem, ("facts", name)
        fact = shape.facts[name]
        if name in taken:
            note(path, "此事实已由其他参与方声明", "another participant declares that fact")
        if name in SQL_WORDS or name in OUR_COLUMNS:
            note(path, f"事实名“{name}”已另有所指", f"the fact name '{name}' means something else already")
        said = [each for each in ("column", "count", "items") if getattr(fact, each) is not None]
        if len(said) != 1:
            note(path, "须恰有 column、count、items 之一", "needs exactly one of column, count, items")
            return
        column = None if fact.column is None else shape.columns.get(fact.column)
        if fact.column is not None and (column is None or column.type is ColumnType.RESERVATION):
            note(
                (*path, "column"), f"没有可作事实的列“{fact.column}”", f"there is no column '{fact.column}' for a fact"
            )
        table = fact.count or fact.items
        if table is not None and table not in shape.tables:
            note((*path, said[0]), f"没有表“{table}”", f"there is no table '{table}'")
        elif table is not None:
            for at, field in enumerate(fact.fields):
                if field not in shape.tables[table].columns:
                    note((*path, "fields", at), f"没有列“{field}”", f"there is no column '{field}'")
        if (fact.items is None) == bool(fact.fields):
            note(path, "fields 与 items 须同时给出", "fields and items come together")

    def _check_personal_data(self) -> None:
        shape, note = self._shape, self._source.problem
        for at, entry in enumerate(shape.personal_data):
            path: Path = ("personal_data", at)
            if entry.participant not in (None, shape.participant):
                note((*path, "participant"), "此文件只说明自己的表", "the file speaks of its own tables alone")
            if entry.table != "account" and entry.table not in shape.tables:
                note((*path, "table"), f"没有表“{entry.table}”", f"there is no table '{entry.table}'")
                continue
            columns = shape.columns if entry.table == "account" else shape.tables[entry.table].columns
            known = {*columns, "account_id", "case_no", "case_op", "epoch", "facts_version", f"{entry.table}_id"}
            for nth, column in enumerate(entry.columns):
                if column not in known:
                    note((*path, "columns", nth), f"没有列“{column}”", f"there is no column '{column}'")

    def _check_operation(self, path: Path, operation: OperationDescribed) -> None:
        note = self._source.problem
        for name, effect in operation.effects.items():
            self._check_effect((*path, "effects", name), name, effect)
        for at, name in enumerate(operation.while_tried):
            column = self._shape.columns.get(name)
            if column is None or column.type is not ColumnType.RESERVATION:
                note((*path, "while_tried", at), "须为 reservation 类型的列", "must be a column of type reservation")
        for code, refusal in operation.refuse.items():
            self._check_refusal((*path, "refuse", code), refusal)
        for name, write in operation.confirm.items():
            self._check_write((*path, "confirm", name), name, write, operation)

    def _check_effect(self, path: Path, name: str, effect: EffectShape) -> None:
        note = self._source.problem
        if name in OUR_COLUMNS or name in SQL_WORDS or name == "effects":
            note(path, f"效果名“{name}”已另有所指", f"the effect name '{name}' means something else already")
        if effect.most is not None and effect.least > effect.most:
            note((*path, "least"), "least 大于 most", "least is above most")
        if effect.among and effect.type is not EffectType.TEXT:
            note((*path, "among"), "只有文本有 among", "only a text has among")

    def _check_refusal(self, path: Path, refusal: RefusalShape) -> None:
        note = self._source.problem
        column = self._shape.columns.get(refusal.column)
        if column is None:
            note((*path, "column"), f"没有列“{refusal.column}”", f"there is no column '{refusal.column}'")
            return
        if column.type is ColumnType.RESERVATION:
            note((*path, "column"), "reservation 不能作为条件", "a reservation cannot be a condition")
            return
        said = [each for each in ("equals", "above", "present") if getattr(refusal, each) is not None]
        if len(said) != 1:
            note(path, "须恰有 is、above、present 之一", "needs exactly one of is, above, present")
        elif refusal.equals is not None and not fits(column, refusal.equals):
            note((*path, "is"), "此值不符合该列", "the value does not fit the column")
        elif refusal.above is not None and column.type not in _NUMBERS:
            note((*path, "above"), "只有数有 above", "only a number can be above another")

    def _check_write(self, path: Path, name: str, write: WriteShape, operation: OperationDescribed) -> None:
        note = self._source.problem
        column = self._shape.columns.get(name)
        if column is None:
            note(path, f"没有列“{name}”", f"there is no column '{name}'")
            return
        if column.type is ColumnType.RESERVATION:
            note(path, "reservation 由平台写", "the platform writes the reservations")
            return
        said = [each for each in write.__struct_fields__ if getattr(write, each) is not None]
        if len(said) != 1:
            known = ", ".join(write.__struct_fields__)
            note(path, f"须恰有其一:{known}", f"needs exactly one of {known}")
            return
        (how,) = said
        value: Any = getattr(write, how)
        if how in ("effect", "at_most", *_SPANS):
            effect = operation.effects.get(value)
            if effect is None:
                note((*path, how), f"此操作没有效果“{value}”", f"the operation has no effect '{value}'")
            else:
                self._check_taking((*path, how), how, column, effect)
        elif how == "to" and not fits(column, value):
            note((*path, how), "此值不符合该列", "the value does not fit the column")
        elif how == "now" and (column.type is not ColumnType.TIME or value is not True):
            note((*path, how), "只有时间列可写 now: true", "only a time can be `now: true`")
        elif how == "absent" and (not column.optional or value is not True):
            note((*path, how), "只有 optional 的列可写 absent: true", "only an optional column can be `absent: true`")

    def _check_taking(self, path: Path, how: str, column: ColumnShape, effect: EffectShape) -> None:
        """Demand that the column admits whatever the effect may be: a Confirm may not fail."""
        note = self._source.problem
        if how in _SPANS:
            if column.type is not ColumnType.TIME or effect.type is not EffectType.INT:
                note(path, "须为时间列与整数效果", "needs a time, and an effect that is a whole number")
            elif effect.most is None or effect.most > _SPANS[how]:
                note(path, f"该效果须有 most,至多 {_SPANS[how]}", f"the effect needs a most of at most {_SPANS[how]}")
            return
        if column.type not in _FITTING[effect.type] or (how == "at_most" and column.type not in _NUMBERS):
            note(path, "效果与列的类型不符", "the effect is of another type than the column")
            return
        if effect.type is EffectType.BOOL:
            return
        least, most = bounds(column)
        smallest, largest = effect.least, effect.most if effect.most is not None else _top(effect.type)
        if column.among and not (effect.among and set(effect.among) <= set(column.among)):
            note(path, "效果可能不在该列的 among 之中", "the effect may be a word that is not among the column's")
        elif not column.among and not effect.among and (smallest < least or (largest > most and how != "at_most")):
            note(path, "效果的界限超出该列", "the effect's bounds exceed the column's")
        elif effect.among and not column.among and any(not fits(column, word) for word in effect.among):
            note(path, "效果的词不符合该列", "a word of the effect does not fit the column")


def _top(kind: EffectType) -> int:
    return LARGEST if kind is EffectType.INT else 4_096


def bounds(column: ColumnShape) -> tuple[int, int]:
    """Return the bounds of a number, or of a text's length."""
    most = column.most if column.most is not None else (4_096 if column.type is ColumnType.TEXT else LARGEST)
    return column.least, most


def fits(column: ColumnShape, value: object) -> bool:
    """Return whether a column admits a value that is written in the file."""
    least, most = bounds(column)
    match column.type:
        case ColumnType.INT | ColumnType.FEN:
            return type(value) is int and least <= value <= most
        case ColumnType.BOOL:
            return type(value) is bool
        case ColumnType.TEXT:
            return isinstance(value, str) and (value in column.among if column.among else least <= len(value) <= most)
        case _:
            return False
