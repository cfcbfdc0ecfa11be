"""The signed client: how one request goes to a remote party, and what counts as its answer.

Whatever is not a whole answer, signed by the party and to this request, is silence to whoever asks.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import httpx
import msgspec

from jiebang.model.errors import JiebangError
from jiebang.remote import wire
from jiebang.remote.signing import Link, Requester, Sent, joined

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
