"""Many accounts and ended cases, made quickly and as the product would have left them: a big store for the benches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from jiebang.model.plan import DATABASES
from jiebang.saga.chain import canonical, digest, time_text

if TYPE_CHECKING:
    from bench.world import World

_PART: Final = 250_000
"""Accounts filled in one statement."""
_TWO: Final = asyncio.Semaphore(2)
"""Statements that fill at the same time."""
LONG: Final = 3_600.0
_SEED: Final = 4

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


def owned(world: World) -> list[str]:
    """Return the databases of a world's plan."""
    return [name for name in world.plan.participants if name in DATABASES]


async def fill(world: World, hot: Hot) -> None:
    """Make the accounts of a range: the hot ones bound, all others unbound by a case before."""

    async def fill_one(name: str) -> None:
        owner = name.split("_", maxsplit=1)[0]
        columns, values = _IDENTITY if owner == "identity" else ("", "")
        sql = _FILL.format(owner=owner, columns=columns, values=values, hot=hot.sql)
        for start in range(hot.first, hot.last + 1, _PART):
            last = min(start + _PART - 1, hot.last)
            await world.pools[name].execute(sql, start, last, timeout=LONG)

    async def in_turn(name: str) -> None:
        async with _TWO:
            await fill_one(name)

    await asyncio.gather(*(in_turn(name) for name in owned(world)))
    sql = _FILL_PLATFORM.format(hot=hot.sql)
    await world.pools["platform"].execute(sql, hot.first, hot.last, timeout=LONG)


async def archive(world: World, ranges: Sequence[Hot], template: int) -> int:
    """Give every account that is not hot the done case it had, as a copy of `template`'s; return how many."""
    pool = world.pools["platform"]
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

    async def copied(hot: Hot, start: int) -> int:
        sql = _ENDED.format(hot=hot.sql, heads=heads, pick=pick, last=last)
        async with _TWO:
            end = min(start + _PART - 1, hot.last)
            status = await pool.execute(sql, start, end, template, 1, *digests, timeout=LONG)
        return int(status.rpartition(" ")[2])

    parts = [copied(hot, start) for hot in ranges for start in range(hot.first, hot.last + 1, _PART)]
    return sum(await asyncio.gather(*parts))


async def set_server(world: World, settings: Mapping[str, str]) -> None:
    """Set, or with an empty value reset, the server's settings."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(world.dsns["platform"])
    try:
        for name, value in settings.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'" if value else f"ALTER SYSTEM RESET {name}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


async def vacuumed(world: World) -> None:
    """Vacuum and analyse: the planner knows the size, and index-only reads need no heap."""
    for name in ("platform", *owned(world)):
        await world.pools[name].execute("VACUUM (ANALYZE, PARALLEL 0)", timeout=LONG)
    await world.pools["platform"].execute("CHECKPOINT", timeout=LONG)
