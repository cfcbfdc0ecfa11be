"""The message gateway, which delivers notices to people's phones and mailboxes, and to organisations."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

import msgspec

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.model.notice import MAX_NOTICES, Notice, NoticeRefusal, Notices, NoticesTaken
from jiebang.remote.client import RemoteError, SignedClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.model.notice import Refusals
    from jiebang.remote.signing import Link

GATEWAY: Final = "phone"
"""The name of the link to the gateway: in its key files, its signatures and the addresses that the sandbox writes."""
NOT_TAKEN: Final = "NOT-TAKEN"
"""The code of a notice that the gateway refused with a status alone."""


class Gateway(Protocol):
    """Delivers notices to phones and mailboxes."""

    async def send(self, notices: Sequence[Notice]) -> Refusals:
        """Send all of `notices`, any number; return those that were refused, which hold up no others.

        Raises OSError unless all others were accepted; sending again is harmless. Notices to one addressee are
        delivered in their order, as long as there are at most MAX_NOTICES of them.
        """

    async def aclose(self) -> None:
        """Close the connections."""


class HttpGateway:
    """A gateway reached by signed HTTP: `POST {base}/messages` with a JSON batch."""

    def __init__(self, link: Link, *, limit: float = 5.0) -> None:
        """`limit`: seconds a request may take."""
        self._client = SignedClient(link, limit=limit)

    async def send(self, notices: Sequence[Notice]) -> Refusals:
        """Send all of `notices`, up to 200 per request, concurrently. Raises RemoteError or TimeoutError (OSErrors)."""
        answers = await asyncio.gather(*map(self._post, _divide(notices)), return_exceptions=True)
        refused = dict[UUID, NoticeRefusal]()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            refused |= answer
        return refused

    async def _post(self, notices: Sequence[Notice]) -> dict[UUID, NoticeRefusal]:
        """Send one request. One that is refused as a whole because of a notice in it is halved until that is alone."""
        try:
            answer = await self._client.send("POST", "/messages", msgspec.json.encode(Notices(list(notices))))
        except RemoteError as error:
            if not error.refused_whole or error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                # A gateway that fails is one that is away: no notice is given up for it.
                raise
            if len(notices) == 1:
                return {notices[0].message_id: NoticeRefusal(notices[0].message_id, NOT_TAKEN, final=False)}
            return await self._post_halves(notices)
        try:
            taken = decode(answer, NoticesTaken)
        except InvalidInputError as error:
            raise RemoteError(self._client.name, "an answer that is none of the protocol") from error
        sent = {notice.message_id for notice in notices}
        return {refusal.message_id: refusal for refusal in taken.refused if refusal.message_id in sent}

    async def _post_halves(self, notices: Sequence[Notice]) -> dict[UUID, NoticeRefusal]:
        """Send a half, then the other without notices to those who did not take theirs: they keep their order."""
        middle = len(notices) // 2
        refused = await self._post(notices[:middle])
        held = {notice.lane for notice in notices[:middle] if notice.message_id in refused}
        rest = [notice for notice in notices[middle:] if notice.lane not in held]
        for notice in notices[middle:]:
            if notice.lane in held:
                refused[notice.message_id] = NoticeRefusal(notice.message_id, NOT_TAKEN, final=False)
        return {**refused, **(await self._post(rest) if rest else {})}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _divide(notices: Sequence[Notice]) -> list[list[Notice]]:
    """Divide notices into requests: those of one addressee stay together, because requests overtake others."""
    lanes = dict[object, list[Notice]]()
    for notice in notices:
        lanes.setdefault(notice.lane, []).append(notice)
    requests = list[list[Notice]]()
    for lane in lanes.values():
        for at in range(0, len(lane), MAX_NOTICES):
            part = lane[at : at + MAX_NOTICES]
            if not requests or len(requests[-1]) + len(part) > MAX_NOTICES:
                requests.append([])
            requests[-1] += part
    return requests
