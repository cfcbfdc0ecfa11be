"""Begin: reach the platform's database, see that every database fits us, and learn the policy in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from jiebang.model.errors import JiebangError
from jiebang.model.facts import PLATFORM
from jiebang.participants.base import UNANSWERED
from jiebang.saga.backoff import doubled
from jiebang.store.postgres.migrate import require_migrated
from jiebang.usecases.policy import lifecycle

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.policy.registry import Registry

_FIRST_PAUSE: Final = timedelta(seconds=0.5)
_LONGEST_PAUSE: Final = timedelta(seconds=4)

_log = structlog.get_logger(__name__)


class Joining:
    """The way from a process that runs to one that can work. `done` is set for good once it can."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        registry: Registry,
        shipped: Mapping[str, tuple[str, str]],
        first: str,
        clock: Callable[[], datetime],
    ) -> None:
        """`shipped`: the packs that come with us, text and file name by name; `first`: which the first start takes."""
        self._pools, self._registry, self._clock = pools, registry, clock
        self._shipped, self._first = shipped, first
        self.done = asyncio.Event()
        self.edited: Sequence[str] = ()
        """Packs that come with us whose file was edited after its version was added, so that the edit has no effect."""

    async def join(self) -> None:
        """Join now.

        Raises MigrationRefusedError, NotMigratedError, PackInvalidError, and what a database that is silent or not
        ready for us raises (UNANSWERED).
        """
        await self._pools[PLATFORM].fetchval("SELECT 1")  # before all: perhaps it is the only one that is silent
        await require_migrated(self._pools, self._registry.declared)
        self.edited = await lifecycle.install(
            self._pools[PLATFORM], self._registry.declared, self._shipped, self._first, self._clock()
        )
        await self._registry.refresh()
        self.done.set()

    async def run(self) -> None:
        """Join as soon as that can be, then keep up with the policy in force, until cancelled.

        A database that came back behind us, or with a policy that does not load, is waited for too: someone is at work
        on it.
        """
        failures = 0
        while not self.done.is_set():
            try:
                await self.join()
                _log.info("platform_joined")
            except (JiebangError, *UNANSWERED) as error:
                code = error.code if isinstance(error, JiebangError) else type(error).__name__
                pause_s = doubled(_FIRST_PAUSE, failures, _LONGEST_PAUSE).total_seconds()
                _log.warning("platform_awaited", error=code, again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                failures += 1
        await self._registry.run()
