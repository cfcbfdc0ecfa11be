"""What a case costs as the store grows: blocks touched, rows written, WAL, and the rate over an equally large hot set.

The store that grows stands on one server; a small one of the first size stands on another and takes turns with it, so
that what slows the machine for a while slows both. Everything is as the product makes it, tables and indexes logged.
Accounts that are not measured have all had a case already that is done: their rows say so everywhere, and in the last
step 10 million (or as many as there are) such cases stand in the store with their timelines and messages, chained as
the product chains them.

The hot set has the same size everywhere: neighbours in the middle of the accounts, driven in batches; and, one case at
a time, accounts strewn evenly over all of them, which have nothing to share with anybody. The bars are about these two.
Told beside them are the strewn ones in batches: in the small store a batch finds many of its accounts on one page, in
the big one each on its own, dirty at every participant. What grows there is what the small store saves, and no index
can help it.

Both stores are measured as systems that run. After a checkpoint PostgreSQL writes every page that is first touched
whole into the log, and after a vacuum a page's first writer clears its mark in the visibility map: both are paid once a
page, whatever the store's size, until the next checkpoint or vacuum. A load ends with both, so windows just after it
would tell how few cases had shared that price by then. So hot accounts come in pairs side by side, which share their
pages: a lap over the first of each pair comes between the checkpoint and the second ones, which are measured. (An
account that was unbound cannot be unbound again: that is why another one warms its pages.) The lap is told too, as
`after a checkpoint`, without a bar: a hot set strewn over more pages pays for each of them there. Every window has a
checkpoint and a lap of its own, so that none falls into what is measured: less is written to the log meanwhile than the
servers' settings allow, and one that happens all the same is an error. For the same reason the archive is laid out
with its pages full (`filling.archive`).

Counted is what one worker's connections did from the first case recorded to the last one done, by the databases' own
counters, autovacuum switched off meanwhile. Cases driven alone are read as a worker reads them, but all at once.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import msgspec
import uvloop

from bench import counters
from bench.filling import LONG, Hot, Pair, archive, fill, owned, set_server, vacuumed
from bench.measure import Bar, Result, Row, row
from bench.picture import Axis, Line, Words, chart
from bench.processes import LIMITS, TIMING
from bench.world import RECORDED_AT_ONCE, SIX, World, joined, now, on_one, opened, start_servers
from jiebang.model.case import BUCKETS, Case
from jiebang.participants import PARTICIPANTS
from jiebang.store.cases import cases
from jiebang.store.postgres.data_directory import SERVERS
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools

_SIZES: Final = (100_000, 1_000_000)
SMOKE: Final = {"size": 16, "accounts": (2_000, 6_000)}
_FULL: Final = (*_SIZES, 10_000_000)
_CASES: Final = 4_096
"""Cases of one measured window."""
_SEED: Final = 4
_KINDS: Final = ("near", "strewn", "alone")
_ALONE: Final = 64
"""Cases of a window in which each is driven by itself."""
_LAPS: Final = {kind: f"{kind}, after a checkpoint" for kind in ("near", "strewn")}
_TOLD: Final = (*_KINDS, *_LAPS.values())
_QUIET: Final = {"autovacuum": "off"}
COUNTED: Final = ("platform", *SIX)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One measured window: `cases` of them, cases a second, and what the databases counted."""

    cases: int
    rate: float
    counted: counters.Counters


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One size of the store: windows of it and of the small one beside it, by kind of hot set."""

    accounts: int
    ended: int
    grown: Mapping[str, list[Window]]
    small: Mapping[str, list[Window]]


class Store(msgspec.Struct, frozen=True):
    """A store on a server of its own. `idle`: connections of the product's that stand there and do nothing."""

    dsns: Mapping[str, str]
    idle: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        """Open it on connections that go afterwards, and leave their counts behind."""
        async with open_pools(self.dsns) as pools:
            yield joined(self.dsns, pools)

    async def counted(self) -> counters.Counters:
        """Read its counters."""
        return await counters.read(self.dsns, [name for name in self.dsns if name in COUNTED], idle=self.idle)


# --- Measuring -------------------------------------------------------------------------------------------------------


async def _window(store: Store, pairs: Sequence[Pair], *, alone: bool) -> tuple[Window, Window]:
    """Measure a lap over the first of each pair, just after a checkpoint, and then the second of each.

    `alone`: the second ones are each driven by themselves.
    """
    async with store.open() as world:
        await world.pools["platform"].execute("CHECKPOINT", timeout=LONG)
    begun = await counters.checkpoints(store.dsns["platform"])
    lap = await _drive(store, [first for first, _ in pairs], alone=False)
    if alone:  # an idle worker looks all the time, and so clears what is dead out of its way
        async with store.open() as world:
            await _due(world)
    measured = await _drive(store, [second for _, second in pairs], alone=alone)
    if begun != await counters.checkpoints(store.dsns["platform"]):
        raise RuntimeError("a checkpoint fell into what was measured")
    return lap, measured


async def _drive(store: Store, accounts: Sequence[int], *, alone: bool) -> Window:
    """Record a case for each of `accounts` and drive them, on connections of their own.

    `alone`: each by itself, and without a worker, whose looking for more to do would count with a few cases only.
    """
    before = await store.counted()
    async with store.open() as world:
        driver, started = world.driver(timing=TIMING, limits=LIMITS), perf_counter()
        await world.record(accounts)
        if alone:
            for case in await _due(world):
                await driver.drive([case])
            await driver.aclose()
        else:
            await world.drained(driver, len(accounts))
        seconds = perf_counter() - started
    counted = await store.counted() - before
    async with store.open() as world:
        await world.require_done(accounts)
    return Window(cases=len(accounts), rate=len(accounts) / seconds, counted=counted)


async def _due(world: World) -> list[Case]:
    """Read what is due as a worker does that holds all buckets."""
    return await cases.load_due(world.pools["platform"], range(BUCKETS), now(), RECORDED_AT_ONCE)


@asynccontextmanager
async def _small(home: Path) -> AsyncIterator[Store]:
    """Make an empty store on the other server."""
    async with start_servers(home) as servers:
        dsns = await on_one(servers[SERVERS[1]])
        await migrate_all(dsns, PARTICIPANTS)
        store = Store(dsns, 0)
        async with store.open() as world:
            await set_server(world, _QUIET)
        yield store


async def _recreate_accounts(store: Store, accounts: int) -> None:
    """Make the accounts of the small store anew, none of which had a case."""
    async with store.open() as world:
        for name in ("platform", *owned(world)):
            tables = await world.pools[name].fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_catalog.pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'schema_migration'"
            )
            await world.pools[name].execute("TRUNCATE " + ", ".join(table["name"] for table in tables))
        await world.fill(1, accounts)
        await vacuumed(world)


def _sets(block: Sequence[Pair], strewn: Sequence[Pair], share: int) -> dict[str, Sequence[Pair]]:
    """Return the pairs of each kind of window. `share`: how many the windows of one kind need at most."""
    return {"near": block[:share], "strewn": strewn[:share], "alone": strewn[share:]}


async def _step(
    grown: Store, small: Store, hot: Mapping[str, Sequence[Pair]], *, rounds: int, size: int, first: int
) -> list[Mapping[str, list[Window]]]:
    """Measure both stores in turns. `hot`: pairs of the grown one, by kind; `first`: accounts of the small one."""
    rest = [(one, one + 1) for one in range(first // 2 + 1, first, 2)]
    random.Random(_SEED).shuffle(rest)
    block = [(one, one + 1) for one in range(1, first // 2, 2)]
    of_small = _sets(block, rest, rounds * size)
    await _recreate_accounts(small, first)
    of_grown, beside = ({name: list[Window]() for name in _TOLD} for _ in range(2))
    for number in range(rounds):
        for kind in _KINDS:
            count = min(_ALONE, size) if kind == "alone" else size
            at = number * count
            turns = [(of_grown, grown, hot), (beside, small, of_small)]
            for windows, store, pairs in turns if number % 2 else reversed(turns):
                lap, window = await _window(store, pairs[kind][at : at + count], alone=kind == "alone")
                windows[kind].append(window)
                if kind in _LAPS:
                    windows[_LAPS[kind]].append(lap)
    return [of_grown, beside]


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


async def _measure(rounds: int, size: int, sizes: Sequence[int]) -> list[Step]:
    first, steps, ranges, before = sizes[0], list[Step](), list[Hot](), 1
    share, lone = rounds * size, rounds * min(_ALONE, size)
    grows = min(after - at for at, after in itertools.pairwise(sizes))
    if 4 * (share + lone) > first or 12 * (share + lone) > grows:
        least = 4 * (share + lone)
        message = f"{rounds} rounds of {size} cases: {least:,} accounts at first, and three times as many more a step"
        raise SystemExit(message)
    async with opened(1) as base:
        if base.home is None:
            raise RuntimeError("the world has no servers of its own")
        grown = Store(dict(base.dsns), await counters.connected(base.dsns["platform"]))
        await set_server(base, _QUIET)
        async with _small(base.home) as small:

            async def measure(block: Sequence[Pair], strewn: Sequence[Pair], ended: int) -> None:
                windows = await _step(grown, small, _sets(block, strewn, share), rounds=rounds, size=size, first=first)
                steps.append(Step(accounts=before, ended=ended, grown=windows[0], small=windows[1]))

            for accounts in sizes[1:]:
                hot = Hot(before + 1, accounts, 2 * (share + lone))  # half of it is for the step with ended cases
                async with _loading(grown, f"{accounts:,} accounts") as world:
                    await fill(world, hot)
                ranges.append(hot)
                before, block, strewn = accounts, hot.block(), hot.strewn()
                await measure(block[:share], strewn[: share + lone], 0)
            async with _loading(grown, "an ended case each") as world:
                ended = await archive(world, ranges, template=block[0][0])
            await measure(block[share : 2 * share], strewn[share + lone : 2 * (share + lone)], ended)
    return steps


@asynccontextmanager
async def _loading(store: Store, what: str) -> AsyncIterator[World]:
    """Open a store for a bulk load; afterwards it is vacuumed."""
    started = perf_counter()
    async with store.open() as world:
        yield world
        await vacuumed(world)
    _say(f"{what} made in {perf_counter() - started:,.0f} s")


# --- Telling ---------------------------------------------------------------------------------------------------------


def _figures(windows: Sequence[Window]) -> dict[str, list[float]]:
    return {
        "buffers": [one.counted.blocks / one.cases for one in windows],
        "rows": [one.counted.rows / one.cases for one in windows],
        "wal": [one.counted.wal_bytes / one.cases / 1024 for one in windows],
        "rate": [one.rate for one in windows],
    }


_UNITS: Final = {"buffers": "blocks/case", "rows": "rows/case", "wal": "KiB/case", "rate": "cases/s"}


def _ratio(step: Step, kind: str, what: str) -> float:
    """Return how the grown store compares with the small one, which took turns with it."""
    ours, small = _figures(step.grown[kind])[what], _figures(step.small[kind])[what]
    return round(median(a / b for a, b in zip(ours, small, strict=True)), 3)


def _name(step: Step) -> str:
    return f"{_short(step.accounts)}+{_short(step.ended)}" if step.ended else _short(step.accounts)


def _short(count: int) -> str:
    return f"{count / 1e6:.4g}M" if count >= 1_000_000 else f"{count / 1e3:.4g}k"  # noqa: PLR2004 - a million


def _rows(steps: Sequence[Step], first: int) -> list[Row]:
    rows = []
    for kind in _TOLD:
        base = [window for step in steps for window in step.small[kind]]
        table = [(_short(first), base, None), *((_name(step), step.grown[kind], step) for step in steps)]
        for name, windows, step in table:
            for what, figures in _figures(windows).items():
                note = f"{_ratio(step, kind, what):.3f} of the small store's beside it" if step else ""
                rows.append(row(f"{kind}, {name}: {what}", _UNITS[what], figures, note))
            hot_updates = sum(one.counted.hot_updates for one in windows) / sum(one.counted.updates for one in windows)
            rows.append(row(f"{kind}, {name}: HOT updates", "%", [100 * hot_updates]))
    return rows


def _picture(steps: Sequence[Step], first: int, path: Path) -> None:
    places: list[tuple[float, Words]] = [(0.0, (f"{first:,} 账户 accounts", ""))]
    for at, step in enumerate(steps, 1):
        ended = f"{step.ended:,} 已结案件 ended cases" if step.ended else ""
        places.append((float(at), (f"{step.accounts:,} 账户 accounts", ended)))
    names = {
        ("buffers", "near"): ("触及的块", "blocks touched"),
        ("buffers", "alone"): ("触及的块(单独办理)", "blocks touched, alone"),
        ("rows", "near"): ("写入的行", "rows written"),
        ("rate", "near"): ("速率", "rate"),
        ("rate", "strewn"): ("速率(散布的账户)", "rate, strewn accounts"),
    }
    lines = [
        Line(
            words,
            [(0.0, 100.0), *((float(at), 100 * _ratio(step, kind, what)) for at, step in enumerate(steps, 1))],
            dashed=kind != "near",
        )
        for (what, kind), words in names.items()
    ]
    title = ("数据增长时每个案件的代价", "What a case costs as the store grows")
    across, up = Axis(("库的规模", "size of the store"), places), Axis(("占最小库的百分比", "% of the smallest store"))
    limits: list[tuple[float, Words]] = [
        (120.0, ("块、行的上限", "blocks, rows: at most")),
        (80.0, ("速率的下限", "rate: at least")),
    ]
    path.write_text(chart(title, across, up, lines, limits), encoding="utf-8")


def run(
    rounds: int,
    size: int | None,
    *,
    accounts: Sequence[int] | None = None,
    full: bool = False,
    picture: str | None = None,
) -> Result:
    """Measure; `size`: cases of a window; `accounts`: the sizes, the first being what others are compared with.

    `full`: up to 10 million accounts and as many ended cases. `picture`: where to draw the figures, as SVG.
    """
    sizes = sorted(accounts or (_FULL if full else _SIZES))
    if len(sizes) == 1:
        raise SystemExit("--accounts needs two sizes at least")
    steps = uvloop.run(_measure(rounds, size or _CASES, sizes))
    if picture:
        _picture(steps, sizes[0], Path(picture))
    scanned = {
        name: times
        for step in steps
        for windows in step.grown.values()
        for window in windows
        for name, times in window.counted.scanned.items()
    }
    if scanned:
        _say(f"scanned: {scanned}")
    return Result(
        _rows(steps, sizes[0]),
        [
            *(
                Bar(
                    f"blocks a case, {kind}: / small", max(_ratio(step, kind, "buffers") for step in steps), at_most=1.2
                )
                for kind in ("near", "alone")
            ),
            Bar("rows a case, near: / small", max(_ratio(step, "near", "rows") for step in steps), at_most=1.2),
            Bar("rate, near: / small", min(_ratio(step, "near", "rate") for step in steps), at_least=0.8),
            Bar("sequential scans", sum(scanned.values()), at_most=0),
        ],
    )
