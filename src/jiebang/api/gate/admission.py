"""Admission control before the application: a refused request has changed nothing and cost almost nothing.

Checked in this order: that the platform's database has been reached since the start; the size of the headers; the rate
of the caller, or of the address for a token not verified before; the body, whole and in time; the backlog of the
workers, for a new case; a free place. How urgent a request is, and whether it is admitted always, its route says
(`AdmissionClass`), which is found as the application itself finds it; what there is no route for gets the strictest
class. A refusal is a problem in both languages, with `Retry-After` where a retry helps, and has touched no database:
the Idempotency-Key is not taken either, so the same request may be sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar.enums import ScopeType
from prometheus_client import Counter, Gauge

from jiebang.api.deps import BODY_LIMIT
from jiebang.api.gate.capacity import AdmissionClass, AdmissionQueue, Capacity, Rates, Urgency
from jiebang.api.gate.middleware import HARDENING
from jiebang.api.gate.shares import read_address, release_held
from jiebang.api.problems import problem_of
from jiebang.model import errors
from jiebang.model.facts import PLATFORM
from jiebang.remote.headers import refuse_repeated_headers
from jiebang.remote.problem_details import PROBLEM_JSON, headers_of

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Message, Receive, Scope, Send

    from jiebang.remote.tokens import Caller
    from jiebang.usecases.operations.backlog import Backlog

ADMITTED_TOTAL: Final = Counter("jiebang_admitted_total", "Requests let in", ["urgency"])
REFUSED_TOTAL: Final = Counter("jiebang_refused_total", "Requests refused before any work", ["reason"])
IN_HAND: Final = Gauge("jiebang_requests_in_hand", "Requests worked on now")
IN_LINE: Final = Gauge("jiebang_requests_in_line", "Requests waiting for a place now")

HEADERS_LIMIT: Final = 16 * 1024
HEADERS_MOST: Final = 100
_KNOWN_MOST: Final = 100_000


class _KnownCaller(msgspec.Struct, frozen=True):
    """The caller of a token verified before. Only their rate follows from it: every request is verified anew."""

    name: str
    service: bool
    until: datetime


class Callers:
    """The rates of callers, and whose each token verified before is."""

    def __init__(self, capacity: Capacity, clock: Callable[[], datetime], seconds: Callable[[], float]) -> None:
        """`clock`: the time, for when tokens expire. `seconds`: monotonic."""
        self._clock = clock
        self._persons = Rates(capacity.person_rate, capacity.person_burst, seconds)
        self._services = Rates(capacity.service_rate, capacity.service_burst, seconds)
        self._addresses = Rates(capacity.unproven_rate, capacity.unproven_burst, seconds)
        self._known: OrderedDict[bytes, _KnownCaller] = OrderedDict()

    def come(self, scope: Scope, authorization: bytes | None, urgency: Urgency) -> None:
        """Charge a request to its caller, or to its address while the token is not verified. Raises RateExceededError.

        Ways out have a rate of their own, so that a caller over the limit may still withdraw.
        """
        known = self._find_caller(authorization)
        if known is None:
            address = read_address(scope.get("client"))
            _charge(self._addresses, address, "address")
            scope.setdefault("state", {})["unproven"] = (address, urgency)
        else:
            self._charge(known, urgency)

    def proven(self, scope: Scope, authorization: str | None, caller: Caller) -> None:
        """Charge the caller of a token just verified instead of its address. Raises RateExceededError."""
        unproven = scope.get("state", {}).pop("unproven", None)
        if unproven is None or authorization is None:
            return
        address, urgency = unproven
        self._addresses.give_back(address)
        known = _KnownCaller(caller.name, caller.account_id is None, caller.expires_at)
        self._known[_digest(authorization.encode("latin-1"))] = known
        if len(self._known) > _KNOWN_MOST:
            self._known.popitem(last=False)
        self._charge(known, urgency)

    def _find_caller(self, authorization: bytes | None) -> _KnownCaller | None:
        if authorization is None:
            return None
        digest = _digest(authorization)
        known = self._known.get(digest)
        if known is not None and known.until <= self._clock():
            del self._known[digest]
            return None
        return known

    def _charge(self, known: _KnownCaller, urgency: Urgency) -> None:
        rates = self._services if known.service else self._persons
        _charge(rates, (known.name, urgency is Urgency.WAY_OUT), "caller")


def _charge(rates: Rates, caller: Any, reason: str) -> None:
    wait = rates.take(caller)
    if wait:
        REFUSED_TOTAL.labels(reason).inc()
        raise errors.RateExceededError(retry_after_s=wait)


def _digest(authorization: bytes) -> bytes:
    return hashlib.blake2b(authorization, digest_size=16).digest()


class Admission:
    """The gate as an ASGI application around another."""

    def __init__(
        self,
        inner: ASGIApp,
        *,
        capacity: Capacity,
        callers: Callers,
        backlog: Backlog,
        joined: Callable[[], bool],
        classify: Callable[[str, str], AdmissionClass],
    ) -> None:
        """`inner`: the application behind the gate. `callers`: also told by the guards of tokens that were valid.

        `joined`: whether the platform's database has answered since the start; before that only what is always
        admitted. `classify`: the class of a method and path.
        """
        self._inner, self._callers, self._backlog, self._joined = inner, callers, backlog, joined
        self._classify = classify
        self.capacity = capacity
        self._line = AdmissionQueue(capacity, monotonic)
        self._body_within_s = capacity.body_within.total_seconds()
        self._bodies: Tally[str] = Tally()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit a request, or refuse it."""
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        admission = self._classify(scope["method"], scope["path"])
        if admission.always:
            await self._inner(scope, receive, send)
            return
        body: bytes | None = None
        try:
            if not self._joined():
                REFUSED_TOTAL.labels("not_joined").inc()
                raise errors.ParticipantUnavailableError(participant=PLATFORM)
            headers = _headers(scope)
            self._callers.come(scope, headers.get(b"authorization"), admission.urgency)
            body = await self._body(scope, headers, receive)
            if body is None:
                return  # the client went away
            await self._take(admission)
        except errors.JiebangError as error:
            await _refuse(error, scope, send, unread=body is None)
            return
        ADMITTED_TOTAL.labels(admission.urgency.name.lower()).inc()
        await self._work(scope, _replay_body(body, receive), send)

    async def _take(self, admission: AdmissionClass) -> None:
        """Take a place. Raises PlatformFullError."""
        if admission.opens_case:
            wait = await self._backlog.seconds_to_wait()
            if wait:
                REFUSED_TOTAL.labels("backlog").inc()
                raise errors.PlatformFullError(retry_after_s=wait)
        entered = await self._line.enter(admission.urgency)
        self._update_gauges()
        if not entered:
            REFUSED_TOTAL.labels("places").inc()
            raise errors.PlatformFullError(retry_after_s=self._line.retry_after())

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Its place is freed when the answer begins: a stream of events may last for hours.

        What else it holds (`release_at_end`) is given back when the answer is over.
        """
        holding = True

        def leave() -> None:
            nonlocal holding
            if holding:
                holding = False
                self._line.leave()
                self._update_gauges()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                leave()
            await send(message)

        try:
            await self._inner(scope, receive, sending)
        finally:
            leave()
            release_held(scope)

    async def _body(self, scope: HTTPScope, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """Read a request's body before it takes a place, so that a slow client holds none. None: it disconnected.

        Raises BodyTooLargeError, RequestTooSlowError, and RateExceededError where an address sends too many at a time.
        """
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" not in headers and length == b"0":
            return b""
        if length.isdigit() and int(length) > BODY_LIMIT:
            REFUSED_TOTAL.labels("large_body").inc()
            raise errors.BodyTooLargeError(limit_bytes=BODY_LIMIT)
        address = read_address(scope.get("client"))
        if self._bodies[address] >= self.capacity.bodies_per_address:
            REFUSED_TOTAL.labels("slow_body").inc()
            raise errors.RateExceededError(retry_after_s=1)
        self._bodies[address] += 1
        try:
            async with asyncio.timeout(self._body_within_s):
                return await _read_body(receive)
        except TimeoutError:
            REFUSED_TOTAL.labels("slow_body").inc()
            raise errors.RequestTooSlowError(limit_s=self._body_within_s) from None
        finally:
            self._bodies[address] -= 1
            if not self._bodies[address]:
                del self._bodies[address]

    def _update_gauges(self) -> None:
        IN_HAND.set(self._line.busy)
        IN_LINE.set(self._line.waiting)


async def _read_body(receive: Receive) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > BODY_LIMIT:
            REFUSED_TOTAL.labels("large_body").inc()
            raise errors.BodyTooLargeError(limit_bytes=BODY_LIMIT)
        if not message["more_body"]:
            return b"".join(parts)


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body already read, then what the connection gives."""
    given = False

    async def receiving() -> HTTPReceiveMessage:
        nonlocal given
        if given:
            return await receive()  # type: ignore[return-value] # of HTTP, as the scope was
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _headers(scope: HTTPScope) -> dict[bytes, bytes]:
    """Return the headers by name. Raises HeadersTooLargeError, and HeaderRepeatedError for one that came twice."""
    found = list(scope["headers"])
    size = sum(len(name) + len(value) for name, value in found)
    if len(found) > HEADERS_MOST or size > HEADERS_LIMIT:
        REFUSED_TOTAL.labels("headers").inc()
        raise errors.HeadersTooLargeError(limit_bytes=HEADERS_LIMIT, limit_headers=HEADERS_MOST)
    refuse_repeated_headers(found)
    return dict(found)


async def _refuse(error: errors.JiebangError, scope: HTTPScope, send: Send, *, unread: bool) -> None:
    """Answer with a problem. `unread`: the body was not read, so the connection is closed."""
    language = next((value for name, value in scope["headers"] if name == b"accept-language"), b"")
    problem = problem_of(error, language.decode("latin-1"))
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in headers_of(error, problem).items()),
        *HARDENING,
    ]
    if unread and scope["method"] not in ("GET", "HEAD"):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
