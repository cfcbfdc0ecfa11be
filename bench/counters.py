"""What the databases count by themselves: blocks touched, rows written, tables scanned, WAL written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

FEW_ROWS: Final = frozenset({"bucket_lease", "worker", "participant_outage", "recovery", "policy_state"})
"""Tables that no number of accounts or cases makes bigger: reading all of one is its shortest way."""

_TABLES: Final = """
SELECT s.schemaname || '.' || s.relname AS name, s.relname, s.seq_scan,
    io.heap_blks_read + io.heap_blks_hit AS heap, coalesce(io.idx_blks_read + io.idx_blks_hit, 0) AS idx,
    coalesce(io.toast_blks_read + io.toast_blks_hit + io.tidx_blks_read + io.tidx_blks_hit, 0) AS toast,
    s.n_tup_ins, s.n_tup_upd, s.n_tup_hot_upd, s.n_tup_del
FROM pg_stat_user_tables s JOIN pg_statio_user_tables io USING (relid)
"""
_CONNECTED: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jiebang'"


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Since the statistics began, or between two readings. `scanned`: tables that grow, by how often all was read."""

    blocks: int
    rows: int
    hot_updates: int
    updates: int
    wal_bytes: int
    scanned: Mapping[str, int]

    def __sub__(self, before: Counters) -> Counters:
        return Counters(
            blocks=self.blocks - before.blocks,
            rows=self.rows - before.rows,
            hot_updates=self.hot_updates - before.hot_updates,
            updates=self.updates - before.updates,
            wal_bytes=self.wal_bytes - before.wal_bytes,
            scanned={
                name: more for name, times in self.scanned.items() if (more := times - before.scanned.get(name, 0))
            },
        )


async def connected(dsn: str) -> int:
    """Return how many connections of the product's a server has."""
    connection: Connection = await asyncpg.connect(dsn)
    try:
        found: int = await connection.fetchval(_CONNECTED)
    finally:
        await connection.close()
    return found


async def checkpoints(dsn: str) -> int:
    """Return how many checkpoints a server has begun."""
    connection: Connection = await asyncpg.connect(dsn)
    try:
        found: int = await connection.fetchval("SELECT num_timed + num_requested FROM pg_stat_checkpointer")
    finally:
        await connection.close()
    return found


async def read(databases: Mapping[str, str], names: Sequence[str], *, idle: int) -> Counters:
    """Read the counters of the databases `names`, all on one server.

    A connection's counts are certain to be in once it has gone: waits until no more than `idle` are left, which have
    done nothing for long.
    """
    connections = await asyncio.gather(*(asyncpg.connect(databases[name]) for name in names))
    try:
        while await connections[0].fetchval(_CONNECTED) > idle:  # noqa: ASYNC110 - in a database no event tells
            await asyncio.sleep(0.02)
        tables = [row for connection in connections for row in await connection.fetch(_TABLES)]
        wal = await connections[0].fetchval("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
    return Counters(
        blocks=sum(row["heap"] + row["idx"] + row["toast"] for row in tables),
        rows=sum(row["n_tup_ins"] + row["n_tup_upd"] + row["n_tup_del"] for row in tables),
        hot_updates=sum(row["n_tup_hot_upd"] for row in tables),
        updates=sum(row["n_tup_upd"] for row in tables),
        wal_bytes=wal,
        scanned=_scanned(tables),
    )


def _scanned(tables: Sequence[asyncpg.Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in tables:
        if row["relname"] not in FEW_ROWS and not row["relname"].startswith("schema_migration"):
            found[row["name"]] = found.get(row["name"], 0) + row["seq_scan"]
    return found
