"""From ready to done: how long one case takes at every load, from alone to nearly all a worker can do.

A worker of the product runs in a process of its own. First a backlog tells its top rate, recording the cases included.
Then cases are recorded at random times of a fixed seed (Poisson arrivals: nobody waits for anybody), at shares of that
rate, and one at a time for the idle machine. A case's time begins just before the statement that records it as ready
is sent, and ends when the worker is done with the batch it was in: it is late by our harness, never early. Whoever
records the cases shares the machine with worker and database.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Final

import msgspec
import uvloop

from bench.measure import Bar, Result, Row, row
from bench.picture import Axis, Line, chart
from bench.processes import Crew, crew
from bench.world import PEOPLE, RECORDED_AT_ONCE, World, opened

_CASES: Final = 8_192
"""Cases of a backlog; how long a load lasts goes with it."""
SMOKE: Final = {"size": 24}
_LEAST: Final = 8
"""Cases of a load at least: there are percentiles of them."""
_SHARES: Final = (0.10, 0.25, 0.50, 0.75, 0.90)
_LOAD_SECONDS: Final = 4.0
_ALONE: Final = 60
"""Cases of the idle machine, one after the other."""
_PAUSE: Final = (0.02, 0.12)
"""Seconds between them, at random: the worker's polling must not fall into step with us."""
_TICK: Final = 0.005
"""Arrivals of so many seconds are recorded in one statement, as an API that coalesces does."""
_AT_ONCE: Final = 8
"""Statements that record at the same time, at most; beyond that arrivals wait, which counts as lag."""
_SEED: Final = 20_260_401
_PERCENTS: Final = (50, 95, 99)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one load: cases a second offered and done, milliseconds of each case, sizes of the batches.

    `lag`: milliseconds by which the recording statement of a case was sent later than the case arrived.
    """

    offered: float
    done: float
    milliseconds: list[float]
    batches: list[int]
    lag: list[float]

    def percentile(self, percent: int, of: Sequence[float] | None = None) -> float:
        """Return a percentile of the cases' milliseconds, or of others."""
        figures = self.milliseconds if of is None else of
        return quantiles(figures, n=100, method="inclusive")[percent - 1]


async def _top(staff: Crew, cases: int) -> float:
    """Return cases a second of a backlog, from the first one recorded to the last one done."""
    return cases / await staff.backlog(await staff.enough(cases))


async def _alone(world: World, staff: Crew, cases: int, dice: random.Random) -> Load:
    """Drive cases one at a time, each recorded a moment after the last one was done."""
    accounts = await staff.enough(cases)
    first, started, recorded = len(staff.batches), time.time(), dict[int, float]()
    for account in accounts:
        await asyncio.sleep(dice.uniform(*_PAUSE))
        recorded[account] = time.time()
        await world.record([account])
        await staff.until_driven([account])
    return await _load(world, staff, recorded, first, started, [0.0] * cases)


async def _loaded(world: World, staff: Crew, rate: float, seconds: float, dice: random.Random) -> Load:
    """Record cases at random times, `rate` a second on average, for `seconds`."""
    arrivals, at = list[float](), 0.0
    while (at := at + dice.expovariate(rate)) < seconds or len(arrivals) < _LEAST:
        arrivals.append(at)
    accounts = await staff.enough(len(arrivals))
    gate, recorded, lag = asyncio.Semaphore(_AT_ONCE), dict[int, float](), list[float]()
    first = len(staff.batches)

    async def record(part: Sequence[int]) -> None:
        try:
            await world.record(part)
        finally:
            gate.release()

    place, started = 0, time.time()
    async with asyncio.TaskGroup() as recording:
        while place < len(arrivals):
            await asyncio.sleep(max(arrivals[place] - (time.time() - started), 0))
            await gate.acquire()
            now = time.time()
            end = place
            while end < len(arrivals) and arrivals[end] <= now - started and end - place < RECORDED_AT_ONCE:
                end += 1
            part = list(accounts[place:end])
            recorded |= dict.fromkeys(part, now)
            lag += [(now - started - arrival) * 1000 for arrival in arrivals[place:end]]
            place = end
            if part:
                recording.create_task(record(part))
            else:
                gate.release()
            await asyncio.sleep(_TICK)
    return await _load(world, staff, recorded, first, started, lag)


async def _load(
    world: World, staff: Crew, recorded: dict[int, float], first: int, started: float, lag: list[float]
) -> Load:
    """Wait until all are done and add up. `first`: the first batch of this load."""
    await staff.until_driven(recorded)
    await world.require_done(list(recorded))
    ended = [staff.driven_at[account] for account in recorded]
    spent = max(recorded.values()) - started
    return Load(
        offered=len(recorded) / spent,
        done=len(recorded) / (max(ended) - started),
        milliseconds=[(staff.driven_at[account] - at) * 1000 for account, at in recorded.items()],
        batches=[len(batch.keys) for batch in staff.batches[first:]],
        lag=lag,
    )


async def _measure(rounds: int, size: int) -> tuple[list[float], dict[str, list[Load]]]:
    """Warm up, and run `rounds` rounds: the top rate, then every load, each round beginning with another."""
    dice = random.Random(_SEED)
    tops, found = list[float](), dict[str, list[Load]]()
    seconds = max(_LOAD_SECONDS * size / _CASES, 0.25)
    async with opened(max(PEOPLE * size // _CASES, 4 * size)) as world, crew(world, 1) as staff:
        await _top(staff, size)
        for number in range(rounds):
            await world.settle()
            tops.append(await _top(staff, size))
            names = ["idle", *(f"{share:.0%}" for share in _SHARES)]
            loads = list(zip(names, (0.0, *_SHARES), strict=True))
            for name, share in loads[number % len(loads) :] + loads[: number % len(loads)]:
                await world.settle()
                if share:
                    load = await _loaded(world, staff, share * median(tops), seconds, dice)
                else:
                    load = await _alone(world, staff, min(_ALONE, size), dice)
                found.setdefault(name, []).append(load)
        await world.verify()
    return tops, {name: found[name] for name in names}


def _rows(name: str, loads: Sequence[Load]) -> list[Row]:
    sizes = [size for load in loads for size in load.batches]
    told = f"offered {median(load.offered for load in loads):,.0f}/s, done {median(load.done for load in loads):,.0f}/s"
    if name == "idle":
        told = "one at a time"
    rows = [
        row(f"{name}: p{percent}", "ms", [load.percentile(percent) for load in loads], told) for percent in _PERCENTS
    ]
    note = f"{min(sizes)} to {max(sizes)} cases a batch, half of them under {median(sizes):.0f}"
    rows.append(row(f"{name}: batch", "cases", [mean(load.batches) for load in loads], note))
    if name != "idle":
        lag = [load.percentile(99, load.lag) for load in loads]
        rows.append(row(f"{name}: lag p99", "ms", lag, "how late the harness recorded, not counted above"))
    return rows


def _picture(loads: dict[str, list[Load]], path: Path) -> None:
    names = list(loads)
    lines = [
        Line(
            (f"p{percent}", f"p{percent}"),
            [(float(at), median(load.percentile(percent) for load in loads[name])) for at, name in enumerate(names)],
        )
        for percent in _PERCENTS
    ]
    batches = Line(
        ("平均每批案件数", "cases a batch, mean"),
        [(float(at), mean(mean(load.batches) for load in loads[name])) for at, name in enumerate(names)],
        dashed=True,
    )
    told = [name if name != "idle" else "空闲 idle" for name in names]
    rates = [f"{median(load.done for load in loads[name]):,.0f}/s" if name != "idle" else "1" for name in names]
    path.write_text(
        chart(
            ("从就绪到办结的时延", "Latency from ready to done"),
            Axis(("负载(占最高速率)", "load, share of the top rate"), list(enumerate(zip(told, rates, strict=True)))),
            Axis(("毫秒(对数)", "milliseconds (log)"), log=True),
            [*lines, batches],
        ),
        encoding="utf-8",
    )


def run(rounds: int, size: int | None, *, picture: str | None = None) -> Result:
    """Measure; `size`: cases of the backlog that tells the top rate. `picture`: where to draw the figures, as SVG."""
    tops, loads = uvloop.run(_measure(rounds, size or _CASES))
    rows = [row("top rate", "cases/s", tops, "of a backlog, recording the cases included")]
    for name, found in loads.items():
        rows += _rows(name, found)
    if picture:
        _picture(loads, Path(picture))
    half = f"{0.5:.0%}"
    bars = [
        Bar("idle: median, ms", median(load.percentile(50) for load in loads["idle"]), at_most=60),
        Bar("half the top rate: p99, ms", median(load.percentile(99) for load in loads[half]), at_most=300),
    ]
    return Result(rows, bars)
