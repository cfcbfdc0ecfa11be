"""How many connections a process opens: to each server, and at most to one database of it.

A connection is to one database, so the databases of a server share a number: while it is not reached, any of them opens
another connection; once it is, one that has fewer than its equal part takes over an idle connection's place, and every
other waits for one of its own to come back. Each database may always have one: whoever holds a connection to one
database and waits for another therefore never waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec

PER_SERVER: Final = 24


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`per_server`: the most connections of one process to one server; `per_database`: to one database of it."""

    per_server: int = PER_SERVER
    per_database: int = 16


def find_server(dsn: str) -> str:
    """Return host and port of a DSN: databases with the same share a server, as far as their addresses tell."""
    parts = urlsplit(dsn)
    asked = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(asked.get("host", ("localhost",)))
    port = asked.get("port", ("5432",))[0]
    return ",".join(f"{host}" if _has_port(host) else f"{host}:{port}" for host in hosts.split(","))


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and (not host.startswith("[") or "]:" in host)


class Sharer(Protocol):
    """A pool of connections to one database, as its server's share sees it.

    `most`: how many it may have; `opened`: how many it has; `in_use`: how many of them are out, or about to be opened.
    """

    most: int
    opened: int
    in_use: int

    def close_idle(self) -> bool:
        """Close an idle connection; return whether there was one."""


class ServerShare:
    """The connections of this process to one server, shared by the pools of its databases."""

    def __init__(self, limit: int | None) -> None:
        """`limit`: the most connections, but one for each pool in any case; None: only the pools' own limits hold."""
        self._limit = limit
        self._pools = list[Sharer]()
        self._waiting = deque[tuple[Sharer, asyncio.Future[None]]]()
        self._closing = set[asyncio.Task[None]]()

    def close_first(self, closing: Coroutine[Any, Any, None]) -> None:
        """Close a connection in whose place another is opened."""
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def wait_for_places(self) -> None:
        """Wait until the server has closed what was to be closed: until then it counts."""
        await asyncio.gather(*self._closing, return_exceptions=True)

    def join(self, pool: Sharer) -> None:
        """Let a pool take part."""
        self._pools.append(pool)

    def leave(self, pool: Sharer) -> None:
        """Let a closed pool take part no longer."""
        self._pools.remove(pool)
        self.serve()

    async def take(self, pool: Sharer) -> None:
        """Wait until `pool` may use one more connection, and count it as in use."""
        if not self._waiting and self._grant(pool):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pool, turn))
        self.serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(pool)
            raise

    def give_back(self, pool: Sharer) -> None:
        """Count one connection of `pool` as no longer in use."""
        pool.in_use -= 1
        self.serve()

    def serve(self) -> None:
        """Let those go on that wait and may, in the order they came; one that may not holds up nobody else."""
        if not self._waiting:
            return
        still = deque[tuple[Sharer, asyncio.Future[None]]]()
        for pool, turn in self._waiting:
            if turn.done():
                continue
            if self._grant(pool):
                turn.set_result(None)
            else:
                still.append((pool, turn))
        self._waiting = still

    def _grant(self, pool: Sharer) -> bool:
        """Count a connection as in use if `pool` may use one: an idle one, a new one, or one in an idle one's place."""
        if pool.in_use >= pool.most or (pool.in_use >= pool.opened and not self._has_room(pool)):
            return False
        pool.in_use += 1
        return True

    def _has_room(self, pool: Sharer) -> bool:
        """Return whether `pool` may open one more connection, after another's idle one was closed if need be."""
        if self._limit is None or pool.in_use == 0:
            return True
        taken = sum(max(each.in_use, each.opened, 1) for each in self._pools)
        if taken < self._limit:
            return True
        part = self._limit // len(self._pools)
        return pool.in_use < part and any(
            each.close_idle() for each in self._pools if each.opened > max(each.in_use, part)
        )


class ServerShares:
    """The shares of this process, by server. Whoever opens pools with the same shares keeps to one limit."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: the most connections to each server."""
        self._limit = limit
        self._by_server = dict[str, ServerShare]()

    def find(self, dsn: str) -> ServerShare:
        """Return the share of a DSN's server."""
        return self._by_server.setdefault(find_server(dsn), ServerShare(self._limit))
