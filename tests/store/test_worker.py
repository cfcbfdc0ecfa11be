"""The worker's loops over real databases: they drive what is due, share, survive, and end cleanly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jiebang.model.case import BUCKETS, Case, State
from jiebang.saga.fence import Op
from jiebang.store.cases import cases as store
from jiebang.store.operations import leases, recoveries, worker_registry
from jiebang.usecases.driving.advance import Limits
from jiebang.worker import Pace, Worker
from tests.acceptance.api_world import closed
from tests.patience import PATIENCE_S
from tests.store.test_advance import World, now

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.saga.orders import Order
    from jiebang.store.postgres.pool import Pool

EVERYTHING = frozenset(range(BUCKETS))
PACE = Pace(
    lease=timedelta(seconds=1), batch=8, idle_poll=timedelta(milliseconds=5), chore_poll=timedelta(milliseconds=5)
)
SLOW_LEASE = Pace(lease=timedelta(seconds=60), idle_poll=timedelta(milliseconds=5))


class Chores:
    """Side work that counts what it was asked, and fails when it is told to."""

    def __init__(self) -> None:
        self.seen: list[frozenset[int]] = []
        self.fails = False

    async def __call__(self, buckets: frozenset[int], _now: datetime) -> int:
        self.seen.append(buckets)
        if self.fails:
            raise ValueError
        return 0


def made(world: World, name: str, pace: Pace = PACE, clock: Callable[[], datetime] = now, **chores: Any) -> Worker:
    return Worker(
        worker_id=name, pool=world.pools["platform"], driver=world.driver, chores=chores, clock=clock, pace=pace
    )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker; stop it politely on the way out, and fail where it does not end."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def eventually(true: Callable[[], Any]) -> None:
    """Wait until something holds; `true` may be a coroutine function."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = true()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)


async def ended(world: World, cases: Sequence[Case]) -> bool:
    found = await store.load_many(world.pools["platform"], [case.key for case in cases])
    return all(case.state in {State.DONE, State.ABORTED} for case in found.values())


async def states(world: World, cases: Sequence[Case]) -> set[State]:
    found = await store.load_many(world.pools["platform"], [case.key for case in cases])
    return {case.state for case in found.values()}


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    await pools["platform"].execute("TRUNCATE platform.bucket_lease, platform.worker")
    world = World(pools)
    yield world
    await world.driver.aclose()


async def test_due_cases_are_driven_to_their_end(world: World) -> None:
    """In more batches than one, with its chores beside; and what comes later is driven too."""
    chores = Chores()
    ids = await world.people(1_000, 30)
    early = await world.ready(ids[:20])
    async with running(made(world, "a", count=chores)):
        await eventually(lambda: ended(world, early))
        late = await world.ready(ids[20:])
        await eventually(lambda: ended(world, late))
    assert await states(world, [*early, *late]) == {State.DONE}
    assert chores.seen[-1] == EVERYTHING
    await world.agree(ids)


async def test_stopping_finishes_the_batch_at_hand_and_gives_the_buckets_back(world: World) -> None:
    """A deployment restarts workers all day: none may leave people half way, or its buckets with nobody."""
    ids = await world.people(2_000, 4)
    cases = await world.ready(ids)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def waits(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY and not reached.is_set():
            reached.set()
            await go_on.wait()

    world.participants["wallet"].before = waits
    world.driver._limits = Limits(round=timedelta(seconds=30), call=timedelta(seconds=30))  # the round stays open
    worker = made(world, "a", SLOW_LEASE)
    async with running(worker) as task:
        await reached.wait()
        worker.stop()
        await asyncio.sleep(0.02)
        assert not task.done(), "it does not walk away from a batch"
        go_on.set()
    assert await states(world, cases) <= {State.DONE, State.ABORTED}
    told = await leases.hold(world.pools["platform"], "b", now(), timedelta(seconds=60))
    assert told.buckets == EVERYTHING
    await world.agree(ids)


async def test_without_a_lease_nothing_is_driven(world: World) -> None:
    """Its buckets may be another's by now; two workers on the same people would waste each other's work."""
    cases = await world.ready(await world.people(3_000, 3))
    await leases.hold(world.pools["platform"], "another", now(), timedelta(seconds=60))
    chores = Chores()
    async with running(made(world, "a", count=chores)):
        await eventually(lambda: len(chores.seen) > 20)
    assert await states(world, cases) == {State.READY}
    assert set(chores.seen) == {frozenset()}


async def test_a_lease_that_could_not_be_renewed_in_time_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may have taken the buckets over: the worker must stop by its own clock, told or not."""
    skew = timedelta()
    chores = Chores()

    def clock() -> datetime:
        return now() + skew

    async with running(made(world, "a", SLOW_LEASE, clock, count=chores)):
        await eventually(lambda: chores.seen and chores.seen[-1] == EVERYTHING)
        monkeypatch.setattr(leases, "hold", _unreachable)
        skew = timedelta(seconds=61)
        await eventually(lambda: chores.seen[-1] == frozenset())
        cases = await world.ready(await world.people(4_000, 3))
        seen = len(chores.seen)
        await eventually(lambda: len(chores.seen) > seen + 5)
        assert await states(world, cases) == {State.READY}


async def _unreachable(*_: Any) -> frozenset[int]:
    raise ConnectionRefusedError


async def test_a_chore_that_fails_stops_neither_itself_nor_the_cases(world: World) -> None:
    """A gateway that is down must not keep anybody from being unbound."""
    failing, working = Chores(), Chores()
    failing.fails = True
    ids = await world.people(5_000, 3)
    async with running(made(world, "a", failing=failing, working=working)):
        cases = await world.ready(ids)
        await eventually(lambda: ended(world, cases))
        await eventually(lambda: len(failing.seen) > 2)
    assert await states(world, cases) == {State.DONE}
    assert len(working.seen) > len(failing.seen), "one that fails is asked less and less often"


async def test_the_platforms_database_may_go_away_for_a_moment(world: World, servers: Mapping[str, str]) -> None:
    """A fail-over of our own database: the worker waits, renews its leases and goes on; nobody restarts it by hand."""
    ids = await world.people(6_000, 12)
    database = await world.pools["platform"].fetchval("SELECT current_database()")
    chores = Chores()
    async with running(made(world, "a", count=chores)) as task:
        before = await world.ready(ids[:6])
        async with closed(servers["shenzhen"], database):
            await asyncio.sleep(1.2)  # longer than the lease
            assert not task.done()
            await eventually(lambda: chores.seen[-1] == frozenset())  # without a lease it holds nothing
        after = await world.ready(ids[6:])
        await eventually(lambda: ended(world, [*before, *after]))
        assert not task.done()
    assert await states(world, after) == {State.DONE}
    await world.agree(ids)


async def test_a_worker_that_ends_while_the_database_is_away_still_ends(
    world: World, servers: Mapping[str, str]
) -> None:
    """Else a deployment would hang on it; its lease runs out by itself."""
    database = await world.pools["platform"].fetchval("SELECT current_database()")
    chores = Chores()
    worker = made(world, "a", count=chores)
    async with running(worker) as task:
        await eventually(lambda: chores.seen and chores.seen[-1] == EVERYTHING)
        async with closed(servers["shenzhen"], database):
            worker.stop()
            async with asyncio.timeout(PATIENCE_S):
                await task
    await world.pools["platform"].expire_connections()  # one that was cut off in the middle is for nobody else


async def test_two_workers_share_and_one_takes_over_what_the_other_leaves(
    world: World, pools: Mapping[str, Pool]
) -> None:
    """More workers must mean more done at once, and one fewer must mean nobody forgotten."""
    other = World(pools)
    mine, theirs = Chores(), Chores()
    ids = await world.people(7_000, 20)
    async with running(made(world, "a", count=mine)):
        async with running(made(other, "b", count=theirs)):
            await eventually(lambda: mine.seen and theirs.seen and len(mine.seen[-1]) == len(theirs.seen[-1]) > 0)
            assert not mine.seen[-1] & theirs.seen[-1]
            cases = await world.ready(ids[:10])
            await eventually(lambda: ended(world, cases))
        cases += await world.ready(ids[10:])
        await eventually(lambda: ended(world, cases))
        await eventually(lambda: mine.seen[-1] == EVERYTHING)
    assert await states(world, cases) == {State.DONE}
    await world.agree(ids)


async def test_a_case_nobody_can_step_keeps_nobody_else_back(world: World) -> None:
    """A case of a policy that was withdrawn, say: it waits for an operator, and the others are not its hostages."""
    ids = await world.people(9_000, 12)
    cases = await world.ready(ids)
    known = world.driver._plan_of
    await world.pools["platform"].execute("UPDATE platform.cases SET plan = 'withdrawn/1' WHERE account_id = 9003")

    def plan_of(case: Case) -> Plan:
        if case.plan == "withdrawn/1":
            raise KeyError(case.plan)
        return known(case)

    world.driver._plan_of = plan_of
    others = [case for case in cases if case.account_id != 9_003]
    async with running(made(world, "a")):
        await eventually(lambda: ended(world, others))
    (odd,) = (await store.load_many(world.pools["platform"], [(9_003, 1)])).values()
    assert await states(world, others) == {State.DONE}
    assert (odd.state, odd.marks) == (State.READY, "." * len(odd.marks))
    assert odd.due_at is not None
    assert odd.due_at > now() + timedelta(seconds=5), "it is not tried again at once"
    world.driver._plan_of = known
    await world.driver.drive([odd])  # its policy is back
    assert await states(world, cases) == {State.DONE}


async def test_a_batch_that_fails_does_not_end_the_loop(world: World) -> None:
    """A fault of ours in one batch must not stop everybody else's cases until somebody looks at the log."""
    cases = await world.ready(await world.people(8_000, 2))
    drive, failures = world.driver.drive, iter(range(1))

    async def fails_once(taken: Any, late: Any = ()) -> None:
        if next(failures, None) is not None:
            raise RuntimeError
        await drive(taken, late)

    world.driver.drive = fails_once  # type: ignore[method-assign]
    async with running(made(world, "a")):
        await eventually(lambda: ended(world, cases))
    assert await states(world, cases) == {State.DONE}


async def test_a_paused_worker_claims_nothing_and_leaves_its_people_to_others(world: World) -> None:
    """An operator looks into one process: nobody waits for it meanwhile, and nothing of it is lost."""
    pool = world.pools["platform"]
    ids = await world.people(8_500, 6)
    async with running(made(world, "a")):
        await eventually(lambda: _bucket_count(pool, "a"))
        await worker_registry.record_wish(pool, ["a"], "pause", "Ann", now())
        await eventually(lambda: _state_is(pool, "a", "paused"))
        cases = await world.ready(ids[:3])
        await eventually(lambda: _bucket_count(pool, "a", 0))
        assert await states(world, cases) == {State.READY}, "alone and paused: nobody drives them"
        async with running(made(world, "b")):
            await eventually(lambda: ended(world, cases))
            assert await _bucket_count(pool, "b", BUCKETS), "a paused worker takes no share"
        await worker_registry.record_wish(pool, None, "run", "Ann", now())
        later = await world.ready(ids[3:])
        await eventually(lambda: ended(world, later))
    await world.agree(ids)


async def test_a_drained_worker_ends_what_it_has_at_hand_and_then_itself(world: World) -> None:
    ids = await world.people(8_100, 4)
    cases = await world.ready(ids)
    async with running(made(world, "a")) as task:
        await eventually(lambda: _bucket_count(world.pools["platform"], "a"))
        assert await worker_registry.record_wish(world.pools["platform"], ["a", "nobody"], "drain", "Ann", now()) == [
            "a"
        ]
        async with asyncio.timeout(PATIENCE_S):
            await task
    assert await states(world, cases) <= {State.DONE, State.READY}, "nobody is left half way"
    assert not await worker_registry.load_workers(world.pools["platform"], now())


async def test_during_a_recovery_nothing_is_claimed(world: World) -> None:
    """What recovery decides of an account must not change under it."""
    pool = world.pools["platform"]
    ids = await world.people(8_200, 3)
    cases = await world.ready(ids)
    run = await recoveries.begin_recovery(pool, ["wallet"], "Ann", now())
    try:
        async with running(made(world, "a")):
            await eventually(lambda: _state_is(pool, "a", "paused"))
            assert await states(world, cases) == {State.READY}
            await recoveries.end_recovery(pool, run, {}, now())
            await eventually(lambda: ended(world, cases))
    finally:
        await recoveries.end_recovery(pool, run, {}, now())
    await world.agree(ids)


async def test_a_worker_at_rest_has_nothing_under_way_and_forgets_late_answers(world: World) -> None:
    """Recovery looks at rows that no old call may still change, and a restore may undo what an old answer tells."""
    pool, wallet, gate = world.pools["platform"], world.participants["wallet"], asyncio.Event()

    async def slowly(_op: Op, _orders: Sequence[Order]) -> None:
        await gate.wait()

    cases = await world.ready(await world.people(8_300, 1))
    worker = made(world, "a")
    wallet.before = slowly
    async with running(worker):
        await eventually(lambda: wallet.calls)
        run = await recoveries.begin_recovery(pool, ["wallet"], "Ann", now())
        await eventually(lambda: not worker._leased.may_claim and not worker._busy)
        await asyncio.sleep(0.6)  # some beats of its lease, less than a call may take
        assert world.driver.still or not await _state_is(pool, "a", "paused")
        gate.set()
        await eventually(lambda: _state_is(pool, "a", "paused"))
        assert world.driver.still
        await eventually(lambda: not world.driver.late)
        await recoveries.end_recovery(pool, run, {}, now())
        await eventually(lambda: ended(world, cases))
    await world.agree([case.account_id for case in cases])


async def _bucket_count(pool: Pool, worker: str, wanted: int | None = None) -> bool:
    seen = {each.worker_id: each.buckets for each in await worker_registry.load_workers(pool, now())}
    return seen.get(worker, 0) == wanted if wanted is not None else seen.get(worker, 0) > 0


async def _state_is(pool: Pool, worker: str, state: str) -> bool:
    return {each.worker_id: each.state for each in await worker_registry.load_workers(pool, now())}.get(worker) == state
