"""Every table keeps docs/schema-rules.md, read from the catalogue of a migrated database, and from its migrations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.embedded import placement
from jiebang.store.postgres.migrate import load_migrations

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

OWNERS = {PARTICIPANTS.owner_of(name): name for name in placement(PARTICIPANTS)}
FENCED = sorted({PARTICIPANTS.owner_of(name) for name in PARTICIPANTS.databases})
NOT_BY_ACCOUNT = {
    "platform.identity_quota": "the same document must meet itself on whatever accounts: distributed by document",
    "platform.quota_refusal": "the same document must meet itself on whatever accounts: distributed by document",
    "platform.idempotency": "the same key must meet itself whatever account the body names: distributed by caller",
    "platform.timeline_seal": "one chain for the whole installation, a row for many cases of many accounts",
    "platform.seal_floor": "one row for the whole installation",
    "keys.seal_witness": "one row for the whole installation",
    "keys.destruction_progress": "one row for the whole installation",
    "keys.retention_basis": "a row a retention of a version of policy, for the whole installation",
    "platform.bucket_lease": "a few rows for the whole installation",
    "platform.worker": "a few rows for the whole installation",
    "platform.worker_freed": "a few rows for the whole installation",
    "platform.recovery": "one row a recovery of the whole installation",
    "platform.participant_outage": "a few rows for the whole installation",
    "platform.key_fingerprint": "a few rows for the whole installation",
    "platform.policy_pack": "one row a version of policy, for the whole installation",
    "platform.policy_activation": "one row a change of policy, for the whole installation",
    "platform.plan_correction": "one row a correction of a plan, for the whole installation",
    "platform.policy_state": "one row for the whole installation",
    "platform.policy_shadow": "counters of the whole installation, about nobody",
}
NOT_OURS = "schema_migration"  # one row a migration, kept by jiebang migrate
HOT = {
    "account",
    "cases",
    "outbox",
    "proof",
    "bucket_lease",
    "worker",
    "policy_state",
    "policy_shadow",
    "seal_floor",
} | {"destruction_progress", "api_use"}
FENCE = [
    ("account_id", "bigint", None),
    ("facts_version", "bigint", "1"),
    ("case_no", "bigint", "0"),
    ("case_op", "text", "'cancelled'::text"),
    ("epoch", "bigint", "1"),
]
STAGED = [
    ("account_id", "bigint", True),
    ("case_no", "bigint", True),
    ("operation", "text", True),
    ("given", "jsonb", True),
    ("staged_at", "timestamp with time zone", True),
]
TIME_NAME = re.compile(r"(.*_)?(at|until|since)|deadline")


def written(owner: str) -> str:
    """Return what an owner's migrations say, one after the other."""
    return "\n".join(script.sql for script in load_migrations(owner, PARTICIPANTS))


TABLES = """
SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relname, n.nspname, c.reloptions
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relname <> $1
ORDER BY name
"""
COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default, a.attidentity <> '' OR a.attgenerated <> '' AS made
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
INDEXES = """
SELECT i.indexrelid::regclass::text AS name, i.indisunique, i.indisprimary,
    pg_catalog.pg_get_indexdef(i.indexrelid) AS def,
    array(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (num, at)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num ORDER BY k.at) AS columns
FROM pg_catalog.pg_index i WHERE i.indrelid = $1 ORDER BY name
"""
CONSTRAINTS = """
SELECT conname AS name, contype::text AS type, pg_catalog.pg_get_constraintdef(oid) AS def
FROM pg_catalog.pg_constraint WHERE conrelid = $1 ORDER BY conname
"""


async def tables(db: Pool | asyncpg.Connection[asyncpg.Record]) -> list[asyncpg.Record]:
    return list(await db.fetch(TABLES, NOT_OURS))


async def catalogue(db: Pool | asyncpg.Connection[asyncpg.Record]) -> dict[str, Any]:
    """Everything that makes a database's tables what they are."""
    found = dict[str, Any]()
    for table in await tables(db):
        parts = [await db.fetch(query, table["oid"]) for query in (COLUMNS, INDEXES, CONSTRAINTS)]
        found[table["name"]] = (table["reloptions"], [[tuple(row) for row in part] for part in parts])
    return found


@pytest.fixture(params=OWNERS)
def owner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pool(pools: Mapping[str, Pool], owner: str) -> Pool:
    return pools[OWNERS[owner]]


async def test_both_identity_databases_are_alike(pools: Mapping[str, Pool]) -> None:
    """One participant in two data centres: a difference would tear people apart."""
    assert await catalogue(pools["identity_shenzhen"]) == await catalogue(pools["identity_guiyang"])


async def test_tables_live_in_their_owners_schema(pool: Pool, owner: str) -> None:
    """Two owners in one database would stand in each other's way when it is distributed."""
    found = await tables(pool)
    assert found
    assert {table["nspname"] for table in found} == {owner}


async def test_account_id_is_the_distribution_key(pool: Pool) -> None:
    """A table without it cannot be spread over machines, nor a unique index be kept there."""
    for table in await tables(pool):
        if table["name"] in NOT_BY_ACCOUNT:
            continue
        indexes = await pool.fetch(INDEXES, table["oid"])
        (primary,) = [index for index in indexes if index["indisprimary"]]
        assert primary["columns"][0] == "account_id", table["name"]
        assert all("account_id" in index["columns"] for index in indexes if index["indisunique"]), table["name"]
        columns = {row["name"]: row["type"] for row in await pool.fetch(COLUMNS, table["oid"])}
        assert columns["account_id"] == "bigint", table["name"]


async def test_nothing_ties_rows_of_different_shards(pool: Pool, owner: str) -> None:
    """Foreign keys, triggers, sequences, enums and procedures do not distribute."""
    for table in await tables(pool):
        kinds = {row["type"] for row in await pool.fetch(CONSTRAINTS, table["oid"])}
        assert kinds <= {"c", "p", "n", "u"}, f"{table['name']}: {kinds}"  # check, primary key, not null, unique
        columns = await pool.fetch(COLUMNS, table["oid"])
        assert not any(row["made"] for row in columns), table["name"]
        assert not any("nextval" in (row["default"] or "") for row in columns), table["name"]
    of_owner = "JOIN pg_catalog.pg_namespace n ON n.oid = {} WHERE n.nspname = $1"
    for what in (
        "pg_proc p " + of_owner.format("p.pronamespace"),
        "pg_class s " + of_owner.format("s.relnamespace") + " AND s.relkind IN ('S', 'v', 'm', 'f')",
        "pg_type t " + of_owner.format("t.typnamespace") + " AND t.typtype IN ('e', 'd', 'r')",
        "pg_trigger g JOIN pg_catalog.pg_class k ON k.oid = g.tgrelid "
        + of_owner.format("k.relnamespace")
        + " AND NOT g.tgisinternal",
    ):
        found = await pool.fetchval(f"SELECT count(*) FROM pg_catalog.{what}", owner)  # noqa: S608 - the list above
        assert found == 0, what


async def test_columns_say_what_they_hold(pool: Pool) -> None:
    """Money is bigint fen, time has its zone: a float or a local time is a bug that shows up years later."""
    for table in await tables(pool):
        for row in await pool.fetch(COLUMNS, table["oid"]):
            name, kind, where = row["name"], row["type"], f"{table['name']}.{row['name']}"
            assert not kind.startswith(("timestamp without", "time", "numeric", "money", "real", "double")) or (
                kind == "timestamp with time zone"
            ), where
            assert name.endswith("_fen") <= (kind == "bigint"), where
            assert (kind == "timestamp with time zone") == bool(TIME_NAME.fullmatch(name)), where


async def test_no_time_of_the_platform_is_beyond_what_a_client_can_read(pools: Mapping[str, Pool]) -> None:
    """One such row fails every batch that it is read with: all people of a bucket would wait for one of them."""
    pool = pools["platform"]
    for table in await tables(pool):
        times = {row["name"] for row in await pool.fetch(COLUMNS, table["oid"]) if row["type"].startswith("timestamp")}
        checks = [
            row["def"] for row in await pool.fetch(CONSTRAINTS, table["oid"]) if row["name"] == "times_can_be_read"
        ]
        bounded = {name for name in times if any(f"({name} >= " in each and f"({name} <= " in each for each in checks)}
        assert times == bounded, table["name"]


async def test_hot_rows_have_room_to_be_updated_in_place(pool: Pool) -> None:
    """Without room on the page every op of the saga would also write every index."""
    for table in await tables(pool):
        filled = dict(option.split("=") for option in table["reloptions"] or ()).get("fillfactor", "100")
        assert (filled == "50") == (table["relname"] in HOT), table["name"]


@pytest.mark.parametrize("owner", FENCED)
async def test_a_participants_account_row_carries_the_fence(pool: Pool, owner: str) -> None:
    """The generic statements and an upsert of the mark alone rely on these columns, their order and their defaults."""
    columns = await pool.fetch(COLUMNS, await pool.fetchval("SELECT $1::text::regclass::oid", f"{owner}.account"))
    assert [(row["name"], row["type"], row["default"]) for row in columns[: len(FENCE)]] == FENCE
    assert all(row["not_null"] for row in columns[: len(FENCE)])
    assert all(row["default"] is not None for row in columns[1:] if row["not_null"]), "a mark must do for a new row"


@pytest.mark.parametrize("owner", FENCED)
async def test_children_say_whether_they_die_with_their_epoch(pool: Pool, owner: str) -> None:
    """A child that should have died and has no epoch lives on after the revoke."""
    comments = dict(re.findall(r"((?:^--.*\n)+)CREATE TABLE (\w+\.\w+)", written(owner), re.MULTILINE))
    of_table = {name: comment for comment, name in comments.items()}
    for table in await tables(pool):
        if table["relname"] == "account":
            continue
        has_epoch = "epoch" in {row["name"] for row in await pool.fetch(COLUMNS, table["oid"])}
        comment = of_table[table["name"]]
        assert ("Dead with their epoch." in comment) == has_epoch, table["name"]
        assert has_epoch or "utlives a revoke" in comment, table["name"]


@pytest.mark.parametrize("owner", FENCED)
async def test_what_is_staged_stands_in_a_table_of_one_shape(pool: Pool, owner: str) -> None:
    """The generic statements rely on it; and one that nobody takes anything up from would never be emptied."""
    declared = PARTICIPANTS.of_owner(owner)
    assert declared is not None
    found = next((row for row in await tables(pool) if row["relname"] == "staged"), None)
    assert (found is not None) == declared.stages
    if found is not None:
        columns = await pool.fetch(COLUMNS, found["oid"])
        assert [(row["name"], row["type"], row["not_null"]) for row in columns] == STAGED
        (primary,) = [row for row in await pool.fetch(INDEXES, found["oid"]) if row["indisprimary"]]
        assert primary["columns"] == ["account_id", "case_no"]


def test_every_table_is_explained(owner: str) -> None:
    """A table that nobody explains is one that nobody dares to change."""
    text = written(owner)
    made = re.findall(r"^CREATE TABLE (\S+)", text, re.MULTILINE)
    explained = re.findall(r"^--.*\nCREATE TABLE (\S+)", text, re.MULTILINE)
    grouped = {"platform.worker"}  # stands under its lease's comment
    assert set(made) - set(explained) <= grouped


IMPOSSIBLE = {
    "an active identity that is not whole": (
        "identity_shenzhen",
        "INSERT INTO identity.account (account_id, state) VALUES (1, 'active')",
    ),
    "a pending reclaim without a case": (
        "identity_shenzhen",
        """INSERT INTO identity.account (account_id, state, level, document_type, sealed, document_index, birth_date,
           region, changed_at)
           VALUES (1, 'pending_reclaim', 1, 'passport', '', sha256(''), '1990-01-01', 'DEU', now())""",
    ),
    "a balance below zero": ("wallet", "INSERT INTO wallet.account (account_id, balance_fen) VALUES (1, -1)"),
    "money moving while tried": (
        "wallet",
        "INSERT INTO wallet.account (account_id, case_no, case_op, open_entries) VALUES (1, 1, 'tried', 1)",
    ),
    "a case due at the end of all time": (
        "platform",
        """INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, created_at, due_at)
           VALUES (1, 1, 0, 'revoke', 'open', 'p/1', '.', now(), 'infinity')""",
    ),
    "a lease for eighteen thousand years": (
        "platform",
        "INSERT INTO platform.bucket_lease (bucket, worker_id, until) VALUES (0, 'w', '20000-01-01')",
    ),
    "a closed account with money": (
        "wallet",
        "INSERT INTO wallet.account (account_id, state, balance_fen) VALUES (1, 'closed', 1)",
    ),
    "a transfer with one side": (
        "wallet",
        """INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at)
           VALUES (1, gen_random_uuid(), 'transfer', 't', 1, 'pending', now())""",
    ),
    "a payment that brings money in": (
        "wallet",
        """INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at)
           VALUES (1, gen_random_uuid(), 'payment', 't', 1, 'pending', now())""",
    ),
    "a closed credit product that owes": (
        "wallet",
        "INSERT INTO wallet.credit_product VALUES (1, 1, '微粒贷', 5, now(), now())",
    ),
    "a message in two chats": (
        "social",
        """INSERT INTO social.message (account_id, message_id, peer_id, group_id, sender_id, kind, body, sent_at)
           VALUES (1, 1, 2, 3, 1, 'text', '', now())""",
    ),
    "games off without a case": ("gaming", "INSERT INTO gaming.account (account_id, suspended) VALUES (1, true)"),
    "an account number of nobody": ("gaming", "INSERT INTO gaming.account (account_id) VALUES (0)"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
async def test_the_schema_refuses(pools: Mapping[str, Pool], what: str) -> None:
    """Whatever bug or import brings it: an impossible state must not come to stand in a database."""
    name, statement = IMPOSSIBLE[what]
    with pytest.raises(asyncpg.CheckViolationError):
        await pools[name].execute(statement)
