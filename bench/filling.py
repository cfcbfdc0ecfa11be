"""Many accounts and ended cases, made quickly and as the product would have left them: a big store for the benches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from jiebang.participants import PARTICIPANTS
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
    NULL, now() - interval '1 year', CASE WHEN NOT hot THEN now() END""",
)
_FILL_PLATFORM: Final = """INSERT INTO platform.account (account_id, last_case_no, created_at)
SELECT id, CASE WHEN {hot} THEN 0 ELSE 1 END, now() FROM generate_series($1::bigint, $2::bigint) id"""

_CHAINED: Final = r"""
WITH chained AS MATERIALIZED (
    SELECT id, sha256(sha256(convert_to(E'jiebang-timeline-1\n' || id || E'\n1', 'UTF8')) || $5::bytea) AS head_1
    FROM generate_series($1::bigint, $2::bigint) id WHERE NOT ({hot})
), heads AS MATERIALIZED (
    {heads}
)"""
"""The accounts of a part, each with the heads of its timeline."""
_ROW: Final = """SELECT h.id, 1, t.revision, t.at, t.entries, h.head_{revision}
FROM heads h CROSS JOIN platform.case_event t WHERE t.account_id = $3 AND t.case_no = $4 AND t.revision = {revision}
"""
_TOLD: Final = "\nINSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)\n"
_ENDED: Final = """, told AS ({told}), messages AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, delivered_at)
    SELECT id, gen_random_uuid(), id % 256, 1, 'case_done', '{{}}', now(), now() FROM chained
)
INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, versions, wallet_version, revision,
    created_at, deadline, ended_at, head)
SELECT h.id, 1, h.id % 256, c.kind, c.state, c.plan, c.marks, c.versions, c.wallet_version, c.revision, c.created_at,
    c.deadline, c.ended_at - make_interval(secs => h.id / 1000.0), h.head_{last}
FROM heads h CROSS JOIN platform.cases c WHERE c.account_id = $3 AND c.case_no = $4
"""
"""Copies of one case that the product drove: the same rows for other accounts, with chains of their own."""


Pair = tuple[int, int]
"""Two accounts side by side, which share their pages nearly everywhere."""


class Hot(msgspec.Struct, frozen=True):
    """Which accounts of `first` to `last` are hot, in `pairs`: a block in their middle, and as many strewn over all.

    There are six accounts a pair at least.
    """

    first: int
    last: int
    pairs: int

    @property
    def _block(self) -> range:
        middle = (self.first + self.last) // 2
        return range(middle, middle + 2 * self.pairs)

    @property
    def _stride(self) -> int:
        """From one strewn pair to the next."""
        return max((self.last - self.first + 1 - 2 * self.pairs) // (self.pairs + 3), 2)

    def block(self) -> list[Pair]:
        """Pairs side by side."""
        return [(one, one + 1) for one in self._block[::2]]

    def strewn(self) -> list[Pair]:
        """Pairs far from each other, in random order."""
        start = self.first + -self.first % self._stride
        found = [
            (one, one + 1)
            for one in range(start, self.last, self._stride)
            if one not in self._block and one + 1 not in self._block
        ]
        random.Random(_SEED).shuffle(found)
        return found

    @property
    def sql(self) -> str:
        """The same as a condition on `id`."""
        return f"(id BETWEEN {self._block.start} AND {self._block.stop - 1} OR id % {self._stride} < 2)"


def owned(world: World) -> list[str]:
    """Return the databases of a world's plan."""
    return [name for name in world.plan.participants if name in PARTICIPANTS.databases]


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
    """Give every account that is not hot the done case it had, as a copy of `template`'s; return how many.

    Of the timelines the larger rows come first, and after a vacuum the smaller ones, which go into what is left of
    their pages, as they do in a store whose cases came one after the other. Were all of it left until the end, every
    small row of the cases that follow would be written to some old page of its own, and this whole to the log.
    """
    pool = world.pools["platform"]
    rows = await pool.fetch(
        """SELECT revision, at, entries::text, pg_column_size(e.*) AS size
           FROM platform.case_event e WHERE account_id = $1 ORDER BY revision""",
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
    falling = [one["revision"] for one in sorted(rows, key=lambda one: -one["size"])]
    large, small = (
        _TOLD + "UNION ALL ".join(_ROW.format(revision=one) for one in some)  # one after the other, never mixed
        for some in (falling[: last // 2], falling[last // 2 :])
    )

    async def copied(hot: Hot, start: int) -> int:
        part = (start, min(start + _PART - 1, hot.last), template, 1, *digests)
        chained = _CHAINED.format(hot=hot.sql, heads=heads)
        async with _TWO:
            status = await pool.execute(chained + _ENDED.format(told=large, last=last), *part, timeout=LONG)
            await pool.execute("VACUUM (PARALLEL 0) platform.case_event", timeout=LONG)
            await pool.execute(chained + small, *part, timeout=LONG)
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
