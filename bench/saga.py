"""Cases driven to their end: our worker beside a transaction per case and op, DBOS, and the server's own limit."""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import uvloop

from bench.ceiling import ceiling
from bench.measure import Bar, Result, Row, row
from bench.rival_dbos import dbos
from bench.rival_per_case import per_case
from bench.world import Meter, Outcome, World, opened

_CASES: Final = 8_192
_PROFILED: Final = 45
"""Lines of a profile."""

Way = Callable[[World, int], Awaitable[Outcome]]


async def ours(world: World, cases: int) -> Outcome:
    """Have one worker of the product drive `cases`; the re-check reads facts alone."""
    return await _ours(world, cases, rules=False)


async def ours_rules(world: World, cases: int) -> Outcome:
    """Have one worker of the product drive `cases`; the re-check evaluates the pack's rules, too."""
    return await _ours(world, cases, rules=True)


async def _ours(world: World, cases: int, *, rules: bool) -> Outcome:
    driver, meter = world.driver(rules=rules), Meter(world)
    accounts = await world.ready(cases)
    outcome = await world.drained(driver, cases, meter=meter)
    await world.require_done(accounts)
    return outcome


async def _ceiling(world: World, cases: int) -> Outcome:
    return await ceiling(world, cases, 256)


WAYS: Final[dict[str, tuple[Way, int]]] = {
    "ours": (ours, 1),
    "ours_rules": (ours_rules, 2),
    "per_case": (per_case, 32),
    "ceiling": (_ceiling, 1),
    "dbos_case": (partial(dbos, batch=1), 128),
    "dbos_256": (partial(dbos, batch=256), 2),
    "dbos_1024": (partial(dbos, batch=1_024), 1),
}
"""By name: how, and one case of how many it gets."""


async def _measure(rounds: int, size: int, names: Sequence[str], *, profile: bool) -> dict[str, list[Outcome]]:
    """Run interleaved rounds after one that does not count; return outcomes by way."""
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    profiler = cProfile.Profile()
    people = (rounds + 1) * sum(max(size // WAYS[name][1], 1) + 4096 for name in names)
    async with opened(max(people, 200_000)) as world:
        for number in range(-1, rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                way, share = WAYS[name]
                await world.settle()
                if profile and number >= 0:
                    profiler.enable()
                outcome = await way(world, max(size // share, 1))
                profiler.disable()
                if number >= 0:
                    found[name].append(outcome)
                    print(f"  round {number + 1} {name}: {_told(outcome)}", file=sys.stderr, flush=True)
        await world.verify()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(_PROFILED)
    return found


def _told(outcome: Outcome) -> str:
    cpu, cases = outcome.cpu, outcome.cases
    return (
        f"{outcome.rate:,.0f} cases/s, p50 {outcome.percentile(50):,.0f} ms, p99 {outcome.percentile(99):,.0f} ms, "
        f"CPU µs a case: Python {cpu.python / cases * 1e6:,.0f}, PostgreSQL {cpu.postgres / cases * 1e6:,.0f}, "
        f"others had {cpu.others / outcome.seconds:.2f} cores"
    )


def _rows(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    rows = [row(f"{name}: rate", "cases/s", [one.rate for one in outcomes])]
    for percent in (50, 99):
        figures = [one.percentile(percent) for one in outcomes]
        rows.append(row(f"{name}: p{percent}", "ms", figures, "from taken to ended"))
    for who in ("python", "postgres"):
        figures = [getattr(one.cpu, who) / one.cases * 1e6 for one in outcomes]
        rows.append(row(f"{name}: CPU {who}", "µs/case", figures))
    return rows


def run(rounds: int, size: int | None, *, only: str | None = None, profile: bool = False) -> Result:
    """Compare all ways, or `only` those named (comma between), on `size` cases a round.

    `profile`: print what Python spent its time on to stderr.
    """
    names = only.split(",") if only else list(WAYS)
    if unknown := set(names) - WAYS.keys():
        message = f"no such way: {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}"
        raise SystemExit(message)
    found = uvloop.run(_measure(rounds, size or _CASES, names, profile=profile))
    rows = [one for name in names for one in _rows(name, found[name])]
    bars: list[Bar] = []
    return Result(rows, bars)
