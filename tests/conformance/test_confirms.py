"""A Confirm may not fail: over every admitted effect, given value and row, of every operation, on real PostgreSQL.

A Confirm that failed on data would leave one participant of a case behind for ever, after all others had applied it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from jiebang.model.participants import Operation, ValueType
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.core.statements import EFFECT_UNFIT, GIVEN_UNFIT, ROW_FULL
from jiebang.participants.opening import open_participants
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.store.postgres.pool import open_pools
from tests.bringing import bring
from tests.bringing import edges_of as edges
from tests.newcomer.loyalty import DECLARATION as LOYALTY
from tests.newcomer.world import area, database, given
from tests.rows import BOUND, insert

if TYPE_CHECKING:
    from jiebang.model.participants import Declaration
    from jiebang.store.postgres.pool import Pool

NOWS: Final = (datetime(2026, 4, 1, 12, 0, tzinfo=UTC), datetime(9899, 1, 1, tzinfo=UTC))
"""Times at which a Confirm may come: today, and about the last day on which a hundred years still fit."""
OPERATIONS: Final = [
    (name, operation) for name in PARTICIPANTS.databases for operation in PARTICIPANTS[name].operations
]
COUNTERS: Final = {"facts_version", "case_no", "epoch", "open_entries"}
_ids: Iterator[int] = itertools.count(6_000_001)


def _same(now: datetime) -> datetime:
    return now


def beyond(kind: ValueType) -> list[Any]:
    """Values that the type does not admit."""
    match kind.kind:
        case _ if kind.among:
            return ["gold", "a word too many", 1, None]
        case t if t is int:
            return [kind.least - 1, kind.most + 1, 1 << 60, 1 << 70, "1", True, None, 1.5]
        case t if t is bool:
            return [0, 1, "true", None]
        case t if t is str:
            return ["a" * (kind.most + 1), "\0", "\ud800", 1, None]
        case t if t is date:
            return ["2026-04-01", 1, None]
        case _:
            return [b"\0" * (kind.most + 1), "\0", None]


def combinations(types: Mapping[str, ValueType]) -> list[dict[str, Any]]:
    """Every combination of the types' edges, each also left out."""
    left_out = object()
    every = itertools.product(*([left_out, *edges(kind)] for kind in types.values()))
    return [{name: value for name, value in zip(types, one, strict=True) if value is not left_out} for one in every]


async def rows_of(pool: Pool, owner: str) -> list[dict[str, Any]]:
    """Rows at the edges of every column, as far as the table admits them."""
    columns = await pool.fetch(
        "SELECT attname, format_type(atttypid, NULL) AS type, attnotnull FROM pg_catalog.pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
        f"{owner}.account",
    )
    checks = " ".join(
        await pool.fetchval(
            "SELECT array_agg(pg_get_constraintdef(oid)) FROM pg_catalog.pg_constraint"
            " WHERE conrelid = $1::text::regclass AND contype = 'c'",
            f"{owner}.account",
        )
    )
    words = sorted(set(re.findall(r"'([a-z_]+)'::text", checks)))
    of_type: Mapping[str, list[Any]] = {
        "bigint": [0, 1, (1 << 62) - 1],
        "integer": [0, 1, (1 << 31) - 1],
        "smallint": [0, 1, 3, 32_767],
        "boolean": [False, True],
        "text": [*words, "x" * 1_000],
        "bytea": [b"\1" * 16, b"\1" * 32],
        "bytea[]": [[], [b"\1" * 40]],
        "bigint[]": [[], [1]],
        "date": [date(1, 1, 1), date(9999, 12, 31)],
        "timestamp with time zone": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    }
    base = BOUND if owner == "identity" else {}
    found: list[dict[str, Any]] = [dict(base)]
    for name, kind, required in columns:
        if name in ("account_id", "case_no", "case_op"):
            continue
        found += [{**base, name: value} for value in [*of_type[kind], *([] if required else [None])]]
    admitted = []
    for row in found:
        account = next(_ids)
        try:
            await insert(pool, f"{owner}.account", [{"account_id": account, **row}])
        except asyncpg.CheckViolationError:
            continue  # what the table does not admit cannot be met
        admitted.append(row)
    assert len(admitted) > 3, "hardly any row was admitted: the edges above are wrong"
    return admitted


async def answers(
    participant: DatabaseParticipant, op: Op, accounts: list[int], planned: PlannedOperation
) -> dict[int, tuple[Answer, str | None]]:
    replies = await participant.apply(op, [Order(account, 1) for account in accounts], planned)
    return {reply.account_id: (reply.answer, reply.code) for reply in replies}


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
async def test_whatever_was_tried_is_confirmed_and_can_be_read(
    pools: Mapping[str, Pool], name: str, operation: str
) -> None:
    """One person at the edge of a column would stay half unbound for ever, and hold their batch up."""
    declared, pool = PARTICIPANTS[name], pools[name]
    how, rows = declared.operations[operation], await rows_of(pool, declared.owner)
    for now, effects in itertools.product(NOWS, combinations(how.effects or {})):
        planned = PlannedOperation(operation, effects)
        participant = open_participants(PARTICIPANTS, pools, partial(_same, now), pepper=bytes(32))[name]
        assert isinstance(participant, DatabaseParticipant)
        accounts = [next(_ids) for _ in range(len(rows) + 1)]  # the last has no row
        for account, row in zip(accounts, rows, strict=False):
            await insert(pool, f"{declared.owner}.account", [{"account_id": account, **row}])
        await bring(participant, operation, dict(zip(accounts, [*rows, {}], strict=True)))
        tried = await answers(participant, Op.TRY, accounts, planned)
        assert len(tried) == len(accounts)
        granted = [account for account in accounts if tried[account][0] is Answer.GRANTED]
        assert granted, "nothing was tried, and so nothing is shown"
        half = granted[: len(granted) // 2]
        assert set((await answers(participant, Op.CANCEL, half, planned)).values()) <= {(Answer.DONE, None)}
        rest = [account for account in granted if account not in half]
        confirmed = await answers(participant, Op.CONFIRM, rest, planned)
        assert confirmed == dict.fromkeys(rest, (Answer.DONE, None)), effects
        await pool.fetch(f"SELECT * FROM {declared.owner}.account WHERE account_id = ANY ($1)", rest)  # noqa: S608
        await participant.facts(rest)


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
async def test_what_could_not_be_applied_is_refused_at_try_and_never_breaks_a_confirm(
    pools: Mapping[str, Pool], name: str, operation: str
) -> None:
    """Refused at Try, the case is put back whole; met at Confirm, it must neither fail nor be guessed."""
    declared, pool = PARTICIPANTS[name], pools[name]
    participant = open_participants(PARTICIPANTS, pools, lambda: NOWS[0], pepper=bytes(32))[name]
    assert isinstance(participant, DatabaseParticipant)
    base = BOUND if declared.owner == "identity" else {}
    for effect, kind in (declared.operations[operation].effects or {}).items():
        for value in beyond(kind):
            bad = PlannedOperation(operation, {effect: value})
            old, bare, nobody = (next(_ids) for _ in range(3))
            await insert(pool, f"{declared.owner}.account", [{"account_id": one, **base} for one in (old, bare)])
            await bring(participant, operation, {old: base, bare: base, nobody: base})
            assert await answers(participant, Op.TRY, [bare, nobody], bad) == dict.fromkeys(
                (bare, nobody), (Answer.REFUSED, EFFECT_UNFIT)
            ), value
            assert await participant.look([bare]) == {bare: FenceRow(1, CaseOp.CANCELLED)}
            # Granted by an earlier version, which did not look.
            good = PlannedOperation(operation)
            assert await answers(participant, Op.TRY, [old], good) == {old: (Answer.GRANTED, None)}
            before = await participant.look([old])
            for _ in range(2):
                assert await answers(participant, Op.CONFIRM, [old], bad) == {old: (Answer.ERROR, EFFECT_UNFIT)}
            assert await participant.look([old]) == before == {old: FenceRow(1, CaseOp.TRIED)}
            assert await answers(participant, Op.CONFIRM, [old], good) == {old: (Answer.DONE, None)}
            assert await answers(participant, Op.CONFIRM, [old], bad) == {old: (Answer.DONE, None)}, "as the fence says"


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
async def test_a_row_whose_counters_are_full_is_refused_at_try(pools: Mapping[str, Pool], name: str) -> None:
    """Confirm raises both counters: at the end of their type it would fail, after all others had confirmed."""
    declared = PARTICIPANTS[name]
    participant = open_participants(PARTICIPANTS, pools, lambda: NOWS[0], pepper=bytes(32))[name]
    assert isinstance(participant, DatabaseParticipant)
    base = BOUND if declared.owner == "identity" else {}
    for counter in ("epoch", "facts_version"):
        full = next(_ids)
        row = {"account_id": full, **base, counter: (1 << 63) - 1}
        await insert(pools[name], f"{declared.owner}.account", [row])
        planned = PARTICIPANTS.formerly(name)
        assert await answers(participant, Op.TRY, [full], planned) == {full: (Answer.REFUSED, ROW_FULL)}


async def test_what_a_case_brings_is_held_against_its_bounds_at_try(servers: Mapping[str, str]) -> None:
    """Staged by another version, or changed since: what Confirm could not write must not pass the Try."""
    async with database(servers) as dsn, open_pools({"loyalty": dsn}, size=2) as opened:
        pool = opened["loyalty"]
        loyalty = DatabaseParticipant("loyalty", LOYALTY, pool, lambda: NOWS[0])
        how = LOYALTY.operations["transfer"]
        for name, kind in how.given.items():
            for value in edges(kind):
                account = next(_ids)
                assert not await area(loyalty).stage("transfer", [given(account, **{name: value})])
                planned = PlannedOperation("transfer", {"notify": True})
                assert await answers(loyalty, Op.TRY, [account], planned) == {account: (Answer.GRANTED, None)}, value
                assert await answers(loyalty, Op.CONFIRM, [account], planned) == {account: (Answer.DONE, None)}, value
        for changed in ('{"points": 2147483648}', '{"points": null}', '{"partner": ""}', '{"mark": "\\\\x00"}'):
            account = next(_ids)
            assert not await area(loyalty).stage("transfer", [given(account)])
            await pool.execute(
                "UPDATE loyalty.staged SET given = given || $2::text::jsonb WHERE account_id = $1", account, changed
            )
            await insert(pool, "loyalty.account", [{"account_id": account}])
            found = await answers(loyalty, Op.TRY, [account], PlannedOperation("transfer"))
            assert found == {account: (Answer.REFUSED, GIVEN_UNFIT)}, changed


LIMITS: Final[Mapping[str, int]] = {"smallint": (1 << 15) - 1, "integer": (1 << 31) - 1, "bigint": (1 << 63) - 1}
DIRECT: Final = re.compile(r"(?:coalesce\()?(?P<source>[eg])\.(?P<value>\w+)(?:::\w+)?(?:, a\.\w+\))?")
"""An expression of `on_confirm` whose result is the value itself."""


def written(how: Operation) -> Iterator[tuple[str, str, ValueType]]:
    """The columns that take a value as it is: column, name of the value, its type."""
    for column, expression in how.on_confirm.items():
        for source, types in (("e", how.effects or {}), ("g", how.given)):
            for name, kind in types.items():
                match = DIRECT.fullmatch(expression)
                if match and (match["source"], match["value"]) == (source, name):
                    yield column, name, kind


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
async def test_the_bounds_of_an_effect_are_those_of_its_column(
    pools: Mapping[str, Pool], name: str, operation: str
) -> None:
    """A column that is narrowed later must narrow what a pack may say, or the pack breaks after the commit point."""
    declared, pool = PARTICIPANTS[name], pools[name]
    how = declared.operations[operation]
    for effect, kind in (how.effects or {}).items():
        used = [column for column, expression in how.on_confirm.items() if re.search(rf"\be\.{effect}\b", expression)]
        assert used, f"{effect}: no column takes it"
        assert kind.kind is not str or kind.among or kind.most <= 4_096
    for column, value, kind in written(how):
        type_name = await pool.fetchval(
            "SELECT format_type(atttypid, NULL) FROM pg_catalog.pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attname = $2",
            f"{declared.owner}.account",
            column,
        )
        expected = {
            "smallint": int,
            "integer": int,
            "bigint": int,
            "boolean": bool,
            "text": str,
            "date": date,
            "bytea": bytes,
        }
        assert expected[type_name] is kind.kind, value
        if kind.kind is int:
            assert kind.most <= LIMITS[type_name], value
        checks = await pool.fetch(
            "SELECT pg_get_constraintdef(oid) AS text FROM pg_catalog.pg_constraint"
            " WHERE conrelid = $1::text::regclass AND contype = 'c' AND conkey = ARRAY[(SELECT attnum FROM"
            " pg_catalog.pg_attribute WHERE attrelid = conrelid AND attname = $2)]",
            f"{declared.owner}.account",
            column,
        )
        for check in checks:
            condition = re.sub(rf"\b{column}\b", "v", check["text"].removeprefix("CHECK "))
            sql = f"SELECT v FROM unnest($1::{type_name}[]) AS u (v) WHERE NOT {condition}"  # noqa: S608 - the catalogue's
            assert await pool.fetch(sql, edges(kind)) == [], f"{value}: {check['text']} refuses what is declared"


def declarations() -> list[Declaration]:
    return [*PARTICIPANTS.declarations, LOYALTY]


def test_every_type_refuses_what_lies_beyond_it() -> None:
    """A bound that is declared and not held would be worse than none."""
    for declared in declarations():
        for how in declared.operations.values():
            for name, kind in ({**(how.effects or {}), **how.given}).items():
                assert [value for value in edges(kind) if kind.fault(value)] == [], name
                assert [value for value in beyond(kind) if not kind.fault(value)] == [], name
