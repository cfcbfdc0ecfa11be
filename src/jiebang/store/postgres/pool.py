"""Pools of connections, one per database, with the session settings that our statements rely on.

Settings go through `server_settings`, into the connection's start-up packet: those that RESET ALL restores. No code
changes a session's state outside a transaction, so a connection whose last statement completed is returned without a
reset, which would cost a round trip per statement. One whose last statement failed or was cut off is reset.

`jsonb` is text on both sides, asyncpg's default: whoever reads or writes a column knows its type, and msgspec decodes
directly into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import asyncpg
import structlog

from jiebang.model.errors import ParticipantUnavailableError
from jiebang.model.facts import PLATFORM

if TYPE_CHECKING:
    from typing import TypeAlias

    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    _Connection = asyncpg.Connection[asyncpg.Record]
    Database: TypeAlias = Pool | _Connection | PoolConnectionProxy[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

BY_KEY: Final[Mapping[str, str]] = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}
"""For the set-based statements, which join a batch of ids to tables by key.

A plan is made once for any arguments and kept as long as its connection, even one made while a table was empty. So
access paths that look cheap without statistics are switched off: sequential scans. Hash joins stay: one pass over the
key's index for the whole batch, then each row finds its order. Nested loops are off, where there is a choice: with the
batch as a condition on the key, each row searched the whole batch again (measured at 1,024: three times the time).
Bitmap scans are off: they yield rows in physical order, not in key order, and batches that lock their rows in different
orders deadlock. tests/store/test_plans.py plans every statement on empty, small and unknown tables.
"""

WHOLE_TABLE: Final[Mapping[str, str]] = {"jit": "off"}
"""For statements that read whole tables (the audit, reports): the planner's own choice."""

_CONNECT_LIMIT: Final = 5.0

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_pools(
    dsns: Mapping[str, str],
    *,
    size: int = 8,
    command_limit: float | None = 30.0,
    settings: Mapping[str, str] = BY_KEY,
    patient: bool = False,
) -> AsyncIterator[Mapping[str, Pool]]:
    """Open one pool per database, by name; close them on exit.

    `size`: the most connections of each; `command_limit`: seconds a statement may take before TimeoutError. A
    participant's database that does not answer is only logged: its pool connects when it is next used. Raises
    ParticipantUnavailableError when the platform's own database does not answer, unless `patient`: then it is treated
    like the others.
    """
    pools = {name: _pool(dsn, size=size, command_limit=command_limit, settings=settings) for name, dsn in dsns.items()}
    try:
        warmed = await asyncio.gather(*(_warm(name, pool) for name, pool in pools.items()))
        if not patient and False in (up for name, up in zip(pools, warmed, strict=True) if name == PLATFORM):
            raise ParticipantUnavailableError(participant=PLATFORM)
        yield pools
    finally:
        await asyncio.gather(*(_close(pool) for pool in pools.values()))


def _pool(dsn: str, *, size: int, command_limit: float | None, settings: Mapping[str, str]) -> Pool:
    return asyncpg.create_pool(
        dsn,
        min_size=0,  # an empty pool connects on first use
        max_size=size,
        max_inactive_connection_lifetime=0,
        timeout=_CONNECT_LIMIT,
        command_timeout=command_limit,
        reset=_reset_unless_clean,
        connection_class=_TrackedConnection,
        server_settings={"application_name": "jiebang", "timezone": "UTC", **settings},  # times inside jsonb are text
    )


class _TrackedConnection(_Connection):
    """A connection that records whether its last statement completed with an answer."""

    __slots__ = ("completed",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.completed = False

    async def fetch(self, *args: Any, **options: Any) -> Any:
        """Fetch rows, as asyncpg does."""
        return await self._track(super().fetch(*args, **options))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        """Fetch a row, as asyncpg does."""
        return await self._track(super().fetchrow(*args, **options))

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        """Fetch a value, as asyncpg does."""
        return await self._track(super().fetchval(*args, **options))

    async def execute(self, *args: Any, **options: Any) -> Any:
        """Execute a statement, as asyncpg does."""
        return await self._track(super().execute(*args, **options))

    async def _track(self, statement: Awaitable[Any]) -> Any:
        self.completed = False
        answer = await statement
        self.completed = True
        return answer


async def _reset_unless_clean(connection: _Connection) -> None:
    """Reset a returned connection unless its last tracked statement completed.

    asyncpg has already rolled back an open transaction, and drops the connection if this raises.
    """
    if not (isinstance(connection, _TrackedConnection) and connection.completed):
        await connection.reset()
    if isinstance(connection, _TrackedConnection):
        connection.completed = False


async def _warm(name: str, pool: Pool) -> bool:
    """Make the first connection, so that the first request does not wait for it; return whether it was made."""
    await pool
    try:
        async with pool.acquire(timeout=_CONNECT_LIMIT):
            return True
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("database_unavailable", database=name, error=type(error).__name__)
        return False


async def _close(pool: Pool) -> None:
    """Close a pool, waiting a short time for statements that still run."""
    try:
        await asyncio.wait_for(pool.close(), _CONNECT_LIMIT)
    except TimeoutError:
        pool.terminate()


def redact_dsn(dsn: str) -> str:
    """Return the part of a DSN that may be logged: user, host, port and database, no password or other parameters."""
    try:
        parts = urlsplit(dsn)
        user = f"{parts.username}@" if parts.username else ""
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "?"
    return f"{parts.scheme}://{user}{host}{port}{parts.path}" if parts.scheme else "?"
