"""The same saga on DBOS, a workflow per case and, the fair rival, a workflow per batch.

A workflow takes accounts (one, or a batch) through four steps: facts read and Try at five; Try at the wallet; Confirm
at the six; the end saved with timeline and message. Each op is the set-based fence statement of ours; a step runs its
statements at the same time and returns only what was not granted: nothing. What DBOS keeps of a workflow and its steps
is the record of the Trys. The commit point is saved in the case, too, because a wish to withdraw must lose against it
or win; `guarded=False` leaves even that to DBOS. Nothing is saved twice. Its system database is on the same server. The
workflow is called, not queued, and every statement has a connection at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg
import msgspec
import uvloop
from dbos import DBOS

from bench.world import Meter, Outcome, World, now
from jiebang.participants import PARTICULARS
from jiebang.participants.database import statements
from jiebang.saga.fence import Op
from jiebang.store.embedded import database_dsn
from jiebang.store.pool import BY_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jiebang.store.pool import Pool

CASES_AT_ONCE: Final = 64
BATCHES_AT_ONCE: Final = 4
_SYSTEM: Final = "dbos"
_CASE_NO: Final = 1

_COMMITTED: Final = """
UPDATE platform.cases c SET state = 'confirming', marks = repeat('c', length(marks)), revision = revision + 1,
    versions = array_fill(1::bigint, ARRAY[length(marks)])
FROM unnest($1::bigint[]) AS i (account_id)
WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = 1 AND c.state = 'ready'
    AND c.withdraw_at IS NULL
RETURNING c.account_id
"""
"""The guarded save of the commit point."""
_ENDED: Final = """
WITH saved AS (
    UPDATE platform.cases c SET state = 'done', marks = repeat('d', length(marks)), revision = revision + 1,
        versions = array_fill(1::bigint, ARRAY[length(marks)]), due_at = NULL, ended_at = $3
    FROM unnest($1::bigint[], $2::uuid[]) AS i (account_id, message_id)
    WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = 1
        AND c.state IN ('ready', 'confirming')
    RETURNING c.account_id, c.case_no, c.revision, c.bucket, i.message_id
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries)
    SELECT account_id, case_no, revision, $3, $4::text::jsonb FROM saved
), told AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
    SELECT account_id, message_id, bucket, case_no, 'case_done', '{}', $3, $3 FROM saved
)
SELECT account_id FROM saved
"""


class _Work:
    """What the steps work on: steps are functions, and DBOS passes them nothing but what it can write down."""

    def __init__(self, world: World, pools: Mapping[str, Pool], *, guarded: bool) -> None:
        self.pools, self.guarded = pools, guarded
        self.names = world.plan.participants
        self.sql = {name: statements(name, PARTICULARS[name]) for name in self.names}
        self.effects = {name: msgspec.json.encode(world.plan.effects.get(name, {})).decode() for name in self.names}

    async def all_written(self, name: str, op: Op, accounts: Sequence[int], *more: object) -> list[int]:
        """Carry out one op for a batch; return those whose row was not written."""
        rows = await self.pools[name].fetch(self.sql[name][op], accounts, [_CASE_NO] * len(accounts), *more)
        return [] if len(rows) == len(accounts) else sorted(set(accounts) - {row[0] for row in rows})


_work: dict[str, _Work] = {}


@DBOS.step()
async def _try_first(accounts: list[int]) -> list[int]:
    work = _work["now"]
    *first, _ = work.names

    async def facts_and_try(name: str) -> list[int]:
        rows = await work.pools[name].fetch(PARTICULARS[name].facts, accounts)
        versions = {row["account_id"]: row["facts_version"] for row in rows}
        return await work.all_written(name, Op.TRY, accounts, [versions[account] for account in accounts])

    wallet = asyncio.ensure_future(work.pools[work.names[-1]].fetch(PARTICULARS[work.names[-1]].facts, accounts))
    missed = await asyncio.gather(*map(facts_and_try, first))
    await wallet
    return [account for each in missed for account in each]


@DBOS.step()
async def _try_wallet(accounts: list[int]) -> list[int]:
    work = _work["now"]
    missed = await work.all_written(work.names[-1], Op.TRY, accounts, [1] * len(accounts))
    if work.guarded and not missed:
        rows = await work.pools["platform"].fetch(_COMMITTED, accounts)
        missed = sorted(set(accounts) - {row[0] for row in rows})
    return missed


@DBOS.step()
async def _confirm(accounts: list[int]) -> list[int]:
    work, at = _work["now"], now()
    missed = await asyncio.gather(
        *(work.all_written(name, Op.CONFIRM, accounts, work.effects[name], at) for name in work.names)
    )
    return [account for each in missed for account in each]


@DBOS.step()
async def _end(accounts: list[int]) -> list[int]:
    work, at = _work["now"], now()
    told = [
        {"at": at, "what": "answer", "participant": name, "op": op, "answer": answer}
        for op, answer in (("try", "granted"), ("confirm", "done"))
        for name in work.names
    ]
    entries = msgspec.json.encode([*told, {"at": at, "what": "state", "state": "done"}]).decode()
    rows = await work.pools["platform"].fetch(_ENDED, accounts, [uuid4() for _ in accounts], at, entries)
    return [] if len(rows) == len(accounts) else sorted(set(accounts) - {row[0] for row in rows})


@DBOS.workflow()
async def _saga(accounts: list[int]) -> None:
    """Drive cases to their end. On the way that is timed nothing is refused."""
    for step in (_try_first, _try_wallet, _confirm, _end):
        if missed := await step(accounts):
            message = f"{len(missed)} cases were not granted"
            raise RuntimeError(message)


@asynccontextmanager
async def _launched(dsns: Mapping[str, str], names: Sequence[str], size: int) -> AsyncIterator[Mapping[str, Pool]]:
    """Run DBOS beside the databases, and a pool each of those `names` with room for all that runs at once."""
    pools: dict[str, Pool] = {}
    DBOS(
        config={
            "name": "bench",
            "system_database_url": database_dsn(dsns["platform"], _SYSTEM),
            "sys_db_pool_size": 20,
            "log_level": "ERROR",
            "application_version": "1",
            "executor_id": "1",
        }
    )
    try:
        DBOS.launch()
        for name in names:
            pools[name] = await asyncpg.create_pool(
                dsns[name], min_size=size, max_size=size, server_settings={"timezone": "UTC", **BY_KEY}
            )
        yield pools
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()))
        DBOS.destroy()


class _Turn:
    """One turn of DBOS, on a thread and a loop of its own: it takes over whatever loop it is launched in."""

    def __init__(self, world: World, batches: Sequence[list[int]], at_once: int, *, guarded: bool) -> None:
        self._world, self._batches, self._at_once, self._guarded = world, batches, at_once, guarded
        self._connections = 8 if at_once > BATCHES_AT_ONCE else at_once
        self.launched: Future[None] = Future()
        self.go: Future[None] = Future()
        self.driven: Future[list[float]] = Future()

    def run(self) -> None:
        """Launch, wait for `go`, drive all batches, and let go of everything."""
        try:
            uvloop.run(self._run())
        except BaseException as error:
            for future in (self.launched, self.driven):
                if not future.done():
                    future.set_exception(error)
            raise

    async def _run(self) -> None:
        names = ("platform", *self._world.plan.participants)
        async with _launched(self._world.dsns, names, self._connections) as pools:
            _work["now"] = _Work(self._world, pools, guarded=self._guarded)
            self.launched.set_result(None)
            await asyncio.wrap_future(self.go)
            latencies, waiting = list[float](), iter(self._batches)
            await asyncio.gather(*(self._lane(waiting, latencies) for _ in range(self._at_once)))
            self.driven.set_result(latencies)

    async def _lane(self, waiting: Iterator[list[int]], latencies: list[float]) -> None:
        for accounts in waiting:
            started = perf_counter()
            await _saga(accounts)
            latencies.extend([(perf_counter() - started) * 1000] * len(accounts))


async def dbos(world: World, cases: int, *, batch: int, guarded: bool = True) -> Outcome:
    """Drive `cases` in workflows of `batch` cases each."""
    accounts = world.unused(cases, rival=True)
    batches = [list(accounts[start : start + batch]) for start in range(0, cases, batch)]
    turn = _Turn(world, batches, CASES_AT_ONCE if batch == 1 else BATCHES_AT_ONCE, guarded=guarded)
    thread = asyncio.create_task(asyncio.to_thread(turn.run))
    await asyncio.wrap_future(turn.launched)
    meter = Meter(world)
    await world.record(accounts)
    turn.go.set_result(None)
    latencies = await asyncio.wrap_future(turn.driven)
    outcome = meter.read(cases, latencies)
    await thread
    await world.require_done(accounts)
    return outcome
