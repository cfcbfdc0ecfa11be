"""Whether our connections are sessions of the server: a pooler in transaction mode lends its own to one after another.

Statements that are prepared once and kept, and the session's settings, then land on other servers' sessions than they
were made for: answers fail or are wrong. A direct connection is known by the server's process id, which it was told
when it began; where that differs something stands in between, and is tried: while other connections begin and end
transactions, each must stay where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from jiebang.model.check import Text
from jiebang.model.errors import PoolerInTheWayError
from jiebang.store.postgres.connecting import explain_failure
from jiebang.store.postgres.pool import BY_KEY

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_NEEDED: Final[Mapping[str, str]] = {**BY_KEY, "TimeZone": "UTC"}
"""What the session's settings must be, however they came to be so."""
_OTHERS: Final = 3
_PATIENCE: Final = 3.0
_MIXED_UP: Final = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""What a statement that another connection prepared, or that was prepared elsewhere, is answered with."""
_TRANSACTION_MODE: Final = Text(
    "连接池处于事务模式:同一连接的语句落在不同的服务器会话上",
    "a pooler in transaction mode: statements of one connection reach different sessions of the server",
)

_log = structlog.get_logger(__name__)


async def require_sessions(pools: Mapping[str, Pool]) -> None:
    """Make sure that the connections of every database that answers are sessions; all are tried concurrently.

    One that does not answer is passed over. Raises PoolerInTheWayError, naming all databases and the first reason.
    """
    faults = await asyncio.gather(*(find_session_fault(name, pool) for name, pool in pools.items()))
    found = {name: fault for name, fault in zip(pools, faults, strict=True) if fault is not None}
    if found:
        raise PoolerInTheWayError(databases=list(found), reason=next(iter(found.values())))


async def find_session_fault(name: str, pool: Pool) -> Text | None:
    """Return what is wrong with the sessions of a database's connections; None where nothing is, or none answers."""
    try:
        async with pool.acquire(timeout=_PATIENCE) as first:
            home = await _ask_process(first)
            if home == first.get_server_pid():
                return None
            return await _try_pooler(pool, first, home)
    except _MIXED_UP:
        return _TRANSACTION_MODE
    except asyncpg.ProtocolViolationError as error:
        return explain_failure(error)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log.warning("sessions_not_tried", database=name, error=type(error).__name__)
        return None


async def _ask_process(connection: Any) -> int:
    return int(await connection.fetchval("SELECT pg_catalog.pg_backend_pid()", timeout=_PATIENCE))


async def _try_pooler(pool: Pool, first: Any, home: int) -> Text | None:
    """Return what is wrong with a pooler in between."""
    try:
        async with AsyncExitStack() as stack:
            others = [
                await stack.enter_async_context(pool.acquire(timeout=_PATIENCE))
                for _ in range(min(_OTHERS, pool.get_max_size() - 1))
            ]
            processes = [home]
            async with AsyncExitStack() as transactions:
                for other in others:
                    await transactions.enter_async_context(other.transaction())
                    processes.append(await _ask_process(other))
                processes.append(await _ask_process(first))
            # What was lent came back in another order than it went out.
            again = [await _ask_process(connection) for connection in (first, *others)]
    except TimeoutError:
        return _TRANSACTION_MODE  # the few sessions that it has are all lent
    if processes.pop() != home or len(set(processes)) < len(processes) or again != processes:
        return _TRANSACTION_MODE
    rows = await first.fetch(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1::text[])", [*_NEEDED]
    )
    lost = sorted(row["name"] for row in rows if row["setting"] != _NEEDED[row["name"]])
    if lost:
        names = ", ".join(lost)
        return Text(f"连接池没有传递会话参数 {names}", f"a pooler does not pass on the session's settings {names}")
    return None
