"""What a case costs as the store grows: blocks touched, rows written, WAL, and the rate over an equally large hot set.

The store that grows stands on one server; a small one of the first size stands on another and takes turns with it, so
that what slows the machine for a while slows both. Everything is as the product makes it, tables and indexes logged.
Accounts that are not measured have all had a case already that is done: their rows say so everywhere, and in the last
step 10 million (or as many as there are) such cases stand in the store with their timelines and messages, chained as
the product chains them.

The hot set has the same size everywhere: neighbours in the middle of the accounts, and, told beside it, accounts strewn
evenly over all of them, of which no two share a page once the store is big: every case then makes a page of its own
dirty at each participant, and writes it whole to the WAL after a checkpoint, which no index can help.

Counted is what one worker's connections did from the first case recorded to the last one done, by the databases' own
counters, autovacuum switched off meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import asyncpg
import msgspec
import uvloop

from bench import counters
from bench.measure import Bar, Result, Row, row
from bench.picture import Axis, Line, chart
from bench.processes import LIMITS, TIMING
from bench.world import SIX, World, _on_one, joined, opened
from jiebang.model.plan import DATABASES
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.store.embedded import embedded
from jiebang.store.home import SERVERS
from jiebang.store.migrate import migrate_all
from jiebang.store.pool import open_pools

_SIZES: Final = (100_000, 1_000_000)
_FULL: Final = (*_SIZES, 10_000_000)
_CASES: Final = 4_096
"""Cases of one measured window."""
_PART: Final = 500_000
"""Accounts filled in one statement."""
_LONG: Final = 3_600.0
_SEED: Final = 4
_KINDS: Final = ("near", "strewn")
COUNTED: Final = ("platform", *SIX)

_FILL: Final = """INSERT INTO {owner}.account (account_id, facts_version, case_no, case_op, epoch{columns})
SELECT id, CASE WHEN hot THEN 1 ELSE 2 END, CASE WHEN hot THEN 0 ELSE 1 END,
    CASE WHEN hot THEN 'cancelled' ELSE 'confirmed' END, CASE WHEN hot THEN 1 ELSE 2 END{values}
FROM (SELECT id, {hot} AS hot FROM generate_series($1::bigint, $2::bigint) id) accounts"""
_IDENTITY: Final = (
    ", state, level, document_type, sealed, document_index, birth_date, region, changed_at, key_destroy_at",
    """, CASE WHEN hot THEN 'active' ELSE 'reclaimed' END, CASE WHEN hot THEN 2 ELSE 0 END,
    CASE WHEN hot THEN 'resident_id' END, decode(repeat('00', 64), 'hex'),
    CASE WHEN hot THEN sha256(id::text::bytea) END, CASE WHEN hot THEN date '1990-01-01' END,
    CASE WHEN hot THEN '440300' END, now() - interval '1 year', CASE WHEN NOT hot THEN now() END""",
)
_FILL_PLATFORM: Final = """INSERT INTO platform.account (account_id, last_case_no, created_at)
SELECT id, CASE WHEN {hot} THEN 0 ELSE 1 END, now() FROM generate_series($1::bigint, $2::bigint) id"""

_ENDED: Final = r"""
WITH ids AS (
    SELECT id FROM generate_series($1::bigint, $2::bigint) id WHERE NOT ({hot})
), chained AS MATERIALIZED (
    SELECT id, sha256(sha256(convert_to(E'jiebang-timeline-1\n' || id || E'\n1', 'UTF8')) || $5::bytea) AS head_1
    FROM ids
), heads AS MATERIALIZED (
    {heads}
), told AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT h.id, 1, t.revision, t.at, t.entries, CASE t.revision {pick} END
    FROM heads h CROSS JOIN platform.case_event t WHERE t.account_id = $3 AND t.case_no = $4
), messages AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, delivered_at)
    SELECT id, gen_random_uuid(), id % 256, 1, 'case_done', '{{}}', now(), now() FROM ids
)
INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, versions, wallet_version, revision,
    created_at, deadline, ended_at, head)
SELECT h.id, 1, h.id % 256, c.kind, c.state, c.plan, c.marks, c.versions, c.wallet_version, c.revision, c.created_at,
    c.deadline, c.ended_at - make_interval(secs => h.id / 1000.0), h.head_{last}
FROM heads h CROSS JOIN platform.cases c WHERE c.account_id = $3 AND c.case_no = $4
"""
"""Copies of one case that the product drove: the same rows for other accounts, with chains of their own."""


class Hot(msgspec.Struct, frozen=True):
    """Which accounts of `first` to `last` are hot: a block in their middle, and others strewn evenly over all."""

    first: int
    last: int
    size: int

    @property
    def block(self) -> range:
        """Neighbours."""
        middle = (self.first + self.last) // 2
        return range(middle, middle + self.size)

    @property
    def stride(self) -> int:
        """From one strewn account to the next."""
        return max((self.last - self.first + 1 - self.size) // self.size, 1)

    def strewn(self) -> list[int]:
        """Accounts far from each other, in random order."""
        start = self.first + -self.first % self.stride
        found = [each for each in range(start, self.last + 1, self.stride) if each not in self.block]
        random.Random(_SEED).shuffle(found)
        return found

    @property
    def sql(self) -> str:
        """The same as a condition on `id`."""
        return f"(id BETWEEN {self.block.start} AND {self.block.stop - 1} OR id % {self.stride} = 0)"


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


# --- Filling ---------------------------------------------------------------------------------------------------------


def _owned(world: World) -> list[str]:
    return [name for name in world.plan.participants if name in DATABASES]


async def _fill(world: World, hot: Hot) -> None:
    """Make the accounts of a range: the hot ones bound, all others unbound by a case before."""

    async def fill(name: str) -> None:
        owner = name.split("_", maxsplit=1)[0]
        columns, values = _IDENTITY if owner == "identity" else ("", "")
        sql = _FILL.format(owner=owner, columns=columns, values=values, hot=hot.sql)
        for start in range(hot.first, hot.last + 1, _PART):
            last = min(start + _PART - 1, hot.last)
            await world.pools[name].execute(sql, start, last, timeout=_LONG)

    gate = asyncio.Semaphore(2)

    async def in_turn(name: str) -> None:
        async with gate:
            await fill(name)

    await asyncio.gather(*(in_turn(name) for name in _owned(world)))
    sql = _FILL_PLATFORM.format(hot=hot.sql)
    await world.pools["platform"].execute(sql, hot.first, hot.last, timeout=_LONG)


async def _archive(world: World, ranges: Sequence[Hot], template: int) -> int:
    """Give every account that is not hot the done case it had, as a copy of `template`'s; return how many."""
    pool, made = world.pools["platform"], 0
    rows = await pool.fetch(
        "SELECT revision, at, entries::text FROM platform.case_event WHERE account_id = $1 ORDER BY revision",
        template,
    )
    digests = [
        digest(one["revision"], time_text(one["at"]), canonical(msgspec.json.decode(one["entries"]))) for one in rows
    ]
    last = len(digests)
    heads = "SELECT id, head_1 FROM chained"
    for at in range(2, last + 1):
        every = ", ".join(f"head_{before}" for before in range(1, at))
        heads = f"SELECT id, {every}, sha256(head_{at - 1} || ${at + 4}::bytea) AS head_{at} FROM ({heads}) h{at}"  # noqa: S608 - numbers
    pick = " ".join(f"WHEN {at} THEN h.head_{at}" for at in range(1, last + 1))
    for hot in ranges:
        sql = _ENDED.format(hot=hot.sql, heads=heads, pick=pick, last=last)
        for start in range(hot.first, hot.last + 1, _PART):
            end = min(start + _PART - 1, hot.last)
            status = await pool.execute(sql, start, end, template, 1, *digests, timeout=_LONG)
            made += int(status.rpartition(" ")[2])
    return made


async def _set(world: World, settings: Mapping[str, str]) -> None:
    """Set, or with an empty value reset, the server's settings."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(world.dsns["platform"])
    try:
        for name, value in settings.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'" if value else f"ALTER SYSTEM RESET {name}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def _vacuumed(world: World) -> None:
    """Vacuum and analyse: the planner knows the size, and index-only reads need no heap."""
    for name in ("platform", *_owned(world)):
        await world.pools[name].execute("VACUUM (ANALYZE, PARALLEL 0)", timeout=_LONG)
    await world.pools["platform"].execute("CHECKPOINT", timeout=_LONG)


# --- Measuring -------------------------------------------------------------------------------------------------------


async def _window(store: Store, accounts: Sequence[int]) -> Window:
    """Record a case for each of `accounts` and have one worker drive them, on connections of their own."""
    before = await store.counted()
    async with store.open() as world:
        await world.pools["platform"].execute("CHECKPOINT", timeout=_LONG)
        driver, started = world.driver(timing=TIMING, limits=LIMITS), perf_counter()
        await world.record(accounts)
        await world.drained(driver, len(accounts))
        seconds = perf_counter() - started
    counted = await store.counted() - before
    async with store.open() as world:
        await world.require_done(accounts)
    return Window(cases=len(accounts), rate=len(accounts) / seconds, counted=counted)


@asynccontextmanager
async def _small(home: Path) -> AsyncIterator[Store]:
    """Make an empty store on the other server."""
    async with embedded(home) as servers:
        dsns = await _on_one(servers[SERVERS[1]])
        await migrate_all(dsns)
        store = Store(dsns, 0)
        async with store.open() as world:
            await _set(world, {"autovacuum": "off"})
        yield store


async def _made_anew(store: Store, accounts: int) -> None:
    """Make the accounts of the small store anew, none of which had a case."""
    async with store.open() as world:
        for name in ("platform", *_owned(world)):
            tables = await world.pools[name].fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_catalog.pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'schema_migration'"
            )
            await world.pools[name].execute("TRUNCATE " + ", ".join(table["name"] for table in tables))
        await world.fill(1, accounts)
        await _vacuumed(world)


async def _step(
    grown: Store, small: Store, hot: Mapping[str, Sequence[int]], *, rounds: int, first: int
) -> tuple[dict[str, list[Window]], dict[str, list[Window]]]:
    """Measure both stores in turns. `hot`: accounts of the grown one, by kind; `first`: accounts of the small one."""
    cases = len(hot[_KINDS[0]]) // (rounds + 1)
    rest = list(range(first // 2 + 1, first + 1))
    random.Random(_SEED).shuffle(rest)
    of_small = {"near": range(1, first // 2 + 1), "strewn": rest}
    of_grown, beside = ({kind: list[Window]() for kind in _KINDS} for _ in range(2))
    await _made_anew(small, first)
    for number in range(-1, rounds):
        at = (number + 1) * cases
        for kind in _KINDS:
            turns = [(of_grown, grown, hot), (beside, small, of_small)]
            for windows, store, accounts in turns if number % 2 else reversed(turns):
                window = await _window(store, accounts[kind][at : at + cases])
                if number >= 0:
                    windows[kind].append(window)
    return of_grown, beside


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


async def _measure(rounds: int, cases: int, sizes: Sequence[int]) -> list[Step]:
    first, share, steps, ranges, before = sizes[0], (rounds + 1) * cases, list[Step](), list[Hot](), 1
    if share > first // 2:
        message = f"the first size is too small for {rounds} rounds of {cases} cases"
        raise SystemExit(message)
    async with opened(1) as base:
        if base.home is None:
            raise RuntimeError("the world has no servers of its own")
        grown = Store(dict(base.dsns), await counters.connected(base.dsns["platform"]))
        async with _small(base.home) as small:
            for accounts in sizes[1:]:
                hot = Hot(before + 1, accounts, 2 * share)  # half of it is for the step with ended cases
                async with _loading(grown, f"{accounts:,} accounts") as world:
                    await _fill(world, hot)
                ranges.append(hot)
                before, strewn = accounts, hot.strewn()
                sets = {"near": hot.block[:share], "strewn": strewn[:share]}
                windows = await _step(grown, small, sets, rounds=rounds, first=first)
                steps.append(Step(accounts=accounts, ended=0, grown=windows[0], small=windows[1]))
            async with _loading(grown, "an ended case each") as world:
                ended = await _archive(world, ranges, template=hot.block[0])
            sets = {"near": hot.block[share:], "strewn": strewn[share : 2 * share]}
            windows = await _step(grown, small, sets, rounds=rounds, first=first)
            steps.append(Step(accounts=before, ended=ended, grown=windows[0], small=windows[1]))
    return steps


@asynccontextmanager
async def _loading(store: Store, what: str) -> AsyncIterator[World]:
    """Open a store for a bulk load; afterwards it is vacuumed and set as the product sets it, but for autovacuum."""
    started = perf_counter()
    async with store.open() as world:
        await _set(world, {"autovacuum": "off", "max_wal_size": "16GB"})
        yield world
        await _vacuumed(world)
        await _set(world, {"max_wal_size": ""})
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
    for kind in _KINDS:
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
    places: list[tuple[float, tuple[str, str]]] = [(0.0, (f"{first:,} 账户 accounts", ""))]
    for at, step in enumerate(steps, 1):
        ended = f"{step.ended:,} 已结案件 ended cases" if step.ended else ""
        places.append((float(at), (f"{step.accounts:,} 账户 accounts", ended)))
    names = {
        ("buffers", "near"): ("触及的块", "blocks touched"),
        ("rows", "near"): ("写入的行", "rows written"),
        ("rate", "near"): ("速率", "rate"),
        ("rate", "strewn"): ("速率(散布账户)", "rate, strewn accounts"),
    }
    lines = [
        Line(
            words,
            [(0.0, 100.0), *((float(at), 100 * _ratio(step, kind, what)) for at, step in enumerate(steps, 1))],
            dashed=kind == "strewn",
        )
        for (what, kind), words in names.items()
    ]
    title = ("数据增长时每个案件的代价", "What a case costs as the store grows")
    up = Axis(("占最小库的百分比", "% of the smallest store"))
    path.write_text(chart(title, Axis(("库的规模", "size of the store"), places), up, lines), encoding="utf-8")


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
        for kind in _KINDS
        for window in step.grown[kind]
        for name, times in window.counted.scanned.items()
    }
    if scanned:
        _say(f"scanned: {scanned}")
    return Result(
        _rows(steps, sizes[0]),
        [
            Bar("blocks a case, grown / small", max(_ratio(step, "near", "buffers") for step in steps), at_most=1.2),
            Bar("rows a case, grown / small", max(_ratio(step, "near", "rows") for step in steps), at_most=1.2),
            Bar("rate, grown / small", min(_ratio(step, "near", "rate") for step in steps), at_least=0.8),
            Bar("sequential scans", sum(scanned.values()), at_most=0),
        ],
    )
