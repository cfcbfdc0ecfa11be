"""Pools: the plans that the set-based statements rely on, and databases that are down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jiebang.model.errors import ParticipantUnavailableError
from jiebang.store.postgres.embedded import database_dsn
from jiebang.store.postgres.pool import BY_KEY, open_pools, redact_dsn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

TABLE = """
CREATE TABLE plan_test (account_id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)
WITH (fillfactor = 50, autovacuum_enabled = off);
ANALYZE plan_test
"""
PREPARE = """
PREPARE raise (bigint[]) AS
UPDATE plan_test t SET n = t.n + 1 FROM unnest($1) AS i (account_id)
WHERE t.account_id = i.account_id AND t.account_id = ANY ($1)
"""
BATCH = [n * 19 for n in range(1, 1025)]


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def rows_read(pool: Pool) -> int:
    """Plan an update while its table is empty, fill it, and return how many rows of it a batch of 1,024 then reads."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(TABLE)
        await connection.execute(PREPARE)
        for _ in range(7):
            await connection.execute("EXECUTE raise ('{1,2,3}')")
        await connection.execute("INSERT INTO plan_test SELECT g FROM generate_series(1, 20000) g")
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE raise (ARRAY{BATCH})")
        await connection.execute("DEALLOCATE raise; DROP TABLE plan_test")
    scan = next(
        node for node in nodes(json.loads(told)[0]["Plan"]) if "Scan" in node["Node Type"] and "Index" in str(node)
    )
    seen = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) + scan.get("Rows Removed by Index Recheck", 0)
    return int(seen * scan["Actual Loops"])


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_batch_reads_its_own_rows_of_a_table_planned_when_empty(
    databases: Mapping[str, str], mode: str
) -> None:
    """Breaks a new installation: statements planned on empty tables, then 10,000 people loaded."""
    settings = {**BY_KEY, "plan_cache_mode": mode}
    async with open_pools({"gaming": databases["gaming"]}, size=1, settings=settings) as pools:
        assert await rows_read(pools["gaming"]) <= 1024


async def test_settings_stay_when_a_connection_comes_back(pools: Mapping[str, Pool]) -> None:
    """Breaks every plan from the second use of a connection on: a pool resets what was SET."""
    for _ in range(2):
        async with pools["platform"].acquire() as connection:
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
            await connection.execute("SET enable_seqscan = on")


async def test_a_participant_that_is_down_joins_in_once_it_is_back(
    servers: Mapping[str, str], databases: Mapping[str, str]
) -> None:
    """Breaks everybody's check when one of nine databases is being restored."""
    late = database_dsn(servers["guiyang"], "gaming_late")
    async with open_pools({**databases, "gaming": late}, size=2) as opened:
        assert await opened["wallet"].fetchval("SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await opened["gaming"].fetchval("SELECT 1")
        admin = await asyncpg.connect(servers["guiyang"])
        await admin.execute("CREATE DATABASE gaming_late")
        assert await opened["gaming"].fetchval("SELECT 1") == 1
    await admin.execute("DROP DATABASE gaming_late")
    await admin.close()


async def test_without_the_platform_database_no_command_starts(databases: Mapping[str, str]) -> None:
    """Breaks the operator who gets a stack trace instead of the name of what is down."""
    nowhere = "postgresql://jiebang:secret@127.0.0.1:1/platform"
    with pytest.raises(ParticipantUnavailableError) as caught:
        async with open_pools({**databases, "platform": nowhere}):
            pass
    assert caught.value.fields["participant"] == "platform"
    assert "nothing listens" in caught.value.fields["reason"].en
    async with open_pools({**databases, "platform": nowhere}, patient=True) as opened:  # but what stays, waits
        assert await opened["wallet"].fetchval("SELECT 1") == 1


async def test_a_killed_connection_costs_one_statement(pools: Mapping[str, Pool]) -> None:
    """Breaks the worker for good if a pool kept handing out dead connections after a server's restart."""
    pool = pools["social"]
    async with pool.acquire() as one, pool.acquire() as other:
        pid = await one.fetchval("SELECT pg_backend_pid()")
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            await one.fetchval("SELECT 1")
    answers = await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(4)))
    assert answers == [1] * 4


def test_a_shown_dsn_hides_the_password() -> None:
    """Breaks secrecy: passwords in logs and on terminals."""
    assert redact_dsn("postgresql://u:pä%2Fss@db.example:5433/wallet") == "postgresql://u@db.example:5433/wallet"
    assert redact_dsn("postgresql:///wallet?host=db&password=x&user=u") == "postgresql:///wallet"
    assert "secret" not in redact_dsn("postgresql://u:secret@[::1]:5433/wallet")
    assert "secret" not in redact_dsn("not a dsn secret")
