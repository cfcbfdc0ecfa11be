"""Cases that do not get on, over real databases: a person is told, may have them tried again, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jiebang.model.case import BUCKETS, Case, State
from jiebang.model.errors import InvalidInputError
from jiebang.model.plan import Plan
from jiebang.saga.fence import CaseOp, FenceRow, Op
from jiebang.store.cases import cases as store
from jiebang.store.operations import tasks
from jiebang.usecases.operations import outages, workers
from jiebang.usecases.operations import tasks as verbs
from jiebang.usecases.operations.stuck import RetryOutcome, StuckReason, list_stuck, retry, show
from jiebang.usecases.operations.tasks import TaskLimits, TaskWatch
from tests.patience import PATIENCE_S
from tests.store.test_advance import PLAN, TIMING, World, now

if TYPE_CHECKING:
    from jiebang.saga.orders import Order
    from jiebang.store.postgres.pool import Pool

EVERYTHING = frozenset(range(BUCKETS))
_RESENT = 2
LIMITS = TaskLimits(silent=timedelta(milliseconds=1), every=timedelta())


class OnePlan:
    """All cases follow one plan, which is known."""

    def plan_of(self, case: Case) -> Plan:
        del case
        return PLAN

    async def know(self, cases: Iterable[Case]) -> None:
        del cases


PLANS = OnePlan()


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    await pools["platform"].execute("TRUNCATE platform.task")
    made = World(pools)
    yield made
    await made.driver.aclose()


def watch(world: World, limits: TaskLimits = LIMITS) -> TaskWatch:
    return TaskWatch(world.pools["platform"], lambda _case: PLAN, limits=limits, timing=TIMING)


async def reloaded(world: World, case: Case) -> Case:
    return (await store.load_many(world.pools["platform"], [case.key]))[case.key]


async def driven(world: World, case: Case, until: str) -> Case:
    """Drive one case until its marks hold `until`."""
    async with asyncio.timeout(PATIENCE_S):
        while until not in case.marks:
            late, world.driver.late = world.driver.late, []
            await world.driver.drive([case] if case.due_at is not None and case.due_at <= now() else [], late)
            await asyncio.sleep(0.01)
            case = await reloaded(world, case)
    return case


async def open_tasks(world: World) -> list[tuple[int, str, str, str | None]]:
    found = await tasks.load_open(world.pools["platform"], 100)
    return [(task.account_id, task.kind, task.participant, task.op) for task in found]


async def whole_stuck(world: World) -> dict[int, StuckReason]:
    found = await list_stuck(world.pools["platform"], PLANS, LIMITS, TIMING, now(), 100)
    return {each.case.account_id: each.why for each in found}


async def test_a_refused_confirm_is_an_operators_until_it_is_done(world: World) -> None:
    """Somebody changed a row by hand. The task says who owes what; a retry sends the op again, and the task closes."""
    pool, [person] = world.pools["platform"], await world.people(100, 1)
    [case] = await world.ready([person])

    async def spoiled(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.CONFIRM:
            await world.pools["gaming"].execute(
                "UPDATE gaming.account SET case_op = 'cancelled' WHERE account_id = 100"
            )

    world.participants["gaming"].before = spoiled
    await world.driver.drive([case])
    case = await driven(world, case, "C")
    await watch(world)(EVERYTHING, now())
    await watch(world)(EVERYTHING, now())
    assert await open_tasks(world) == [(100, "parked", "gaming", "confirm")]
    assert case.state is State.CONFIRMING, "a task changes no decision"
    assert (await whole_stuck(world))[100] is StuckReason.PARKED
    shown = (await show(pool, world.participants, PLANS, [case.key, (person, 99)]))[case.key]
    [gaming] = [party for party in shown.parties if party.participant == "gaming"]
    assert (gaming.mark, gaming.row) == ("C", FenceRow(case.case_no, CaseOp.CANCELLED))
    assert [task.participant for task in shown.tasks] == ["gaming"]
    assert {entry["state"] for entry in shown.timeline if entry["what"] == "state"} >= {"trying", "confirming"}

    world.participants["gaming"].before = None
    await world.pools["gaming"].execute("UPDATE gaming.account SET case_op = 'tried' WHERE account_id = 100")
    unknown = (person, 99)
    told = await retry(pool, PLANS, [case.key, unknown], "Ann", now(), TIMING)
    assert told == {case.key: RetryOutcome.RETRIED, unknown: RetryOutcome.UNKNOWN}
    [task] = await tasks.load_of_cases(pool, [case.key])
    assert task.acknowledged_by == "Ann"
    assert (await world.until_ended([case.key]))[case.key].state is State.DONE
    await watch(world)(EVERYTHING, now())
    assert await open_tasks(world) == []
    await world.agree([person])


async def test_an_unanswered_cancel_is_an_operators_after_a_while(world: World) -> None:
    [person] = await world.people(200, 1)
    [case] = await world.ready([person])

    async def silent(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.CANCEL:
            raise ConnectionRefusedError

    world.participants["social"].before = silent

    async def changed(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            await world.pools["security"].execute(
                "UPDATE security.account SET facts_version = 7 WHERE account_id = 200"
            )

    world.participants["security"].before = changed
    await world.driver.drive([case])
    async with asyncio.timeout(PATIENCE_S):
        while (case := await reloaded(world, case)).attempt < _RESENT:
            await world.driver.drive([case] if case.due_at is not None and case.due_at <= now() else [])
            await asyncio.sleep(0.01)
    assert case.state is State.CANCELLING
    await watch(world, TaskLimits(silent=timedelta(hours=1), every=timedelta()))(EVERYTHING, now())
    assert await open_tasks(world) == [], "not long enough"
    await watch(world)(EVERYTHING, now())
    assert await open_tasks(world) == [(200, "silent", "social", "cancel")]
    assert (await whole_stuck(world))[200] is StuckReason.SILENT
    world.participants["social"].before = None
    told = await retry(world.pools["platform"], PLANS, [case.key], "Ann", now(), TIMING)
    assert told == {case.key: RetryOutcome.WOKEN}
    assert (await world.until_ended([case.key]))[case.key].state is State.ABORTED
    await watch(world)(EVERYTHING, now())
    assert await open_tasks(world) == []


async def test_a_closed_task_opens_anew_when_it_is_right_again(world: World) -> None:
    pool = world.pools["platform"]
    new = tasks.NewTask(account_id=300, case_no=1, kind="undecided", participant="platform", why="plan_lost", note="x")
    assert await tasks.raise_tasks(pool, [new], now()) == 1
    assert await tasks.raise_tasks(pool, [new], now()) == 0
    assert await tasks.acknowledge(pool, [(300, 1)], "Ann", now()) == {(300, 1)}
    assert await tasks.acknowledge(pool, [(300, 1)], "Ben", now()) == set(), "who did so first stays"
    assert await tasks.close_by_hand(pool, [(300, 1)], "found in the archive", "Ben", now()) == {(300, 1)}
    [closed] = await tasks.load_of_cases(pool, [(300, 1)])
    assert (closed.acknowledged_by, closed.note, closed.closed_at is None) == ("Ann", "found in the archive", False)
    assert await tasks.raise_tasks(pool, [new], now()) == 1
    [again] = await tasks.load_open(pool, 10)
    assert (again.acknowledged_by, again.note) == (None, "x")


async def test_no_deed_without_a_name_and_no_outage_of_nobody(world: World) -> None:
    """Whoever asks, a console too: what is kept on record says who did it, and a slip of the pen stops nothing."""
    pool, key = world.pools["platform"], (300, 1)
    nameless: list[Callable[[], Awaitable[object]]] = [
        lambda: retry(pool, PLANS, [key], " ", now(), TIMING),
        lambda: verbs.acknowledge(pool, [key], "", now()),
        lambda: verbs.close(pool, [key], "found", "", now()),
        lambda: workers.set_wish(pool, None, "pause", "", now()),
        lambda: outages.take_out(pool, ["wallet"], "moves", "", now()),
        lambda: outages.take_out(pool, ["wallet"], " ", "Ann", now()),
        lambda: outages.take_out(pool, ["wallet", "walet"], "moves", "Ann", now()),
        lambda: outages.take_back(pool, ["walet"], "Ann", now()),
    ]
    for deed in nameless:
        with pytest.raises(InvalidInputError):
            await deed()
    assert await outages.list_outages(pool) == []
    [out] = await outages.take_out(pool, ["wallet"], "moves", "Ann", now())
    assert (out.participant, out.by, out.back_at) == ("wallet", "Ann", None)
    [back] = await outages.take_back(pool, ["wallet"], "Ben", now())
    assert (back.back_by, back.back_at is None) == ("Ben", False)


async def test_cases_are_shown_in_a_batch_whoever_is_silent(world: World) -> None:
    """Else the console asks each participant once a case, and one that hangs hides what all the others say."""
    pool = world.pools["platform"]
    people = await world.people(400, 3)
    ready = await world.ready(people)
    asked = list[list[int]]()

    class Silent:
        async def look(self, _accounts: Sequence[int]) -> Mapping[int, FenceRow]:
            raise ConnectionRefusedError

    class Counted:
        async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
            asked.append(list(accounts))
            found: Mapping[int, FenceRow] = await world.participants["gaming"].look(accounts)
            return found

    parties: dict[str, Any] = {**world.participants, "social": Silent(), "gaming": Counted()}
    shown = await show(pool, parties, PLANS, [case.key for case in ready])
    assert asked == [sorted(people)]
    assert {key[0] for key in shown} == set(people)
    for one in shown.values():
        answers = {party.participant: party.answers for party in one.parties}
        assert (answers["social"], answers["gaming"]) == (False, True)
        assert one.timeline
