"""Only the platform can move a network, and only that network can answer: each way around is tried on a real one."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from jiebang.model.plan import UNNAMED
from jiebang.participants.http import HttpParticipant
from jiebang.remote.client import RemoteError
from jiebang.remote.link_keys import create_keys
from jiebang.remote.signing import Link, Requester, SignedRequest
from jiebang.remote.wire import CaseBatch, CaseOrder
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.processes import Sandbox
from tests.patience import PATIENCE_S


class Middle:
    """Sits between platform and network, passes bytes on through `up` and `down`, and keeps what it saw."""

    def __init__(self) -> None:
        self.up: Callable[[bytes], bytes] = bytes
        self.down: Callable[[bytes], bytes] = bytes
        self.seen_up: list[bytes] = []
        self.seen_down: list[bytes] = []


@asynccontextmanager
async def between(link: Link, middle: Middle) -> AsyncIterator[Link]:
    """Put `middle` before the network; yields the link that leads through it."""
    port = httpx.URL(link.base_url).port

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        while data := await reader.read(1 << 20):
            writer.write(change(data))
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_network = await asyncio.open_connection("127.0.0.1", port)

        def up(data: bytes) -> bytes:
            middle.seen_up.append(data)
            return middle.up(data)

        def down(data: bytes) -> bytes:
            middle.seen_down.append(data)
            return middle.down(data)

        await asyncio.gather(pump(reader, to_network[1], up), pump(to_network[0], writer, down), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield msgspec.structs.replace(link, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()


@pytest.fixture
async def middle() -> Middle:
    return Middle()


@pytest.fixture
async def through(world: Sandbox, middle: Middle) -> AsyncIterator[HttpParticipant]:
    """UnionPay as reached through the middle."""
    async with between(world.link("unionpay"), middle) as link:
        participant = HttpParticipant(link)
        yield participant
        await participant.aclose()


async def raw(url: str, request: bytes) -> bytes:
    """Send the bytes of an HTTP request and return those of its answer."""
    at = httpx.URL(url)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(1 << 20), PATIENCE_S)
    writer.close()
    return answer


async def post(sent: SignedRequest, body: bytes) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(sent.method, sent.url, headers=sent.headers, content=body)


def try_of(account: int, case_no: int = 1) -> bytes:
    return msgspec.json.encode(CaseBatch([CaseOrder(str(account), case_no)]))


def signed(link: Link, body: bytes, *, now: datetime | None = None, path: str = "/try") -> SignedRequest:
    url = link.base_url + path
    return Requester(link).sign("POST", url, body, now=now or datetime.now(UTC), nonce=secrets.token_urlsafe(18))


async def test_an_honest_middle_is_no_hindrance(through: HttpParticipant, account: int) -> None:
    """The tests below prove nothing if everything through a middle failed."""
    (reply,) = await through.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED


async def test_a_changed_reply_is_noticed(
    middle: Middle, through: HttpParticipant, unionpay: HttpParticipant, account: int
) -> None:
    """A middle could turn a grant into a refusal, or worse the other way, and split the databases."""
    middle.down = lambda data: data.replace(b"granted", b"refused")
    with pytest.raises(RemoteError) as caught:
        await through.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert caught.value.code == "BAD-SIGNATURE"
    assert await unionpay.look([account]) == {account: FenceRow(1, CaseOp.TRIED)}


async def test_a_reply_to_another_request_is_noticed(
    middle: Middle, through: HttpParticipant, numbers: itertools.count[int]
) -> None:
    """A genuine answer, kept and given again, would speak for a later request."""
    account = next(numbers)
    await through.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    kept = b"".join(middle.seen_down)
    middle.down = lambda _: kept
    with pytest.raises(RemoteError) as caught:
        await through.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert caught.value.code == "BAD-SIGNATURE"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"case_no":1', b'"case_no":2'),
        (b"POST /try", b"POST /confirm"),
        (b"POST /try", b"POST /try?x=1"),
        (b"application/json", b"application/text"),
        (b'nonce="', b'nonce="A'),
        (b"sha-256=:", b"sha-256=:AAAA"),
    ],
)
async def test_a_changed_request_is_refused_and_changes_nothing(
    middle: Middle, through: HttpParticipant, unionpay: HttpParticipant, account: int, old: bytes, new: bytes
) -> None:
    """A middle could confirm what the platform only tried, or move another case."""
    middle.up = lambda data: data.replace(old, new)
    with pytest.raises(RemoteError) as caught:
        await through.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert caught.value.status == 401
    assert await unionpay.look([account]) == {}


async def test_a_request_that_came_before_is_refused_even_by_a_new_process(
    world: Sandbox, middle: Middle, through: HttpParticipant, unionpay: HttpParticipant, account: int
) -> None:
    """A Cancel kept by a listener and played again must not undo what came after it."""
    await through.apply(Op.CANCEL, [Order(account, 1)], UNNAMED)
    kept = b"".join(middle.seen_up)
    network = world.processes["unionpay"]
    assert (await raw(network.url, kept)).startswith(b"HTTP/1.1 401")
    pid, restarts = network.pid, network.restarts
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while network.restarts == restarts or network.pid is None:  # noqa: ASYNC110 - a process has no Event
            await asyncio.sleep(0.05)
        while True:
            try:
                answer = await raw(network.url, kept)
                break
            except OSError:
                await asyncio.sleep(0.05)
    assert answer.startswith(b"HTTP/1.1 401")
    assert await unionpay.look([account]) == {account: FenceRow(1, CaseOp.CANCELLED)}


async def test_a_request_for_one_network_is_refused_by_the_other(world: Sandbox, account: int) -> None:
    """With one key for both, a message to UnionPay would move NetsUnion."""
    misled = msgspec.structs.replace(world.link("unionpay"), base_url=world.addresses["netsunion"])
    body = try_of(account)
    assert (await post(signed(misled, body), body)).status_code == 401


@pytest.mark.parametrize("seconds", [-60, -36, 30])
async def test_a_request_not_of_now_is_refused(world: Sandbox, account: int, seconds: int) -> None:
    """The nonces remembered reach back as far as requests are accepted, and no further."""
    link, body = world.link("unionpay"), try_of(account)
    sent = signed(link, body, now=datetime.now(UTC) + timedelta(seconds=seconds))
    assert (await post(sent, body)).status_code == 401


async def test_a_request_without_signature_digest_or_nonce_is_refused_in_both_languages(
    world: Sandbox, account: int
) -> None:
    """Leaving the signature out must not be the way around it, and an honest implementer must learn what is missing."""
    link, body = world.link("unionpay"), try_of(account)
    good = signed(link, body)
    for missing in ("Signature", "Signature-Input", "Content-Digest", "content-type"):
        headers = {name: value for name, value in good.headers.items() if name != missing}
        response = await post(msgspec.structs.replace(good, headers=headers), body)
        assert response.status_code == 401, missing
        problem = response.json()
        assert problem["code"] == "BAD-SIGNATURE"
        assert problem["zh"]["title"] and problem["en"]["action"] and problem["fields"]["reason"]["zh"]  # noqa: PT018
    short = Requester(link).sign("POST", f"{link.base_url}/try", body, now=datetime.now(UTC), nonce="short")
    assert (await post(short, body)).status_code == 401
    assert (await post(good, body)).status_code == 200, "none of the above had used up the good one"


async def test_switches_and_bindings_take_no_strangers(world: Sandbox) -> None:
    """Anybody on the machine could otherwise silence a network or bring in bindings."""
    async with httpx.AsyncClient(base_url=world.addresses["unionpay"], trust_env=False) as client:
        for method, path in [
            ("PUT", "/sandbox/faults"),
            ("GET", "/sandbox/faults"),
            ("PUT", "/sandbox/bindings"),
            ("GET", "/sandbox/state?account=1"),
            ("POST", "/marks"),
            ("POST", "/look"),
        ]:
            assert (await client.request(method, path, json={"faults": []})).status_code == 401, path


def test_accounts_do_not_cross_a_network_in_the_clear(world: Sandbox) -> None:
    """A slip in a settings file would show every account that asks to everybody on the way."""
    link = world.link("unionpay")
    with pytest.raises(ValueError, match="https"):
        HttpParticipant(msgspec.structs.replace(link, base_url="http://clearing.example"))
    HttpParticipant(msgspec.structs.replace(link, base_url="https://clearing.example"))


def test_private_keys_are_for_their_owner_alone_and_made_once(tmp_path: Path) -> None:
    """Another user could sign as the platform; and new keys at each start would part processes that run."""
    create_keys(tmp_path / "keys", "unionpay")
    private = [tmp_path / "keys" / f"unionpay-{direction}.pem" for direction in ("request", "reply")]
    before = [file.read_bytes() for file in private]
    assert [stat.S_IMODE(file.stat().st_mode) for file in private] == [0o600, 0o600]
    create_keys(tmp_path / "keys", "unionpay")
    assert [file.read_bytes() for file in private] == before
