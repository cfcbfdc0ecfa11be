"""Plans: every set-based statement of the databases reaches its rows by key, whatever the statistics of big tables say.

They say nothing of a table just loaded, and that it is empty where it was analysed before. A batch that reads a whole
table works in every small test and stops the platform on the day after a bulk load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from jiebang.model.facts import PLATFORM
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
OTHERWISE: Mapping[str, Sequence[str]] = {
    "left_behind": ["made_at"],
    "due_cases": ["bucket"],
    "due_messages": ["bucket"],
    "claim_key": ["caller"],
    "kept_answer": ["caller"],
    "keep_answer": ["caller"],
    "purge_keys": ["expires_at", "caller"],
}
"""Statements that look for rows by something else than their account."""
WHOLE_TABLE = {
    "transfers",  # with sequential scans switched on for it
    *("read_leases", "live_workers", "seen_worker", "hold_buckets", "release_buckets", "release_worker"),  # a few rows
}
"""Statements that read a whole table on purpose."""
ONLY_INSERTS = {"insert_entries", "insert_proofs", "insert_messages", "claim_key"}

STATEMENTS = {
    **{(name, f"{name}.facts"): PARTICULARS[name].facts for name in DATABASES},
    **{(name, f"{name}.{op}"): sql for name in DATABASES for op, sql in statements(name, PARTICULARS[name]).items()},
    **{("wallet", name): sql for name, sql in load("jiebang.participants", "money.sql").items()},
    **{("security", name): sql for name, sql in load("jiebang.participants", "logins.sql").items()},
    **{(PLATFORM, name): sql for name, sql in load("jiebang.store", "queries.sql").items()},
    **{(PLATFORM, name): sql for name, sql in load("jiebang.store", "requests.sql").items()},
}

STATISTICS: Mapping[str, tuple[int, float]] = {"never analysed": (0, -1.0), "analysed when empty": (1, 0.0)}
"""What the catalogue may hold of a table that has just grown: its pages and rows."""

ROWS: Mapping[str, Mapping[str, Any]] = {
    "platform.account": {"created_at": AT},
    "platform.cases": {
        "case_no": 1,
        "bucket": 7,
        "kind": "revoke",
        "state": "open",
        "plan": "test/1",
        "marks": ".",
        "created_at": AT,
        "due_at": AT,
    },
    "platform.case_event": {"case_no": 1, "revision": 1, "at": AT, "entries": '[{"what": "state"}]'},
    "platform.proof": {"case_no": 1, "method": "sms_code", "tries_left": 5},
    "platform.outbox": {
        "message_id": UUID(int=7),
        "bucket": 7,
        "case_no": 1,
        "template": "sms_code",
        "params": "{}",
        "created_at": AT,
        "due_at": AT,
    },
}
"""A row of each table of the platform's own that is keyed by account."""


ARGUMENTS: Mapping[str, Any] = {
    "int8[]": list(BATCH),
    "int4[]": [1] * len(BATCH),
    "int2[]": list(range(256)),
    "bool[]": [False] * len(BATCH),
    "bytea[]": [b""] * len(BATCH),
    "timestamptz[]": [AT] * len(BATCH),
    "bytea": b"",
    "int4": 5,
    "int2": 5,
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
    for table, row in ROWS.items():
        await insert(pools[PLATFORM], table, [{"account_id": FIRST, **row}])
        await crowd(pools[PLATFORM], table)
    await pools[PLATFORM].execute("ALTER TABLE platform.idempotency SET (autovacuum_enabled = false)")
    await pools[PLATFORM].execute(
        "INSERT INTO platform.idempotency (caller, route, key, body_hash, expires_at)"
        " SELECT g::text, '', '1', '', $2 FROM generate_series(1, $1::integer) AS g",
        PEOPLE,
        AT,
    )
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


async def believe(connection: Any, pages: int, rows: float) -> None:
    """Have the planner believe that every table of ours holds so much."""
    await connection.execute(
        """SELECT pg_restore_relation_stats('schemaname', schemaname::text, 'relname', tablename::text,
                                            'relpages', $1::integer, 'reltuples', $2::real)
           FROM pg_catalog.pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')""",
        pages,
        rows,
    )


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize(("name", "label"), [key for key in STATEMENTS if key[1] not in WHOLE_TABLE])
async def test_a_batch_goes_through_the_index(
    crowded: Mapping[str, Pool], name: str, label: str, statistics: str
) -> None:
    """Whatever the planner believes of a table that has just grown, the batch must find its rows by key."""
    async with crowded[name].acquire() as connection:
        await believe(connection, *STATISTICS[statistics])
        prepared = await connection.prepare(STATEMENTS[name, label])
        (top,) = await prepared.explain(*(ARGUMENTS[parameter.name] for parameter in prepared.get_parameters()))
    reached = 0
    for node in nodes(top["Plan"]):
        if node["Node Type"].endswith("Scan") and ("Relation Name" in node or "Index Name" in node):
            assert node["Node Type"] in ("Index Scan", "Index Only Scan"), f"{label}: not in key order: {node}"
            keys = OTHERWISE.get(label, ["account_id"])
            assert any(key in node.get("Index Cond", "") for key in keys), f"{label}: {node}"
            reached += 1
    assert reached or label in ONLY_INSERTS


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
