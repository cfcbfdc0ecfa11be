"""The platform's client of a remote participant, which also keeps what crossed the network, for the suite's report."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.participants.conformance.subject import cut, show_silence
from jiebang.participants.http import HttpParticipant
from jiebang.remote.client import SignedClient

if TYPE_CHECKING:
    from jiebang.remote.signing import Link

_KEPT: Final = 8


class Exchange(msgspec.Struct, frozen=True):
    """One request and what came of it, each cut to a readable length."""

    sent: str
    answered: str


class ListeningClient(SignedClient):
    """A signed client that keeps its last exchanges, the newest last."""

    def __init__(self, link: Link, *, limit: float) -> None:
        super().__init__(link, limit=limit)
        self.exchanges = deque[Exchange](maxlen=_KEPT)

    async def send(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send as `SignedClient` does."""
        sent = f"{method} {path} {cut(body.decode('utf-8', 'replace'))}"
        try:
            answer = await super().send(method, path, body)
        except Exception as error:
            self.exchanges.append(Exchange(sent, show_silence(error).en))
            raise
        self.exchanges.append(Exchange(sent, cut(answer.decode("utf-8", "replace"))))
        return answer


class ListeningParticipant(HttpParticipant):
    """A remote participant through a `ListeningClient`."""

    def __init__(self, link: Link, *, limit: float) -> None:
        self.client = ListeningClient(link, limit=limit)
        super().__init__(link, client=self.client)

    @property
    def last(self) -> Exchange | None:
        """The last exchange; None before the first."""
        return self.client.exchanges[-1] if self.client.exchanges else None
