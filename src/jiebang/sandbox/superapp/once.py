"""Each mutation once under its key: all requests under it get the first one's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.errors import (
    ApiQuotaUsedError,
    CallerError,
    IdempotencyInUseError,
    IdempotencyReusedError,
    JiebangError,
    NotAllowedError,
    PolicyRefusalError,
    TooSoonError,
)
from jiebang.sandbox.superapp.answers import StoredAnswer

if TYPE_CHECKING:
    from jiebang.sandbox.superapp.answers import AnswerStore, RequestKey

_COME_AGAIN: Final = (TooSoonError, ApiQuotaUsedError, IdempotencyInUseError, IdempotencyReusedError, NotAllowedError)


class PendingRequest(msgspec.Struct, frozen=True):
    """A request that is being carried out now."""

    body_hash: bytes
    over: asyncio.Future[None]


class OncePerKey:
    """Carries mutations out, one request a key at a time."""

    def __init__(
        self, store: AnswerStore, clock: Callable[[], datetime], *, wait: float = 1.0, limit: float = 30.0
    ) -> None:
        """`wait`: seconds a repeat waits for the first to be over; `limit`: seconds that one may take."""
        self._store, self._clock, self._wait, self._limit = store, clock, wait, limit
        self._pending = dict[tuple[str, str, str], PendingRequest]()

    async def answer(
        self,
        asked: RequestKey,
        work: Callable[[UUID], Awaitable[StoredAnswer]],
        refused: Callable[[JiebangError], StoredAnswer],
    ) -> tuple[StoredAnswer, bool]:
        """Return the answer under the key, and whether it was given before.

        `work` is given an id that stays the same for the key until there is an answer, so that its effect happens once
        even if a process dies in between. `refused`: turns a final refusal into the answer to keep.
        Raises IdempotencyInUseError while another request under the key is under way for longer than a repeat waits,
        IdempotencyReusedError, TimeoutError past the limit, and what `work` raises that is not final.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait
        while (pending := self._pending.get(asked.name)) is not None:
            if pending.body_hash != asked.body_hash:
                raise IdempotencyReusedError
            left = until - loop.time()
            if left <= 0:
                raise IdempotencyInUseError(retry_after_s=1)
            await asyncio.wait({pending.over}, timeout=left)
        own = PendingRequest(asked.body_hash, loop.create_future())
        self._pending[asked.name] = own
        try:
            return await self._carry_out(asked, work, refused)
        finally:
            del self._pending[asked.name]
            own.over.set_result(None)

    async def _carry_out(
        self,
        asked: RequestKey,
        work: Callable[[UUID], Awaitable[StoredAnswer]],
        refused: Callable[[JiebangError], StoredAnswer],
    ) -> tuple[StoredAnswer, bool]:
        found = await self._store.take(asked, self._clock())
        if isinstance(found, StoredAnswer):
            return found, True
        try:
            async with asyncio.timeout(self._limit):
                answer = await work(found)
        except (CallerError, PolicyRefusalError) as error:
            if isinstance(error, _COME_AGAIN):
                raise
            answer = refused(error)
        await self._store.keep(asked, answer)
        return answer, False
