"""Read: a case, its timeline as it grows, and who of the participants answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog

from jiebang.model.case import ENDED
from jiebang.model.errors import UnknownCaseError
from jiebang.participants.base import UNANSWERED
from jiebang.saga.seals import Leaf, index_of, path, said_in
from jiebang.store.cases import cases, proofs
from jiebang.store.timelines import seals, timeline_rows
from jiebang.usecases.cases.context import Context, Found, Sealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jiebang.model.case import Case, Key
    from jiebang.participants.base import Participant
    from jiebang.saga.chain import Row
    from jiebang.store.timelines.timeline_rows import TimelineRow

_log = structlog.get_logger(__name__)


async def find(context: Context, key: Key) -> Found:
    """Return a case with its proofs and, once it has ended and was sealed, its seal. Raises UnknownCaseError."""
    case = (await cases.load_many(context.platform, [key])).get(key)
    if case is None:
        raise UnknownCaseError
    await context.know([case])
    held = await proofs.of_cases(context.platform, [key])
    found = Found(case=case, plan=context.plan_of(case), proofs=held.get(key, {}))
    return found if case.state not in ENDED else msgspec.structs.replace(found, sealed=await _sealed(context, case))


async def recorded(context: Context, key: Key) -> tuple[Found, list[Row]]:
    """Return a case and its timeline as it was recorded: what a receipt is checked with. Raises UnknownCaseError.

    A row that came between the two readings is left out: rows and head are then of one moment.
    """
    found = await find(context, key)
    rows = (await timeline_rows.read_recorded(context.platform, [key]))[key]
    return found, [row for row in rows if row.revision <= found.case.revision]


async def read_timelines(context: Context, seen: Mapping[Key, int]) -> list[TimelineRow]:
    """Return the timelines of cases, each after the revision given for it (0: from the beginning)."""
    return await timeline_rows.read_after(context.platform, seen)


async def _sealed(context: Context, case: Case) -> Sealed | None:
    """Return where the head of a case that has ended was sealed; None where it was not yet, or not as it stands."""
    seal = (await seals.of_cases(context.platform, [case.key])).get(case.key)
    said = None if seal is None else said_in(seal.statement)
    if seal is None or said is None:
        return None
    index = index_of(seal.cases, Leaf(*case.key, case.revision, case.head))
    if index is None:
        return None
    return Sealed(
        seal_no=seal.seal_no,
        at=datetime.fromisoformat(said.at),
        statement=seal.statement,
        path=path(seal.cases, index),
    )


async def answering(context: Context, within: timedelta) -> dict[str, bool]:
    """Ask the platform's database and every participant, all at once, whether they answer; by name."""

    async def ask(name: str, participant: Participant | None) -> tuple[str, bool]:
        try:
            async with asyncio.timeout(within.total_seconds()):
                if participant is None:
                    await context.platform.fetchval("SELECT 1")
                else:
                    await participant.look([1])
        except UNANSWERED:
            return name, False
        return name, True

    parties: dict[str, Participant | None] = {"platform": None, **context.participants}
    return dict(await asyncio.gather(*(ask(name, party) for name, party in parties.items())))


class _Reader(msgspec.Struct):
    """One open stream: what it has seen, and what waits to be sent to it. None ends it."""

    seen: int
    queue: asyncio.Queue[TimelineRow | None]


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

    async def follow(self, key: Key, seen: int) -> AsyncIterator[TimelineRow | None]:
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
        for item in await timeline_rows.read_after(self._context.platform, followed):
            for reader in watched[item.account_id, item.case_no]:
                if item.revision > reader.seen:
                    reader.seen = item.revision
                    reader.queue.put_nowait(item)
        for key, readers in watched.items():
            case = found.get(key)
            for reader in readers:
                if case is None or (case.state in ENDED and reader.seen >= case.revision):
                    reader.queue.put_nowait(None)
