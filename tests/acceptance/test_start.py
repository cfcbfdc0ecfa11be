"""Processes that start before the platform's database: live, not ready, and at work once it has come."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import httpx
import msgspec
import pytest

from jiebang.app import migrate
from jiebang.sandbox.processes import SandboxProcess
from jiebang.settings import read_settings
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import database_dsn
from tests.acceptance.api_world import made
from tests.acceptance.test_cli import jiebang
from tests.patience import PATIENCE_S, PATIENT_PROCESS

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

LATE = f"platform_late_{os.getpid()}"


class Early(msgspec.Struct):
    """An installation whose platform's database does not exist yet, and what its processes say."""

    folder: Path
    settings: Mapping[str, str]
    server: str
    left: str
    api: SandboxProcess
    worker: SandboxProcess

    def logged(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def comes(self) -> None:
        """The database comes, as it was left: with its tables and the fingerprints of the keys."""
        admin = await asyncpg.connect(self.server)
        await admin.execute(f'CREATE DATABASE "{LATE}" TEMPLATE "{self.left}"')
        await admin.close()


@pytest.fixture
async def early(
    servers: Mapping[str, str], databases: Mapping[str, str], new_folder: Callable[[str], Path]
) -> AsyncIterator[Early]:
    folder = new_folder("early")
    base = servers["shenzhen"]
    settings = {
        **PATIENT_PROCESS,
        "JIEBANG_HOME": str(folder / "home"),
        "JIEBANG_SANDBOX": "true",
        "JIEBANG_HTTP_PORT": "0",
        "JIEBANG_DATABASES": msgspec.json.encode({**databases, "platform": database_dsn(base, LATE)}).decode(),
    }
    await migrate(read_settings({**settings, "JIEBANG_DATABASES": msgspec.json.encode(databases).decode()}, folder))
    environment = os.environ | settings | {"LANG": "C.UTF-8"}
    api = SandboxProcess("api", ["jiebang", "serve"], folder / "api.log", environment=environment)
    worker = SandboxProcess("worker", ["jiebang", "worker"], folder / "worker.log", environment=environment)
    await asyncio.gather(api.start(), worker.start())
    left = urlsplit(databases["platform"]).path[1:]
    yield Early(folder, settings, base, left, api, worker)
    await asyncio.gather(api.stop(), worker.stop())
    admin = await asyncpg.connect(base)
    await admin.execute(f'DROP DATABASE IF EXISTS "{LATE}" WITH (FORCE)')
    await admin.close()
    remove(folder)


async def test_processes_start_before_the_platforms_database_and_join_in_when_it_comes(early: Early) -> None:
    """Pods start in any order: one that ends for want of a database is restarted ever more slowly, and pages people."""
    async with httpx.AsyncClient(base_url=early.api.url, trust_env=False) as client:
        assert (await client.get("/health")).status_code == 200, "live: nothing is won by a restart"
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["held_up"]["code"] == "PARTICIPANT-UNAVAILABLE"
        assert ready.json()["stand_ins"] == ["issuer", "gateway_url", "networks.unionpay", "networks.netsunion"]
        for refused in (await client.post("/v1/cases", json={}), await client.get("/v1/codes/30007")):
            assert (refused.status_code, refused.json()["code"]) == (503, "PARTICIPANT-UNAVAILABLE")
            assert refused.headers["retry-after"]
            assert refused.json()["zh"]["title"] != refused.json()["en"]["title"]
        operator, told = await asyncio.gather(jiebang(None, "verify", "--json", more=early.settings), _stopped(early))
        assert operator.code == 3, "a command is asked now, and answers now"
        assert operator.json()["error"]["fields"]["participant"] == "platform"
        assert "platform_awaited" in told
        await early.comes()
        await _until(lambda: _is_ready(client))
        assert (await client.get("/ready")).json()["held_up"] is None
        assert (await client.get("/v1/codes/30007")).status_code == 401, "past the gate"
    platform = await asyncpg.connect(database_dsn(early.server, LATE))
    await _until(lambda: platform.fetchval("SELECT count(*) FROM platform.bucket_lease"))
    await platform.close()
    assert (early.api.restarts, early.worker.restarts) == (0, 0)
    assert "platform_awaited" in early.logged("api")


async def _until(true: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await true():  # noqa: ASYNC110 - another process's state, which offers no event
            await asyncio.sleep(0.05)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


async def _stopped(early: Early) -> str:
    """Start a worker, wait until it waits, ask it to end as a container is asked, and return what it logged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jiebang", "worker",
        env=os.environ | early.settings, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    told = b""
    async with asyncio.timeout(PATIENCE_S):
        while b'"event": "platform_awaited"' not in told:
            told += await process.stderr.readline()
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0, "asked to end while it waits, it ends"
    return told.decode()


async def test_a_flood_of_readiness_probes_asks_once(pools: Mapping[str, Pool], tmp_path: Path) -> None:
    """A hundred probes at once must not take the connections that people's requests need."""
    world, asked = made(pools, tmp_path), 0
    social = world.participants["social"]

    class Counted:
        name = "social"

        async def look(self, accounts: object) -> object:
            nonlocal asked
            asked += 1
            return await social.look(accounts)

    world.participants["social"] = Counted()
    async with world.served() as client:
        answers = await asyncio.gather(*(client.get("/ready") for _ in range(100)))
    await world.follower.aclose()
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= asked < 10
