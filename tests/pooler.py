"""A pooler in transaction mode, as PgBouncer is one: a transaction of a client goes to any free session of the server.

Clients log in at the server themselves, through a session that joins the pool once they are in; like PgBouncer it tells
them a process id of its own.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_TYPE_AND_SIZE = 5


class Session:
    """One session of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(_TYPE_AND_SIZE)
    return head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


class Pooler:
    """Listens on a port of its own. `keeps`: a client keeps its session, as in session mode."""

    def __init__(self, host: str, port: int, *, keeps: bool) -> None:
        self._at, self._keeps = (host, port), keeps
        self._free = asyncio.LifoQueue[Session]()
        self._clients = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            own = await self._log_in(reader, writer)
            if not self._keeps:
                self._free.put_nowait(own)
            await self._carry(own, reader, writer)
        writer.close()

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session:
        session = Session(*await asyncio.open_connection(*self._at))
        size = await reader.readexactly(4)
        session.writer.write(size + await reader.readexactly(struct.unpack("!i", size)[0] - 4))
        while True:
            message = await _message(session.reader)
            if message[:1] == b"K":  # process id and secret
                self._clients += 1
                message = b"K" + struct.pack("!iii", 12, 900_000_000 + self._clients, 0)
            writer.write(message)
            if message[:1] == b"Z":
                return session
            if message[:1] == b"R" and struct.unpack("!i", message[5:9])[0] in (3, 5, 10, 11):
                session.writer.write(await _message(reader))

    async def _carry(self, own: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry messages both ways; a session is lent from a transaction's first message to its end."""
        lent: Session | None = None
        unanswered = 0
        asking = asyncio.ensure_future(_message(reader))
        answering: asyncio.Future[bytes] | None = None
        while True:
            await asyncio.wait({asking, *([answering] if answering else [])}, return_when=asyncio.FIRST_COMPLETED)
            if answering is not None and answering.done():
                answer, answering = answering.result(), None
                writer.write(answer)
                unanswered -= answer[:1] == b"Z"
                if answer[:1] == b"Z" and answer[5:6] == b"I" and not unanswered and not self._keeps:
                    assert lent is not None
                    self._free.put_nowait(lent)
                    lent = None
            if asking.done():
                asked = asking.result()
                if asked[:1] == b"X":
                    return
                lent = lent or (own if self._keeps else await self._free.get())
                lent.writer.write(asked)
                unanswered += asked[:1] in (b"Q", b"S")
                asking = asyncio.ensure_future(_message(reader))
            if lent is not None and answering is None:
                answering = asyncio.ensure_future(_message(lent.reader))


@asynccontextmanager
async def pooled(dsn: str, *, keeps: bool = False) -> AsyncIterator[str]:
    """Yield the DSN of a database through a pooler."""
    parts = urlsplit(dsn)
    pooler = Pooler(parts.hostname or "", parts.port or 0, keeps=keeps)
    server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
    finally:
        server.close()
