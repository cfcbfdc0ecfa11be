"""Log line, count and duration of each request by route and status, without caller or values; security headers."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import structlog
from litestar.middleware import ASGIMiddleware
from prometheus_client import Counter, Histogram

from jiebang.api.problems import methods_at

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS_TOTAL: Final = Counter("jiebang_requests_total", "Requests served", ["method", "route", "status"])
REQUEST_SECONDS: Final = Histogram(
    "jiebang_request_seconds",
    "Time until the first byte of the answer",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
HARDENING: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer that does not set them itself: no sniffing, framing or caching."""

_log = structlog.get_logger(__name__)


class RequestLog(ASGIMiddleware):
    """Counts and logs each request that matched a route, under the route's template, because paths hold ids."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on, and record status and duration."""
        began = perf_counter()
        request_id = str(uuid4())
        scope["state"]["request_id"] = request_id
        method, route = str(scope.get("method")), str(scope["path_template"])

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = perf_counter() - began
                REQUESTS_TOTAL.labels(method, route, str(message["status"])).inc()
                REQUEST_SECONDS.labels(method, route).observe(took)
                _log.info(
                    "request",
                    request_id=request_id,
                    method=method,
                    route=route,
                    status=message["status"],
                    ms=round(took * 1000, 1),
                )
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await next_app(scope, receive, record)


async def add_security_headers(message: Message, scope: Scope) -> None:
    """Add HARDENING to an answer before it is sent, and `Allow` to one for OPTIONS."""
    if message["type"] == "http.response.start":
        if scope.get("method") == "OPTIONS" and message["status"] == 204:  # noqa: PLR2004 - reads best as a number
            allow = ", ".join(methods_at(scope["litestar_app"], scope["path"])).encode()
            message["headers"] = [(b"allow", allow)]
        names = {name.lower() for name, _ in message["headers"]}
        extra: list[Any] = [(name, value) for name, value in HARDENING if name not in names]
        message["headers"] = [*message["headers"], *extra]
