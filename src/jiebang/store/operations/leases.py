"""Leases on buckets of accounts.

The guard of every save is the safety; leases only keep workers out of each other's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jiebang.saga.leases import wanted_buckets
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from jiebang.store.postgres.pool import Pool

_SQL = load("jiebang.store.operations", "leases.sql")


class Held(msgspec.Struct, frozen=True):
    """What a heartbeat brought: buckets held from now on, what an operator wants, whether all claims are stopped."""

    buckets: frozenset[int]
    wish: str = "run"
    recovering: bool = False

    @property
    def may_claim(self) -> bool:
        """Whether the worker may take up cases."""
        return self.wish == "run" and not self.recovering


async def hold(pool: Pool, worker_id: str, now: datetime, lease: timedelta, *, still: bool = False) -> Held:
    """Renew the worker's heartbeat and leases, take its fair share, let go of the rest.

    `still`: it claims nothing and has nothing at hand. Then, where an operator has paused it, it keeps no bucket.
    """
    async with pool.acquire() as connection, connection.transaction():
        # One lease decision at a time; rows of cases are never touched by it.
        await connection.execute("LOCK TABLE platform.bucket_lease IN SHARE ROW EXCLUSIVE MODE")
        state = "paused" if still else "running"
        [told] = await connection.fetch(_SQL["seen_worker"], worker_id, now + lease, state)
        workers = {row["worker_id"] for row in await connection.fetch(_SQL["live_workers"], now)}
        rows = await connection.fetch(_SQL["read_leases"])
        leases = {row["bucket"]: (row["worker_id"], row["until"]) for row in rows}
        if told["wish"] == "run":
            wanted = sorted(wanted_buckets(worker_id, workers, leases, now))
        else:  # what it has at hand it finishes first
            wanted = [] if still else sorted(bucket for bucket, (owner, _) in leases.items() if owner == worker_id)
        await connection.execute(_SQL["release_buckets"], worker_id, wanted)
        await connection.execute(_SQL["hold_buckets"], wanted, worker_id, now + lease)
    return Held(frozenset(wanted), told["wish"], told["recovering"])


async def release(pool: Pool, worker_id: str) -> None:
    """Give up all buckets, and the worker's share of them, so that the others go on at their next turn."""
    await pool.execute(_SQL["release_worker"], worker_id)
