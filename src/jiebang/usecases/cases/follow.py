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
from jiebang.store.timelines import timeline_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jiebang.model.case import Key
    from jiebang.store.timelines.timeline_rows import TimelineRow
    from jiebang.usecases.cases.context import Context

_log = structlog.get_logger(__name__)


class _Stream(msgspec.Struct):
    """One open stream: the last revision queued for it, and the queue. None in the queue ends it."""

    seen: int
    queue: asyncio.Queue[TimelineRow | None]


class Follower:
    """Follows the timelines of any number of cases, with two queries a beat for all open streams together."""

    def __init__(
        self,
        context: Context,
        *,
        beat: timedelta = timedelta(milliseconds=50),
        pulse: timedelta = timedelta(seconds=15),
    ) -> None:
        """`beat`: the time between two reads; `pulse`: the longest silence of a stream. No stream, no reads."""
        self._context, self._beat, self._pulse = context, beat, pulse
        self._streams: defaultdict[Key, list[_Stream]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._streams.values()))

    async def follow(self, key: Key, seen: int) -> AsyncIterator[TimelineRow | None]:
        """Yield the timeline after revision `seen`, until the case has ended and all was yielded.

        Yields None after each `pulse` of silence, so that the writer notices a reader that has gone away.
        """
        stream = _Stream(seen, asyncio.Queue())
        self._streams[key].append(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_reading())
        try:
            while True:
                try:
                    async with asyncio.timeout(self._pulse.total_seconds()):
                        item = await stream.queue.get()
                except TimeoutError:
                    yield None
                    continue
                if item is None:
                    return
                yield item
        finally:
            self._streams[key].remove(stream)
            if not self._streams[key]:
                del self._streams[key]

    async def aclose(self) -> None:
        """End every stream."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for open_streams in self._streams.values():
            for stream in open_streams:
                stream.queue.put_nowait(None)

    async def _keep_reading(self) -> None:
        while self._streams:
            try:
                await self._read_new()
            except UNANSWERED as error:
                # The streams stay open: what they miss is read as soon as the database answers again.
                _log.warning("timeline_unreadable", error=type(error).__name__, streams=self.streams)
                await asyncio.sleep(1)
            await asyncio.sleep(self._beat.total_seconds())

    async def _read_new(self) -> None:
        """Read what is new for all streams. States are read first: all entries of an end seen there follow."""
        # A copy: this read did not ask for what a stream opened meanwhile has to get.
        watched = {key: tuple(open_streams) for key, open_streams in self._streams.items()}
        revisions = {key: min(stream.seen for stream in open_streams) for key, open_streams in watched.items()}
        cases_now = await cases.load_many(self._context.platform, revisions)
        for item in await timeline_rows.read_after(self._context.platform, revisions):
            for stream in watched[item.account_id, item.case_no]:
                if item.revision > stream.seen:
                    stream.seen = item.revision
                    stream.queue.put_nowait(item)
        for key, open_streams in watched.items():
            case = cases_now.get(key)
            for stream in open_streams:
                if case is None or (case.state in ENDED and stream.seen >= case.revision):
                    stream.queue.put_nowait(None)
