"""Pools of connections, one a database, with the session settings that our statements rely on.

Settings go through `server_settings`, into the connection's start-up packet: those that RESET ALL goes back to. Nobody
changes a session's state outside a transaction, so a connection whose last statement ended as it should comes back as
it is: a reset was a round trip for every statement. One that was cut off is reset.

`jsonb` is text on both sides, as asyncpg has it: what reads or writes a column knows its type, and msgspec decodes
straight into that.
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

A plan is made once for any arguments and kept as long as its connection, also one made while a table was empty. So
there are no ways to choose that look good where statistics are missing: no sequential scans. Hash joins stay: one sweep
over the key's index for the whole batch, and then each row finds its order. Nested loops go, where there is a choice:
with the batch as a condition on the key, each row looked through the whole batch again (measured at 1,024: three times
the time). Bitmap scans go: they yield rows as they lie, not in key order, and batches that lock their rows in different
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
    """Open one pool a database, by name; close them on the way out.

    `size`: connections at most, each; `command_limit`: seconds a statement may take before TimeoutError. A
    participant's database that does not answer now only leaves a line in the log: its pool connects whenever it is
    next used, so that it joins in once it is back. Raises ParticipantUnavailableError when the platform's own database
    does not answer, unless `patient`: then it is one like the others.
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
        min_size=0,  # a pool of none connects on first use alone
        max_size=size,
        max_inactive_connection_lifetime=0,
        timeout=_CONNECT_LIMIT,
        command_timeout=command_limit,
        reset=_reset_unless_sure,
        connection_class=_Telling,
        server_settings={"application_name": "jiebang", "timezone": "UTC", **settings},  # times inside jsonb are text
    )


class _Telling(_Connection):
    """A connection that tells whether its last statement ended as it should, with an answer."""

    __slots__ = ("ended_well",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ended_well = False

    async def fetch(self, *args: Any, **options: Any) -> Any:
        """Fetch rows, as asyncpg does."""
        return await self._told(super().fetch(*args, **options))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        """Fetch a row, as asyncpg does."""
        return await self._told(super().fetchrow(*args, **options))

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        """Fetch a value, as asyncpg does."""
        return await self._told(super().fetchval(*args, **options))

    async def execute(self, *args: Any, **options: Any) -> Any:
        """Execute a statement, as asyncpg does."""
        return await self._told(super().execute(*args, **options))

    async def _told(self, statement: Awaitable[Any]) -> Any:
        self.ended_well = False
        answer = await statement
        self.ended_well = True
        return answer


async def _reset_unless_sure(connection: _Connection) -> None:
    """Reset a returned connection whose last statement failed or was cut off, or that did something else than these.

    asyncpg itself has rolled back what was open, and drops the connection if this raises.
    """
    if not (isinstance(connection, _Telling) and connection.ended_well):
        await connection.reset()
    if isinstance(connection, _Telling):
        connection.ended_well = False


async def _warm(name: str, pool: Pool) -> bool:
    """Make the first connection, so that the first person does not wait for it; whether it was made."""
    await pool
    try:
        async with pool.acquire(timeout=_CONNECT_LIMIT):
            return True
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("database_unavailable", database=name, error=type(error).__name__)
        return False


async def _close(pool: Pool) -> None:
    """Close a pool, waiting a little for what still runs."""
    try:
        await asyncio.wait_for(pool.close(), _CONNECT_LIMIT)
    except TimeoutError:
        pool.terminate()


def shown(dsn: str) -> str:
    """Return a DSN as it may be logged: user, host, port and database, never the password or other parameters."""
    try:
        parts = urlsplit(dsn)
        user = f"{parts.username}@" if parts.username else ""
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "?"
    return f"{parts.scheme}://{user}{host}{port}{parts.path}" if parts.scheme else "?"
