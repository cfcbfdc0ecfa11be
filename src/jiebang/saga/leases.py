"""Which buckets of accounts a worker should lease: a fair share, computed from the present leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.model.case import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime


def choose_buckets(
    me: str, workers: Collection[str], leases: Mapping[int, tuple[str, datetime]], now: datetime
) -> frozenset[int]:
    """Return the buckets that worker `me` holds from now on, given all live `workers` and all `leases` by bucket.

    It keeps its own up to a fair share, then takes free ones (never leased, or expired). It never takes a lease that
    another worker still holds: one with more than its share gives the rest up by itself at its next renewal. Shares
    differ by at most one and add up to all buckets; the remainder goes to the first workers by name.
    """
    everyone = sorted({*workers, me})
    share = BUCKETS // len(everyone) + (everyone.index(me) < BUCKETS % len(everyone))
    own = sorted(bucket for bucket, (worker, until) in leases.items() if worker == me and until > now)
    if len(own) >= share:
        return frozenset(own[:share])
    free = [bucket for bucket in range(BUCKETS) if bucket not in leases or leases[bucket][1] <= now]
    return frozenset((own + free)[:share])
