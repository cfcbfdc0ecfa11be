"""Leases on buckets of accounts.

Safety rests on the guard of every save; leases only keep workers from doing the same work.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.saga.leases import choose_buckets
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.postgres.pool import Pool

_SQL = load("jiebang.store.operations", "leases.sql")
_MS_LIMIT: Final = 2**31 - 1


class LeaseGrant(msgspec.Struct, frozen=True):
    """The result of a heartbeat: the buckets now held, the operator's wish, and whether a recovery stops all claims."""

    buckets: frozenset[int]
    wish: str = "run"
    recovering: bool = False
    clock_off: bool = False
    """Whether the worker's own clock is off by too much."""

    @property
    def may_claim(self) -> bool:
        """Whether the worker may take up cases."""
        return self.wish == "run" and not self.recovering and not self.clock_off


async def hold(
    pool: Pool,
    worker_id: str,
    now: datetime,
    lease: timedelta,
    *,
    still: bool = False,
    clock_off: timedelta | None = None,
) -> LeaseGrant:
    """Renew the worker's heartbeat and leases, take its fair share of buckets, release the rest.

    `now`: by the database's clock. `still`: the worker has finished its cases and claims none. If an operator has
    paused it, or its own clock is off by `clock_off`, it then keeps no bucket.
    """
    async with pool.acquire() as connection, connection.transaction():
        # Lease decisions are serialised; the lock touches no rows of cases.
        await connection.execute("LOCK TABLE platform.bucket_lease IN SHARE ROW EXCLUSIVE MODE")
        state = "paused" if still else "running"
        off_ms = None if clock_off is None else max(-_MS_LIMIT, min(_MS_LIMIT, clock_off // timedelta(milliseconds=1)))
        [heartbeat] = await connection.fetch(_SQL["record_heartbeat"], worker_id, now + lease, state, off_ms)
        workers = {row["worker_id"] for row in await connection.fetch(_SQL["live_workers"], now)}
        rows = await connection.fetch(_SQL["read_leases"])
        leases = {row["bucket"]: (row["worker_id"], row["until"]) for row in rows}
        if heartbeat["wish"] == "run" and clock_off is None:
            wanted = sorted(choose_buckets(worker_id, workers, leases, now))
        else:  # it finishes its cases first
            wanted = [] if still else sorted(bucket for bucket, (owner, _) in leases.items() if owner == worker_id)
        await connection.execute(_SQL["release_buckets"], worker_id, wanted)
        await connection.execute(_SQL["hold_buckets"], wanted, worker_id, now + lease)
    return LeaseGrant(frozenset(wanted), heartbeat["wish"], heartbeat["recovering"], clock_off is not None)


async def release(pool: Pool, worker_id: str) -> None:
    """Release all buckets and the worker's share of them, so that the others take them at their next heartbeat."""
    await pool.execute(_SQL["release_worker"], worker_id)
