"""A database that takes no writes, as after a failover: silence, and never the case's fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog.testing

from jiebang.model.case import State
from jiebang.saga.fence import Op
from jiebang.store.cases import cases as store
from jiebang.worker import Worker
from tests.store.test_advance import World, now
from tests.store.test_worker import PACE, eventually, running

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@asynccontextmanager
async def read_only(pool: Pool, dsn: str) -> AsyncIterator[None]:
    """Let a database take no writes for a while, on every connection, the open ones too."""
    name = urlsplit(dsn).path.lstrip("/")

    async def turn(on: str) -> None:
        # Beside the pool: its own connections may be read-only already.
        connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {on}')
        await connection.close()
        await pool.expire_connections()

    await turn("on")
    try:
        yield
    finally:
        await turn("off")


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    await pools["platform"].execute("TRUNCATE platform.bucket_lease, platform.worker")
    made = World(pools)
    yield made
    await made.driver.aclose()


async def test_a_participant_that_became_read_only_is_silent(
    world: World, pools: Mapping[str, Pool], databases: Mapping[str, str]
) -> None:
    """Its failover is nobody's fault: it is asked as a whole, not case by case, and the cases end once it is back."""
    ids = await world.people(61_000, 8)
    cases = await world.ready(ids)
    with structlog.testing.capture_logs() as logs:
        async with read_only(pools["gaming"], databases["gaming"]):
            await world.driver.drive(cases)
            found = await store.load_many(pools["platform"], [case.key for case in cases])
            assert {case.state for case in found.values()} == {State.TRYING}
        assert ("participant_silent", 8) in {(line["event"], line.get("cases")) for line in logs}
        assert "case_fails_at_participant" not in {line["event"] for line in logs}
        assert [call for call in world.participants["gaming"].calls if call[0] is Op.TRY] == [(Op.TRY, 8)]
    ended = await world.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} <= {State.DONE, State.ABORTED}
    await world.agree(ids)


async def test_a_platform_that_became_read_only_stops_its_workers_and_nothing_else(
    world: World, pools: Mapping[str, Pool], databases: Mapping[str, str]
) -> None:
    """The worker must live through it, send nothing unsaved, and go on by itself when it is over."""
    ids = await world.people(62_000, 4)
    cases = await world.ready(ids)
    worker = Worker(worker_id="w", pool=pools["platform"], driver=world.driver, chores={}, clock=now, pace=PACE)
    async with read_only(pools["platform"], databases["platform"]):
        with structlog.testing.capture_logs() as logs:
            async with running(worker):
                await eventually(lambda: any(line["event"] == "lease_not_renewed" for line in logs))
        found = await store.load_many(pools["platform"], [case.key for case in cases])
        assert {case.state for case in found.values()} == {State.READY}
        assert not any(each.calls for each in world.participants.values())
    async with running(
        Worker(worker_id="v", pool=pools["platform"], driver=world.driver, chores={}, clock=now, pace=PACE)
    ):

        async def done() -> bool:
            found = await store.load_many(pools["platform"], [case.key for case in cases])
            return {case.state for case in found.values()} == {State.DONE}

        await eventually(done)
