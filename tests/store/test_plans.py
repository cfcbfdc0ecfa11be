"""Plans: every statement of the databases reaches its rows by key, whatever the statistics of big tables say.

They say nothing of a table just loaded; or that it is empty, or holds ten rows, where it was analysed before. A batch
that reads a whole table works in every small test and stops the platform on the day after a bulk load.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from jiebang import store
from jiebang.model.facts import PLATFORM
from jiebang.model.plan import UNNAMED
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.saga.fence import Answer, Op
from jiebang.saga.orders import Order
from tests.rows import AT, BOUND, insert
from tests.statements import STATEMENTS, unknown
from tests.store.test_facts import CHILDREN
from tests.store.test_schema_rules import TABLES

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PEOPLE, FIRST, FEW = 20_000, 1_000_001, 10
BATCH = range(FIRST, FIRST + 1_024)
OTHERWISE: Mapping[str, Sequence[str]] = {
    "money.left_behind": ["made_at"],
    "cases.due_cases": ["bucket"],
    "cases.save_cases": ["account_id", "only_one"],
    "gauges.readings": ["bucket"],
    "seals.last_seal": ["seal_no"],
    "seals.seal_page": ["seal_no"],
    "seals.seals_of_cases": ["account_id", "ended_until"],
    "seals.ended_cases": ["ended_at"],
    "seals.ended_between": ["ended_at"],
    "seals.sealed_until": ["ended_at", "only_one"],
    "seals.seal_statement": ["seal_no"],
    "case_records.case_records": ["account_id", "document_index"],
    "recoveries.make_again": ["only_one"],
    "witness.read_witness": ["only_one"],
    "data_keys.read_progress": ["only_one"],
    "data_keys.end_retentions": ["retention_ends_at", "account_id"],
    "data_keys.ending_by_day": ["retention_ends_at"],
    "data_keys.overdue_keys": ["destroy_at"],
    "data_keys.overdue_retentions": ["retention_ends_at"],
    "ended_cases.settled_until": ["seal_no"],
    "ended_cases.ended_page": ["ended_at"],
    "outbox.due_messages": ["bucket"],
    "idempotency.claim_key": ["caller"],
    "idempotency.kept_answer": ["caller"],
    "idempotency.release_key": ["caller"],
    "idempotency.settle_key": ["caller"],
    "idempotency.keep_answer": ["caller"],
    "idempotency.purge_keys": ["expires_at", "caller"],
    "quota.quota_used": ["document_index"],
    "quota.claim_slots": ["document_index"],
    "quota.release_slots": ["document_index"],
    "quota.slot_page": ["document_index"],
    "quota.slots_of_cases": ["document_index"],
    "identity.brought_in": ["document_index", "account_id"],
    "backlog.overdue_cases": ["bucket"],
    "worker_registry.workers": ["bucket"],
    "tasks.suspects": ["bucket", "account_id"],
    "tasks.stuck_cases": ["bucket", "account_id"],
    "tasks.confirming_cases": ["bucket"],
    "tasks.close_done": ["bucket", "account_id"],
}
"""Statements that look for rows by something else than their account, and by what."""
WHOLE_INDEX: Mapping[str, Sequence[str]] = {
    "data_keys.destroy_keys": ["data_key_destroy"],
    "data_keys.count_undetermined": ["data_key_undetermined"],
    "data_keys.kept_by_basis": ["data_key_ends"],
    "tasks.open_tasks": ["task_open"],
    "tasks.count_open": ["task_open"],
    "tasks.acknowledge": ["task_open"],
    "tasks.close_by_hand": ["task_open"],
    "tasks.close_decided": ["task_open"],
    "tasks.undecided_of": ["task_open"],
    "tasks.close_done": ["task_open"],
    "tasks.stuck_cases": ["case_due", "case_parked"],
    "tasks.confirming_cases": ["case_due", "case_parked"],
}
"""Statements that may read the whole of a partial index: it holds what waits for operators, or they ask for all."""
WHOLE_TABLE: Mapping[str, str] = {
    "money.transfers": "the audit adds up every transfer there is, with sequential scans switched on for it",
}
"""Statements that read a whole table that grows, and why they may."""
FEW_ROWS: Mapping[str, str] = {
    "platform.seal_floor": "one row",
    "keys.seal_witness": "one row",
    "keys.destruction_progress": "one row",
    "keys.retention_basis": "a row a retention of a version of policy",
    "platform.bucket_lease": "a row a bucket",
    "platform.worker": "a row a worker",
    "platform.worker_freed": "a row a time that an operator freed a worker's buckets",
    "platform.policy_pack": "a row a version of policy",
    "platform.policy_activation": "a row a change of policy",
    "platform.policy_state": "one row",
    "platform.policy_shadow": "a row a rule",
    "platform.plan_correction": "a row a correction of a plan",
    "platform.participant_outage": "a row a time that a participant was out of service",
    "platform.key_fingerprint": "a row a key",
    "platform.recovery": "a row a restore from backup",
    "platform.retention_act": "a row a time that an operator read or held what law keeps",
}
"""Tables that no number of people makes bigger, and how big they are."""

ROWS: Mapping[str, Mapping[str, Any]] = {
    **{f"{PARTICIPANTS.owner_of(name)}.account": {} for name in PARTICIPANTS.databases},
    "identity.account": BOUND,
    "identity.change": {
        "change_id": 1,
        "kind": "bound",
        "document_type": "resident_id",
        "document_index": b"\1" * 32,
        "at": AT,
    },
    "identity.staged": {"case_no": 1, "operation": "swap", "given": "{}", "staged_at": AT},
    "identity.retained": {"sealed_epoch": 1, "sealed": b"\0" * 40, "retained_at": AT},
    "keys.data_key": {"wrapped": b"\0" * 60, "retained": b"\0" * 60, "made_at": AT},
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
    "platform.timeline_seal": {"ended_until": AT, "moved_until": AT, "statement": "", "cases": b""},
    "platform.proof": {"case_no": 1, "method": "sms_code", "tries_left": 5},
    "platform.wrong_try": {"tried_at": AT, "try_id": UUID(int=7), "proof": "sms_code"},
    "platform.consent": {"consent_id": UUID(int=7), "code": "PAY-AUTODEBIT", "what": ["1"], "given_at": AT},
    "platform.remedy": {"remedy_id": UUID(int=7), "code": "PAY-AUTODEBIT", "action": "end", "begun_at": AT},
    "platform.step_up": {
        "remedy_id": UUID(int=7),
        "code": "SEC-LOGIN",
        "kind": "revoke",
        "what": ["1"],
        "nonce": b"\1",
        "created_at": AT,
        "expires_at": AT,
    },
    "platform.identity_quota": {"year": 2026, "slot": 1, "account_id": 1, "case_no": 1, "claimed_at": AT},
    "platform.quota_refusal": {"refused_at": AT, "account_id": 1},
    "platform.outbox": {
        "message_id": UUID(int=7),
        "bucket": 7,
        "case_no": 1,
        "template": "sms_code",
        "params": "{}",
        "created_at": AT,
        "due_at": AT,
    },
    "platform.idempotency": {"route": "/v1/cases", "key": "1", "body_hash": b"\1", "expires_at": AT}
    | {"status": 201, "answer": b"{}"},
    "platform.check_record": {
        "case_no": 1,
        "step": "submit",
        "at": AT,
        "pack": "wechat/2",
        "outcome": "OPENED",
        "sealed": b"\1" * 29,
    },
    "platform.task": {"case_no": 1, "kind": "parked", "participant": "wallet", "bucket": 7, "raised_at": AT}
    | {"place": 1, "op": "confirm"},
    "social.moment": {"moment_id": 1, "body": "x", "visibility": "all", "posted_at": AT},
    "social.friend_request": {"request_id": 1, "sender_id": 2, "greeting": "x", "state": "waiting", "sent_at": AT},
    "security.login_code": {
        "nonce": bytes(16),
        "sent_at": AT,
        "expires_at": AT + timedelta(minutes=5),
        "tries_left": 5,
    },
    "gaming.access": {"game_id": 1, "name": "x", "granted_at": AT},
    "gaming.play_session": {"session_id": 1, "game_id": 1, "started_at": AT},
    "openplatform.api_use": {"subject_id": "wx1", "api": "x", "used_on": AT.date(), "calls": 1},
    "openplatform.quota": {"app_id": "wx1", "api": "x", "calls_per_day": 1},
    "enterprise.api_credential": {"credential_id": 1, "enterprise_id": 1, "name": "x", "issued_at": AT},
    **{table: row for table, (_, (row, *_)) in CHILDREN.items()},
}
"""A row of every table that grows with the people, but for the first column of its key."""
KEYS: Mapping[str, tuple[str, Any, str]] = {
    "platform.identity_quota": ("document_index", sha256(b"0").digest(), "sha256(g::text::bytea)"),
    "platform.quota_refusal": ("document_index", sha256(b"0").digest(), "sha256(g::text::bytea)"),
    "platform.idempotency": ("caller", "0", "g::text"),
    "platform.timeline_seal": ("seal_no", 1, "1 + g"),
}
"""The first column of a key that is not the account: its name, the first value, and those that follow."""

STATISTICS: Mapping[str, tuple[int, float]] = {
    "analysed at ten rows": (1, 10.0),
    "never analysed": (0, -1.0),
    "analysed when empty": (1, 0.0),
}
"""What the catalogue may hold of a table that has just grown: its pages and rows."""


async def crowd(pool: Pool, table: str) -> None:
    """Give `PEOPLE` one row each of what `ROWS` says; analysed when there were a `FEW`, never after."""
    key, first, following = KEYS.get(table, ("account_id", FIRST, f"{FIRST} + g"))
    await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await insert(pool, table, [{key: first, **ROWS[table]}])
    columns = await pool.fetchval(
        "SELECT string_agg(attname, ', ') FROM pg_catalog.pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attname <> $2",
        table,
        key,
    )
    for start, end in ((1, FEW - 1), (FEW, PEOPLE - 1)):
        await pool.execute(
            f"INSERT INTO {table} ({key}, {columns}) SELECT {following}, {columns}"  # noqa: S608 - from the catalogue
            f" FROM generate_series({start}, {end}) AS g, (SELECT * FROM {table} LIMIT 1)"
        )
        if start == 1:
            await pool.execute(f"ANALYZE {table}")


@pytest.fixture(scope="module")
async def crowded(pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """Databases with many people, just loaded, whose statistics are of the time when there were ten."""

    async def fill(name: str) -> None:
        for table in await pools[name].fetch(TABLES, "schema_migration"):
            if table["name"] in ROWS:
                await crowd(pools[name], table["name"])

    await asyncio.gather(*map(fill, pools))
    return pools


@pytest.fixture(scope="module", params=STATISTICS)
async def believing(request: pytest.FixtureRequest, crowded: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """The same, and what the planner believes of them. The first is what there is; the others are put over it."""
    pages, rows = STATISTICS[request.param]
    for name in (*PARTICIPANTS.databases, PLATFORM):
        if request.param == "analysed at ten rows":
            believed = await crowded[name].fetchval(
                "SELECT reltuples FROM pg_catalog.pg_class WHERE oid = $1::text::regclass",
                f"{PARTICIPANTS.owner_of(name)}.account",
            )
            assert believed == FEW
            continue
        async with crowded[name].acquire() as connection:
            # Of every table and index, and of every column.
            await connection.execute(
                """SELECT pg_restore_relation_stats('schemaname', n.nspname::text, 'relname', c.relname::text,
                                                    'relpages', $1::integer, 'reltuples', $2::real)
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'i')
                     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')""",
                pages,
                rows,
            )
            await connection.execute(
                """SELECT pg_clear_attribute_stats(schemaname::text, tablename::text, attname::text, inherited)
                   FROM pg_catalog.pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
            )
    return crowded


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def test_every_statement_is_known() -> None:
    """SQL that stands somewhere in the code and is in no list is never planned here, and might read everything."""
    assert unknown() == [], "put it into a .sql file, or into tests/statements.py"
    labels = {label for _, label in STATEMENTS}
    assert labels >= OTHERWISE.keys() | WHOLE_INDEX.keys() | WHOLE_TABLE.keys(), "a list names a statement that is gone"


def test_a_module_of_the_store_has_the_statements_of_its_own_name() -> None:
    """Whoever looks for a statement of `X.py` must find it in `X.sql`, and nobody else's there."""
    folder = Path(store.__file__).parent
    for path in folder.rglob("*.py"):
        package = ".".join(["jiebang.store", *path.parent.relative_to(folder).parts])
        read = re.findall(r'load\("([\w.]+)", "(\w+)\.sql"\)', path.read_text("utf-8"))
        assert read == [(package, path.stem)] * path.with_suffix(".sql").exists(), path
    statements = [path for path in folder.rglob("*.sql") if "migrations" not in path.parts]
    assert statements, "the store has no statements"
    assert all(path.with_suffix(".py").exists() for path in statements)


async def test_every_table_that_is_read_is_known(pools: Mapping[str, Pool]) -> None:
    """A table that stays empty here would let a statement pass that reads the whole of it."""
    there = [table["name"] for name in pools for table in await pools[name].fetch(TABLES, "schema_migration")]
    read = {table for table in there if any(re.search(rf"\b{table}\b", sql) for sql in STATEMENTS.values())}
    assert read <= ROWS.keys() | FEW_ROWS.keys(), "a new table needs a row in ROWS, or a word in FEW_ROWS"


PLANNED = [key for key in STATEMENTS if key[1] not in WHOLE_TABLE]


async def require_by_key(pool: Pool, label: str, sql: str) -> None:
    """Plan a statement for any arguments, as our connections keep it, and make sure it finds its rows by key."""
    async with pool.acquire() as connection:
        nothing = ", ".join("NULL" for _ in (await connection.prepare(sql)).get_parameters())
        await connection.execute(f"PREPARE planned AS {sql}")
        plan = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON, VERBOSE) EXECUTE planned{f' ({nothing})' if nothing else ''}"
        )
        await connection.execute("DEALLOCATE planned")
    touched = False
    for node in nodes(json.loads(plan)[0]["Plan"]):
        if "Relation Name" not in node and "Index Name" not in node:
            continue
        touched = True
        of_few = f"{node.get('Schema')}.{node.get('Relation Name')}" in FEW_ROWS
        if of_few or not node["Node Type"].endswith("Scan"):
            continue
        assert node["Node Type"] in ("Index Scan", "Index Only Scan"), f"{label}: not in key order: {node}"
        keys = OTHERWISE.get(label, ["account_id"])
        if node["Index Name"] not in WHOLE_INDEX.get(label, ()):
            assert any(key in node.get("Index Cond", "") for key in keys), f"{label}: {node}"
    assert touched, f"{label}: touches no table"


@pytest.mark.parametrize(("name", "label"), PLANNED)
async def test_a_plan_made_while_all_was_empty_goes_through_the_index(
    pools: Mapping[str, Pool], name: str, label: str
) -> None:
    """A connection keeps its plans: one from the first minute of an installation serves the millions that follow."""
    await require_by_key(pools[name], label, STATEMENTS[name, label])


@pytest.mark.parametrize(("name", "label"), PLANNED)
async def test_a_batch_goes_through_the_index(believing: Mapping[str, Pool], name: str, label: str) -> None:
    """Whatever the planner believes of a table that has just grown, the batch must find its rows by key."""
    await require_by_key(believing[name], label, STATEMENTS[name, label])


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
async def test_an_op_of_a_full_batch_updates_its_rows_in_place(crowded: Mapping[str, Pool], name: str) -> None:
    """A row that moved to another page would cost an index entry a case: room on the page is what makes an op cheap."""
    owner = PARTICIPANTS[name].owner
    participant = open_participants(PARTICIPANTS, crowded, lambda: AT, pepper=bytes(32))[name]
    pages = (
        f"SELECT account_id, split_part(ctid::text, ',', 1) AS page FROM {owner}.account"  # noqa: S608 - an owner of ours
        " WHERE account_id = ANY ($1::bigint[])"
    )
    before = dict(map(tuple, await crowded[name].fetch(pages, BATCH)))
    for op in (Op.TRY, Op.CANCEL):
        replies = await participant.apply(op, [Order(account, 1, 1) for account in BATCH], UNNAMED)
        assert {reply.answer for reply in replies} == {Answer.GRANTED if op is Op.TRY else Answer.DONE}
        assert len(replies) == len(BATCH)
    after = dict(map(tuple, await crowded[name].fetch(pages, BATCH)))
    assert sum(before[account] == after[account] for account in BATCH) > len(BATCH) * 9 // 10
