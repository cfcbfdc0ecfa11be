"""Plans: every set-based statement of the databases reaches its rows by key, on big tables that nobody ever analysed.

A batch that reads a whole table works in every small test and stops the platform on the day after a bulk load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from jiebang.model.plan import DATABASES
from jiebang.participants import PARTICULARS, open_participants
from jiebang.participants.base import Order
from jiebang.participants.database import statements
from jiebang.saga.fence import Answer, Op
from jiebang.store.queries import load
from tests.rows import AT, insert, insert_accounts
from tests.store.test_facts import CHILDREN

if TYPE_CHECKING:
    from jiebang.store.pool import Pool

PEOPLE, FIRST = 20_000, 1_000_001
BATCH = range(FIRST, FIRST + 1_024)
BY_TIME = {"left_behind": "made_at"}
"""Statements that look for rows by something else than their account."""
WHOLE_TABLE = {"transfers"}
"""Statements that read a whole table on purpose, with sequential scans switched on for them."""

STATEMENTS = {
    **{(name, f"{name}.facts"): PARTICULARS[name].facts for name in DATABASES},
    **{(name, f"{name}.{op}"): sql for name in DATABASES for op, sql in statements(name, PARTICULARS[name]).items()},
    **{("wallet", name): sql for name, sql in load("jiebang.participants", "money.sql").items()},
    **{("security", name): sql for name, sql in load("jiebang.participants", "logins.sql").items()},
}


ARGUMENTS: Mapping[str, Any] = {
    "int8[]": list(BATCH),
    "int4[]": [1] * len(BATCH),
    "bool[]": [True] * len(BATCH),
    "uuid[]": [UUID(int=7)] * len(BATCH),
    "text[]": ["completed"] * len(BATCH),
    "text": "{}",
    "timestamptz": AT,
    "date": AT.date(),
    "int8": len(BATCH),
}
"""What a statement is planned for, by the type of its parameter."""


@pytest.fixture(scope="module")
async def crowded(pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """Databases with many people, just loaded, of which no statistics exist nor will be made."""
    for name in DATABASES:
        owner = PARTICULARS[name].owner
        await insert_accounts(pools[name], owner, [FIRST])
        await crowd(pools[name], f"{owner}.account")
    for table, (name, rows) in CHILDREN.items():
        await insert(pools[name], table, [{"account_id": FIRST, **row} for row in rows])
        await crowd(pools[name], table)
    return pools


async def crowd(pool: Pool, table: str) -> None:
    """Give everybody what the first person has."""
    columns = await pool.fetchval(
        "SELECT string_agg(attname, ', ') FROM pg_catalog.pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND attname <> 'account_id'",
        table,
    )
    await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await pool.execute(
        f"INSERT INTO {table} (account_id, {columns}) SELECT account_id + g, {columns}"  # noqa: S608 - from the catalogue
        f" FROM generate_series(1, {PEOPLE - 1}) AS g, {table}"
    )


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize(("name", "label"), [key for key in STATEMENTS if key[1] not in WHOLE_TABLE])
async def test_a_batch_goes_through_the_index(crowded: Mapping[str, Pool], name: str, label: str) -> None:
    """Whatever the planner believes of a table without statistics, the batch must find its rows by key."""
    async with crowded[name].acquire() as connection:
        prepared = await connection.prepare(STATEMENTS[name, label])
        (top,) = await prepared.explain(*(ARGUMENTS[parameter.name] for parameter in prepared.get_parameters()))
    reached = 0
    for node in nodes(top["Plan"]):
        if node["Node Type"].endswith("Scan") and ("Relation Name" in node or "Index Name" in node):
            assert node["Node Type"] in ("Index Scan", "Index Only Scan"), f"{label}: not in key order: {node}"
            assert BY_TIME.get(label, "account_id") in node.get("Index Cond", ""), f"{label}: {node}"
            reached += 1
    assert reached or label == "insert_entries"


@pytest.mark.parametrize("name", DATABASES)
async def test_an_op_of_a_full_batch_updates_its_rows_in_place(crowded: Mapping[str, Pool], name: str) -> None:
    """A row that moved to another page would cost an index entry a case: room on the page is what makes an op cheap."""
    owner = PARTICULARS[name].owner
    participant = open_participants(crowded, lambda: AT, pepper=bytes(32))[name]
    pages = (
        f"SELECT account_id, split_part(ctid::text, ',', 1) AS page FROM {owner}.account"  # noqa: S608 - an owner of ours
        " WHERE account_id = ANY ($1::bigint[])"
    )
    before = dict(map(tuple, await crowded[name].fetch(pages, BATCH)))
    for op in (Op.TRY, Op.CANCEL):
        replies = await participant.apply(op, [Order(account, 1, 1) for account in BATCH], {})
        assert {reply.answer for reply in replies} == {Answer.GRANTED if op is Op.TRY else Answer.DONE}
        assert len(replies) == len(BATCH)
    after = dict(map(tuple, await crowded[name].fetch(pages, BATCH)))
    assert sum(before[account] == after[account] for account in BATCH) > len(BATCH) * 9 // 10
