"""Hosts whose clocks are wrong: what they stamp is right all the same, and they claim nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from jiebang.model.case import BUCKETS, State
from jiebang.model.errors import InvalidInputError
from jiebang.store.cases import cases as store
from jiebang.store.operations import leases, worker_registry
from jiebang.store.postgres.database_clock import DatabaseClock
from jiebang.usecases.operations import workers
from jiebang.worker import Worker
from tests.store.test_advance import World, now
from tests.store.test_worker import EVERYTHING, PACE, eventually, running

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    await pools["platform"].execute("TRUNCATE platform.bucket_lease, platform.worker, platform.worker_freed")
    made = World(pools)
    yield made
    await made.driver.aclose()


class OwnClock:
    """The clock of a host, which may be wrong."""

    def __init__(self, ahead: timedelta = timedelta()) -> None:
        self.ahead = ahead

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


async def measured(pool: Pool, ahead: timedelta) -> tuple[DatabaseClock, OwnClock]:
    own = OwnClock(ahead)
    clock = DatabaseClock(own)
    await clock.measure(pool)
    return clock, own


def made(world: World, name: str, clock: DatabaseClock) -> Worker:
    return Worker(
        worker_id=name,
        pool=world.pools["platform"],
        driver=world.driver,
        chores={},
        clock=clock,
        pace=PACE,
        clock_off=clock.find_off,
    )


@pytest.mark.parametrize("ahead", [timedelta(seconds=15), timedelta(minutes=10), timedelta(minutes=-10)])
async def test_a_worker_whose_clock_is_wrong_takes_nothing_from_the_others(
    world: World, pools: Mapping[str, Pool], ahead: timedelta
) -> None:
    """Fifteen seconds ahead it took all buckets, and no code reached any phone."""
    wrong, _ = await measured(pools["platform"], ahead)
    right, _ = await measured(pools["platform"], timedelta())
    async with running(made(world, "wrong", wrong)), running(made(world, "right", right)):
        await eventually(lambda: has_beaten(pools["platform"], "wrong"))
        await eventually(lambda: count_buckets(pools["platform"], "right", BUCKETS))
        listed = {each.worker_id: each for each in await workers.list_workers(pools["platform"], right())}
        assert listed["right"].clock_off_ms is None
        off_ms = listed["wrong"].clock_off_ms
        assert off_ms is not None
        assert abs(off_ms - ahead / timedelta(milliseconds=1)) < 1_000
        assert listed["wrong"].buckets == 0
        until = listed["wrong"].seen_until - right()
        assert until < timedelta(seconds=2), "its heartbeat goes by the database's clock, however wrong its own is"


async def count_buckets(pool: Pool, worker: str, wanted: int) -> bool:
    held: int = await pool.fetchval("SELECT count(*) FROM platform.bucket_lease WHERE worker_id = $1", worker)
    return held == wanted


async def has_beaten(pool: Pool, worker: str) -> bool:
    return bool(await pool.fetchval("SELECT true FROM platform.worker WHERE worker_id = $1", worker))


async def test_a_clock_that_goes_wrong_gives_the_buckets_back_and_takes_them_again(
    world: World, pools: Mapping[str, Pool]
) -> None:
    """A host whose NTP died at noon must not keep its people till midnight; nor stay idle once it is right."""
    clock, own = await measured(pools["platform"], timedelta())
    async with running(made(world, "w", clock)):
        await eventually(lambda: count_buckets(pools["platform"], "w", BUCKETS))
        own.ahead = timedelta(seconds=15)
        await eventually(lambda: count_buckets(pools["platform"], "w", 0))
        [case] = await world.ready(await world.people(63_000 + own.ahead.seconds, 1))
        own.ahead = timedelta()
        await eventually(lambda: count_buckets(pools["platform"], "w", BUCKETS))

        async def done() -> bool:
            return (await store.load_many(pools["platform"], [case.key]))[case.key].state is State.DONE

        await eventually(done)


async def test_it_says_so_once_in_the_log(pools: Mapping[str, Pool]) -> None:
    """An operator looks there first; every two seconds would hide the rest."""
    own = OwnClock(timedelta(seconds=15))
    clock = DatabaseClock(own)
    with structlog.testing.capture_logs() as logs:
        for ahead in (15, 15, 0, 0):
            own.ahead = timedelta(seconds=ahead)
            await clock.measure(pools["platform"])
    assert [line["event"] for line in logs] == ["clock_off", "clock_right_again"]
    assert abs(logs[0]["ahead_s"] - 15) < 1


async def test_an_operator_frees_the_buckets_of_a_dead_worker(pools: Mapping[str, Pool]) -> None:
    """It stamped ten minutes ahead and was killed: nobody else could drive its people until then."""
    platform = pools["platform"]
    await platform.execute("TRUNCATE platform.bucket_lease, platform.worker, platform.worker_freed")
    at = now()
    await leases.hold(platform, "dead", at + timedelta(minutes=10), timedelta(seconds=10))
    assert (await leases.hold(platform, "alive", at, timedelta(seconds=10))).buckets == frozenset()
    with pytest.raises(InvalidInputError):
        await workers.free(platform, "dead", "  ", at)
    freed = await workers.free(platform, "dead", "Ann", at)
    assert (freed.worker_id, freed.freed_by, freed.buckets) == ("dead", "Ann", BUCKETS)
    assert await workers.list_freed(platform, 10) == [freed]
    assert (await leases.hold(platform, "alive", at, timedelta(seconds=10))).buckets == EVERYTHING
    with pytest.raises(InvalidInputError):
        await workers.free(platform, "dead", "Ann", at)
    assert [each.worker_id for each in await worker_registry.load_workers(platform, at)] == ["alive"]


async def test_one_that_was_alive_after_all_takes_its_share_again(pools: Mapping[str, Pool]) -> None:
    """An operator's mistake must not leave a worker idle until somebody restarts it."""
    platform = pools["platform"]
    await platform.execute("TRUNCATE platform.bucket_lease, platform.worker, platform.worker_freed")
    at, lease = now(), timedelta(seconds=10)
    await leases.hold(platform, "alive", at, lease)
    await workers.free(platform, "alive", "Ann", at)
    assert (await leases.hold(platform, "alive", at, lease)).buckets == EVERYTHING
