"""Workers of the product in processes of their own, over a world that this process opened.

Each tells this process of every batch it has driven, once it has driven it, and what it counted when it ends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import uvloop

from bench.world import RECORDED_AT_ONCE, joined
from jiebang.saga.coordinator import Timing
from jiebang.store.postgres.pool import open_pools
from jiebang.usecases.driving.advance import LOST_SAVES_TOTAL, Limits
from jiebang.worker import Pace

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bench.world import World

START_SECONDS: Final = 60.0
PATIENT: Final = timedelta(seconds=30)
"""How long a Try may take here: a machine that is busy with something else must not roll back what is measured."""
TIMING: Final = Timing(try_limit=PATIENT)
LIMITS: Final = Limits(call=PATIENT)


class Batch(msgspec.Struct, frozen=True):
    """A batch that a worker has driven: its cases, and the time.time() at which it was taken and was done with."""

    worker: int
    keys: list[tuple[int, int]]
    taken_at: float
    driven_at: float


class Farewell(msgspec.Struct, frozen=True):
    """The last message of a worker that ended by SIGTERM. `lost_saves`: saves refused by their guard."""

    worker: int
    lost_saves: int


class Ready(msgspec.Struct, frozen=True):
    """The message that a worker's loops run."""

    worker: int


# --- In the worker's process -----------------------------------------------------------------------------------------


def _work(databases: Mapping[str, str], number: int, pace: Pace, tell: Connection) -> None:
    """Run a worker until SIGTERM, or until the process that wanted it has gone."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    uvloop.run(_working(databases, number, pace, tell))


async def _working(databases: Mapping[str, str], number: int, pace: Pace, tell: Connection) -> None:
    async with open_pools(databases) as pools:
        world = joined(databases, pools)
        driver = world.driver(timing=TIMING, limits=LIMITS)
        drive = driver.drive

        async def telling(taken: Iterable[Any], late: Iterable[Any] = ()) -> None:
            cases, taken_at = list(taken), time.time()
            await drive(cases, late)
            tell.send(Batch(number, [case.key for case in cases], taken_at, time.time()))

        driver.drive = telling  # type: ignore[method-assign]
        worker = world.worker(driver, pace)
        loop, parent = asyncio.get_running_loop(), multiprocessing.parent_process()
        loop.add_signal_handler(signal.SIGTERM, worker.stop)
        if parent is not None:
            loop.add_reader(parent.sentinel, os._exit, 1)
        tell.send(Ready(number))
        await worker.run()
        lost = next(one.value for metric in LOST_SAVES_TOTAL.collect() for one in metric.samples)
        tell.send(Farewell(number, int(lost)))


# --- In the parent's process -----------------------------------------------------------------------------------------


class WorkerProcess:
    """One worker's process, and its messages."""

    def __init__(self, world: World, number: int, pace: Pace, heard: Callable[[Batch | None], None]) -> None:
        """Start it; `heard` is called in this process's loop with every batch, and with None when it has gone."""
        mother = multiprocessing.get_context("forkserver")  # imports once what every worker needs
        mother.set_forkserver_preload([__name__])
        self._mine, theirs = mother.Pipe(duplex=False)
        self._process = mother.Process(target=_work, args=(dict(world.dsns), number, pace, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._heard = heard
        self.farewell: Farewell | None = None
        self.ready, self.gone = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._mine.fileno(), self._read)

    def _read(self) -> None:
        try:
            while self._mine.poll():
                match self._mine.recv():
                    case Batch() as batch:
                        self._heard(batch)
                    case Farewell() as farewell:
                        self.farewell = farewell
                    case Ready():
                        self.ready.set()
        except (EOFError, OSError):
            self._loop.remove_reader(self._mine.fileno())
            self.gone.set()
            self._heard(None)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid or 0

    async def stop(self) -> Farewell | None:
        """End it by SIGTERM and wait; return its farewell, None from one that was killed."""
        self._process.terminate()
        await self._ended()
        return self.farewell

    async def kill(self) -> None:
        """End it as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        await self._ended()

    async def _ended(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            await self.gone.wait()
            await asyncio.to_thread(self._process.join)


class Crew:
    """The workers of a world, and every batch they reported."""

    def __init__(self, world: World) -> None:
        """Begin without workers."""
        self._world, self._numbers = world, 0
        self.workers: list[WorkerProcess] = []
        self.batches: list[Batch] = []
        self.driven_at: dict[int, float] = {}
        """When the last batch that an account's case was in was done with."""
        self._more = asyncio.Event()

    async def hire(self, count: int, pace: Pace | None = None) -> list[WorkerProcess]:
        """Start workers, and wait until their loops run."""
        hired = []
        for _ in range(count):
            self._numbers += 1
            hired.append(WorkerProcess(self._world, self._numbers, pace or Pace(), self._hear))
        self.workers += hired
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*(each.ready.wait() for each in hired))
        return hired

    def _hear(self, batch: Batch | None) -> None:
        if batch is not None:
            self.batches.append(batch)
            for account, _ in batch.keys:
                self.driven_at[account] = batch.driven_at
        self._more.set()

    async def until_driven(self, accounts: Iterable[int], limit: float = 120) -> None:
        """Wait until a worker has driven a case of each of `accounts`.

        Raises TimeoutError after `limit` seconds, RuntimeError once nobody is left who could drive.
        """
        left = set(accounts)
        async with asyncio.timeout(limit):
            while left := left - self.driven_at.keys():
                if all(each.gone.is_set() for each in self.workers):
                    message = f"no worker is left, and {len(left)} cases are"
                    raise RuntimeError(message)
                self._more.clear()
                await self._more.wait()

    async def enough(self, count: int) -> range:
        """Return the next `count` accounts that no case was made for, making more where there are too few."""
        world = self._world
        accounts = world.unused(count)
        there = await world.pools["platform"].fetchval("SELECT max(account_id) FROM platform.account")
        if accounts[-1] > there:
            await world.fill(there + 1, accounts[-1])
            await world.settle()
        return accounts

    async def backlog(self, accounts: Sequence[int]) -> float:
        """Record a case for each of `accounts` as fast as can be; return seconds from the first to the last one done.

        Raises RuntimeError where one is not done, TimeoutError where one is never driven.
        """
        started = time.time()
        for at in range(0, len(accounts), RECORDED_AT_ONCE):
            await self._world.record(accounts[at : at + RECORDED_AT_ONCE])
        await self.until_driven(accounts)
        await self._world.require_done(accounts)
        return max(self.driven_at[account] for account in accounts) - started

    async def dismiss(self) -> list[Farewell]:
        """End all by SIGTERM; return their farewells."""
        said = await asyncio.gather(*(each.stop() for each in self.workers if not each.gone.is_set()))
        self.workers = []
        return [one for one in said if one is not None]


@asynccontextmanager
async def crew(world: World, count: int, pace: Pace | None = None) -> AsyncIterator[Crew]:
    """Have `count` workers work on `world` until the block is left."""
    async with AsyncExitStack() as stack:
        own = Crew(world)
        stack.push_async_callback(own.dismiss)
        await own.hire(count, pace)
        yield own
