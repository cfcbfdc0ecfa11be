"""Startup: reach the platform's database, require every database's schema version, load the policy in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from jiebang.model.errors import JiebangError
from jiebang.model.facts import PLATFORM
from jiebang.participants.base import UNANSWERED
from jiebang.saga.backoff import exponential_wait
from jiebang.store.postgres.migrate import require_migrated
from jiebang.usecases.policy import lifecycle

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.policy.registry import PackRegistry

_FIRST_PAUSE: Final = timedelta(seconds=0.5)
_LONGEST_PAUSE: Final = timedelta(seconds=4)

_log = structlog.get_logger(__name__)


class Startup:
    """Makes a running process ready to work. `done` is set once it is, for good."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        registry: PackRegistry,
        shipped: Mapping[str, tuple[str, str]],
        first: str,
        clock: Callable[[], datetime],
    ) -> None:
        """`shipped`: text and file name of the shipped packs, by name; `first`: which one a first start activates."""
        self._pools, self._registry, self._clock = pools, registry, clock
        self._shipped, self._first = shipped, first
        self.done = asyncio.Event()
        self.edited: Sequence[str] = ()
        """Shipped packs whose file differs from the version in the store: the edit has no effect."""

    async def attempt(self) -> None:
        """Start up now, in one attempt.

        Raises MigrationRefusedError, NotMigratedError, PackInvalidError, and what a database that does not answer
        raises (UNANSWERED).
        """
        await self._pools[PLATFORM].fetchval("SELECT 1")  # first: it may be the only one that is silent
        await require_migrated(self._pools, self._registry.declared)
        self.edited = await lifecycle.install(
            self._pools[PLATFORM], self._registry.declared, self._shipped, self._first, self._clock()
        )
        await self._registry.refresh()
        self.done.set()

    async def run(self) -> None:
        """Attempt to start up until it succeeds, then keep the policy in force up to date, until cancelled.

        It also waits while a database has an older schema or a policy that does not load: an operator may be mending
        it.
        """
        failures = 0
        while not self.done.is_set():
            try:
                await self.attempt()
                _log.info("platform_joined")
            except (JiebangError, *UNANSWERED) as error:
                code = error.code if isinstance(error, JiebangError) else type(error).__name__
                pause_s = exponential_wait(_FIRST_PAUSE, failures, _LONGEST_PAUSE).total_seconds()
                _log.warning("platform_awaited", error=code, again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                failures += 1
        await self._registry.run()
