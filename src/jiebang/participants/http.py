"""Participants across the network: Try, Confirm, Cancel and look as signed HTTP with a JSON batch.

docs/remote-participants.md is the protocol. Whatever is not a whole, signed, believable answer is silence: the saga
asks again, and the fence at the other end makes asking twice harmless.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
from prometheus_client import Counter as Metric

from jiebang.model.errors import JiebangError
from jiebang.remote import wire
from jiebang.remote.signing import Link, Requester, Sent, joined
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import FenceRow, Op

if TYPE_CHECKING:
    from jiebang.participants.base import Order

IGNORED_TOTAL = Metric(
    "jiebang_results_ignored_total", "Results of remote participants that were not believed", ["participant", "reason"]
)
AT_ONCE: Final = 8
"""Requests under way to one party at a time; more wait for a place, and their time limit with them."""
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "::1", "localhost"})
IDLE_SECONDS: Final = 30.0
"""How long an unused connection is kept; the other side keeps it longer, so that none closes under a request."""


class RemoteError(ConnectionError):
    """The party did not answer in a way that can be believed: unreachable, failing, or not signed by it.

    `status`: the HTTP status it came with, None where none came. `code`: the problem's code, where one was named.
    """

    def __init__(self, name: str, what: str, status: int | None = None, code: str | None = None) -> None:
        """Say what happened; nothing personal."""
        super().__init__(f"{name}: {what}")
        self.status = status
        self.code = code


class _Problem(msgspec.Struct):
    code: str = ""


class SignedClient:
    """One end of a signed connection: a pool of kept connections, a time limit, a limit on what is read."""

    def __init__(self, link: Link, *, limit: float) -> None:
        """`limit`: seconds from sending a request to the last byte of its answer.

        ValueError for a key that is none, and for an address that is neither https nor this machine's own.
        """
        at = httpx.URL(link.base_url)
        if at.scheme != "https" and at.host not in _THIS_MACHINE:
            message = f"{link.name}: a signature hides nothing; the address must begin with https://"
            raise ValueError(message)
        self.name = link.name
        self._base = link.base_url.rstrip("/")
        self._requester = Requester(link)
        self._limit = limit
        self._places = asyncio.Semaphore(AT_ONCE)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(limit),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE, keepalive_expiry=IDLE_SECONDS),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "jiebang"},
            verify=at.scheme
            == "https",  # without TLS there is nothing to verify, and the list of authorities loads slowly
            trust_env=False,  # a proxy or a password file of the environment has no business between two signed parties
        )

    async def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send one signed request and return the body of its signed 200.

        Raises RemoteError (an OSError) for every other answer and for none, TimeoutError past the limit.
        """
        async with self._places, asyncio.timeout(self._limit):
            url = str(httpx.URL(self._base + path))
            sent = self._requester.sign(method, url, body, now=datetime.now(UTC), nonce=secrets.token_urlsafe(18))
            try:
                return await self._exchange(sent, body)
            except httpx.TimeoutException as error:
                raise TimeoutError(f"{self.name}: no answer in time") from error
            except (httpx.HTTPError, AttributeError) as error:
                # AttributeError: a connection that is reset while it is made has no socket, which anyio does not expect
                raise RemoteError(self.name, type(error).__name__) from error

    async def _exchange(self, sent: Sent, body: bytes) -> bytes:
        request = self._http.build_request(sent.method, sent.url, headers=sent.headers, content=body)
        response = await self._http.send(request, stream=True)
        try:
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > wire.MAX_BODY:
                    raise RemoteError(self.name, "an answer longer than the protocol allows", response.status_code)
        finally:
            await response.aclose()
        answer = bytes(content)
        try:
            self._requester.verify(sent, response.status_code, joined(response.headers.multi_items()), answer)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not signed by it", response.status_code, error.code) from error
        if response.status_code != HTTPStatus.OK:
            raise self._refusal(response.status_code, answer)
        return answer

    def _refusal(self, status: int, answer: bytes) -> RemoteError:
        try:
            code = msgspec.json.decode(answer, type=_Problem).code
        except msgspec.DecodeError:
            code = ""
        return RemoteError(self.name, f"answered {status} {code}".rstrip(), status, code or None)

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._http.aclose()


class HttpParticipant:
    """A `Participant` reached over HTTP. It owns no facts of ours.

    `ignored` counts the results that were not believed, by reason: it should stay empty; IGNORED_TOTAL is its metric.
    """

    def __init__(self, link: Link, *, limit: float = 2.0) -> None:
        """`limit`: seconds a request may take before it counts as silence."""
        self.name = link.name
        self.ignored = Counter[wire.Ignored]()
        self._client = SignedClient(link, limit=limit)

    async def facts(self, accounts: Sequence[int]) -> None:
        """Answer nothing: clearing networks own no facts (domain.md §2)."""

    async def apply(self, op: Op, orders: Sequence[Order], effects: Mapping[str, Any]) -> Sequence[Reply]:
        """Carry out `op` for a batch, one request for each 1,024 cases, all at once.

        Raises RemoteError or TimeoutError where no request was answered. Where only some were, their replies are
        returned and the other cases are unknown: they come again, fewer, and then stand or fall alone.
        """
        once = list({(order.account_id, order.case_no): order for order in orders}.values())
        answers = await asyncio.gather(
            *(self._apply(op, chunk, effects) for chunk in _chunks(once)), return_exceptions=True
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if len(failures) == len(answers) or not isinstance(failure, OSError):
                raise failure
        return [reply for answer in answers if isinstance(answer, list) for reply in answer]

    async def _apply(self, op: Op, orders: Sequence[Order], effects: Mapping[str, Any]) -> list[Reply]:
        cases = [wire.CaseOrder(str(order.account_id), order.case_no, order.version) for order in orders]
        batch = wire.Batch(cases, dict(effects) if op is Op.CONFIRM else {})
        answer = await self._client.send("POST", f"/{op}", msgspec.json.encode(batch))
        try:
            replies, ignored = wire.replies(self.name, op, orders, answer)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error
        self.ignored.update(ignored)
        for reason in ignored:
            IGNORED_TOTAL.labels(self.name, reason.value).inc()
        return replies

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`, changing nothing. An account without a row is absent.

        Raises RemoteError or TimeoutError unless every request is answered: half a look would make rows seem absent.
        """
        answers = await asyncio.gather(
            *(self._look(chunk) for chunk in _chunks(sorted(set(accounts)))), return_exceptions=True
        )
        found = dict[int, FenceRow]()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found |= answer
        return found

    async def _look(self, accounts: Sequence[int]) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.LookBatch([str(account) for account in accounts]))
        answer = await self._client.send("POST", "/look", body)
        try:
            return wire.looked(answer, accounts)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows above `after` up to `upto`, the first `limit`, 1,024 a request.

        Raises RemoteError or TimeoutError unless every request is answered.
        """
        found = dict[int, FenceRow]()
        full = True
        while full and len(found) < limit and after < upto:
            page = await self._marks(after, upto)
            full = len(page) == wire.MAX_BATCH
            found |= page
            after = max(page, default=after)
        return dict(list(found.items())[:limit])

    async def _marks(self, after: int, upto: int) -> dict[int, FenceRow]:
        body = msgspec.json.encode(wire.MarksRange(str(after), str(upto)))
        answer = await self._client.send("POST", "/marks", body)
        try:
            return wire.marked(answer, after, upto)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not of the protocol", HTTPStatus.OK, error.code) from error

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[at : at + wire.MAX_BATCH] for at in range(0, len(items), wire.MAX_BATCH)]
