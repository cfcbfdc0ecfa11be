"""Interleavings on real databases: every statement of several actors waits for its turn, and a seed says whose it is.

One statement runs at a time, unless it waits for a lock that another actor holds; then the others go on. Time is made
of turns: each takes up to two milliseconds, and when everybody rests it jumps to the first who wakes. So a lease, a
pause or a deadline of the real code runs out by logical time, however slow the machine is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

T = TypeVar("T")

START: Final = datetime.fromisoformat("2026-05-06T04:00:00+00:00")
PATIENCE_S: Final = 0.015
"""A statement that takes longer waits for a lock, or the machine is slow; either way the next may go."""
OLDEST: Final = 25
"""Nobody waits for more turns than so many: then it is theirs."""
_SPINS: Final = 12

_actor: ContextVar[str] = ContextVar("_actor", default="?")


class _Ticket(msgspec.Struct, eq=False):
    actor: str
    gate: asyncio.Future[None]
    since: int


class Turns:
    """The order of statements, the time, and who has died."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a race that fails must be run again
        self.now = START
        self.taken = 0
        self._waiting: list[_Ticket] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._naps: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._dead: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._outside = 0
        # Every other seed goes by priorities that change now and then: one actor far ahead, another starved.
        self._priorities: dict[str, float] | None = {} if seed % 2 else None
        self._deaths: dict[int, str] = {}

    def clock(self) -> datetime:
        return self.now

    def dies(self, actor: str, turn: int) -> None:
        """Have an actor die, as by kill -9, before the statement of that turn."""
        self._deaths[turn] = actor

    def die(self) -> None:
        """Have the actor who calls this die here and now. Raises CancelledError."""
        self._kill(_actor.get())
        raise asyncio.CancelledError

    def lives(self, actor: str) -> bool:
        return actor not in self._dead

    async def nap(self, length: timedelta) -> None:
        """Rest for a logical time."""
        self._alive()
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._naps, (self.now + length, next(self._numbers), until))
        await until
        self._alive()

    async def take(self, statement: Callable[[], Awaitable[T]]) -> T:
        """Run a statement when its turn comes."""
        self._alive()
        ticket = _Ticket(_actor.get(), asyncio.get_running_loop().create_future(), self.taken)
        self._waiting.append(ticket)
        await ticket.gate
        self._alive()
        task = asyncio.ensure_future(statement())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})  # it was on its way to the server, which knows of no death
            raise

    async def outside(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what takes no turn but real time, while the logical time stands still."""
        self._outside += 1
        try:
            return await work()
        finally:
            self._outside -= 1

    def _alive(self) -> None:
        if _actor.get() in self._dead:
            raise asyncio.CancelledError

    async def run(self, actors: dict[str, Coroutine[Any, Any, None]], limit: timedelta) -> bool:
        """Run all actors, one statement after another; whether they ended in time. Raises what an actor raises."""
        for name, work in actors.items():
            self.join(name, work)
        try:
            while any(not task.done() for task in self._tasks.values()):
                if self.now > START + limit:
                    return False
                await self._turn()
                for task in self._tasks.values():
                    if task.done() and not task.cancelled():
                        task.result()
            return True
        finally:
            for task in self._tasks.values():
                task.cancel()
            while any(not task.done() for task in self._tasks.values()):
                for ticket in self._waiting:
                    ticket.gate.cancel()
                self._dead |= self._tasks.keys()
                await asyncio.wait(self._tasks.values(), timeout=0.01)
            if self._running:
                await asyncio.wait(self._running)

    def join(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Let another actor in."""

        async def named() -> None:
            _actor.set(name)
            await work

        self._tasks[name] = asyncio.create_task(named(), name=name)

    async def _turn(self) -> None:
        await self._settled()
        while self._naps and self._naps[0][0] <= self.now:
            self._wake()
            await self._settled()
        if self._waiting:
            await self._go(self._chosen())
        elif self._running or self._outside:
            await asyncio.sleep(0.0005)
        elif self._naps:
            self.now = max(self.now, self._naps[0][0])
            self._wake()
        else:
            await asyncio.sleep(0.001)  # somebody does what needs no turn: opens a connection, say

    async def _settled(self) -> None:
        """Let Python run on until all wait for something."""
        quiet, seen = 0, -1
        while quiet < _SPINS:
            await asyncio.sleep(0)
            now = len(self._waiting) + len(self._naps)
            quiet, seen = (quiet + 1, seen) if now == seen else (0, now)

    def _wake(self) -> None:
        _, _, until = heapq.heappop(self._naps)
        if not until.done():
            until.set_result(None)

    async def _go(self, ticket: _Ticket) -> None:
        self._waiting.remove(ticket)
        self.taken += 1
        self.now += timedelta(microseconds=self.dice.randrange(2_000))
        victim = self._deaths.pop(self.taken, None)
        if victim is not None:
            self._kill(victim)
        if ticket.gate.done():
            return
        before = set(self._running)
        ticket.gate.set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)
        if started := self._running - before:
            await asyncio.wait(started, timeout=PATIENCE_S)

    def _kill(self, actor: str) -> None:
        self._dead.add(actor)
        self._tasks[actor].cancel()
        for ticket in [each for each in self._waiting if each.actor == actor]:
            ticket.gate.cancel()
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def _chosen(self) -> _Ticket:
        oldest = min(self._waiting, key=lambda ticket: ticket.since)
        if self.taken - oldest.since > OLDEST:
            return oldest
        if self._priorities is None:
            return self.dice.choice(self._waiting)
        for ticket in self._waiting:
            self._priorities.setdefault(ticket.actor, self.dice.random())
        first = max(self._waiting, key=lambda ticket: self._priorities[ticket.actor] if self._priorities else 0.0)
        if self.dice.random() < 0.05:
            self._priorities[first.actor] = self.dice.random()
        return first


class Taking:
    """A pool, or one of its connections, every statement of which waits for its turn."""

    def __init__(self, turns: Turns, real: Any) -> None:
        self._turns, self._real = turns, real

    async def execute(self, *args: Any) -> Any:
        return await self._turns.take(lambda: self._real.execute(*args))

    async def fetch(self, *args: Any) -> Any:
        return await self._turns.take(lambda: self._real.fetch(*args))

    async def fetchrow(self, *args: Any) -> Any:
        return await self._turns.take(lambda: self._real.fetchrow(*args))

    async def fetchval(self, *args: Any) -> Any:
        return await self._turns.take(lambda: self._real.fetchval(*args))

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Taking]:
        connection = await self._turns.outside(self._real.acquire)
        try:
            yield Taking(self._turns, connection)
        finally:
            await self._turns.outside(lambda: self._real.release(connection))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        block = self._real.transaction()
        await self._turns.take(block.start)
        try:
            yield
        except BaseException:
            await self._turns.outside(block.rollback)  # also the dead one's: its connection is cut
            raise
        await self._committed(block)

    async def _committed(self, block: Any) -> None:
        try:
            await self._turns.take(block.commit)
        except asyncio.CancelledError:
            if not self._real.is_closed() and self._real.is_in_transaction():
                await self._turns.outside(block.rollback)
            raise


def taking(turns: Turns, pool: Pool) -> Pool:
    """Return a pool whose statements wait for their turn."""
    made: Any = Taking(turns, pool)
    return made  # type: ignore[no-any-return] # it does what our code asks of a pool
