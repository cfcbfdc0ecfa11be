"""How uvicorn serves the API: limits on a connection before there is a request for the gate.

uvicorn itself waits without limit for slow headers, takes headers of any length, and refuses connections beyond its
limit with plain English text. Here each of these is answered with a problem.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jiebang.api.gate.admission import HEADERS_LIMIT, HEADERS_MOST, REFUSED_TOTAL
from jiebang.api.gate.shares import Shares, TrustedProxies, read_address
from jiebang.api.problems import problem_of
from jiebang.model import errors
from jiebang.model.check import Text
from jiebang.remote.problem_details import PROBLEM_JSON, headers_of

if TYPE_CHECKING:
    from jiebang.api.gate.admission import Admission
    from jiebang.api.gate.capacity import Capacity

_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


class ServerConfig(uvicorn.Config):
    """The configuration of one server, with what its connections share."""

    def __init__(self, app: Admission, trusted_proxies: str) -> None:
        super().__init__(
            app,
            port=0,
            loop="none",
            http=LimitedHttpProtocol,
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=2,
            forwarded_allow_ips=trusted_proxies,
        )
        self.capacity = app.capacity
        self.trusted = TrustedProxies(trusted_proxies)
        self.shares = Shares()
        """The connections that each address has open."""


def server_config(app: Admission, *, trusted_proxies: str = "127.0.0.1") -> uvicorn.Config:
    """Return the configuration that serves `app`; the caller passes the sockets."""
    return ServerConfig(app, trusted_proxies)


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on what comes before a request is complete."""

    _timer: asyncio.TimerHandle | None = None
    _heading = False
    _size = 0
    _counted: tuple[str, ...] = ()
    """The address that this connection was counted for."""

    @property
    def _server(self) -> ServerConfig:
        return self.config  # type: ignore[return-value] # which makes no other protocol

    @property
    def _capacity(self) -> Capacity:
        return self._server.capacity

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Accept a connection, unless there are too many, and start the time limit of its first headers."""
        super().connection_made(transport)
        if self.client and self.client[0] not in self._server.trusted:
            address = read_address(self.client)
            if not self._server.shares.take({address: self._capacity.connections_per_address}):
                self._turn_away(errors.PlatformFullError(retry_after_s=1), "connections_of_one")
                return
            self._counted = (address,)
        if len(self.connections) > self._capacity.connections:
            self._turn_away(errors.PlatformFullError(retry_after_s=1), "connections")
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._server.shares.give_back(self._counted)
        self._counted = ()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse further, up to HEADERS_LIMIT bytes of headers."""
        if self.transport.is_closing():
            return
        self._size = self._size + len(data) if self._heading else 0
        super().data_received(data)
        if self._heading and self._size > HEADERS_LIMIT:
            error = errors.HeadersTooLargeError(limit_bytes=HEADERS_LIMIT, limit_headers=HEADERS_MOST)
            self._turn_away(error, "headers")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem, not with plain English text."""
        reason = Text("不是有效的 HTTP 请求", msg)
        self._turn_away(errors.InvalidInputError(field="request", reason=reason), "malformed")

    def on_message_begin(self) -> None:
        """Start the time limit of a request's headers."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Stop the time limit: from here on the gate decides."""
        self._heading, self._size = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._stop_timer()
        self._heading = True
        self._timer = self.loop.call_later(self._capacity.headers_within.total_seconds(), self._time_out)

    def _time_out(self) -> None:
        if self._size:
            self._turn_away(
                errors.RequestTooSlowError(limit_s=self._capacity.headers_within.total_seconds()), "slow_headers"
            )
        else:
            self.transport.close()  # it never sent anything

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn_away(self, error: errors.JiebangError, reason: str) -> None:
        REFUSED_TOTAL.labels(reason).inc()
        self._heading = False
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(_encode_response(error))
            self.transport.close()


def _encode_response(error: errors.JiebangError) -> bytes:
    """Return a whole HTTP response, for a client whose request was never complete."""
    problem = problem_of(error, None)
    body = msgspec.json.encode(problem)
    headers: dict[str, Any] = {
        "content-type": PROBLEM_JSON,
        "content-length": len(body),
        "connection": "close",
        **headers_of(error, problem),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (problem.status, _REASONS[problem.status], lines.encode(), body)
