"""What follows from the file of a declarative participant: its declaration, its migrations, its query of facts.

Every name in the SQL was checked against a pattern and PostgreSQL's own words; every value is a number, a truth value
or a quoted text (`load.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from jiebang.model.facts import FactSpec, FactType
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
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
from jiebang.participants.personal_data import build_entry

_SQL_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.INT: "bigint",
    ColumnType.FEN: "bigint",
    ColumnType.BOOL: "boolean",
    ColumnType.TEXT: "text",
    ColumnType.TIME: "timestamptz",
    ColumnType.DATE: "date",
    ColumnType.RESERVATION: "boolean",
}
_FACT_TYPES: Final[Mapping[ColumnType, FactType]] = {
    kind: FactType(kind.value) for kind in ColumnType if kind is not ColumnType.RESERVATION
}
_EFFECT_TYPES: Final[Mapping[EffectType, type]] = {EffectType.INT: int, EffectType.BOOL: bool, EffectType.TEXT: str}
_FENCE: Final = """account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0)"""
_SPANS: Final[Mapping[str, str]] = {"minutes_from_now": "mins", "hours_from_now": "hours", "days_from_now": "days"}


def build_declaration(shape: ParticipantShape) -> Declaration:
    """Return the declaration of a file that was found right."""
    owner = shape.participant
    return Declaration(
        owner=owner,
        package=__name__.rpartition(".")[0],
        databases={owner: shape.server.value},
        facts=tuple(_build_fact(shape, name) for name in shape.facts),
        facts_sql=_build_facts_sql(shape),
        operations={name: _build_operation(one) for name, one in shape.operations.items()},
        migrations=build_migrations(shape),
        personal_data=tuple(build_entry(owner, each) for each in shape.personal_data),
    )


# --- Migrations -------------------------------------------------------------------------------------------------------


def build_migrations(shape: ParticipantShape) -> tuple[tuple[str, str], ...]:
    """Return (name, SQL) of each version of the tables, from 1 on.

    A version's text depends on nothing but the columns and tables that came with it, in no order: a later version, or
    a change of operations and facts, leaves it as it was applied.
    """
    versions = {1, *(one.since for one in shape.columns.values())}
    for table in shape.tables.values():
        versions |= {table.since, *(one.since for one in table.columns.values())}
    return tuple((f"version_{at}", _build_migration(shape, at)) for at in range(1, max(versions) + 1))


def _build_migration(shape: ParticipantShape, at: int) -> str:
    owner, parts = shape.participant, list[str]()
    added = {name: one for name, one in shape.columns.items() if one.since == at}
    if at == 1:
        parts.append(f"CREATE SCHEMA {owner}")
        lines = f",{_NEXT}".join((_FENCE, *_list_columns(added)))
        parts.append(f"CREATE TABLE {owner}.account ({_NEXT}{lines}\n) WITH (fillfactor = 50)")
    elif added:
        parts += [f"ALTER TABLE {owner}.account ADD COLUMN {each}" for each in _list_columns(added)]
    parts += [
        f"ALTER TABLE {owner}.account ADD CONSTRAINT {name}_while_tried CHECK (NOT {name} OR case_op = 'tried')"
        for name, one in sorted(added.items())
        if one.type is ColumnType.RESERVATION
    ]
    for name, table in sorted(shape.tables.items()):
        within = {column: one for column, one in table.columns.items() if one.since == at}
        if table.since == at:
            parts += _build_table(owner, name, table, within)
        else:
            parts += [f"ALTER TABLE {owner}.{name} ADD COLUMN {each}" for each in _list_columns(within)]
    return ";\n".join(parts) + ";\n"


_NEXT: Final = "\n    "


def _build_table(owner: str, name: str, table: TableShape, within: Mapping[str, ColumnShape]) -> list[str]:
    lines = [
        "account_id bigint NOT NULL CHECK (account_id > 0)",
        f"{name}_id bigint NOT NULL CHECK ({name}_id > 0)",
        *_list_columns(within),
        *(["epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0)"] if table.ends_with_case else []),
        f"PRIMARY KEY (account_id, {name}_id)",
    ]
    told = "Dead with their epoch." if table.ends_with_case else "Outlives a revoke."
    return [
        f"CREATE TABLE {owner}.{name} ({_NEXT}{f',{_NEXT}'.join(lines)}\n)",
        f"COMMENT ON TABLE {owner}.{name} IS '{told}'",
    ]


def _list_columns(columns: Mapping[str, ColumnShape]) -> Iterable[str]:
    for name, column in sorted(columns.items()):
        default = column.default if column.default is not None else (False if _is_flag(column) else None)
        written = "" if default is None else f" DEFAULT {_quote(default)}"
        null = "" if column.optional else " NOT NULL"
        yield f"{name} {_SQL_TYPES[column.type]}{null}{written}{_build_check(name, column)}"


def _is_flag(column: ColumnShape) -> bool:
    return column.type is ColumnType.RESERVATION or (column.type is ColumnType.BOOL and not column.optional)


def _build_check(name: str, column: ColumnShape) -> str:
    match column.type:
        case ColumnType.INT | ColumnType.FEN:
            most = column.most if column.most is not None else LARGEST
            return f" CHECK ({name} BETWEEN {column.least} AND {most})"
        case ColumnType.TEXT if column.among:
            return f" CHECK ({name} IN ({', '.join(_quote(word) for word in column.among)}))"
        case ColumnType.TEXT:
            most = column.most if column.most is not None else 4_096
            return f" CHECK (length({name}) BETWEEN {column.least} AND {most})"
        case ColumnType.TIME:
            return f" CHECK ({name} BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00')"
        case ColumnType.DATE:
            return f" CHECK ({name} BETWEEN '0001-01-02' AND '9999-12-30')"
        case _:
            return ""


def _quote(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'{}'".format(value.replace("'", "''")) if isinstance(value, str) else str(value)


# --- Facts ------------------------------------------------------------------------------------------------------------


def _build_fact(shape: ParticipantShape, name: str) -> FactSpec:
    fact = shape.facts[name]
    if fact.column is not None:
        kind = _FACT_TYPES[shape.columns[fact.column].type]
        return FactSpec(name, shape.participant, kind, fact.zh, fact.en)
    if fact.items is None:
        return FactSpec(name, shape.participant, FactType.INT, fact.zh, fact.en)
    columns = shape.tables[fact.items].columns
    fields = {"id": FactType.TEXT, **{field: _FACT_TYPES[columns[field].type] for field in fact.fields}}
    return FactSpec(name, shape.participant, FactType.ITEMS, fact.zh, f"{fact.en}: {', '.join(fields)}", fields)


def _build_facts_sql(shape: ParticipantShape) -> str:
    owner, chosen, joined = shape.participant, ["a.account_id", "a.facts_version"], list[str]()
    for name, fact in shape.facts.items():
        if fact.column is not None:
            chosen.append(f"a.{fact.column} AS {name}")
            continue
        table = fact.count or fact.items or ""
        chosen.append(f"of_{name}.found AS {name}")
        live = " AND c.epoch = a.epoch" if shape.tables[table].ends_with_case else ""
        found = "count(*)" if fact.count else _build_items(table, fact.fields)
        joined.append(
            f"CROSS JOIN LATERAL (SELECT {found} AS found FROM {owner}.{table} c"  # noqa: S608 - checked names
            f" WHERE c.account_id = a.account_id{live}) of_{name}"
        )
    return (
        f"SELECT {', '.join(chosen)}\nFROM {owner}.account a\n"
        + "".join(f"{each}\n" for each in joined)
        + "WHERE a.account_id = ANY ($1::bigint[])"
    )


def _build_items(table: str, fields: Iterable[str]) -> str:
    pairs = "".join(f", '{field}', c.{field}" for field in fields)
    return f"jsonb_agg(jsonb_build_object('id', c.{table}_id::text{pairs}) ORDER BY c.{table}_id)::text"


# --- Operations -------------------------------------------------------------------------------------------------------


def _build_operation(one: OperationDescribed) -> Operation:
    released = dict.fromkeys(one.while_tried, "false")
    return Operation(
        effects={name: _build_effect(effect) for name, effect in one.effects.items()},
        refusals={code: _build_condition(refusal) for code, refusal in one.refuse.items()},
        missing=one.missing,
        on_try=dict.fromkeys(one.while_tried, "true"),
        on_confirm={**released, **{name: _build_value(name, write) for name, write in one.confirm.items()}},
        on_cancel=released,
    )


def _build_effect(effect: EffectShape) -> ValueType:
    weaker = None if effect.weaker is None else Weaker(effect.weaker.value)
    most = effect.most if effect.most is not None else LARGEST
    return ValueType(_EFFECT_TYPES[effect.type], least=effect.least, most=most, among=effect.among, weaker=weaker)


def _build_condition(refusal: RefusalShape) -> str:
    column = f"a.{refusal.column}"
    if refusal.equals is not None:
        return f"{column} = {_quote(refusal.equals)}"
    if refusal.above is not None:
        return f"{column} > {refusal.above}"
    return f"{column} IS {'NOT ' if refusal.present else ''}NULL"


def _build_value(name: str, write: WriteShape) -> str:
    """Return what a Confirm writes; an effect that the plan omits leaves the column as it is."""
    if write.effect is not None:
        return f"coalesce(e.{write.effect}, a.{name})"
    if write.at_most is not None:
        lower = f"least(a.{name}, e.{write.at_most})"  # of an absent effect it is the column itself
        return f"CASE WHEN a.{name} IS NULL THEN NULL ELSE {lower} END"
    for how, unit in _SPANS.items():
        if (effect := getattr(write, how)) is not None:
            later = f"e.now + make_interval({unit} => e.{effect}::integer)"
            return f"CASE WHEN e.{effect} IS NULL THEN a.{name} ELSE {later} END"
    if write.now:
        return "e.now"
    return "NULL" if write.absent else _quote(write.to)
