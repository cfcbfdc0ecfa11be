"""Cases driven to their end: our worker beside a transaction per case and op, DBOS, and the server's own limit.

The reference work: six participants and the platform in seven databases of one durable server, 200,000 accounts. Each
case is recorded, its facts are read at the six, Try at five and then at the wallet, the commit point, Confirm at the
six, its end with timeline and message. Every way records its cases as it goes, a thousand a statement (the per-case
saga all of them first); after a turn every case is looked up at the store and at all six. All ways run in this process,
DBOS on a thread of its own; the server is another. `ours` drives with the product's Worker and Driver at their own
pace, and its re-check reads facts alone, as the others do; with `rules` it evaluates the whole pack over all facts.

The full plan, measured after it: nine databases on two servers and both clearing networks as processes, with rules.

`--only ours,ceiling` runs some ways; `--profile` prints what Python and a batch's statements spend their time on.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import uvloop

from bench.ceiling import ceiling, script
from bench.cost import Meter, Outcome
from bench.measure import Bar, Result, Row, ratio, row
from bench.mix import mix
from bench.rival_dbos import dbos
from bench.rival_per_case import per_case
from bench.world import PEOPLE, World, opened

_CASES: Final = 32_768
SMOKE: Final = {"size": 100, "only": "ours,ceiling,dbos_1024"}
_FULL_SHARE: Final = 8
_PROFILED: Final = 45
"""Lines of a profile."""

Run = Callable[[World, int], Awaitable[Outcome]]


class Way(msgspec.Struct, frozen=True):
    """One way to do the work: how, one case of how many it gets (or how many times as many), and what it is."""

    run: Run
    share: float
    note: str


async def ours(world: World, cases: int, *, rules: bool = False) -> Outcome:
    """Have one worker of the product drive `cases`."""
    driver, accounts, meter = world.driver(rules=rules), world.unused(cases), Meter(world)
    async with asyncio.TaskGroup() as together:
        together.create_task(world.record(accounts))
        outcome = await world.drained(driver, cases, meter=meter)
    await world.require_done(accounts)
    return outcome


async def _ceiling(world: World, cases: int) -> Outcome:
    return await ceiling(world, cases, min(world.batch, cases))


# Neighbours here are neighbours in time, whoever begins: a machine's speed drifts, and the bars hold ours to the first.
WAYS: Final[Mapping[str, Way]] = {
    "ours": Way(ours, 1, "the product's worker, re-check reads facts alone"),
    "dbos_1024": Way(partial(dbos, batch=1_024), 1, "DBOS, a workflow per batch of 1,024, four in flight"),
    "ceiling": Way(_ceiling, 1, "the very statements of ours, prepared before, answers ignored"),
    "mix": Way(mix, 0.8, "ours with 5% of cases refused and 1% timing out"),
    "rules": Way(partial(ours, rules=True), 4, "ours, re-check with all facts and rules of the pack"),
    "per_case": Way(per_case, 128, "a transaction per case and op, 64 cases at a time"),
    "per_case_lean": Way(partial(per_case, lean=True), 128, "as per_case, each statement committing alone, no reset"),
    "dbos_256": Way(partial(dbos, batch=256), 4, "DBOS, a workflow per batch of 256, four in flight"),
    "dbos_merged": Way(partial(dbos, batch=1_024, merged=True), 2, "as dbos_1024, all calls of a phase one step"),
    "dbos_bare": Way(partial(dbos, batch=1_024, guarded=False), 2, "as dbos_1024, without the guarded commit point"),
    "dbos_case": Way(partial(dbos, batch=1), 512, "DBOS, a workflow per case, 64 at a time"),
}
FULL: Final = "full"
_FULL_NOTE: Final = "nine databases on two servers, two clearing networks, all rules"


def _cases(size: int, way: Way) -> int:
    return max(int(size / way.share), 1)


async def _measure(rounds: int, size: int, names: Sequence[str], *, profile: bool) -> dict[str, list[Outcome]]:
    """Run interleaved rounds after one that does not count; return outcomes by way."""
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    profiler = cProfile.Profile()
    each = sum(_cases(size, WAYS[name]) + 8_192 * (name == "ceiling") for name in names)
    async with opened(max(PEOPLE if size >= _CASES else 0, (rounds + 1) * each)) as world:
        for number in range(-1, rounds):
            for place in range(len(names)):
                name = names[(place + max(number, 0)) % len(names)]
                await world.settle()
                if profile and number >= 0:
                    profiler.enable()
                outcome = await WAYS[name].run(world, _cases(size if number >= 0 else size // 2, WAYS[name]))
                profiler.disable()
                if number >= 0:
                    found[name].append(outcome)
                    _print_line(f"round {number + 1} {name}: {_format_outcome(outcome)}")
        await world.verify()
        if profile:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(_PROFILED)
            await _statements(world)
    return found


async def _full(rounds: int, size: int) -> list[Outcome]:
    """Measure the full plan."""
    cases = max(size // _FULL_SHARE, 1)
    outcomes: list[Outcome] = []
    async with opened((rounds + 1) * cases, full=True) as world:
        for number in range(-1, rounds):
            outcome = await ours(world, cases, rules=True)
            if number >= 0:
                outcomes.append(outcome)
                _print_line(f"round {number + 1} {FULL}: {_format_outcome(outcome)}")
        await world.verify()
    return outcomes


async def _statements(world: World) -> None:
    """Print what each statement of one batch took, alone on the server."""
    await script(world, world.batch)
    groups, _ = await script(world, world.batch)
    began = groups[0][0].began
    _print_line(f"statements of one batch of {world.batch}, alone (milliseconds: began, took)")
    for group in groups:
        for one in group:
            took, start = (one.ended - one.began) * 1000, (one.began - began) * 1000
            _print_line(f"  {start:8.1f} {took:8.1f}  {one.database:18} {' '.join(one.sql.split())[:110]}")


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _format_outcome(outcome: Outcome) -> str:
    cpu, cases = outcome.cpu, outcome.cases
    return (
        f"{outcome.rate:,.0f} cases/s, p50 {outcome.percentile(50):,.0f} ms, p99 {outcome.percentile(99):,.0f} ms, "
        f"CPU µs a case: Python {cpu.python / cases * 1e6:,.0f}, PostgreSQL {cpu.postgres / cases * 1e6:,.0f}, "
        f"others had {cpu.others / outcome.seconds:.2f} cores"
    )


def _rows(name: str, outcomes: Sequence[Outcome], note: str) -> list[Row]:
    rows = [row(f"{name}: rate", "cases/s", [one.rate for one in outcomes], note)]
    for percent in (50, 99):
        figures = [one.percentile(percent) for one in outcomes]
        rows.append(row(f"{name}: p{percent}", "ms", figures, "from taken to ended"))
    for who in ("python", "postgres", "networks"):
        figures = [getattr(one.cpu, who) / one.cases * 1e6 for one in outcomes]
        if any(figures):
            rows.append(row(f"{name}: CPU of {who}", "µs/case", figures))
    return rows


def _bars(found: Mapping[str, Sequence[Outcome]]) -> list[Bar]:
    """Hold ours against what ran beside it, round by round."""
    rates = {name: [one.rate for one in outcomes] for name, outcomes in found.items()}
    batches = [rates[name] for name in ("dbos_1024", "dbos_256") if name in rates]
    against = {name: (rates[name], least) for name, least in (("per_case", 40), ("ceiling", 0.65)) if name in rates}
    if batches:
        against["dbos per batch"] = ([max(both) for both in zip(*batches, strict=True)], 1.5)
    bars = [
        Bar(f"ours / {name}", ratio(rates["ours"], theirs), at_least=least) for name, (theirs, least) in against.items()
    ]
    if "mix" in rates:
        bars.append(Bar("mix / ours", ratio(rates["mix"], rates["ours"]), at_least=0.8))
    return bars


def run(rounds: int, size: int | None, *, only: str | None = None, profile: bool = False) -> Result:
    """Compare all ways, or `only` those named (comma between), on `size` cases a round.

    `profile`: print what Python spent its time on, and how long each statement of one batch took, to stderr.
    """
    names = only.split(",") if only else [*WAYS, FULL]
    if unknown := set(names) - WAYS.keys() - {FULL}:
        message = f"no such way: {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}, {FULL}"
        raise SystemExit(message)
    cases = size or _CASES
    found: dict[str, list[Outcome]] = {}
    if beside := [name for name in names if name != FULL]:
        found = uvloop.run(_measure(rounds, cases, beside, profile=profile))
    rows = [one for name in beside for one in _rows(name, found[name], WAYS[name].note)]
    if FULL in names:
        rows += _rows(FULL, uvloop.run(_full(rounds, cases)), _FULL_NOTE)
    return Result(rows, _bars(found) if "ours" in found else [])
