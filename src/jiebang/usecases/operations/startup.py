"""Startup: reach the platform's database, require every database's schema version, load the policy in force."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from jiebang.model.errors import JiebangError, ParticipantUnavailableError
from jiebang.model.facts import PLATFORM
from jiebang.participants.base import UNANSWERED
from jiebang.saga.backoff import exponential_wait
from jiebang.store.postgres.connecting import explain_failure
from jiebang.store.postgres.migrate import require_migrated
from jiebang.store.postgres.sessions import require_sessions
from jiebang.usecases.operations.key_fingerprints import require_same_keys
from jiebang.usecases.policy import lifecycle

if TYPE_CHECKING:
    from jiebang.store.postgres.database_clock import DatabaseClock
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.operations.key_fingerprints import HeldKeys
    from jiebang.usecases.policy.registry import PackRegistry

_FIRST_PAUSE: Final = timedelta(seconds=0.5)
_LONGEST_PAUSE: Final = timedelta(seconds=4)

_AWAITED: Final[tuple[type[Exception], ...]] = (JiebangError, *UNANSWERED)
"""What an attempt raises that a later one may not."""

_log = structlog.get_logger(__name__)


class Startup:
    """Makes a running process ready to work. `done` is set once it is, for good."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        registry: PackRegistry,
        shipped: Mapping[str, tuple[str, str]],
        first: str,
        clock: DatabaseClock,
        keys: HeldKeys,
    ) -> None:
        """`shipped`: text and file name of the shipped packs, by name; `first`: which one a first start activates.

        `keys`: those of this host, which must be the installation's.
        """
        self._pools, self._registry, self._clock = pools, registry, clock
        self._shipped, self._first = shipped, first
        self._keys = keys
        self.done = asyncio.Event()
        self.held_up: JiebangError | None = None
        """Why the last attempt failed, in the words of an operator; None once it has succeeded."""
        self.edited: Sequence[str] = ()
        """Shipped packs whose file differs from the version in the store: the edit has no effect."""

    async def attempt(self) -> None:
        """Start up now, in one attempt.

        Raises PoolerInTheWayError, MigrationRefusedError, NotMigratedError, KeysDifferError, KeysUnrecordedError,
        PackInvalidError, and what a database that does not answer raises (UNANSWERED).
        """
        try:
            await self._attempt()
        except JiebangError as error:
            self.held_up = error
            raise
        except UNANSWERED as error:
            self.held_up = ParticipantUnavailableError(participant=PLATFORM, reason=explain_failure(error))
            raise
        self.held_up = None
        self.done.set()

    async def _attempt(self) -> None:
        await self._clock.measure(self._pools[PLATFORM])  # first: it may be the only one that is silent
        await require_sessions(self._pools)
        await require_migrated(self._pools, self._registry.declared)
        await require_same_keys(self._pools[PLATFORM], self._keys)
        self.edited = await lifecycle.install(
            self._pools[PLATFORM], self._registry.declared, self._shipped, self._first, self._clock()
        )
        await self._registry.refresh()

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
            except _AWAITED as error:
                code = error.code if isinstance(error, JiebangError) else type(error).__name__
                pause_s = exponential_wait(_FIRST_PAUSE, failures, _LONGEST_PAUSE).total_seconds()
                reason = "" if isinstance(error, JiebangError) else explain_failure(error).en
                _log.warning("platform_awaited", error=code, reason=reason, again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                failures += 1
        await self._registry.run()
