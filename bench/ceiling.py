"""What the server alone could do: the very statements of ours, prepared beforehand, their answers thrown away.

One batch is driven by the product over connections that take down every statement, its arguments, and what ran beside
it. Then the same statements run for other accounts: the batch's accounts are replaced by theirs, times by the present;
nothing decides, nothing is read, and as many batches are in flight as a worker has lanes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Final

import asyncpg
import msgspec

from bench.cost import Meter, Outcome
from bench.world import World, joined, now
from jiebang.model.case import BUCKETS
from jiebang.saga.coordinator import Timing
from jiebang.store.cases import cases as store
from jiebang.store.postgres.pool import BY_KEY
from jiebang.usecases.driving.advance import Limits
from jiebang.worker import Pace

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

_SETTINGS: Final = {"timezone": "UTC", **BY_KEY}
_PATIENT: Final = timedelta(seconds=60)


class Statement(msgspec.Struct, frozen=True):
    """One statement as it was sent, and in which seconds it ran."""

    database: str
    sql: str
    arguments: tuple[Any, ...]
    began: float
    ended: float


_Batch = tuple[list[int], list[list[Statement]]]
"""The accounts of a batch, and its statements in groups that run side by side."""


class _RecordingConnection(_Connection):
    """A connection that records the statements sent over it."""

    taken: ClassVar[list[Statement]] = []
    database: ClassVar[str]

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        began = perf_counter()
        rows = await super().fetch(query, *args, **options)
        self._record(query, args, began)
        return rows

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        began = perf_counter()
        row = await super().fetchrow(query, *args, **options)
        self._record(query, args, began)
        return row

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        began = perf_counter()
        value = await super().fetchval(query, *args, **options)
        self._record(query, args, began)
        return value

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        began = perf_counter()
        status = await super().execute(query, *args, **options)
        if query != self.get_reset_query():  # the pool's reset of a returned connection is not the saga's work
            self._record(query, args, began)
        return status

    def _record(self, query: str, args: tuple[Any, ...], began: float) -> None:
        self.taken.append(Statement(self.database, query, args, began, perf_counter()))


@asynccontextmanager
async def _open_recording(world: World) -> AsyncIterator[World]:
    """Open a second world over the same databases, whose connections record every statement."""
    pools: dict[str, Pool] = {}
    try:
        for name, dsn in world.dsns.items():
            kind = type("Noting", (_RecordingConnection,), {"database": name})
            pools[name] = await asyncpg.create_pool(
                dsn, min_size=0, max_size=4, server_settings=_SETTINGS, connection_class=kind
            )
        yield joined(world.dsns, pools)
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()))


async def script(world: World, batch: int) -> tuple[list[list[Statement]], list[int]]:
    """Drive one batch of `batch` cases; return its statements in groups that ran side by side, and its accounts."""
    accounts = list(await world.ready(batch))
    async with _open_recording(world) as recording:
        patient = Timing(try_limit=_PATIENT, resend=_PATIENT), Limits(round=_PATIENT, call=_PATIENT)
        driver = recording.driver(timing=patient[0], limits=patient[1])
        _RecordingConnection.taken.clear()
        due = await store.load_due(recording.pools["platform"], range(BUCKETS), now(), batch)
        await driver.drive(due)
        await driver.aclose()
        taken = sorted(_RecordingConnection.taken, key=lambda one: one.began)
    await world.require_done(accounts)
    groups: list[list[Statement]] = []
    for one in taken:
        if groups and one.began < min(other.ended for other in groups[-1]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups, accounts


class _Lane:
    """One batch after another over connections of its own."""

    def __init__(self, connections: Mapping[tuple[str, int], _Connection]) -> None:
        self._connections = connections

    async def run(self, groups: Sequence[Sequence[Statement]]) -> None:
        """Run a batch's statements, group after group."""
        for group in groups:
            if len(group) == 1:
                await self._send(group[0], 0)
                continue
            places = [sum(other.database == one.database for other in group[:at]) for at, one in enumerate(group)]
            await asyncio.gather(*(self._send(one, place) for one, place in zip(group, places, strict=True)))

    async def _send(self, one: Statement, place: int) -> None:
        # executemany is asyncpg's way to discard an answer: it is not even decoded.
        await self._connections[one.database, place].executemany(one.sql, [one.arguments])


def _for_others(
    groups: Sequence[Sequence[Statement]], before: list[int], after: list[int], at: datetime
) -> list[list[Statement]]:
    """Return a batch's statements for other accounts, now."""
    known = set(before)

    def other(value: Any) -> Any:
        if isinstance(value, list) and value and len(value) == len(before) and set(value) == known:
            return after
        if isinstance(value, datetime):
            return at
        return value

    return [
        [msgspec.structs.replace(one, arguments=tuple(map(other, one.arguments))) for one in group] for group in groups
    ]


async def ceiling(world: World, cases: int, batch: int) -> Outcome:
    """Send the statements of `cases` in batches of `batch`."""
    groups, before = await script(world, batch)
    lanes = Pace().lanes
    crowd = max(sum(other.database == one.database for other in group) for group in groups for one in group)
    connections: list[dict[tuple[str, int], _Connection]] = [
        {
            (name, place): await asyncpg.connect(dsn, server_settings=_SETTINGS)
            for name, dsn in world.dsns.items()
            if any(one.database == name for group in groups for one in group)
            for place in range(crowd)
        }
        for _ in range(lanes)
    ]
    try:
        warm = world.unused(batch * lanes, rival=True)
        await _run_all(world, connections, _prepare_all(groups, before, list(warm), batch))
        await world.settle()
        accounts = world.unused(max(cases - cases % batch, batch), rival=True)
        ready = _prepare_all(groups, before, list(accounts), batch)
        meter = Meter(world)
        latencies = await _run_all(world, connections, ready)
        outcome = meter.read(len(accounts), latencies)
    finally:
        await asyncio.gather(*(one.close() for lane in connections for one in lane.values()))
    await world.require_done(accounts)
    return outcome


def _prepare_all(
    groups: Sequence[Sequence[Statement]], before: list[int], accounts: list[int], batch: int
) -> list[_Batch]:
    at = now()
    parts = [accounts[start : start + batch] for start in range(0, len(accounts), batch)]
    return [(part, _for_others(groups, before, part, at)) for part in parts]


async def _run_all(
    world: World, connections: Sequence[Mapping[tuple[str, int], _Connection]], batches: Sequence[_Batch]
) -> list[float]:
    """Record and run all batches, as many in flight as there are lanes; return milliseconds by case."""
    waiting, latencies = iter(batches), list[float]()

    async def lane(own: Mapping[tuple[str, int], _Connection]) -> None:
        for accounts, groups in waiting:
            await world.record(accounts, db=own["platform", 0])
            started = perf_counter()
            await _Lane(own).run(groups)
            latencies.extend([(perf_counter() - started) * 1000] * len(accounts))

    await asyncio.gather(*map(lane, connections))
    return latencies
