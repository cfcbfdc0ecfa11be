"""Drop what was staged at participants for cases that ended without taking it up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from jiebang.store.cases import staging as store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.participants.core.staging import StagingArea
    from jiebang.store.postgres.pool import Database

GRACE: Final = timedelta(hours=1)
"""What was staged more recently is left alone: its case may be about to be opened."""


class StagedSweep:
    """A chore. Each turn reads one page of what is staged at each participant, with one statement each."""

    def __init__(
        self, platform: Database, areas: Mapping[str, StagingArea], *, page: int = 1_000, grace: timedelta = GRACE
    ) -> None:
        """`areas`: by name of participant, for those that stage anything."""
        self._platform, self._areas, self._page, self._grace = platform, areas, page, grace
        self._after = dict.fromkeys(areas, (0, 0))

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn; return how much it dropped. Raises what the databases raise."""
        del buckets  # done once for the whole installation
        dropped = 0
        for name, area in self._areas.items():
            keys = await area.page(self._after[name], now - self._grace, self._page)
            self._after[name] = keys[-1] if len(keys) == self._page else (0, 0)
            if keys and (gone := await store.find_unneeded(self._platform, keys)):
                dropped += await area.drop(gone)
        return dropped
