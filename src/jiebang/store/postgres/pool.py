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
from jiebang.store.postgres.connecting import explain_failure
from jiebang.store.postgres.faults import UNANSWERED
from jiebang.store.postgres.shares import ServerShare, ServerShares

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
    shares: ServerShares | None = None,
) -> AsyncIterator[Mapping[str, Pool]]:
    """Open one pool per database, by name; close them on exit.

    `size`: the most connections of each; `shares`: by which they share those of a server with each other and with other
    pools that were given them (None: only `size` limits them); `command_limit`: seconds a statement may take before
    TimeoutError. A participant's database that does not answer is only logged: its pool connects when it is next used.
    Raises ParticipantUnavailableError when the platform's own database does not answer, unless `patient`: then it is
    treated like the others.
    """
    shared = ServerShares() if shares is None else shares
    pools = {
        name: _pool(dsn, shared.find(dsn), size=size, command_limit=command_limit, settings=settings)
        for name, dsn in dsns.items()
    }
    try:
        warmed = await asyncio.gather(*(_warm(name, pool) for name, pool in pools.items()))
        failed = dict(zip(pools, warmed, strict=True)).get(PLATFORM)
        if failed is not None and not patient:
            raise ParticipantUnavailableError(participant=PLATFORM, reason=explain_failure(failed)) from failed
        yield pools
    finally:
        await asyncio.gather(*(_close(pool) for pool in pools.values()))


def _pool(dsn: str, share: ServerShare, *, size: int, command_limit: float | None, settings: Mapping[str, str]) -> Pool:
    return _SharingPool(
        dsn,
        share=share,
        min_size=0,  # an empty pool connects on first use
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=0,
        loop=None,
        timeout=_CONNECT_LIMIT,
        command_timeout=command_limit,
        reset=_reset_unless_clean,
        connection_class=_TrackedConnection,
        record_class=asyncpg.Record,
        server_settings=session_settings(settings),
    )


def session_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what a connection asks of its session when it starts."""
    return {"application_name": "jiebang", "timezone": "UTC", **settings}  # times inside jsonb are text


if TYPE_CHECKING:

    class _AnyPool(asyncpg.Pool[asyncpg.Record]):
        """A pool, with what its types do not tell."""

        _queue: Any

        async def _acquire(self, timeout: float | None) -> Any: ...  # noqa: ASYNC109 - asyncpg's own signature
else:
    _AnyPool = asyncpg.Pool


class _SharingPool(_AnyPool):
    """A pool that keeps to its server's share: a `shares.Sharer`."""

    def __init__(self, dsn: str, *, share: ServerShare, **options: Any) -> None:
        super().__init__(dsn, connect=self._open, **options)
        self.most, self.opened, self.in_use = int(options["max_size"]), 0, 0
        self._share, self._out = share, set[Any]()
        share.join(self)

    def detach(self) -> None:
        """Leave the share, once the pool is closed."""
        self._share.leave(self)

    def close_idle(self) -> bool:
        """Close the idle connection that would be used last; return whether there was one."""
        for holder in self._queue._queue:  # noqa: SLF001 - asyncpg closes none by itself while it is wanted
            if holder.is_connected():
                connection, holder._con = holder._con, None  # noqa: SLF001 - so that nobody takes it meanwhile
                connection._pool_holder = None  # noqa: SLF001 - as above
                connection.remove_termination_listener(self._count_closed)
                self.opened -= 1
                self._share.close_first(connection.close(timeout=_CONNECT_LIMIT))
                return True
        return False

    async def _open(self, *args: Any, **options: Any) -> _Connection:
        self.opened += 1  # from now on: while it is made it counts
        try:
            await self._share.wait_for_places()
            connection: _Connection = await asyncpg.connect(*args, **options)
        except BaseException:
            self.opened -= 1
            raise
        connection.add_termination_listener(self._count_closed)
        return connection

    def _count_closed(self, _connection: object) -> None:
        self.opened -= 1
        self._share.serve()

    async def _acquire(self, timeout: float | None) -> Any:  # noqa: ASYNC109 - asyncpg's own signature
        if timeout is None:
            return await self._acquire_share(None)
        return await asyncio.wait_for(self._acquire_share(timeout), timeout)

    async def _acquire_share(self, timeout: float | None) -> Any:  # noqa: ASYNC109 - as above
        await self._share.take(self)
        try:
            proxy = await super()._acquire(timeout)
        except BaseException:
            self._share.give_back(self)
            raise
        self._out.add(proxy)
        return proxy

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        """Return a connection, to the pool and to the server's share."""
        try:
            await super().release(connection, timeout=timeout)
        finally:
            if connection in self._out:
                self._out.discard(connection)
                self._share.give_back(self)


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


async def _warm(name: str, pool: Pool) -> Exception | None:
    """Make the first connection, so that the first request does not wait for it; return why it was not made."""
    await pool
    try:
        async with pool.acquire(timeout=_CONNECT_LIMIT):
            return None
    except UNANSWERED as error:
        reason = explain_failure(error).en
        _log.warning("database_unavailable", database=name, error=type(error).__name__, reason=reason)
        return error


async def _close(pool: Pool) -> None:
    """Close a pool, waiting a short time for statements that still run."""
    try:
        await asyncio.wait_for(pool.close(), _CONNECT_LIMIT)
    except TimeoutError:
        pool.terminate()
    if isinstance(pool, _SharingPool):
        pool.detach()


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
