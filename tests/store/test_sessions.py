"""Connections: what lies between us and the server, why one cannot be made, and how many there are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from jiebang.model.errors import ParticipantUnavailableError, PoolerInTheWayError
from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import database_dsn
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools
from jiebang.store.postgres.sessions import require_sessions
from jiebang.store.postgres.shares import ServerShare, ServerShares, find_server
from tests.patience import PATIENCE_S
from tests.pooler import pooled

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


async def test_a_pooler_in_transaction_mode_is_refused_and_named(databases: Mapping[str, str]) -> None:
    """Behind one, 60 of 60 checks could not read their facts, and every submission failed: nothing may start there."""
    async with (
        pooled(databases["wallet"]) as dsn,
        open_pools({**databases, "wallet": dsn}, size=4, patient=True) as pools,
    ):
        with pytest.raises(PoolerInTheWayError) as caught:
            await require_sessions(pools)
    assert caught.value.fields["databases"] == ["wallet"]
    assert "transaction mode" in caught.value.fields["reason"].en


async def test_a_pooler_that_keeps_sessions_may_stay(databases: Mapping[str, str]) -> None:
    """Session mode is what managed services offer: it must not be refused, nor a direct connection."""
    async with (
        pooled(databases["wallet"], keeps=True) as dsn,
        open_pools({**databases, "wallet": dsn}, size=4, patient=True) as pools,
    ):
        await require_sessions(pools)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("jiebang:", "jiebang:not"), "password is wrong"),
        (("127.0.0.1:", "127.0.0.1:1"), "nothing listens"),
        (("/gaming", "/no_such_database"), "no database of this name"),
        (("@127.0.0.1", "@no-such-host.invalid"), "no host of this name"),
    ],
)
async def test_why_a_database_cannot_be_reached_is_told_apart(
    databases: Mapping[str, str], change: tuple[str, str], reason: str
) -> None:
    """A wrong password, a wrong port and a missing database are three different evenings for an operator."""
    old, new = change
    dsn = databases["gaming"].replace(old, new, 1)
    if new.endswith(":1"):
        host, _, rest = databases["gaming"].partition("127.0.0.1:")
        dsn = f"{host}127.0.0.1:1/{rest.partition('/')[2]}"
    with pytest.raises(ParticipantUnavailableError) as migrating:
        await migrate_all({"gaming": dsn}, PARTICIPANTS)
    with pytest.raises(ParticipantUnavailableError) as opening:
        async with open_pools({"platform": dsn}):
            pass
    for caught in (migrating, opening):
        told = caught.value.fields["reason"]
        assert reason in told.en
        assert told.zh != told.en
        assert dsn.partition("@")[0].rpartition(":")[2] not in str(caught.value)


HOSTILE = {
    "PGSSLMODE": "require",
    "PGHOST": "elsewhere.invalid",
    "PGPORT": "1",
    "PGUSER": "somebody",
    "PGPASSWORD": "something",
    "PGDATABASE": "other",
    "PGSERVICE": "none",
    "PGSERVICEFILE": "/none",
    "PGPASSFILE": "/none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/none",
    "PGSSLCERT": "/none",
    "PGSSLKEY": "/none",
    "PGSSLCRL": "/none",
    "PGKRBSRVNAME": "other",
    "PGGSSLIB": "other",
    "PGOPTIONS": "-c no_such=1",
    "PGDATA": "/none",
}
PROGRAM = """
import asyncio, sys
from pathlib import Path
from jiebang.store.postgres.embedded import embedded, ensure_databases
async def main():
    async with embedded(Path(sys.argv[1]), durable=False) as servers:
        await ensure_databases(servers, {"one": "shenzhen", "other": "guiyang"})
asyncio.run(main())
"""


def test_the_shells_variables_do_not_reach_embedded_servers(new_folder: Callable[[str], Path]) -> None:
    """PGSSLMODE=require in a .bashrc, meant for another server, once cost 64 seconds and told the wrong reason."""
    folder = new_folder("variables")
    argv = [sys.executable, "-c", PROGRAM, str(folder / "home")]
    ran = subprocess.run(argv, env=os.environ | HOSTILE, capture_output=True, timeout=60, check=False)  # noqa: S603 - ourselves
    assert ran.returncode == 0, ran.stderr.decode()[-2_000:]
    remove(folder / "home")


async def test_databases_of_one_server_share_its_connections(databases: Mapping[str, str]) -> None:
    """Eight connections to each of eleven databases filled a server of a hundred with one API and one worker."""
    together = {name: dsn for name, dsn in databases.items() if find_server(dsn) == find_server(databases["platform"])}
    assert len(together) > 3
    limit = len(together) + 4
    watching = await asyncpg.connect(databases["platform"])
    seen = 0
    async with open_pools(together, size=8, shares=ServerShares(limit)) as pools:

        async def work(pool: Pool) -> None:
            for _ in range(3):
                assert await pool.fetchval("SELECT 1 FROM pg_sleep(0.01)") == 1

        tasks = [asyncio.create_task(work(pool)) for _ in range(12) for pool in pools.values()]
        while not all(task.done() for task in tasks):
            seen = max(seen, await _count(watching, together))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        for pool in pools.values():  # an idle one is closed for the sake of a database that wants its part
            await asyncio.gather(*(pool.fetchval("SELECT 1 FROM pg_sleep(0.01)") for _ in range(8)))
            seen = max(seen, await _count(watching, together))
    await watching.close()
    assert len(together) < seen <= limit


async def _count(watching: asyncpg.Connection[asyncpg.Record], databases: Mapping[str, str]) -> int:
    return int(
        await watching.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jiebang' AND datname = ANY ($1)",
            [dsn.rpartition("/")[2].partition("?")[0] for dsn in databases.values()],
        )
    )


async def test_whoever_holds_one_and_waits_for_another_does_not_wait_for_ever(databases: Mapping[str, str]) -> None:
    """A submission holds the platform's connection while it reads the wallet: with all taken, nobody would get on."""
    pair = {name: databases[name] for name in ("platform", "wallet")}
    share = ServerShares(3)
    async with open_pools(pair, size=8, shares=share) as pools:

        async def holds_and_waits() -> None:
            async with pools["platform"].acquire() as connection:
                await connection.fetchval("SELECT 1")
                await pools["wallet"].fetchval("SELECT 1 FROM pg_sleep(0.01)")

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(holds_and_waits() for _ in range(24)))


async def test_a_waiter_that_gave_up_takes_nothing() -> None:
    """A request that timed out must not keep a connection's place for ever."""

    class Fake:
        most, opened, in_use = 2, 2, 0

        def close_idle(self) -> bool:
            return False

    share, pool = ServerShare(2), Fake()
    share.join(pool)
    await share.take(pool)
    await share.take(pool)
    waiting = asyncio.create_task(share.take(pool))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    share.give_back(pool)
    share.give_back(pool)
    assert pool.in_use == 0


def test_servers_are_told_apart_by_host_and_port() -> None:
    """Else two servers would share one limit, or one server would get two."""
    same = ["postgresql://a:b@db:5432/x", "postgresql://c@db/y", "postgresql://db/z?sslmode=require"]
    assert {find_server(dsn) for dsn in same} == {"db:5432"}
    assert find_server("postgresql://db:5433/x") == "db:5433"
    assert find_server("postgresql://u@/x?host=other&port=7") == "other:7"
    assert find_server("postgresql://u@[::1]/x") == "[::1]:5432"
    assert database_dsn("postgresql://h/x?a=b", "y") == "postgresql://h/y?a=b"
