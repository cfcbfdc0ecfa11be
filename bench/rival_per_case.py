"""The same saga with a transaction per case and op, as asyncpg's documentation teaches it, and as lean as it goes.

64 cases at a time. For each case: facts read at the six, trying saved, Try at five and then at the wallet, the commit
point saved, Confirm at the six, the end saved with timeline and message. Every op is one prepared statement for one id,
its fence in the WHERE clause, in a transaction: a connection from asyncpg's pool, BEGIN, the statement, COMMIT, and the
pool's reset. `lean` leaves out all but the statement: it commits alone, on connections that nobody resets. Either way
no driver decides, nothing is leased, and plans are generic. A statement that writes no row ends the run: nothing is
refused on the way that is timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

import asyncpg

from bench.cost import Meter, Outcome
from bench.world import World, now
from jiebang.participants import PARTICIPANTS
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.saga.coordinator import Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg.prepared_stmt import PreparedStatement

    from jiebang.model.participants import Declaration, Operation
    from jiebang.store.postgres.pool import Pool

    Statements = Mapping[str, PreparedStatement[asyncpg.Record]]

AT_ONCE: Final = 64
_CONNECTIONS: Final = 12
"""Connections a database: more only wait for the same two cores (8, 12, 16 and 24 were tried)."""
_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "jit": "off", "timezone": "UTC"}
_TYPES: Final[Mapping[type, str]] = {int: "bigint", bool: "boolean", str: "text"}

_SAVED: Final = """
WITH saved AS (
    UPDATE platform.cases SET {changes}, revision = revision + 1, head = sha256(head || $6::bytea)
    WHERE account_id = $1 AND case_no = $2 AND revision = $3 AND state = '{before}' {guard}
    RETURNING account_id, case_no, revision, bucket, head
), told AS ({told})
INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
SELECT account_id, case_no, revision, $4, $5::text::jsonb, head FROM saved
"""
_MESSAGE: Final = """
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
    SELECT account_id, $7, bucket, case_no, 'case_done', '{}', $4, $4 FROM saved
"""
_PLATFORM: Final[Mapping[str, str]] = {
    "trying": _SAVED.format(
        changes="state = 'trying', marks = $7, versions = $8::bigint[], deadline = $9, due_at = $10",
        before="ready",
        guard="AND withdraw_at IS NULL",
        told="SELECT",
    ),
    "confirming": _SAVED.format(
        changes="state = 'confirming', marks = $7",
        before="trying",
        guard="AND withdraw_at IS NULL",
        told="SELECT",
    ),
    "done": _SAVED.format(
        changes="state = 'done', marks = repeat('d', length(marks)), due_at = NULL, ended_at = $4",
        before="confirming",
        guard="",
        told=_MESSAGE,
    ),
}


def _ops(declared: Declaration, own: Operation) -> dict[str, str]:
    """Return the statements of one participant for a single id: facts, try, confirm."""
    table = f"{declared.owner}.account"
    tried = {"case_no": "$2", "case_op": "'tried'", **own.on_try}
    refused = "".join(f" AND NOT ({when})" for when in own.refusals.values())
    known = enumerate((own.effects or {}).items(), 4)
    effects = [f"${place}::{_TYPES[value.kind]} AS {effect}" for place, (effect, value) in known]
    confirmed = {
        "case_op": "'confirmed'",
        "epoch": "a.epoch + 1",
        "facts_version": "a.facts_version + 1",
        **own.on_confirm,
    }
    return {
        "facts": declared.facts_sql,
        "try": f"""UPDATE {table} a SET {_sets(tried)}
            WHERE a.account_id = $1 AND a.case_no < $2 AND a.case_op <> 'tried' AND a.facts_version = $3{refused}
            RETURNING true""",  # noqa: S608 - names and expressions of ours
        "confirm": f"""UPDATE {table} a SET {_sets(confirmed)}
            FROM (SELECT {", ".join(["$3::timestamptz AS now", *effects])}) e
            WHERE a.account_id = $1 AND a.case_no = $2 AND a.case_op = 'tried'
            RETURNING true""",  # noqa: S608 - names and expressions of ours
    }


def _sets(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in changes.items())


class _Database(Protocol):
    """One of the databases: each statement is one transaction."""

    async def rows(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement that answers with rows."""

    async def one(self, name: str, *arguments: Any) -> None:
        """Run a statement that must write one row. Raises RuntimeError."""


class _Pooled:
    """A pool as asyncpg makes it: connections are reset when they come back, and prepare what they have seen."""

    def __init__(self, pool: Pool, statements: Mapping[str, str]) -> None:
        self._pool, self._statements = pool, statements

    async def rows(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._pool.acquire() as connection, connection.transaction():
            return await connection.fetch(self._statements[name], *arguments)

    async def one(self, name: str, *arguments: Any) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            _require_one_row(name, await connection.execute(self._statements[name], *arguments))


class _Lean:
    """Connections that stay prepared and are never reset; whoever needs one waits for it."""

    def __init__(self, statements: Sequence[Statements]) -> None:
        self._free: asyncio.LifoQueue[Statements] = asyncio.LifoQueue()
        for each in statements:
            self._free.put_nowait(each)

    async def rows(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        statements = await self._free.get()
        try:
            return await statements[name].fetch(*arguments)
        finally:
            self._free.put_nowait(statements)

    async def one(self, name: str, *arguments: Any) -> None:
        statements = await self._free.get()
        try:
            statement = statements[name]
            await statement.fetch(*arguments)
            status = statement.get_statusmsg()
        finally:
            self._free.put_nowait(statements)
        _require_one_row(name, status)


def _require_one_row(name: str, status: str | None) -> None:
    if status is None or not status.endswith(" 1"):
        message = f"{name} wrote nothing: {status}"
        raise RuntimeError(message)


def _operation(world: World, name: str) -> Operation:
    _, operation = PARTICIPANTS[name].operation(world.plan.operations[name].operation)
    return operation


def _of_participants(world: World) -> dict[str, dict[str, str]]:
    return {name: _ops(PARTICIPANTS[name], _operation(world, name)) for name in world.plan.participants}


class _Saga:
    """Drives one case after another, many at a time."""

    def __init__(self, world: World, at: Mapping[str, _Database]) -> None:
        self._at, self._plan, self._timing = at, world.plan, Timing()
        *self._first, self._last = world.plan.participants
        self._effects = {
            name: [planned.effects.get(effect) for effect in _operation(world, name).effects or {}]
            for name, planned in world.plan.operations.items()
        }
        self.latencies: list[float] = []

    async def work(self, accounts: Iterator[int]) -> None:
        """Drive cases until there are none left."""
        for account in accounts:
            started = perf_counter()
            await self._drive(account, 1)
            self.latencies.append((perf_counter() - started) * 1000)

    async def _drive(self, account: int, case_no: int) -> None:
        platform, names = self._at["platform"], self._plan.participants
        read = await asyncio.gather(*(self._at[name].rows("facts", [account]) for name in names))
        versions = {name: rows[0]["facts_version"] for name, rows in zip(names, read, strict=True)}
        at = now()
        due = at + self._timing.resend
        sent = _sends(self._first, "try", at)
        marks = "t" * len(names)
        deadline = at + self._timing.try_limit
        told = _row(2, at, [_state("trying", at), *sent])
        await platform.one("trying", account, case_no, 1, at, *told, marks, list(versions.values()), deadline, due)
        await asyncio.gather(*(self._at[name].one("try", account, case_no, versions[name]) for name in self._first))
        await self._at[self._last].one("try", account, case_no, versions[self._last])
        at = now()
        heard = _answers(names, "try", "granted", at)
        told = _row(3, at, [*heard, _state("confirming", at), *_sends(names, "confirm", at)])
        await platform.one("confirming", account, case_no, 2, at, *told, "c" * len(names))
        await asyncio.gather(
            *(self._at[name].one("confirm", account, case_no, at, *self._effects[name]) for name in names)
        )
        at = now()
        told = _row(4, at, [*_answers(names, "confirm", "done", at), _state("done", at)])
        await platform.one("done", account, case_no, 3, at, *told, uuid4())


def _state(state: str, at: datetime) -> dict[str, Any]:
    return {"at": at, "what": "state", "state": state}


def _sends(names: Sequence[str], op: str, at: datetime) -> list[dict[str, Any]]:
    return [{"at": at, "what": "send", "participant": name, "op": op, "attempt": 0} for name in names]


def _answers(names: Sequence[str], op: str, answer: str, at: datetime) -> list[dict[str, Any]]:
    return [{"at": at, "what": "answer", "participant": name, "op": op, "answer": answer} for name in names]


def _row(revision: int, at: datetime, entries: list[dict[str, Any]]) -> tuple[str, bytes]:
    """Return a timeline row's entries and its digest."""
    told = canonical(entries)
    return told, digest(revision, time_text(at), told)


@asynccontextmanager
async def _connect(world: World, connections: int, *, lean: bool) -> AsyncIterator[Mapping[str, _Database]]:
    statements = {"platform": _PLATFORM, **_of_participants(world)}
    pools: dict[str, Pool] = {}
    try:
        for name in statements:
            pools[name] = await asyncpg.create_pool(
                world.dsns[name], min_size=connections, max_size=connections, server_settings=_SETTINGS
            )
        if not lean:
            yield {name: _Pooled(pools[name], sql) for name, sql in statements.items()}
            return
        found: dict[str, _Lean] = {}
        for name, sql in statements.items():
            held = [await pools[name].acquire() for _ in range(connections)]
            found[name] = _Lean([{key: await one.prepare(text) for key, text in sql.items()} for one in held])
        yield found
    finally:
        for pool in pools.values():
            pool.terminate()


async def per_case(world: World, cases: int, *, lean: bool = False, connections: int = _CONNECTIONS) -> Outcome:
    """Drive `cases`, 64 at a time, each alone."""
    async with _connect(world, connections, lean=lean) as at:
        saga, meter = _Saga(world, at), Meter(world)
        accounts = world.unused(cases)
        await world.record(accounts)
        waiting = iter(accounts)
        async with asyncio.TaskGroup() as together:
            for _ in range(AT_ONCE):
                together.create_task(saga.work(waiting))
        outcome = meter.read(cases, saga.latencies)
    await world.require_done(accounts)
    return outcome
