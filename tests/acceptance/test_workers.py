"""Several worker processes on one store: no case is handled twice and none forgotten, whoever joins, leaves or dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from bench.processes import crew
from bench.world import World, joined
from jiebang.model.case import BUCKETS
from jiebang.participants import PARTICIPANTS
from jiebang.store.cases import cases as store
from jiebang.store.timelines import timeline_rows
from jiebang.worker import Pace
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PACE: Final = Pace(lease=timedelta(seconds=1), batch=16, idle_poll=timedelta(milliseconds=5))
HAPPY: Final = ["ready", "trying", "confirming", "done"]


@pytest.fixture(scope="module")
async def world(databases: Mapping[str, str], pools: Mapping[str, Pool]) -> World:
    """The reference work over real databases, with people to be unbound."""
    world = joined(databases, pools)
    await world.fill(1, 2_000)
    return world


async def shared_out(world: World, workers: int) -> None:
    """Wait until so many workers hold all buckets between them."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            held = await world.pools["platform"].fetch(
                "SELECT count(*) AS buckets FROM platform.bucket_lease WHERE until > now() GROUP BY worker_id"
            )
            if len(held) == workers and sum(row["buckets"] for row in held) == BUCKETS:
                return
            await asyncio.sleep(0.02)


async def alive(world: World, accounts: Sequence[int]) -> int:
    """Count the cases that have not ended."""
    found: int = await world.pools["platform"].fetchval(
        "SELECT count(*) FROM platform.cases WHERE account_id = ANY ($1) AND ended_at IS NULL", list(accounts)
    )
    return found


async def all_ended(world: World, accounts: Sequence[int]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await alive(world, accounts):  # noqa: ASYNC110 - in a database no event tells
            await asyncio.sleep(0.02)


async def once_each(world: World, accounts: Sequence[int]) -> None:
    """Every case is done, by one line of saves without a gap or a branch; every op was written once everywhere."""
    found = await store.load_of_accounts(world.pools["platform"], accounts)
    assert sorted(case.account_id for case in found) == sorted(accounts)
    timelines: dict[int, list[timeline_rows.TimelineRow]] = {account: [] for account in accounts}
    for row in await timeline_rows.read_after(world.pools["platform"], {case.key: 0 for case in found}):
        timelines[row.account_id].append(row)
    for case in found:
        rows = timelines[case.account_id]
        assert [row.revision for row in rows] == list(range(1, case.revision + 1))
        states = [entry["state"] for row in rows for entry in row.entries if entry["what"] == "state"]
        assert states == HAPPY, states
    for name in world.plan.participants:
        if name in PARTICIPANTS.databases:
            owner = PARTICIPANTS.owner_of(name)
            rows_of = await world.pools[name].fetch(
                f"SELECT case_no, case_op, epoch FROM {owner}.account WHERE account_id = ANY ($1)",  # noqa: S608 - an owner of ours
                list(accounts),
            )
            assert [tuple(row) for row in rows_of] == [(1, "confirmed", 2)] * len(accounts), name


@pytest.mark.parametrize("workers", [2, 4])
async def test_workers_share_the_cases_and_handle_each_once(world: World, workers: int) -> None:
    """Else a person would be unbound by two at a time, or by nobody."""
    async with crew(world, workers, PACE) as staff:
        await shared_out(world, workers)
        accounts = await world.ready(300)
        await all_ended(world, accounts)
        await staff.dismiss()
    assert len({batch.worker for batch in staff.batches}) == workers, "somebody stood idle"
    await once_each(world, accounts)


async def test_whoever_joins_leaves_or_dies_every_case_is_handled_once(world: World) -> None:
    """Deployments add and remove workers all day, and machines die; nobody's case may pay for it."""
    dice = random.Random(20_261_122)  # noqa: S311 - a test that fails must fail again
    accounts = list[int]()

    async def more() -> None:
        """Record some cases; go on a moment later, in the midst of them."""
        accounts.extend(await world.ready(100))
        await asyncio.sleep(dice.uniform(0.01, 0.03))

    async with crew(world, 2, PACE) as staff:
        await shared_out(world, 2)
        await more()
        (third,) = await staff.hire(1, PACE)
        await shared_out(world, 3)
        first, second, _ = staff.workers
        await more()
        await first.stop()
        await more()
        await second.kill()
        assert await alive(world, accounts), "it died in the midst of work"
        await more()
        await all_ended(world, accounts)
        await staff.dismiss()
    assert first.farewell is not None
    assert second.farewell is None, "it was killed, and said nothing"
    assert third.farewell is not None
    assert any(batch.worker == 3 for batch in staff.batches), "the one that joined did its share"
    await once_each(world, accounts)
    await world.verify()
