"""The signed client: sends one request to a remote party and verifies its answer.

Anything but a complete answer, signed by the party for this request, counts as silence.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import httpx

from jiebang.model.errors import JiebangError
from jiebang.remote import wire
from jiebang.remote.peer_problems import read_peer_problem
from jiebang.remote.signing import Link, Requester, SignedRequest, join_headers

AT_ONCE: Final = 8
"""Concurrent requests to one party; others wait for a place within their own time limit."""
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "::1", "localhost"})
IDLE_SECONDS: Final = 30.0
"""How long an idle connection is kept; the other side keeps it longer, so that none closes during a request."""


_REFUSED_WHOLE: Final = frozenset({400, 409, 413, 422, 500})
"""Statuses of a signed answer that speak of the request; the others speak of the party's state, or of the link."""


class RemoteError(ConnectionError):
    """The party gave no valid answer: it was unreachable or failing, or the answer was not signed by it.

    `status`: the HTTP status of the answer, None where none came. `code`: the problem's code, where there is one.
    `detail`: what the party said of it, cleaned (peer_problems.py).
    """

    def __init__(
        self, name: str, what: str, status: int | None = None, code: str | None = None, detail: str | None = None
    ) -> None:
        """`what`: what happened, without personal data."""
        super().__init__(f"{name}: {what}")
        self.what = what
        self.status = status
        self.refused_whole = False
        """Whether the party itself refused the request as a whole: one case of the batch may be why."""
        self.code = code
        self.detail = detail


class SignedClient:
    """One end of a signed connection: pooled connections, a time limit, a limit on the answer's size."""

    def __init__(self, link: Link, *, limit: float) -> None:
        """`limit`: seconds from sending a request to the last byte of its answer.

        Raises ValueError for an invalid key, and for an address that is neither https nor this machine's own.
        """
        base = httpx.URL(link.base_url)
        if base.scheme != "https" and base.host not in _THIS_MACHINE:
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
            verify=base.scheme
            == "https",  # without TLS there is nothing to verify, and the list of authorities loads slowly
            trust_env=False,  # no proxy or password file of the environment
        )

    async def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send one signed request and return the body of the signed answer with status 200.

        Raises RemoteError (an OSError) for any other answer and for none, TimeoutError past the limit.
        """
        async with self._places, asyncio.timeout(self._limit):
            url = str(httpx.URL(self._base + path))
            sent = self._requester.sign(method, url, body, now=datetime.now(UTC), nonce=secrets.token_urlsafe(18))
            try:
                return await self._exchange(sent, body)
            except httpx.TimeoutException as error:
                raise TimeoutError(f"{self.name}: no answer in time") from error
            except OSError:  # a RemoteError among them
                raise
            except Exception as error:
                # Whatever a peer's bytes, or the loss of its connection, make a library raise: it did not answer.
                raise RemoteError(self.name, type(error).__name__) from error

    async def _exchange(self, sent: SignedRequest, body: bytes) -> bytes:
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
            self._requester.verify(sent, response.status_code, join_headers(response.headers.multi_items()), answer)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer not signed by it", response.status_code, error.code) from error
        if response.status_code != HTTPStatus.OK:
            raise self._build_error(response.status_code, answer)
        return answer

    def _build_error(self, status: int, answer: bytes) -> RemoteError:
        code, detail = read_peer_problem(answer)
        error = RemoteError(self.name, f"answered {status} {code or ''}".rstrip(), status, code, detail)
        error.refused_whole = status in _REFUSED_WHOLE
        return error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
