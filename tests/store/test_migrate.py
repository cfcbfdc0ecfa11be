"""Migrations: applied once each, whoever runs them at the same time, and refused where they do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from jiebang.model.errors import MigrationRefusedError, NotMigratedError, ParticipantUnavailableError
from jiebang.participants import PARTICIPANTS
from jiebang.store.embedded import database_dsn, placement
from jiebang.store.migrate import Migration, migrate, migrate_all, migrations, owners, require_migrated
from jiebang.store.pool import open_pools

CATALOGUE = {
    "relations": """
        SELECT n.nspname, c.relname, c.relkind::text, c.reloptions, c.relpersistence::text,
            obj_description(c.oid, 'pg_class') AS comment
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 ORDER BY 1, 2""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,
            a.attidentity::text, a.attgenerated::text, co.collname, pg_get_expr(d.adbin, d.adrelid) AS default,
            col_description(c.oid, a.attnum) AS comment
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation co ON co.oid = a.attcollation
        WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm')
        ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text AS table, conname, contype::text, pg_get_constraintdef(o.oid) AS definition
        FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE n.nspname = $1 ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1 ORDER BY 1, 2",
    "types": """
        SELECT t.typname, t.typtype::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = $1 AND t.typtype NOT IN ('c', 'b') ORDER BY 1""",
    "functions": """
        SELECT p.proname, pg_get_functiondef(p.oid) AS definition FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 ORDER BY 1, 2""",
    "triggers": """
        SELECT t.tgrelid::regclass::text AS table, pg_get_triggerdef(t.oid) AS definition FROM pg_trigger t
        JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND NOT t.tgisinternal ORDER BY 1, 2""",
    "schemas": """
        SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1""",
}
"""What a database holds, apart from rows: one query a kind of object."""

BOOKKEEPING = "schema_migration"


async def catalogue(dsn: str, owner: str) -> dict[str, list[tuple[object, ...]]]:
    """Dump everything an owner's schema holds, without the migrations' own record."""
    connection = await asyncpg.connect(dsn)
    try:
        dump = {}
        for kind, sql in CATALOGUE.items():
            rows = await connection.fetch(sql, *([owner] if "$1" in sql else []))
            dump[kind] = [tuple(row) for row in rows if not any(BOOKKEEPING in str(value) for value in row)]
        return dump
    finally:
        await connection.close()


@pytest.fixture
async def empty(servers: Mapping[str, str]) -> AsyncIterator[str]:
    """The DSN of an empty database."""
    admin = await asyncpg.connect(servers["guiyang"])
    await admin.execute("CREATE DATABASE empty_one TEMPLATE template0")
    yield database_dsn(servers["guiyang"], "empty_one")
    await admin.execute("DROP DATABASE empty_one WITH (FORCE)")
    await admin.close()


def script(version: int, sql: str) -> Migration:
    return Migration(version, f"step_{version}", sql, f"checksum of {sql}")


ONE = script(1, "CREATE SCHEMA gaming; CREATE TABLE gaming.a (n integer)")
TWO = script(2, "CREATE TABLE gaming.b (n integer); INSERT INTO gaming.a VALUES (1)")


def test_every_database_has_an_owner_with_migrations() -> None:
    """Breaks a new participant that forgot its first migration, and folders that nobody applies."""
    assert {PARTICIPANTS.owner_of(name) for name in placement(PARTICIPANTS)} == owners(PARTICIPANTS)


async def test_a_second_run_applies_nothing_and_a_new_file_only_itself(empty: str) -> None:
    """Breaks every upgrade."""
    assert await migrate(empty, "gaming", [ONE]) == (1,)
    assert await migrate(empty, "gaming", [ONE]) == ()
    assert await migrate(empty, "gaming", [ONE, TWO]) == (2,)
    assert await migrate(empty, "gaming", [ONE, TWO]) == ()


async def test_many_at_the_same_time_apply_each_once(empty: str) -> None:
    """Breaks a roll-out in which all workers start, and migrate, at the same moment."""
    runs = await asyncio.gather(*(migrate(empty, "gaming", [ONE, TWO]) for _ in range(6)))
    assert sorted(version for run in runs for version in run) == [1, 2]
    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("SELECT count(*) FROM gaming.a") == 1
    await connection.close()


async def test_a_changed_file_and_a_later_database_are_refused(empty: str) -> None:
    """Breaks a database silently: half of it made by the old text, half by the new."""
    await migrate(empty, "gaming", [ONE, TWO])
    changed = msgspec.structs.replace(TWO, checksum="another")
    with pytest.raises(MigrationRefusedError) as caught:
        await migrate(empty, "gaming", [ONE, changed])
    assert (caught.value.fields["owner"], caught.value.fields["version"]) == ("gaming", 2)
    with pytest.raises(MigrationRefusedError):
        await migrate(empty, "gaming", [ONE])


async def test_a_faulty_migration_leaves_the_database_as_it_was(empty: str) -> None:
    """Breaks the operator at night: neither old nor new, and nothing to start again from."""
    faulty = script(2, "CREATE TABLE gaming.b (n integer); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, "gaming", [ONE, faulty])
    assert await migrate(empty, "gaming", [ONE, TWO]) == (2,)


async def test_a_database_that_is_down_is_named_and_keeps_no_other_back(
    databases: Mapping[str, str], empty: str
) -> None:
    """Breaks an upgrade of nine databases for the sake of one."""
    down = "postgresql://jiebang:x@127.0.0.1:1/wallet"
    with pytest.raises(ParticipantUnavailableError) as caught:
        await migrate_all({**databases, "wallet": down, "gaming": empty}, PARTICIPANTS)
    assert caught.value.fields == {"participant": "wallet"}
    assert await migrate(empty, "gaming", migrations("gaming", PARTICIPANTS)) == ()


async def test_starting_on_a_database_that_is_behind_is_refused(databases: Mapping[str, str], empty: str) -> None:
    """A worker would warn of missing tables for ever; the operator is told what to run, and of all at once."""
    down = "postgresql://jiebang:x@127.0.0.1:1/wallet"
    async with open_pools({**databases, "gaming": empty, "wallet": down}, size=1) as pools:
        with pytest.raises(NotMigratedError) as caught:
            await require_migrated(pools, PARTICIPANTS)
        assert caught.value.fields == {"databases": ["gaming"]}, "one that does not answer may still join in later"
        await migrate(empty, "gaming", migrations("gaming", PARTICIPANTS))
        await require_migrated(pools, PARTICIPANTS)
        await pools["gaming"].execute("UPDATE gaming.schema_migration SET checksum = 'another'")
        with pytest.raises(MigrationRefusedError):
            await require_migrated(pools, PARTICIPANTS)


@pytest.mark.parametrize("wrong", ["database", "password"])
async def test_a_database_that_does_not_let_us_in_is_named(
    databases: Mapping[str, str], servers: Mapping[str, str], wrong: str
) -> None:
    """A mistyped name or password in JIEBANG_DATABASES must not end in a stack trace."""
    parts = urlsplit(servers["guiyang"])
    elsewhere = {
        "database": parts._replace(path="/no_such_database"),
        "password": parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}"),
    }
    with pytest.raises(ParticipantUnavailableError) as caught:
        await migrate_all({**databases, "gaming": elsewhere[wrong].geturl()}, PARTICIPANTS)
    assert caught.value.fields == {"participant": "gaming"}


def test_files_are_numbered_without_gaps() -> None:
    """Breaks two branches that both add 0007."""
    for owner in owners(PARTICIPANTS):
        found = migrations(owner, PARTICIPANTS)
        assert [one.version for one in found] == list(range(1, len(found) + 1))
    with pytest.raises(ValueError, match="nobody"):
        migrations("nobody", PARTICIPANTS)
