"""The same saga on DBOS, a workflow per case and, the fair rival, a workflow per batch.

Whoever is free reads which cases are due, but for those at hand, and calls a workflow with them (one, or a batch). It
takes them through its steps: facts read at the six, before anybody is tried, because the re-check decides on all of
them; Try at five and then at the wallet, at the versions read; the commit point; Confirm at the six; the end saved with
timeline and message. Each op is the set-based fence statement of ours; a step returns only what was not granted:
nothing. What DBOS keeps of a workflow and its steps is the record of the Trys and of the versions they were sent at.
The commit point is saved in the case, too, because a wish to withdraw must lose against it or win, with a row of the
timeline in its chain and in its form; `guarded=False` leaves even that to DBOS. Nothing is saved twice. Its system
database is on the same server. The workflow is called, not queued; nothing is leased; every statement has a connection
at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import uvloop
from dbos import DBOS

from bench.cost import Meter, Outcome
from bench.world import World, now
from jiebang.model.case import BUCKETS
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.statements import build_operation
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.saga.fence import Answer, Op
from jiebang.store.cases.cases import format_array
from jiebang.store.postgres.embedded import database_dsn
from jiebang.store.postgres.pool import BY_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jiebang.store.postgres.pool import Pool

CASES_AT_ONCE: Final = 64
BATCHES_AT_ONCE: Final = 4
_SYSTEM: Final = "dbos"
_POLL: Final = 0.005
"""Seconds between two looks for cases."""

Taken = tuple[list[int], list[int], list[int]]
"""Cases in order of account, in columns: account_id, case_no, and the wallet's version as of the last proof."""

_DUE: Final = """
SELECT c.account_id, c.case_no, c.wallet_version FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $2 AND c.state = 'ready'
        AND c.account_id NOT IN (SELECT unnest($5::bigint[]))
    ORDER BY c.due_at LIMIT $4
) c
ORDER BY c.due_at
LIMIT $3
"""
"""What is due, as the product asks for it, but for less of each case."""
_COMMITTED: Final = """
WITH saved AS (
    UPDATE platform.cases c SET state = 'confirming', marks = repeat('c', length(marks)), revision = 2,
        versions = i.versions::bigint[], head = sha256(c.head || $5::bytea)
    FROM unnest($1::bigint[], $2::bigint[], $6::text[]) AS i (account_id, case_no, versions)
    WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = i.case_no AND c.revision = 1
        AND c.withdraw_at IS NULL
    RETURNING c.account_id, c.case_no, c.revision, c.head
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, revision, $3, $4::text::jsonb, head FROM saved
)
SELECT count(*), CASE WHEN count(*) < cardinality($1) THEN array_agg(account_id) END FROM saved
"""
"""The guarded save of the commit point."""
_ENDED: Final = """
WITH saved AS (
    UPDATE platform.cases c SET state = 'done', marks = repeat('d', length(marks)), revision = revision + 1,
        versions = coalesce(i.versions::bigint[], c.versions), due_at = NULL, ended_at = $3,
        head = sha256(c.head || $5::bytea)
    FROM unnest($1::bigint[], $2::bigint[], $6::text[]) AS i (account_id, case_no, versions)
    WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = i.case_no AND c.revision = $7::integer
    RETURNING c.account_id, c.case_no, c.revision, c.bucket, c.head
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, revision, $3, $4::text::jsonb, head FROM saved
), told AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
    SELECT account_id, encode(substring(head FOR 16), 'hex')::uuid, bucket, case_no, 'case_done', '{}', $3, $3
    FROM saved
)
SELECT count(*), CASE WHEN count(*) < cardinality($1) THEN array_agg(account_id) END FROM saved
"""


class _Work:
    """What the steps work on: steps are functions, and DBOS passes them nothing but what it can write down."""

    def __init__(self, world: World, pools: Mapping[str, Pool], *, guarded: bool) -> None:
        self.pools, self.guarded = pools, guarded
        self.names = world.plan.participants
        planned = world.plan.operations
        operations = {name: PARTICIPANTS[name].operation(planned[name].operation) for name in self.names}
        self.sql = {
            name: build_operation(
                PARTICIPANTS[name].owner, *operations[name], remembers=bool(PARTICIPANTS[name].endings)
            )
            for name in self.names
        }
        self.effects = {name: msgspec.json.encode(planned[name].effects).decode() for name in self.names}

    async def facts(self, name: str, accounts: list[int]) -> list[int]:
        """Read facts at one participant; return their versions, in order of account."""
        rows = await self.pools[name].fetch(PARTICIPANTS[name].facts_sql, accounts)
        versions = {row["account_id"]: row["facts_version"] for row in rows}
        return [versions[account] for account in accounts]

    async def carry_out_try(self, name: str, taken: Taken, versions: list[int]) -> list[int]:
        """Carry out Try at one participant."""
        return await self._write_op(name, Op.TRY, taken, versions)

    async def carry_out_confirm(self, name: str, taken: Taken) -> list[int]:
        """Carry out Confirm at one participant."""
        return await self._write_op(name, Op.CONFIRM, taken, self.effects[name], now())

    async def _write_op(self, name: str, op: Op, taken: Taken, *more: object) -> list[int]:
        """Carry out one op for a batch; return those whose row was not written."""
        accounts, case_nos, _ = taken
        [(yes, written, *_)] = await self.pools[name].fetch(self.sql[name][op], accounts, case_nos, *more)
        return _find_missed(accounts, yes, written)

    async def save_commit(self, taken: Taken, versions: list[list[int]]) -> list[int]:
        """Save the commit point."""
        entries = [
            *self._try_entries(),
            self._send_entry(Op.CONFIRM),
            {"at": now(), "what": "state", "state": "confirming"},
        ]
        return await self._save(_COMMITTED, 2, entries, taken, _arrays(versions))

    async def save_end(self, taken: Taken, versions: list[list[int]]) -> list[int]:
        """Save the end."""
        entries = [] if self.guarded else [*self._try_entries(), self._send_entry(Op.CONFIRM)]
        entries += [self._answer_entry(Op.CONFIRM, Answer.DONE), {"at": now(), "what": "state", "state": "done"}]
        revision = 2 + self.guarded
        arrays = [] if self.guarded else _arrays(versions)
        return await self._save(_ENDED, revision, entries, taken, arrays, revision - 1)

    async def _save(
        self, sql: str, revision: int, entries: list[dict[str, Any]], taken: Taken, *more: object
    ) -> list[int]:
        """Save a batch, with a timeline row that is the same for all of it; return those that were not saved."""
        accounts, case_nos, _ = taken
        at, text = entries[-1]["at"], canonical(entries)
        chained = digest(revision, time_text(at), text)
        rows = await self.pools["platform"].fetch(sql, accounts, case_nos, at, text, chained, *more)
        return _find_missed(accounts, *rows[0])

    def _try_entries(self) -> list[dict[str, Any]]:
        return [self._send_entry(Op.TRY), self._answer_entry(Op.TRY, Answer.GRANTED)]

    def _send_entry(self, op: Op) -> dict[str, Any]:
        """Return the timeline's entry of an op sent to everybody."""
        return {"at": now(), "what": "send", "op": op.value, "attempt": 0, "participants": self.names}

    def _answer_entry(self, op: Op, answer: Answer) -> dict[str, Any]:
        """Return the timeline's entry of everybody's answer."""
        came = [[name, 0] for name in self.names]
        return {"at": now(), "what": "answer", "op": op.value, "answer": answer.value, "came": came}


def _find_missed(accounts: list[int], count: int, done: Sequence[int] | None) -> list[int]:
    return [] if count == len(accounts) else sorted(set(accounts).difference(done or ()))


def _arrays(versions: list[list[int]]) -> list[str]:
    """Return each account's versions as PostgreSQL reads an array."""
    return [format_array(own) for own in zip(*versions, strict=True)]


_work: dict[str, _Work] = {}


@DBOS.step()
async def _facts(taken: Taken) -> list[list[int]]:
    """Read facts at all participants; return the versions by participant."""
    work = _work["now"]
    return list(await asyncio.gather(*(work.facts(name, taken[0]) for name in work.names)))


@DBOS.step()
async def _try(name: str, taken: Taken, versions: list[int]) -> list[int]:
    return await _work["now"].carry_out_try(name, taken, versions)


@DBOS.step()
async def _commit(taken: Taken, versions: list[list[int]]) -> list[int]:
    return await _work["now"].save_commit(taken, versions)


@DBOS.step()
async def _confirm(name: str, taken: Taken) -> list[int]:
    return await _work["now"].carry_out_confirm(name, taken)


@DBOS.step()
async def _end(taken: Taken, versions: list[list[int]]) -> list[int]:
    return await _work["now"].save_end(taken, versions)


@DBOS.workflow()
async def _saga(taken: Taken) -> None:
    """Drive cases to their end, each call a step. On the way that is timed nothing is refused."""
    names, versions = _work["now"].names, await _facts(taken)
    _require_none(_find_moved(taken, versions))
    *first, last = zip(names, versions, strict=True)
    _require_none(*await asyncio.gather(*(_try(name, taken, at) for name, at in first)))
    _require_none(await _try(last[0], taken, last[1]))
    if _work["now"].guarded:
        _require_none(await _commit(taken, versions))
    _require_none(*await asyncio.gather(*(_confirm(name, taken) for name in names)))
    _require_none(await _end(taken, versions))


@DBOS.step()
async def _try_first(taken: Taken, versions: list[list[int]]) -> list[int]:
    work = _work["now"]
    asked = zip(work.names[:-1], versions[:-1], strict=True)
    return _union(await asyncio.gather(*(work.carry_out_try(name, taken, at) for name, at in asked)))


@DBOS.step()
async def _try_last(taken: Taken, versions: list[list[int]]) -> list[int]:
    work = _work["now"]
    missed = await work.carry_out_try(work.names[-1], taken, versions[-1])
    return missed or await work.save_commit(taken, versions) if work.guarded else missed


@DBOS.step()
async def _confirm_all(taken: Taken) -> list[int]:
    work = _work["now"]
    return _union(await asyncio.gather(*(work.carry_out_confirm(name, taken) for name in work.names)))


@DBOS.workflow()
async def _drive_merged(taken: Taken) -> None:
    """Drive cases to their end, in as few steps as can be repeated as a whole."""
    versions = await _facts(taken)
    _require_none(_find_moved(taken, versions))
    _require_none(await _try_first(taken, versions))
    _require_none(await _try_last(taken, versions))
    _require_none(await _confirm_all(taken))
    _require_none(await _end(taken, versions))


def _find_moved(taken: Taken, versions: list[list[int]]) -> list[int]:
    """Return the accounts whose funds have moved since the last proof: the wallet is the last that is asked."""
    return [account for account, _, proven, read in zip(*taken, versions[-1], strict=True) if proven != read]


def _union(missed: Iterable[list[int]]) -> list[int]:
    return [account for each in missed for account in each]


def _require_none(*missed: list[int]) -> None:
    """Raise RuntimeError where an account was missed."""
    if number := len(_union(missed)):
        message = f"{number} cases were not granted"
        raise RuntimeError(message)


@asynccontextmanager
async def _launch(dsns: Mapping[str, str], names: Sequence[str], size: int) -> AsyncIterator[Mapping[str, Pool]]:
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

    def __init__(self, world: World, accounts: Sequence[int], batch: int, *, merged: bool, guarded: bool) -> None:
        self._world, self._accounts, self._batch, self._guarded = world, accounts, batch, guarded
        self._at_once = CASES_AT_ONCE if batch == 1 else BATCHES_AT_ONCE
        self._saga = _drive_merged if merged else _saga
        self._left, self._taking, self._waiting = len(accounts), asyncio.Lock(), list[Taken]()
        self._busy = set[int]()
        self.launched: Future[None] = Future()
        self.go: Future[None] = Future()
        self.driven: Future[list[float]] = Future()
        self.counted: Future[None] = Future()
        """Connections stay until their CPU is read: of a backend that ends meanwhile some would be missed."""

    def run(self) -> None:
        """Launch, wait for `go`, drive everything, wait for `counted`, and let go of everything."""
        try:
            uvloop.run(self._run())
        except BaseException as error:
            for future in (self.launched, self.driven):
                if not future.done():
                    future.set_exception(error)
            raise

    async def _run(self) -> None:
        names = ("platform", *self._world.plan.participants)
        async with _launch(self._world.dsns, names, min(self._at_once, 8) + 1) as pools:
            _work["now"] = _Work(self._world, pools, guarded=self._guarded)
            self.launched.set_result(None)
            await asyncio.wrap_future(self.go)
            latencies = list[float]()
            async with asyncio.TaskGroup() as together:
                together.create_task(self._world.record(self._accounts, db=pools["platform"]))
                for _ in range(self._at_once):
                    together.create_task(self._lane(pools["platform"], latencies))
            self.driven.set_result(latencies)
            await asyncio.wrap_future(self.counted)

    async def _lane(self, platform: Pool, latencies: list[float]) -> None:
        while taken := await self._next(platform):
            accounts, started = taken[0], perf_counter()
            await self._saga(taken)
            self._busy.difference_update(accounts)
            latencies.extend([(perf_counter() - started) * 1000] * len(accounts))

    async def _next(self, platform: Pool) -> Taken | None:
        """Take the next batch; one lane after the other, and single cases so many at a time as are driven at once."""
        async with self._taking:
            buckets, size = list(range(BUCKETS)), max(self._batch, CASES_AT_ONCE)
            while not self._waiting and self._left:
                for share in (-(-2 * size // BUCKETS), size):  # of each bucket; all of it where others hold too few
                    rows = await platform.fetch(_DUE, buckets, now(), size, share, list(self._busy))
                    if len(rows) >= min(size, self._left):
                        break
                else:  # DBOS does best with whole batches
                    await asyncio.sleep(_POLL)
                    continue
                ordered = sorted(rows, key=itemgetter(0))
                for start in range(0, len(ordered), self._batch):
                    accounts, case_nos, proven = zip(*ordered[start : start + self._batch], strict=True)
                    self._waiting.append((list(accounts), list(case_nos), list(proven)))
                self._left -= len(rows)
                self._busy.update(row[0] for row in rows)
            return self._waiting.pop() if self._waiting else None


async def dbos(world: World, cases: int, *, batch: int, merged: bool = False, guarded: bool = True) -> Outcome:
    """Drive `cases` in workflows of `batch` cases each."""
    accounts = world.unused(cases)
    turn = _Turn(world, accounts, batch, merged=merged, guarded=guarded)
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
