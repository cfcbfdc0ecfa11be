"""One, two and four workers on the same store: rate, cases handled twice or forgotten, claims that wait for each other.

Every worker is a process of its own. Each round gives every crew a backlog of its own, once its workers have shared the
buckets out. A case was handled once if its timeline is whole and without gaps, every op was written once at every
participant (the databases' own count of updated rows says so), and no guard refused a save. While they work, who waits
for a lock on the server is looked up a hundred times a second: a claim that waits for a row is one that another holds.
On a machine with two cores, more workers than one do more only as far as PostgreSQL leaves a core to them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
import uvloop

from bench.measure import Bar, Result, ratio, row
from bench.processes import Crew, crew
from bench.world import PEOPLE, World, opened
from jiebang.model.case import BUCKETS
from jiebang.participants import PARTICIPANTS

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_CASES: Final = 8_192
SMOKE: Final = {"size": 64}
_CREWS: Final = (1, 2, 4)
_SAMPLE: Final = 0.01
_PATIENCE: Final = 120.0
_ROW: Final = frozenset({"transactionid", "tuple"})
"""Waits for somebody who changes the same row."""

_WAITING: Final = """
SELECT a.wait_event, a.query FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND a.pid <> pg_backend_pid()
"""
_WHOLE: Final = """
SELECT count(*) FROM (
    SELECT e.account_id FROM platform.case_event e
    JOIN platform.cases c ON c.account_id = e.account_id AND c.case_no = e.case_no
    WHERE e.account_id = ANY ($1::bigint[])
    GROUP BY e.account_id, e.case_no, c.revision
    HAVING count(*) = c.revision AND min(e.revision) = 1 AND max(e.revision) = c.revision
) whole
"""
_WRITTEN: Final = "SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname = 'account'"
_STEADY: Final = """
SELECT count(*) AS workers, coalesce(sum(buckets), 0) AS buckets, coalesce(max(buckets) - min(buckets), 0) AS uneven
FROM (SELECT count(*) AS buckets FROM platform.bucket_lease WHERE until > now() GROUP BY worker_id) shares
"""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How a crew drove a backlog.

    `twice`: cases with a gap in their timeline, ops written more often than once, and saves that a guard refused.
    `driven_again`: cases that were in two batches.
    `forgotten`: cases that nobody had driven in time. `waits`: samples in which a claim waited for a row of another.
    `other_waits`: samples in which anybody waited for any other lock, by kind.
    """

    rate: float
    twice: int
    driven_again: float
    forgotten: int
    waits: int
    other_waits: Mapping[str, float]


@asynccontextmanager
async def _watch_locks(dsn: str) -> AsyncIterator[Counter[tuple[str, bool]]]:
    """Sample who waits for a lock: (what it waits for, whether it is at the cases), how often."""
    found = Counter[tuple[str, bool]]()
    connection: Connection = await asyncpg.connect(dsn)

    async def watch() -> None:
        while True:
            for waiting in await connection.fetch(_WAITING):
                found[waiting["wait_event"], "platform.cases" in waiting["query"]] += 1
            await asyncio.sleep(_SAMPLE)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await connection.close()


async def _wait_for_equal_shares(world: World, workers: int) -> None:
    """Wait until so many workers hold all buckets in equal shares."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            found = await world.pools["platform"].fetchrow(_STEADY)
            if found and (found["workers"], found["buckets"]) == (workers, BUCKETS) and found["uneven"] <= 1:
                return
            await asyncio.sleep(_SAMPLE)


async def _count_updates(world: World) -> int:
    """Return how many rows of participants were ever updated."""
    names = [name for name in world.participants if name in PARTICIPANTS.databases]
    return sum(await asyncio.gather(*(world.pools[name].fetchval(_WRITTEN) for name in names)))


async def _turn(world: World, workers: int, cases: int) -> Turn:
    written = await _count_updates(world)
    async with crew(world, workers) as staff:
        await _wait_for_equal_shares(world, workers)
        accounts = await staff.enough(cases)
        async with _watch_locks(world.dsns["platform"]) as waits:
            seconds, forgotten = await _drain(staff, accounts)
        said = await staff.dismiss()  # what it wrote is counted once its connections have gone
        if len(said) != workers:
            message = f"of {workers} workers {len(said)} ended as they should"
            raise RuntimeError(message)
    whole = await world.pools["platform"].fetchval(_WHOLE, list(accounts))
    # A Try and a Confirm each.
    more = await _count_updates(world) - written - 2 * cases * len(world.participants)
    driven = Counter(key for batch in staff.batches for key in batch.keys)
    return Turn(
        rate=cases / seconds,
        twice=(cases - whole) + max(more, 0) + sum(one.lost_saves for one in said),
        driven_again=float(sum(times - 1 for times in driven.values())),
        forgotten=forgotten,
        waits=sum(times for (what, at_cases), times in waits.items() if at_cases and what in _ROW),
        other_waits=_waits_elsewhere(waits),
    )


async def _drain(staff: Crew, accounts: Sequence[int]) -> tuple[float, int]:
    """Have the crew drive a backlog; return seconds, and how many cases were not driven in time."""
    try:
        return await staff.backlog(accounts), 0
    except TimeoutError:
        return _PATIENCE, len(set(accounts) - staff.driven_at.keys())


def _waits_elsewhere(waits: Counter[tuple[str, bool]]) -> dict[str, float]:
    others = Counter[str]()
    for (what, at_cases), times in waits.items():
        if not (at_cases and what in _ROW):
            others[what] += times
    return {what: float(times) for what, times in others.items()}


async def _measure(rounds: int, cases: int) -> dict[int, list[Turn]]:
    found: dict[int, list[Turn]] = {workers: [] for workers in _CREWS}
    async with opened(max(PEOPLE * cases // _CASES, 4 * cases)) as world:
        for number in range(-1, rounds):
            for place in range(len(_CREWS)):
                workers = _CREWS[(place + number) % len(_CREWS)]
                await world.settle()
                turn = await _turn(world, workers, cases)
                if number >= 0:
                    found[workers].append(turn)
        await world.verify()
    return found


def run(rounds: int, size: int | None) -> Result:
    """Measure; `size`: cases of a backlog."""
    found = uvloop.run(_measure(rounds, size or _CASES))
    rows = []
    for workers, turns in found.items():
        name = f"{workers} worker{'s' * (workers > 1)}"
        others = sum((Counter(turn.other_waits) for turn in turns), Counter[str]())
        told = ", ".join(f"{what} {times}" for what, times in sorted(others.items())) or "none"
        rows += [
            row(f"{name}: rate", "cases/s", [turn.rate for turn in turns], "of a backlog, recording included"),
            row(f"{name}: driven again", "cases", [float(turn.driven_again) for turn in turns], "told in two batches"),
            row(
                f"{name}: other lock waits", "samples", [float(sum(turn.other_waits.values())) for turn in turns], told
            ),
        ]
    every = [turn for turns in found.values() for turn in turns]
    rates = {workers: [turn.rate for turn in turns] for workers, turns in found.items()}
    rows += [row(f"{many} / 1", "times", [ratio(rates[many], rates[1])]) for many in _CREWS[1:]]
    return Result(
        rows,
        [
            Bar("cases handled twice", sum(turn.twice for turn in every), at_most=0),
            Bar("cases forgotten", sum(turn.forgotten for turn in every), at_most=0),
            Bar("claims that waited, samples", sum(turn.waits for turn in every), at_most=0),
        ],
    )
