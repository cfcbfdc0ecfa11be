"""The proxy does what it says: the chaos tests would prove nothing on a network that is always fine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos.proxy import FAIR, HOST, Proxy, Way, Weather

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that answers what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
            self.ended += 1
        except OSError:
            self.ended += 1
        writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.answer, HOST, 0)
    async with Proxy("echo", server.sockets[0].getsockname()[1]) as path:
        yield path
    server.close()


async def said(client: Client, data: bytes) -> bytes:
    """Say something and hear the echo."""
    reader, writer = client
    writer.write(data)
    async with asyncio.timeout(10):
        return await reader.readexactly(len(data))


async def silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes, not even an end."""
    try:
        async with asyncio.timeout(0.1):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_fair_weather_carries_everything_and_the_end(proxy: Proxy, echo: Echo) -> None:
    """A proxy that lost bytes on its own would show faults of its own as faults of the product."""
    reader, writer = client = await asyncio.open_connection(HOST, proxy.port)
    blob = bytes(range(256)) * 4096
    assert await said(client, blob) == blob
    writer.write_eof()
    assert await reader.read() == b""
    assert (echo.heard, echo.ended) == (blob, 1)
    writer.close()


@pytest.mark.parametrize("way", ["requests", "answers"])
async def test_what_is_held_back_comes_later_in_order(proxy: Proxy, echo: Echo, way: str) -> None:
    """A short cut delays; nothing of it may be lost, or databases would break on a protocol nobody speaks."""
    reader, writer = client = await asyncio.open_connection(HOST, proxy.port)
    assert await said(client, b"one") == b"one"
    proxy.turn(Weather(requests=Way.HOLD) if way == "requests" else Weather(answers=Way.HOLD))
    writer.write(b"two")
    assert await silent(reader)
    assert echo.heard == (b"one" if way == "requests" else b"onetwo")
    proxy.turn(FAIR)
    assert await reader.readexactly(3) == b"two"
    writer.close()


async def test_lost_answers_leave_the_work_done_and_the_sockets_open(proxy: Proxy, echo: Echo) -> None:
    """The worst cut: the other side has done it and we do not know. Only then is a repeat put to the test."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    proxy.turn(Weather(answers=Way.DROP))
    writer.write(b"do it")
    assert await silent(reader)
    assert (echo.heard, echo.ended) == (b"do it", 0)
    proxy.turn(FAIR)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    async with asyncio.timeout(10):
        while proxy.connections or not echo.ended:  # noqa: ASYNC110 - another's state
            await asyncio.sleep(0.01)


async def test_a_forgotten_connection_stays_mute_for_ever_and_new_ones_work(proxy: Proxy, echo: Echo) -> None:
    """A firewall that lost its table tells nobody: the product's own time limits must find out."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    proxy.turn(Weather(requests=Way.DROP))
    writer.write(b"lost")
    assert await silent(reader)
    proxy.turn(FAIR, forget=True)
    writer.write(b"lost too")
    assert await silent(reader)
    other = await asyncio.open_connection(HOST, proxy.port)
    assert await said(other, b"new") == b"new"
    assert echo.heard == b"new"
    writer.close()
    other[1].close()


async def test_lost_ends_leave_whoever_waits_for_one_waiting(proxy: Proxy, echo: Echo) -> None:
    """A server that said goodbye into a dead cable: its last words came, and the connection looks alive."""
    reader, writer = client = await asyncio.open_connection(HOST, proxy.port)
    proxy.turn(Weather(requests=Way.ENDLESS, answers=Way.ENDLESS))
    assert await said(client, b"still here") == b"still here"
    writer.write_eof()
    assert await silent(reader)
    assert echo.ended == 0
    writer.close()


async def test_closed_paths_and_cuts_break_both_sides_at_once(proxy: Proxy, echo: Echo) -> None:
    """The plain failure, which must look like one to both sides."""
    client = await asyncio.open_connection(HOST, proxy.port)
    assert await said(client, b"hello") == b"hello"
    proxy.turn(Weather(open=False))
    late_reader, late = await asyncio.open_connection(HOST, proxy.port)
    with pytest.raises(ConnectionResetError):
        await late_reader.read(1)
    late.close()
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await client[0].read(1)
    async with asyncio.timeout(10):
        while proxy.connections or not echo.ended:  # noqa: ASYNC110 - another's state
            await asyncio.sleep(0.01)


async def test_a_slow_path_still_carries_everything(proxy: Proxy) -> None:
    """Throttled is not broken."""
    proxy.turn(Weather(bytes_a_second=1 << 20))
    client = await asyncio.open_connection(HOST, proxy.port)
    blob = bytes(1 << 16)
    assert await said(client, blob) == blob
    client[1].close()
