"""Migrations: each is applied once, whoever runs them at the same time, and none leaves a database between two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from jiebang.model.errors import MigrationRefusedError, NotMigratedError, ParticipantUnavailableError
from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.embedded import database_dsn, placement
from jiebang.store.postgres.migrate import (
    Migration,
    list_owners,
    load_migrations,
    migrate,
    migrate_all,
    require_migrated,
)
from jiebang.store.postgres.pool import open_pools


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
    assert {PARTICIPANTS.owner_of(name) for name in placement(PARTICIPANTS)} == list_owners(PARTICIPANTS)


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
    assert await migrate(empty, "gaming", load_migrations("gaming", PARTICIPANTS)) == ()


async def test_starting_on_a_database_that_is_behind_is_refused(databases: Mapping[str, str], empty: str) -> None:
    """A worker would warn of missing tables for ever; the operator is told what to run, and of all at once."""
    down = "postgresql://jiebang:x@127.0.0.1:1/wallet"
    async with open_pools({**databases, "gaming": empty, "wallet": down}, size=1) as pools:
        with pytest.raises(NotMigratedError) as caught:
            await require_migrated(pools, PARTICIPANTS)
        assert caught.value.fields == {"databases": ["gaming"]}, "one that does not answer may still join in later"
        await migrate(empty, "gaming", load_migrations("gaming", PARTICIPANTS))
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
    for owner in list_owners(PARTICIPANTS):
        found = load_migrations(owner, PARTICIPANTS)
        assert [one.version for one in found] == list(range(1, len(found) + 1))
    with pytest.raises(ValueError, match="nobody"):
        load_migrations("nobody", PARTICIPANTS)
