"""The other end of a signed link: an ASGI application for signed requests, and its start as a process.

Raw ASGI under uvicorn: such a process starts in a fraction of a second and has a handful of routes. The sandbox's
processes are made of it, and so are participants that are written with the SDK (`participants/serving`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn
from urllib.parse import parse_qsl

import msgspec
import uvicorn

from jiebang.model.check import Text
from jiebang.model.errors import (
    BadSignatureError,
    BodyTooLargeError,
    CallerError,
    InvalidInputError,
    JiebangError,
    NoSuchRouteError,
    OurFaultError,
    PolicyRefusalError,
)
from jiebang.parent import die_with_parent
from jiebang.remote.headers import refuse_repeated_headers
from jiebang.remote.signing import SKEW, RequestParameters, Responder, SignedRequest, join_headers
from jiebang.remote.wire import MAX_BODY

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

HOST: Final = "127.0.0.1"
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than any client of ours keeps an idle connection."""
_log = logging.getLogger("jiebang.service")


class HttpAnswer(msgspec.Struct, frozen=True):
    """What a handler returns: a status, and a body that is JSON unless said otherwise.

    `headers`: further ones, of an unsigned answer. `stale`: send the last signed answer to another request instead
    (faults.py).
    """

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    stale: bool = False


class HttpCall(msgspec.Struct, frozen=True):
    """One request, read whole and, on a signed route, verified. `hung_up` returns when the caller has gone."""

    sent: SignedRequest
    path: str
    query: dict[str, list[str]]
    body: bytes
    verified: RequestParameters
    hung_up: Callable[[], Awaitable[None]]


Handler = Callable[[HttpCall], Awaitable[HttpAnswer | None]]
"""Answers a call; None: never answers."""

_NONCES_LEAST: Final = 1024
"""Nonces kept before expired ones are first deleted; then at each doubling."""
_UNSIGNED: Final = RequestParameters("", 0)
_STATUS: Final[Mapping[type[JiebangError], int]] = {
    BadSignatureError: 401,
    NoSuchRouteError: 404,
    BodyTooLargeError: 413,
    InvalidInputError: 422,
    CallerError: 400,
    PolicyRefusalError: 409,
    JiebangError: 500,
}


class Service:
    """Routes by method and path; `/name/*` takes any last segment."""

    max_body: ClassVar[int] = MAX_BODY

    def __init__(
        self,
        responder: Responder | None,
        signed: Mapping[tuple[str, str], Handler],
        open_: Mapping[tuple[str, str], Handler],
        nonces: Mapping[str, int] | None = None,
    ) -> None:
        """`open_` routes need no signature; without a `responder` there are no others.

        `nonces`: those of requests to an earlier process, with their expiry.
        """
        self._responder = responder
        self._routes = {at: (handler, True) for at, handler in signed.items()}
        self._routes |= {at: (handler, False) for at, handler in open_.items()}
        self._paths = {path for _, path in self._routes}
        self._nonces = dict(nonces or {})
        self._nonce_limit = _NONCES_LEAST
        self._last: tuple[HttpAnswer, dict[str, str]] | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        sent = _sent(scope)
        try:
            answer = await self._answer(scope, sent, receive)
        except JiebangError as error:
            answer = self.problem(error, sent)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a problem
            _log.error("unexpected %s at %s", type(error).__name__, _format_frames(error))
            answer = self.problem(OurFaultError(), sent)
        if answer is None:
            return
        if answer.stale and self._last is not None:
            answer, headers = self._last
        else:
            headers = self._headers(sent, answer)
            self._last = (answer, headers)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Any, sent: SignedRequest, receive: ASGIReceiveCallable) -> HttpAnswer | None:
        refuse_repeated_headers(scope["headers"])
        path = scope["path"]
        here = path if path in self._paths else f"{path.rpartition('/')[0]}/*"
        if (sent.method, here) not in self._routes:
            self.refuse_route(here)
        handler, signed = self._routes[sent.method, here]
        body = await self._read(receive)
        verified = self._verified(sent, body) if signed else _UNSIGNED
        query = dict[str, list[str]]()
        for name, value in parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True):
            query.setdefault(name, []).append(value)

        async def hung_up() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        return await handler(HttpCall(sent, path, query, body, verified, hung_up))

    def problem(self, error: JiebangError, sent: SignedRequest) -> HttpAnswer:
        """Return an error as an answer to `sent`."""
        del sent
        return problem(error)

    def refuse_route(self, path: str) -> NoReturn:
        """Refuse a method and path that there is no route for. `path` is a route's where one has another method."""
        del path
        raise NoSuchRouteError

    def _verified(self, sent: SignedRequest, body: bytes) -> RequestParameters:
        if self._responder is None:
            raise BadSignatureError(reason=Text("此服务不接受签名请求", "this service takes no signed requests"))
        return self._take(self._responder.verify(sent, body))

    async def _read(self, receive: ASGIReceiveCallable) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break  # the caller hung up half way: the digest will not match
            body += message["body"]
            if len(body) > self.max_body:
                raise BodyTooLargeError(limit_bytes=self.max_body)
            more = message["more_body"]
        return bytes(body)

    def _take(self, verified: RequestParameters) -> RequestParameters:
        """Accept a signed request once. Raises BadSignatureError for a repeat."""
        if len(self._nonces) >= self._nonce_limit:
            oldest = datetime.now(UTC).timestamp() - SKEW.total_seconds()
            self._nonces = {nonce: expires for nonce, expires in self._nonces.items() if expires >= oldest}
            self._nonce_limit = max(_NONCES_LEAST, 2 * len(self._nonces))
        if verified.nonce in self._nonces:
            raise BadSignatureError(reason=Text("该签名已使用过", "this signature was used before"))
        self._nonces[verified.nonce] = verified.expires
        return verified

    def _headers(self, sent: SignedRequest, answer: HttpAnswer) -> dict[str, str]:
        if self._responder is None or "signature" not in sent.headers:  # unsigned requests get unsigned answers
            plain = {"content-type": answer.content_type, "content-length": str(len(answer.body))}
            return plain | dict(answer.headers)
        try:
            signed = self._responder.sign(sent, answer.status, answer.content_type, answer.body, now=datetime.now(UTC))
        except Exception:  # noqa: BLE001 - a malformed signature header; the library raises errors of any type
            signed = {"content-type": answer.content_type}
        return signed | {"content-length": str(len(answer.body))}


def problem(error: JiebangError) -> HttpAnswer:
    """Return an error as RFC 9457 problem details in both languages, shaped as the platform's own."""
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    body = {
        "type": f"urn:jiebang:problem:{error.code.lower()}",
        "title": error.title.zh,
        "status": status,
        "detail": error.action.zh,
        "code": error.code,
        "zh": {"title": error.title.zh, "action": error.action.zh},
        "en": {"title": error.title.en, "action": error.action.en},
        "fields": error.fields,
    }
    return HttpAnswer(msgspec.json.encode(body), status, "application/problem+json")


def ok(body: Any) -> HttpAnswer:
    """Return `body` as a JSON answer."""
    return HttpAnswer(msgspec.json.encode(body))


def _sent(scope: Any) -> SignedRequest:
    headers = join_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    query = scope["query_string"].decode("latin-1")
    path = scope["raw_path"].decode("latin-1")
    url = f"{scope['scheme']}://{headers.get('host', '')}{path}{'?' + query if query else ''}"
    return SignedRequest(scope["method"], url, headers)


def _format_frames(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


def serve(opened: AbstractAsyncContextManager[Service], port: int, *, with_parent: bool) -> None:
    """Listen, say on which port (one JSON line on standard output), and answer until told to stop.

    `opened`: opens the service and closes what it holds; requests that come earlier wait.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if with_parent:
        die_with_parent()
    listening = _listen(port)
    print(msgspec.json.encode({"port": listening.getsockname()[1]}).decode(), flush=True)  # noqa: T201 - the parent reads it
    asyncio.run(_answer_on(listening, opened))


async def _answer_on(listening: socket.socket, opened: AbstractAsyncContextManager[Service]) -> None:
    async with opened as service:
        await uvicorn.Server(_config(service)).serve(sockets=[listening])


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        service,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )


def _listen(port: int) -> socket.socket:
    # Named as TCP, or asyncio leaves Nagle's algorithm on for what it accepts, and every small answer waits 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((HOST, port))
    listening.listen(2048)
    return listening
