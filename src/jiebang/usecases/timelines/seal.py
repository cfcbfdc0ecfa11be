"""Seal timelines: sign the heads of ended cases, and of live cases that moved, in one chain for the installation.

The worker that holds bucket 0 seals. Two at once do no harm: each seal number exists once. What a seal says, and how a
receipt is checked against it: `saga/seals.py` and docs/receipts.md.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from jiebang.participants.base import UNANSWERED
from jiebang.saga.chain import time_text
from jiebang.saga.seals import NOTHING, seal_hash, statement
from jiebang.store.timelines import anchor, case_records, seals
from jiebang.store.timelines.anchor import AnchorLine
from jiebang.store.timelines.case_records import load_registers
from jiebang.store.timelines.seals import Seal
from jiebang.store.timelines.witness import ChainMemory
from jiebang.usecases.periodic import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.saga.seals import Leaf
    from jiebang.store.postgres.pool import Pool
    from jiebang.store.timelines.seal_signing_keys import SealKeys
    from jiebang.store.timelines.seals import Standing

SEALS_TOTAL: Final = Counter("jiebang_seals_total", "Seals made")
SEALED_TOTAL: Final = Counter("jiebang_sealed_timelines_total", "Heads of timelines that were sealed", ["which"])
SEALING_HALTED: Final = Gauge(
    "jiebang_sealing_halted", "1 while the chain of seals is not what it was, and nothing is sealed"
)
UNSEALED_SECONDS: Final = Gauge(
    "jiebang_unsealed_seconds", "For how long the oldest ended case has waited for its seal"
)

ANCHOR_GONE: Final = "the_anchor_is_gone"
"""Why nothing is sealed where there are seals, and no anchor any more."""
_SOON: Final = timedelta(seconds=1)
"""The pause after a turn that made as many seals as it may: there is more to seal."""

_log = structlog.get_logger(__name__)


class SealPace(msgspec.Struct, frozen=True, kw_only=True):
    """How timelines are sealed."""

    grace: timedelta = timedelta(seconds=60)
    """When a case is sealed though a save that began before its end is still under way: longer than any takes."""
    every: timedelta = timedelta(seconds=3)
    live_every: timedelta = timedelta(minutes=10)
    """How often live cases are searched for those that moved."""
    batch: int = 1_024
    """Most cases in a seal."""
    seals_a_turn: int = 16


class SealingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of sealing: the numbers of the last seal and of the one in the anchor (None: no anchor), and problems.

    `halted`: why nothing is sealed, None if it is. `unsealed_s`: for how long the oldest ended case has waited.
    `anchor_in_home`: whether whoever has the home has the anchor too.
    """

    seal: int
    anchored: int | None
    anchor_in_home: bool
    halted: str | None
    unsealed_s: int


class _Walk(msgspec.Struct):
    """A walk through the live cases for those that moved after `since`; `after`: the last account read.

    `moved`: found and not sealed yet; `sealed`: whether this walk has sealed any.
    """

    since: datetime
    until: datetime
    after: int = 0
    moved: list[Leaf] = msgspec.field(default_factory=list)
    sealed: bool = False


class Sealer:
    """The chore that seals. Its state can be lost: another worker goes on from what is stored."""

    def __init__(
        self,
        *,
        pool: Pool,
        keys: SealKeys,
        anchor_at: Path | None,
        pace: SealPace,
        memory: ChainMemory | None = None,
        anchor_in_home: bool = False,
    ) -> None:
        """`anchor_at`: the file outside the database that holds the end of the chain; None: the log alone.

        `memory`: where the end is remembered beside it. `anchor_in_home`: whether the file lies with the installation's
        own, of which the sealer warns when it begins.
        """
        self._warn, self._anchor_in_home = anchor_in_home, anchor_in_home
        self._pool, self._keys, self._anchor_at, self._pace = pool, keys, anchor_at, pace
        self._memory = memory or ChainMemory(None, None)
        self._sealed: AnchorLine | None = None
        """The last seal that this worker made."""
        self._raised: tuple[datetime, frozenset[str]] | None = None
        """The floor that was raised, and the saves under way then that have not ended yet."""
        self._schedule, self._walk_schedule = Schedule(pace.every), Schedule(pace.live_every)
        self._walk: _Walk | None = None
        self._halted: str | None = None

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn if this worker holds bucket 0 and one is due; return how many seals were made."""
        if 0 not in buckets:
            self._schedule.reset()
            self._walk = None
            SEALING_HALTED.set(0)
            UNSEALED_SECONDS.set(0)
            return 0
        if not self._schedule.is_due(now):
            return 0
        made = await self.turn(now)
        self._schedule.postpone(now, _SOON if made >= self._pace.seals_a_turn else None)
        return made

    async def turn(self, now: datetime) -> int:
        """Seal what is to be sealed, up to the limit of a turn; return how many seals were made."""
        if self._warn:
            _log.warning("anchor_in_home", path=str(self._anchor_at))
            self._warn = False
        first = last = await seals.load_last(self._pool)
        if last.seal_no == 0 and await self._read_anchor() is None:
            await self._anchor(AnchorLine(0, NOTHING.hex(), time_text(now)))  # its absence is a fault from now on
        halted = await self._find_fault(last)
        SEALING_HALTED.set(halted is not None)
        if halted is not None:
            if halted != self._halted:
                _log.error("sealing_halted", why=halted, seal=last.seal_no)
            self._halted = halted
            return 0
        self._halted = None
        last, oldest = await self._seal_ended(last, now)
        last = await self._seal_moved(last, now)
        if last.seal_no > first.seal_no:
            await self._remember(last, now)
        UNSEALED_SECONDS.set(0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        return last.seal_no - first.seal_no

    async def standing(self, now: datetime) -> SealingStatus:
        """Return how far the chain is sealed, what the anchor holds, and what halts sealing; changes nothing."""
        last = await seals.load_last(self._pool)
        anchored = await self._read_anchor()
        oldest = (await seals.load_standing(self._pool, last.ended_until)).first_ended
        return SealingStatus(
            seal=last.seal_no,
            anchored=None if anchored is None else anchored.seal,
            anchor_in_home=self._anchor_in_home,
            halted=await self._find_fault(last),
            unsealed_s=0 if oldest is None else max(0, int((now - oldest).total_seconds())),
        )

    async def go_on_after_restore(self, now: datetime, by: str) -> int | None:
        """Continue a chain cut short by a restore, or whose anchor is gone, above every number remembered anywhere.

        The gap and who acknowledged it (`by`) are signed, and appear in every audit. Returns the number of the new
        seal; None if the chain is intact, or its end is not signed by a key of ours.
        """
        last = await seals.load_last(self._pool)
        ends = await self._read_ends()
        if not self._is_signed(last) or await self._find_fault(last) is None:
            return None
        lost = max(last.seal_no, *(end.seal for end in ends.values()))
        sealed = await self._add(last, now, seal_no=lost + 1, restored=lost, by=by)
        self._sealed = None
        await self._remember(sealed, now)
        _log.warning("sealing_goes_on_after_restore", seal=sealed.seal_no, kept=last.seal_no, lost=lost, by=by)
        return sealed.seal_no

    async def _find_fault(self, last: Seal) -> str | None:
        """Return why nothing may be sealed, or None: sealing after a forged or cut end would cover it up."""
        if not self._is_signed(last):
            return "last_seal_not_signed_by_a_known_key"
        ends = await self._read_ends()
        if last.seal_no and self._anchor_at is not None and "anchor" not in ends:
            return ANCHOR_GONE
        return await self._find_cut(last, ends)

    async def _find_cut(self, last: Seal, ends: Mapping[str, AnchorLine]) -> str | None:
        """Return where a seal is remembered that the chain does not hold, or holds otherwise; None if it holds all."""
        for place, end in ends.items():
            if end.seal > last.seal_no:
                return f"chain_ends_before_the_{place}"
            known = last.statement if end.seal == last.seal_no else await seals.load_statement(self._pool, end.seal)
            if end.seal and (known is None or seal_hash(known).hex() != end.hash):
                return f"chain_differs_from_the_{place}"
        return None

    def _is_signed(self, last: Seal) -> bool:
        return last.seal_no == 0 or self._keys.payload(last.statement) is not None

    async def _read_anchor(self) -> AnchorLine | None:
        return None if self._anchor_at is None else await asyncio.to_thread(anchor.read_last, self._anchor_at)

    async def _read_ends(self) -> dict[str, AnchorLine]:
        """Return every end of the chain that is remembered, by where."""
        anchored = await self._read_anchor()
        known = {} if anchored is None else {"anchor": anchored}
        known |= await self._memory.read()
        return known if self._sealed is None else {**known, "worker": self._sealed}

    async def _seal_ended(self, last: Seal, now: datetime) -> tuple[Seal, datetime | None]:
        """Seal the cases that ended; return the last seal, and when the first one ended that still waits."""
        pace, standing = self._pace, await seals.load_standing(self._pool, last.ended_until)
        if standing.first_ended is None:
            return last, None
        until = await self._find_settled(standing, now)
        for _ in range(pace.seals_a_turn):
            ended, reached = await seals.load_ended_after(self._pool, last.ended_until, until, pace.batch)
            if ended:
                last = await self._add(last, now, ended=ended, ended_until=reached)
            if len(ended) < pace.batch:
                break
        return last, (await seals.load_standing(self._pool, last.ended_until)).first_ended

    async def _find_settled(self, standing: Standing, now: datetime) -> datetime:
        """Return a time up to which every case that ended is known, and no other will end any more.

        The floor is raised to the present; once the saves that may have read an older one have ended, it is reached.
        A save that hangs holds this up for `grace` at most.
        """
        present = min(now, standing.at)
        if self._raised is None:
            await seals.raise_floor(self._pool, present)
            self._raised = (present, await seals.find_saves_under_way(self._pool))
        floor, under_way = self._raised
        under_way &= await seals.find_saves_under_way(self._pool) if under_way else frozenset()
        settled = floor if not under_way else min(floor, present - self._pace.grace)
        self._raised = None if settled == floor else (floor, under_way)
        return settled

    async def _seal_moved(self, last: Seal, now: datetime) -> Seal:
        """Walk some pages of live cases. Those that moved are sealed when they fill a batch, or the walk ends."""
        pace = self._pace
        if self._walk is None:
            if not self._walk_schedule.is_due(now):
                return last
            self._walk = _Walk(since=last.moved_until, until=now - pace.grace)
        walk = self._walk
        for _ in range(pace.seals_a_turn):
            page = await seals.load_live_page(self._pool, walk.after, pace.batch)
            walk.moved += [each.leaf for each in page if each.at is not None and each.at > walk.since]
            if len(page) < pace.batch:
                if walk.moved or walk.sealed:
                    last = await self._add(last, now, live=walk.moved, moved_until=max(walk.until, last.moved_until))
                self._walk = None
                self._walk_schedule.postpone(now)
                break
            walk.after = page[-1].leaf.account_id
            if len(walk.moved) >= pace.batch:
                last = await self._add(last, now, live=walk.moved)
                walk.moved, walk.sealed = [], True
        return last

    async def _add(
        self,
        last: Seal,
        now: datetime,
        *,
        ended: Sequence[Leaf] = (),
        live: Sequence[Leaf] = (),
        ended_until: datetime | None = None,
        moved_until: datetime | None = None,
        seal_no: int | None = None,
        restored: int | None = None,
        by: str | None = None,
    ) -> Seal:
        """Add one seal after `last`. Raises SealRacedError if another worker was quicker; the next turn goes on."""
        number, registers_until = seal_no or last.seal_no + 1, now - self._pace.grace
        ended = await case_records.add_records(self._pool, ended, whole=True)
        live = await case_records.add_records(self._pool, live, whole=False)
        payload, packed = statement(
            seal=number,
            previous=seal_hash(last.statement) if last.seal_no else NOTHING,
            at=now,
            ended=ended,
            live=live,
            ended_until=ended_until or last.ended_until,
            moved_until=moved_until or last.moved_until,
            registers=await load_registers(self._pool, registers_until),
            registers_until=registers_until,
            restored=restored,
            by=by,
        )
        sealed = Seal(
            seal_no=number,
            ended_until=ended_until or last.ended_until,
            moved_until=moved_until or last.moved_until,
            statement=self._keys.sign(payload),
            cases=packed,
        )
        if not await seals.add(self._pool, sealed):
            raise SealRacedError
        SEALS_TOTAL.inc()
        SEALED_TOTAL.labels("ended").inc(len(ended))
        SEALED_TOTAL.labels("live").inc(len(live))
        return sealed

    async def _remember(self, last: Seal, now: datetime) -> None:
        """Record the end of the chain outside the database: in the log, the anchor and the memory. Logs a failure."""
        end = AnchorLine(last.seal_no, seal_hash(last.statement).hex(), time_text(now))
        _log.info("timelines_sealed", seal=end.seal, hash=end.hash)
        self._sealed = end
        await self._anchor(end)
        try:
            await self._memory.write(end)
        except UNANSWERED as error:
            _log.warning("seal_not_remembered", seal=end.seal, error=type(error).__name__)

    async def _anchor(self, end: AnchorLine) -> None:
        """Append a line to the anchor. Logs a failed write."""
        if self._anchor_at is None:
            return
        try:
            await asyncio.to_thread(anchor.append, self._anchor_at, end)
        except OSError as error:
            _log.warning("anchor_not_written", path=str(self._anchor_at), error=type(error).__name__)


class SealRacedError(Exception):
    """Another worker sealed at the same moment; nothing is lost."""
