"""The same saga on DBOS, a workflow per case and, the fair rival, a workflow per batch.

A workflow takes accounts (one, or a batch) through its steps: facts read at the six, before anybody is tried, because
the re-check decides on all of them; Try at five and then at the wallet, at the versions read; the commit point; Confirm
at the six; the end saved with timeline and message. Each op is the set-based fence statement of ours; a step returns
only what was not granted: nothing. What DBOS keeps of a workflow and its steps is the record of the Trys and of the
versions they were sent at. The commit point is saved in the case, too, because a wish to withdraw must lose against it
or win, with a row of the timeline in its chain and in its form; `guarded=False` leaves even that to DBOS. Nothing is
saved twice. Its system database is on the same server. The workflow is called, not queued; every statement has a
connection at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import uvloop
from dbos import DBOS

from bench.cost import Meter, Outcome
from bench.world import World, now
from jiebang.participants import PARTICULARS
from jiebang.participants.database import statements
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.saga.fence import Answer, Op
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
WITH saved AS (
    UPDATE platform.cases c SET state = 'confirming', marks = repeat('c', length(marks)), revision = 2,
        versions = i.versions::bigint[], head = sha256(c.head || $4::bytea)
    FROM unnest($1::bigint[], $5::text[]) AS i (account_id, versions)
    WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = 1 AND c.revision = 1
        AND c.withdraw_at IS NULL
    RETURNING c.account_id, c.case_no, c.revision, c.head
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, revision, $2, $3::text::jsonb, head FROM saved
)
SELECT count(*), CASE WHEN count(*) < cardinality($1) THEN array_agg(account_id) END FROM saved
"""
"""The guarded save of the commit point."""
_ENDED: Final = """
WITH saved AS (
    UPDATE platform.cases c SET state = 'done', marks = repeat('d', length(marks)), revision = revision + 1,
        versions = coalesce(i.versions::bigint[], c.versions), due_at = NULL, ended_at = $2,
        head = sha256(c.head || $4::bytea)
    FROM unnest($1::bigint[], $5::text[]) AS i (account_id, versions)
    WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = 1 AND c.revision = $6::integer
    RETURNING c.account_id, c.case_no, c.revision, c.bucket, c.head
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, revision, $2, $3::text::jsonb, head FROM saved
), told AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
    SELECT account_id, encode(substring(head FOR 16), 'hex')::uuid, bucket, case_no, 'case_done', '{}', $2, $2 FROM saved
)
SELECT count(*), CASE WHEN count(*) < cardinality($1) THEN array_agg(account_id) END FROM saved
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
        [(yes, written, *_)] = rows
        return [] if yes == len(accounts) else sorted(set(accounts).difference(written or ()))

    async def all_saved(
        self, sql: str, revision: int, told: list[dict[str, Any]], accounts: Sequence[int], *more: object
    ) -> list[int]:
        """Save a batch, with a timeline row that is the same for all of it; return those that were not saved."""
        at, entries = told[-1]["at"], canonical(told)
        chained = digest(revision, time_text(at), entries)
        [(saved, which)] = await self.pools["platform"].fetch(sql, accounts, at, entries, chained, *more)
        return [] if saved == len(accounts) else sorted(set(accounts).difference(which or ()))

    def sent(self, op: Op) -> dict[str, Any]:
        """Return the timeline's entry of an op sent to everybody."""
        return {"at": now(), "what": "send", "op": op.value, "attempt": 0, "participants": self.names}

    def answered(self, op: Op, answer: Answer) -> dict[str, Any]:
        """Return the timeline's entry of everybody's answer."""
        came = [[name, 0] for name in self.names]
        return {"at": now(), "what": "answer", "op": op.value, "answer": answer.value, "came": came}

    async def facts(self, name: str, accounts: list[int]) -> list[int]:
        """Read facts at one participant; return their versions, in order of account."""
        rows = await self.pools[name].fetch(PARTICULARS[name].facts, accounts)
        versions = {row["account_id"]: row["facts_version"] for row in rows}
        return [versions[account] for account in accounts]

    async def tried(self, name: str, accounts: list[int], versions: list[int]) -> list[int]:
        """Carry out Try at one participant."""
        return await self.all_written(name, Op.TRY, accounts, versions)

    async def confirmed(self, name: str, accounts: list[int]) -> list[int]:
        """Carry out Confirm at one participant."""
        return await self.all_written(name, Op.CONFIRM, accounts, self.effects[name], now())

    async def committed(self, accounts: list[int], versions: list[list[int]]) -> list[int]:
        """Save the commit point."""
        told = [*_tried(self), self.sent(Op.CONFIRM), {"at": now(), "what": "state", "state": "confirming"}]
        return await self.all_saved(_COMMITTED, 2, told, accounts, _arrays(versions))

    async def ended(self, accounts: list[int], versions: list[list[int]]) -> list[int]:
        """Save the end."""
        told = [] if self.guarded else [*_tried(self), self.sent(Op.CONFIRM)]
        told += [self.answered(Op.CONFIRM, Answer.DONE), {"at": now(), "what": "state", "state": "done"}]
        revision = 2 + self.guarded
        arrays = [] if self.guarded else _arrays(versions)
        return await self.all_saved(_ENDED, revision, told, accounts, arrays, revision - 1)


def _tried(work: _Work) -> list[dict[str, Any]]:
    return [work.sent(Op.TRY), work.answered(Op.TRY, Answer.GRANTED)]


def _arrays(versions: list[list[int]]) -> list[str]:
    """Return each account's versions as PostgreSQL reads an array."""
    return [_array(own) for own in zip(*versions, strict=True)]


@lru_cache(maxsize=4_096)
def _array(own: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, own)) + "}"


_work: dict[str, _Work] = {}


@DBOS.step()
async def _facts(accounts: list[int]) -> list[list[int]]:
    """Read facts at everybody; return the versions by participant."""
    work = _work["now"]
    return list(await asyncio.gather(*(work.facts(name, accounts) for name in work.names)))


@DBOS.step()
async def _try(name: str, accounts: list[int], versions: list[int]) -> list[int]:
    return await _work["now"].tried(name, accounts, versions)


@DBOS.step()
async def _commit(accounts: list[int], versions: list[list[int]]) -> list[int]:
    return await _work["now"].committed(accounts, versions)


@DBOS.step()
async def _confirm(name: str, accounts: list[int]) -> list[int]:
    return await _work["now"].confirmed(name, accounts)


@DBOS.step()
async def _end(accounts: list[int], versions: list[list[int]]) -> list[int]:
    return await _work["now"].ended(accounts, versions)


@DBOS.workflow()
async def _saga(accounts: list[int]) -> None:
    """Drive cases to their end, each call a step. On the way that is timed nothing is refused."""
    names, versions = _work["now"].names, await _facts(accounts)
    *first, last = zip(names, versions, strict=True)
    _none(*await asyncio.gather(*(_try(name, accounts, at) for name, at in first)))
    _none(await _try(last[0], accounts, last[1]))
    if _work["now"].guarded:
        _none(await _commit(accounts, versions))
    _none(*await asyncio.gather(*(_confirm(name, accounts) for name in names)))
    _none(await _end(accounts, versions))


@DBOS.step()
async def _try_first(accounts: list[int], versions: list[list[int]]) -> list[int]:
    work = _work["now"]
    asked = zip(work.names[:-1], versions[:-1], strict=True)
    return _of_all(await asyncio.gather(*(work.tried(name, accounts, at) for name, at in asked)))


@DBOS.step()
async def _try_last(accounts: list[int], versions: list[list[int]]) -> list[int]:
    work = _work["now"]
    missed = await work.tried(work.names[-1], accounts, versions[-1])
    return missed or await work.committed(accounts, versions) if work.guarded else missed


@DBOS.step()
async def _confirm_all(accounts: list[int]) -> list[int]:
    work = _work["now"]
    return _of_all(await asyncio.gather(*(work.confirmed(name, accounts) for name in work.names)))


@DBOS.workflow()
async def _merged(accounts: list[int]) -> None:
    """Drive cases to their end, in as few steps as can be repeated as a whole."""
    versions = await _facts(accounts)
    for step in (_try_first, _try_last):
        _none(await step(accounts, versions))
    _none(await _confirm_all(accounts))
    _none(await _end(accounts, versions))


def _of_all(missed: Iterable[list[int]]) -> list[int]:
    return [account for each in missed for account in each]


def _none(*missed: list[int]) -> None:
    """Make sure that nobody was missed. Raises RuntimeError."""
    if number := len(_of_all(missed)):
        message = f"{number} cases were not granted"
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

    def __init__(
        self, world: World, batches: Sequence[list[int]], at_once: int, *, merged: bool, guarded: bool
    ) -> None:
        self._world, self._batches, self._at_once, self._guarded = world, batches, at_once, guarded
        self._saga = _merged if merged else _saga
        self._connections = 8 if at_once > BATCHES_AT_ONCE else at_once
        self.launched: Future[None] = Future()
        self.go: Future[None] = Future()
        self.driven: Future[list[float]] = Future()
        self.counted: Future[None] = Future()
        """Connections stay until their CPU is read: of a backend that ends meanwhile some would be missed."""

    def run(self) -> None:
        """Launch, wait for `go`, drive all batches, wait for `counted`, and let go of everything."""
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
            await asyncio.wrap_future(self.counted)

    async def _lane(self, waiting: Iterator[list[int]], latencies: list[float]) -> None:
        for accounts in waiting:
            await self._world.record(accounts, db=_work["now"].pools["platform"])
            started = perf_counter()
            await self._saga(accounts)
            latencies.extend([(perf_counter() - started) * 1000] * len(accounts))


async def dbos(world: World, cases: int, *, batch: int, merged: bool = False, guarded: bool = True) -> Outcome:
    """Drive `cases` in workflows of `batch` cases each."""
    accounts = world.unused(cases)
    batches = [list(accounts[start : start + batch]) for start in range(0, cases, batch)]
    turn = _Turn(world, batches, CASES_AT_ONCE if batch == 1 else BATCHES_AT_ONCE, merged=merged, guarded=guarded)
    thread = asyncio.create_task(asyncio.to_thread(turn.run))
    await asyncio.wrap_future(turn.launched)
    meter = Meter(world)
    turn.go.set_result(None)
    try:
        latencies = await asyncio.wrap_future(turn.driven)
        outcome = meter.read(cases, latencies)
    finally:
        turn.counted.set_result(None)
    await thread
    await world.require_done(accounts)
    return outcome
