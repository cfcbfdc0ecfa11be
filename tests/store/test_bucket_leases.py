"""Leases in a real database: workers share the buckets, and what one leaves another takes up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from jiebang.model.case import BUCKETS
from jiebang.store.operations import leases

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

AT = datetime(2026, 4, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
EVERYTHING = frozenset(range(BUCKETS))


@pytest.fixture
async def pool(pools: Mapping[str, Pool]) -> Pool:
    """The platform's database, with nobody holding anything."""
    await pools["platform"].execute("TRUNCATE platform.bucket_lease, platform.worker")
    return pools["platform"]


async def hold(pool: Pool, worker: str, after: float = 0) -> frozenset[int]:
    return (await leases.hold(pool, worker, AT + timedelta(seconds=after), LEASE)).buckets


async def test_two_workers_share_and_never_hold_the_same(pool: Pool) -> None:
    """Both would drive the same people; or the second would stand idle."""
    assert await hold(pool, "a") == EVERYTHING
    assert await hold(pool, "b", 1) == frozenset(), "the first one's lease runs"
    first = await hold(pool, "a", 2)
    second = await hold(pool, "b", 3)
    assert len(first) == len(second) == BUCKETS // 2
    assert first | second == EVERYTHING
    assert await hold(pool, "a", 4) == first, "shares stay where they are"
    assert await hold(pool, "b", 5) == second


async def test_the_buckets_of_a_dead_worker_go_over_when_its_lease_has_run_out(pool: Pool) -> None:
    """Not before, or two would hold them; and not never, or its people would wait for ever."""
    await hold(pool, "dead")
    await hold(pool, "alive", 1)
    await hold(pool, "dead", 2)
    half = await hold(pool, "alive", 3)
    assert len(half) == BUCKETS // 2
    assert await hold(pool, "alive", 11.9) == half
    assert await hold(pool, "alive", 12.1) == EVERYTHING


async def test_a_worker_that_ends_hands_over_at_once(pool: Pool) -> None:
    """A restart would otherwise let half the people wait a whole lease."""
    await hold(pool, "a")
    await hold(pool, "b", 1)
    await hold(pool, "a", 2)
    await hold(pool, "b", 3)
    await leases.release(pool, "a")
    assert await hold(pool, "b", 4) == EVERYTHING


async def test_releasing_takes_nothing_from_others(pool: Pool) -> None:
    """A worker that ends late must not throw out the one that took its buckets over."""
    await hold(pool, "a")
    await hold(pool, "b", 11)
    await leases.release(pool, "a")
    assert await hold(pool, "c", 12) == frozenset(), "all of them are leased to b"


async def test_many_workers_renewing_at_once_never_overlap(pool: Pool) -> None:
    """Renewals of all workers meet in the table; each must decide on what the last one wrote."""
    workers = [f"w{number}" for number in range(6)]
    for round_ in range(3):
        held = await asyncio.gather(*(hold(pool, worker, round_) for worker in workers))
    assert sum(map(len, held)) == BUCKETS
    assert frozenset().union(*held) == EVERYTHING
    assert max(map(len, held)) - min(map(len, held)) <= 1


async def test_workers_long_gone_are_forgotten(pool: Pool) -> None:
    """Every restart leaves a name behind; without sweeping the table would only grow."""
    await hold(pool, "old")
    await hold(pool, "new", 3 * 3600)
    assert [row["worker_id"] for row in await pool.fetch("SELECT worker_id FROM platform.worker")] == ["new"]
