"""Cases driven to their end: our worker against the same saga with a transaction per case and op.

Both drive the very same machinery over the nine databases of two durable servers: driver, coordinator, fence, guarded
saves, timeline, message at the end. Ours takes up to 256 due cases at a time, two batches in flight; the rival takes 64
cases at a time, each alone, so that every save and every op is a transaction of its own. Both read the facts versions
before the first Try; the policy rules are left out of both, being the business of `bench check`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from bench.measure import Bar, Result, ratio, row
from jiebang.model.case import BUCKETS, Case, bucket_of
from jiebang.model.plan import DATABASES, Plan
from jiebang.participants import open_participants
from jiebang.saga.coordinator import Rechecked, Timing
from jiebang.store import cases as store
from jiebang.store.embedded import dsns, embedded, stopped
from jiebang.store.home import remove
from jiebang.store.migrate import migrate_all
from jiebang.store.pool import open_pools
from jiebang.store.records import Records
from jiebang.usecases.advance import Driver, Limits
from jiebang.worker import Pace, Worker

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.store.pool import Pool

_ORDER: Final = (*(name for name in DATABASES if name != "wallet"), "wallet")
_PLAN: Final = Plan(name="bench/1", participants=_ORDER, waves=(*(0 for _ in _ORDER[1:]), 1))
_TIMING: Final = Timing(try_limit=timedelta(seconds=30), resend=timedelta(seconds=5))
_LIMITS: Final = Limits(round=timedelta(seconds=10), call=timedelta(seconds=10))
_CASES: Final = 8_192
_SHARE: Final = 32
"""The rival gets one case of so many: it would run for minutes."""
_RIVAL_AT_ONCE: Final = 64


def _now() -> datetime:
    return datetime.now(UTC)


_IDENTITY: Final = (
    ", state, level, document_type, sealed, document_index, birth_date, region, changed_at",
    """, 'active', 2, 'resident_id', decode(repeat('00', 64), 'hex'), decode(repeat('01', 32), 'hex'),
       date '1990-01-01', '440300', now()""",
)
"""Columns of an active identity, and what stands in them."""


class _Bench:
    """Accounts in nine databases, and drivers over them."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.pools = pools
        self.participants: Mapping[str, Participant] = open_participants(pools, _now, pepper=bytes(32))
        self._next = 1

    async def fill(self, people: int) -> None:
        """Make accounts whose identity is bound, and nothing else in the way."""
        await asyncio.gather(*(self._fill(name, people) for name in DATABASES))
        await self.pools["platform"].execute(
            """INSERT INTO platform.account (account_id, created_at)
               SELECT id, now() FROM generate_series(1, $1::bigint) id""",
            people,
        )

    async def _fill(self, name: str, people: int) -> None:
        owner = name.split("_", maxsplit=1)[0]
        columns, values = _IDENTITY if owner == "identity" else ("", "")
        await self.pools[name].execute(
            f"""INSERT INTO {owner}.account (account_id{columns})
                SELECT id{values} FROM generate_series(1, $1::bigint) id""",  # noqa: S608 - names of ours
            people,
            timeout=300,
        )

    async def ready(self, count: int) -> None:
        """Put `count` proven cases of accounts not used before into the store, due now."""
        ids = list(range(self._next, self._next + count))
        self._next += count
        await self.pools["platform"].execute(
            """WITH numbered AS (
                   UPDATE platform.account a SET last_case_no = 1 FROM unnest($1::bigint[]) AS i WHERE a.account_id = i)
               INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, wallet_version,
                   created_at, due_at)
               SELECT i, 1, b, 'revoke', 'ready', 'bench/1', $3, 1, now(), now()
               FROM unnest($1::bigint[], $2::smallint[]) AS n (i, b)""",
            ids,
            [bucket_of(each) for each in ids],
            "." * len(_ORDER),
        )

    def driver(self) -> Driver:
        return Driver(
            pool=self.pools["platform"],
            participants=self.participants,
            plan_of=lambda _case: _PLAN,
            records=Records(bytes(32), lambda: os.urandom(16)),
            recheck=self._recheck,
            clock=_now,
            new_id=uuid4,
            timing=_TIMING,
            limits=_LIMITS,
        )

    async def _recheck(self, cases: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
        accounts = [case.account_id for case in cases]
        batches = dict(
            zip(
                self.participants,
                await asyncio.gather(*(each.facts(accounts) for each in self.participants.values())),
                strict=True,
            )
        )
        versions = {
            name: dict(zip(batch.accounts, batch.versions, strict=True)) for name, batch in batches.items() if batch
        }
        return {case.key: Rechecked({name: of[case.account_id] for name, of in versions.items()}) for case in cases}

    async def ours(self, count: int) -> tuple[float, list[float]]:
        """Have one worker drive `count` cases; return cases a second, and milliseconds from taken to ended."""
        await self.ready(count)
        worker = Worker(
            worker_id=str(uuid4()),
            pool=self.pools["platform"],
            driver=self.driver(),
            chores={},
            clock=_now,
            pace=Pace(),
        )
        started = perf_counter()
        running = asyncio.create_task(worker.run())
        while await self._unfinished():
            if running.done():
                await running
            await asyncio.sleep(0.01)
        took = perf_counter() - started
        worker.stop()
        await running
        return count / took, await self._latencies(count)

    async def rival(self, count: int) -> tuple[float, list[float]]:
        """Drive `count` cases, 64 at a time, each alone."""
        await self.ready(count)
        driver, gate = self.driver(), asyncio.Semaphore(_RIVAL_AT_ONCE)
        due = await store.due(self.pools["platform"], range(BUCKETS), _now(), count)

        async def alone(case: Case) -> None:
            async with gate:
                await driver.drive([case])

        started = perf_counter()
        await asyncio.gather(*(alone(case) for case in due))
        took = perf_counter() - started
        if await self._unfinished():
            message = "the rival left cases unfinished"
            raise RuntimeError(message)
        await driver.aclose()
        return count / took, await self._latencies(count)

    async def _unfinished(self) -> bool:
        return bool(
            await self.pools["platform"].fetchval("SELECT count(*) FROM platform.cases WHERE due_at IS NOT NULL")
        )

    async def _latencies(self, count: int) -> list[float]:
        rows = await self.pools["platform"].fetch(
            """SELECT extract(epoch FROM max(at) - min(at)) * 1000 AS ms FROM platform.case_event
               WHERE account_id BETWEEN $1 AND $2 GROUP BY account_id""",
            self._next - count,
            self._next - 1,
        )
        return [float(row["ms"]) for row in rows]


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    folder.chmod(0o711)  # the database's own user must get in
    return folder


@asynccontextmanager
async def _opened(people: int) -> AsyncIterator[_Bench]:
    """Open two durable servers of our own, with `people` in them."""
    folder = _folder()
    home = folder / "home"
    try:
        async with embedded(home) as servers:
            databases = await dsns(servers)
            await migrate_all(databases)
            async with open_pools(databases, size=16) as pools:
                bench = _Bench(pools)
                await bench.fill(people)
                yield bench
    finally:
        await stopped(home)
        remove(home)
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(rounds: int, size: int) -> dict[str, tuple[list[float], list[float]]]:
    """Run `rounds` interleaved rounds after one that does not count; return rates and latencies by way."""
    found: dict[str, tuple[list[float], list[float]]] = {"ours": ([], []), "rival": ([], [])}
    async with _opened(people=(rounds + 1) * (size + size // _SHARE)) as bench:
        for number in range(-1, rounds):
            ways = [("ours", bench.ours, size), ("rival", bench.rival, size // _SHARE)]
            for name, way, cases in ways if number % 2 else reversed(ways):
                rate, taken = await way(cases)
                if number >= 0:
                    found[name][0].append(rate)
                    found[name][1].extend(taken)
    return found


def run(rounds: int, size: int | None) -> Result:
    """Compare both ways on `size` cases a round (the rival on a part of them, and the rate is what counts)."""
    found = asyncio.run(_measure(rounds, size or _CASES))
    notes = {
        "ours": "set-based worker, 256 cases a batch, two batches in flight",
        "rival": "a transaction per case and op, 64 cases at a time",
    }
    rows = [row(f"{name}: rate", "cases/s", rates, notes[name]) for name, (rates, _) in found.items()]
    rows += [
        row(f"{name}: p{percent}", "ms", [statistics.quantiles(latencies, n=100)[percent - 1]], "from taken to ended")
        for name, (_, latencies) in found.items()
        for percent in (50, 99)
    ]
    gain = ratio(found["ours"][0], found["rival"][0])
    return Result(rows, [Bar("ours / rival", gain, at_least=40)])
