"""Follow cases: their timelines as they grow, for any number of open streams."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog

from jiebang.model.case import ENDED
from jiebang.participants.base import UNANSWERED
from jiebang.store.cases import cases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jiebang.model.case import Key
    from jiebang.store.cases.cases import Timeline
    from jiebang.usecases.cases.context import Context

_log = structlog.get_logger(__name__)


class _Reader(msgspec.Struct):
    """One open stream: what it has seen, and what waits to be sent to it. None ends it."""

    seen: int
    queue: asyncio.Queue[Timeline | None]


class Follower:
    """Follows the timelines of any number of cases with one query a beat for all open streams together."""

    def __init__(
        self,
        context: Context,
        *,
        beat: timedelta = timedelta(milliseconds=50),
        pulse: timedelta = timedelta(seconds=15),
    ) -> None:
        """Take how often to look, and how long a stream may be silent. Nothing runs while no stream is open."""
        self._context, self._beat, self._pulse = context, beat, pulse
        self._readers: defaultdict[Key, list[_Reader]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._readers.values()))

    async def follow(self, key: Key, seen: int) -> AsyncIterator[Timeline | None]:
        """Yield what comes after revision `seen`, until the case has ended and everything was yielded.

        Yields None when nothing came for a while, so that a reader who has gone away is noticed.
        """
        reader = _Reader(seen, asyncio.Queue())
        self._readers[key].append(reader)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            while True:
                try:
                    async with asyncio.timeout(self._pulse.total_seconds()):
                        item = await reader.queue.get()
                except TimeoutError:
                    yield None
                    continue
                if item is None:
                    return
                yield item
        finally:
            self._readers[key].remove(reader)
            if not self._readers[key]:
                del self._readers[key]

    async def aclose(self) -> None:
        """End every stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for readers in self._readers.values():
            for reader in readers:
                reader.queue.put_nowait(None)

    async def _watch(self) -> None:
        while self._readers:
            try:
                await self._look()
            except UNANSWERED as error:
                # The streams stay open: what they miss is read as soon as the database answers again.
                _log.warning("timeline_unreadable", error=type(error).__name__, streams=self.streams)
                await asyncio.sleep(1)
            await asyncio.sleep(self._beat.total_seconds())

    async def _look(self) -> None:
        """Read what is new for all readers. States are read first, so that nothing comes after an end that was seen."""
        # A copy: a reader that joins while we wait for the database has missed what this look did not ask for.
        watched = {key: tuple(readers) for key, readers in self._readers.items()}
        followed = {key: min(reader.seen for reader in readers) for key, readers in watched.items()}
        found = await cases.load_many(self._context.platform, followed)
        for item in await cases.events_after(self._context.platform, followed):
            for reader in watched[item.account_id, item.case_no]:
                if item.revision > reader.seen:
                    reader.seen = item.revision
                    reader.queue.put_nowait(item)
        for key, readers in watched.items():
            case = found.get(key)
            for reader in readers:
                if case is None or (case.state in ENDED and reader.seen >= case.revision):
                    reader.queue.put_nowait(None)
