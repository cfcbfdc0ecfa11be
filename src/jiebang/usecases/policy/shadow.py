"""A version in shadow: it gets every live check after the answer, and counts where its own answer differs.

Live answers never wait for it: a check only hands over its facts, a thread compares what has gathered, and one
statement a second adds the counts. Checks that come faster than they can be compared are dropped and counted as such.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import Counter

from jiebang.participants.base import UNANSWERED
from jiebang.policy.calendar import local_date
from jiebang.policy.shadow import compare_versions, join_batches
from jiebang.store.policy import packs as store
from jiebang.store.policy.packs import ShadowCount

if TYPE_CHECKING:
    from jiebang.model.case import Kind
    from jiebang.policy.frame import Facts
    from jiebang.policy.pack import Pack
    from jiebang.store.postgres.pool import Database

COMPARED_TOTAL: Final = Counter("jiebang_shadow_checks_total", "Live checks seen by a version in shadow", ["outcome"])

_PAUSE: Final = timedelta(seconds=1)
_ROOM: Final = 16_384
"""Accounts that may wait to be compared: some tens of MiB of facts at most."""

_log = structlog.get_logger(__name__)


class Shadow:
    """Collects live checks for the version in shadow: called with each check; `run` compares and counts."""

    def __init__(self, db: Database, version: Callable[[], Pack | None], *, pause: timedelta = _PAUSE) -> None:
        """`version`: the version in shadow now, None where there is none."""
        self._db, self._version, self._pause = db, version, pause
        self._waiting: list[tuple[Pack, Pack, Facts, Kind, datetime]] = []
        self._room = _ROOM
        self._counts: defaultdict[tuple[str, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def __call__(self, live: Pack, facts: Facts, kind: Kind, now: datetime) -> None:
        """Queue a check that `live` has answered. Returns at once."""
        beside = self._version()
        if beside is None:
            return
        size = len(facts.accounts)
        if size > self._room:
            COMPARED_TOTAL.labels("dropped").inc(size)
            return
        self._room -= size
        self._waiting.append((live, beside, facts, kind, now))

    async def run(self) -> None:
        """Compare and count until cancelled."""
        while True:
            await asyncio.sleep(self._pause.total_seconds())
            try:
                await self.flush()
            except UNANSWERED as error:
                _log.warning("shadow_not_counted", error=type(error).__name__)
            except Exception:  # noqa: BLE001 - a version in shadow must not end its process
                _log.exception("shadow_failed")

    async def flush(self) -> None:
        """Compare what has gathered and add it to the stored counts. Counts not stored are kept."""
        waiting, self._waiting, self._room = self._waiting, [], _ROOM
        grouped: defaultdict[tuple[str, str, Kind, object], list[int]] = defaultdict(list)
        for place, (live, beside, _, kind, now) in enumerate(waiting):
            grouped[live.id, beside.id, kind, local_date(now)].append(place)
        for group in grouped.values():
            live, beside, _, kind, now = waiting[
                group[-1]
            ]  # others are up to a second older, which makes no difference
            facts = join_batches([waiting[place][2] for place in group])
            counts_of_group = await asyncio.to_thread(compare_versions, live, beside, facts, kind, now)
            for (segment, code), counted in counts_of_group.items():
                kept = self._counts[beside.id, live.id, kind.value, segment, code]
                for index, number in enumerate(counted):
                    kept[index] += number
            COMPARED_TOTAL.labels("compared").inc(len(facts.accounts))
        if not self._counts:
            return
        counts = [
            ShadowCount(
                shadow=shadow, live=live_id, kind=kind_name, segment=segment, code=code,
                checks=checks, in_both=both, only_live=only_live, only_shadow=only_shadow,
            )
            for (shadow, live_id, kind_name, segment, code), (checks, both, only_live, only_shadow)
            in self._counts.items()
        ]  # fmt: skip
        await store.add_counts(self._db, counts)
        self._counts.clear()
