"""Migrations: each is applied once, whoever runs them at the same time, and none leaves a database between two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import date
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from jiebang.model.errors import MigrationRefusedError, NotMigratedError, ParticipantUnavailableError
from jiebang.model.origin import UNKNOWN
from jiebang.participants import PARTICIPANTS
from jiebang.store.cases.cases import from_row
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
from tests.rows import BOUND


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


@pytest.mark.parametrize("owner", [one.owner for one in PARTICIPANTS.declarations if one.databases])
async def test_a_participants_first_version_migrates_with_its_people(empty: str, owner: str) -> None:
    """An installation of an earlier version has millions of rows, of which the new columns say nothing yet."""
    scripts = load_migrations(owner, PARTICIPANTS)
    await migrate(empty, owner, scripts[:1])
    connection = await asyncpg.connect(empty)
    bound = {**BOUND, "region": "DEU", "birth_date": date(1990, 12, 31)} if owner == "identity" else {}
    columns = ["account_id", *bound]
    places = ", ".join(f"${at}" for at in range(1, len(columns) + 1))
    await connection.execute(
        f"INSERT INTO {owner}.account ({', '.join(columns)}) VALUES ({places})",  # noqa: S608 - names of ours
        1,
        *bound.values(),
    )
    before = await connection.fetchrow(f"SELECT * FROM {owner}.account")  # noqa: S608 - a name of ours
    assert await migrate(empty, owner, scripts) == tuple(one.version for one in scripts[1:])
    after = await connection.fetchrow(f"SELECT * FROM {owner}.account")  # noqa: S608 - a name of ours
    assert before is not None
    assert after is not None
    assert dict(before).items() <= dict(after).items()
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
    assert caught.value.fields["participant"] == "wallet"
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
    assert caught.value.fields["participant"] == "gaming"
    assert wrong in caught.value.fields["reason"].en, "which of the two is told"


def test_files_are_numbered_without_gaps() -> None:
    """Breaks two branches that both add 0007."""
    for owner in list_owners(PARTICIPANTS):
        found = load_migrations(owner, PARTICIPANTS)
        assert [one.version for one in found] == list(range(1, len(found) + 1))
    with pytest.raises(ValueError, match="nobody"):
        load_migrations("nobody", PARTICIPANTS)


async def test_an_installation_of_before_keeps_its_wrong_tries_and_takes_nobody_for_a_service(empty: str) -> None:
    """An upgrade must give a guesser no new tries, nor let a live case without a device pass as a service's."""
    scripts = load_migrations("platform", PARTICIPANTS)
    await migrate(empty, "platform", scripts[:1])
    connection = await asyncpg.connect(empty)
    await connection.execute("""
        INSERT INTO platform.account (account_id, last_case_no, created_at) VALUES (1, 1, now()), (2, 1, now());
        INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, created_at, due_at)
        VALUES (1, 1, 1, 'revoke', 'open', 'wechat/1', '.', now() - interval '1 hour', now()),
            (2, 1, 1, 'revoke', 'open', 'wechat/1', '.', now() - interval '2 hours', now());
        INSERT INTO platform.proof (account_id, case_no, method, tries_left)
        VALUES (1, 1, 'payment_password', 2), (1, 1, 'sms_code', 5),
            (2, 1, 'payment_password', 5), (2, 1, 'sms_code', 4);
        INSERT INTO platform.step_up (account_id, remedy_id, code, kind, what, nonce, wrong, created_at, expires_at)
        VALUES (1, gen_random_uuid(), 'SEC-ABNORMAL-LOGIN', 'revoke', '{1}', '\\x01', 2, now(), now())""")
    await migrate(empty, "platform", scripts)
    tries = await connection.fetch(
        "SELECT account_id, proof, count(*) FROM platform.wrong_try GROUP BY account_id, proof ORDER BY 1, 2"
    )
    assert [tuple(row) for row in tries] == [(1, "payment_password", 3), (1, "remedy", 2), (2, "sms_code", 1)]
    cases = await connection.fetch("SELECT * FROM platform.cases ORDER BY account_id")
    assert [from_row(row).origin for row in cases] == [UNKNOWN, UNKNOWN]
    await connection.close()
