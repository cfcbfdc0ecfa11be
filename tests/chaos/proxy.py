"""A TCP proxy that stands in for the network between processes, and does to their connections what networks do.

One `Proxy` is one path: it listens on a port of its own and carries bytes to one address, under a `Weather` that can be
changed at any time: one way or both ways, held back, lost with the sockets open, slow, refused, cut.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

HOST: Final = "127.0.0.1"
_CHUNK: Final = 1 << 16
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """What becomes of bytes in one direction."""

    PASS = "pass"
    HOLD = "hold"  # they come once the weather changes, as what is sent again after a short cut does
    ENDLESS = "endless"  # they come, but not the end of the connection: whoever waits for it waits in vain
    DROP = "drop"  # they never come, and nobody is told: the sockets stay open


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """What a path does. `requests`: towards the address; `answers`: back; `open`: whether new connections are taken.

    `bytes_a_second`: each connection's, in each direction (None: as fast as it goes).
    """

    requests: Way = Way.PASS
    answers: Way = Way.PASS
    open: bool = True
    bytes_a_second: int | None = None


FAIR: Final = Weather()


class _Flow:
    """One connection: both its sides. Once it lost a byte it never carries another."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.lost = False
        self.over = asyncio.Event()

    def end(self, *, reset: bool) -> None:
        self.over.set()
        for side in (self.near, self.far):
            if side is None:
                continue
            if reset:
                with suppress(OSError):
                    side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                side.transport.abort()
            else:
                side.close()


class Proxy:
    """One path from whoever connects to `port` to `to_port` of this machine, or of `to_host`."""

    def __init__(self, name: str, to_port: int, *, to_host: str = HOST) -> None:
        """`name` is for whoever tells what happened."""
        self.name, self.port = name, 0
        self._to = (to_host, to_port)
        self._weather = FAIR
        self._changed = asyncio.Event()
        self._flows = dict[_Flow, None]()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and cut what there is."""
        if self._server is not None:
            self._server.close()
        self.cut()
        self.turn(FAIR)
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._flows)

    def turn(self, weather: Weather, *, forget: bool = False) -> None:
        """Change the weather. Connections that have lost bytes are reset; with `forget` they stay open, mute for ever.

        What was held back under the old weather goes on under the new one.
        """
        self._weather = weather
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if not forget:
            for flow in [flow for flow in self._flows if flow.lost]:
                flow.end(reset=True)

    def cut(self, *, reset: bool = True) -> int:
        """End all connections at once, by a reset or by closing; return how many there were."""
        flows = list(self._flows)
        for flow in flows:
            flow.end(reset=reset)
        return len(flows)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = _Flow(writer)
        if not self._weather.open:
            flow.end(reset=True)
            return
        self._flows[flow] = None
        try:
            far_reader, flow.far = await asyncio.open_connection(*self._to)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(flow, reader, flow.far, requests=True))
                both.create_task(self._carry(flow, far_reader, flow.near, requests=False))
            flow.end(reset=False)
        except (OSError, ExceptionGroup):  # one side broke off: so does the other
            flow.end(reset=True)
        finally:
            del self._flows[flow]

    def _way(self, *, requests: bool) -> Way:
        return self._weather.requests if requests else self._weather.answers

    async def _carry(
        self, flow: _Flow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        """Carry one direction until its end, which is carried too. Raises OSError where a side breaks off."""
        while True:
            failure, data = None, b""
            try:
                data = await reader.read(_CHUNK)
            except OSError as error:
                failure = error
            while self._way(requests=requests) is Way.HOLD:
                await self._changed.wait()
            way = self._way(requests=requests)
            if flow.lost or way is Way.DROP or (way is Way.ENDLESS and not data):
                flow.lost = True
                if not data:  # its end is lost too
                    await flow.over.wait()
                    raise ConnectionAbortedError
                continue
            if failure is not None:
                raise failure
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            rate = self._weather.bytes_a_second
            if rate is not None:
                await asyncio.sleep(len(data) / rate)
            writer.write(data)
            await writer.drain()
