"""A version in shadow: sees every live check after it was answered, and counts where it would have answered otherwise.

Live answers never wait for it: a check only hands its facts over, a thread compares what has gathered, one statement a
second adds the counts. When more gathers than can be compared, the rest is dropped and counted as dropped.
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
from jiebang.policy.shadow import compared, joined
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
    """Collects live checks for the version in shadow. Call it with each; `run` does the rest."""

    def __init__(self, db: Database, version: Callable[[], Pack | None], *, pause: timedelta = _PAUSE) -> None:
        """`version`: the version in shadow now, None where there is none."""
        self._db, self._version, self._pause = db, version, pause
        self._waiting: list[tuple[Pack, Pack, Facts, Kind, datetime]] = []
        self._room = _ROOM
        self._counts: defaultdict[tuple[str, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def __call__(self, live: Pack, facts: Facts, kind: Kind, now: datetime) -> None:
        """Take in a check that was answered by `live`. Returns at once."""
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
            except Exception:  # noqa: BLE001 - a version in shadow must not harm the process that runs it
                _log.exception("shadow_failed")

    async def flush(self) -> None:
        """Compare what has gathered and add it to the counts. What could not be added stays for the next time."""
        waiting, self._waiting, self._room = self._waiting, [], _ROOM
        grouped: defaultdict[tuple[str, str, Kind, object], list[int]] = defaultdict(list)
        for at, (live, beside, _, kind, now) in enumerate(waiting):
            grouped[live.id, beside.id, kind, local_date(now)].append(at)
        for places in grouped.values():
            live, beside, _, kind, now = waiting[places[-1]]  # some of them a second older: as good as now
            facts = joined([waiting[at][2] for at in places])
            found = await asyncio.to_thread(compared, live, beside, facts, kind, now)
            for (segment, code), counted in found.items():
                kept = self._counts[beside.id, live.id, kind.value, segment, code]
                for place, number in enumerate(counted):
                    kept[place] += number
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
        await store.count(self._db, counts)
        self._counts.clear()
