"""The message gateway, which delivers notices to phones and mailboxes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from jiebang.model.notice import MAX_NOTICES, Notices
from jiebang.remote.client import SignedClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.model.notice import Notice
    from jiebang.remote.signing import Link

GATEWAY: Final = "phone"
"""The name of the link to the gateway: in its key files, its signatures and the addresses that the sandbox writes."""


class Gateway(Protocol):
    """Delivers notices to phones and mailboxes."""

    async def send(self, notices: Sequence[Notice]) -> None:
        """Send all of `notices`, any number. Raises OSError unless all were accepted; sending again is harmless."""

    async def aclose(self) -> None:
        """Close the connections."""


class HttpGateway:
    """A gateway reached by signed HTTP: `POST {base}/messages` with a JSON batch."""

    def __init__(self, link: Link, *, limit: float = 5.0) -> None:
        """`limit`: seconds a request may take."""
        self._client = SignedClient(link, limit=limit)

    async def send(self, notices: Sequence[Notice]) -> None:
        """Send all of `notices`, 200 per request, concurrently. Raises RemoteError or TimeoutError (both OSError)."""
        bodies = [
            msgspec.json.encode(Notices(list(notices[at : at + MAX_NOTICES])))
            for at in range(0, len(notices), MAX_NOTICES)
        ]
        answers = await asyncio.gather(
            *(self._client.send("POST", "/messages", body) for body in bodies), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
