"""Advance cases: the driver of `saga.coordinator.step`. It saves before it sends, and batches by participant and op.

One batch of cases goes through rounds: step them all, save them all in one statement, send what the guarded save
returned (one call a participant and op, all concurrently), step again with the replies. What a case learnt that needs
no save yet (the grants of a wave) is kept in mind for its next save, at the latest at the end of the batch. A round
closes after a limit; replies that come later wait in `late` for the case's next round or another batch. Nothing here
decides: decisions are the coordinator's.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from jiebang.model.case import ENDED, Case, State, moved
from jiebang.participants.base import SILENCE, Order, Participant
from jiebang.policy.record import Evidence
from jiebang.saga.coordinator import Decision, Event, Rechecked, Replied, Reply, Send, Timing, Woken, step
from jiebang.saga.timeline import entries
from jiebang.store import cases as store
from jiebang.store.cases import Key, Save
from jiebang.store.records import Record, Records, Step, record_of

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.saga.fence import Op

Recheck = Callable[[Sequence[Case]], Awaitable[Mapping[Key, Rechecked]]]
"""The check on fresh facts for a batch of cases in `ready`. A case left out could not be checked now."""

ENDED_TOTAL = Counter("jiebang_cases_ended_total", "Cases ended, by state", ["state"])
ANSWERS_TOTAL = Counter("jiebang_answers_total", "Answers of participants", ["participant", "op", "answer"])
SILENCES_TOTAL = Counter("jiebang_silences_total", "Calls that brought no answer", ["participant", "op"])
LOST_SAVES_TOTAL = Counter("jiebang_lost_saves_total", "Saves refused by their guard")
BATCH_SIZE = Histogram("jiebang_batch_cases", "Cases driven together", buckets=(1, 2, 4, 16, 64, 256, 1024))

_log = structlog.get_logger(__name__)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Technical limits of a driver."""

    round: timedelta = timedelta(milliseconds=500)
    """How long a round waits for its slowest participant."""
    call: timedelta = timedelta(seconds=2)
    """How long one call may take before it counts as silence."""


class Driver:
    """Drives batches of cases. Holds no state of a case between batches except replies that came late."""

    def __init__(
        self,
        *,
        pool: asyncpg.Pool[asyncpg.Record],
        participants: Mapping[str, Participant],
        plan_of: Callable[[Case], Plan],
        recheck: Recheck,
        records: Records,
        know: Callable[[Iterable[Case]], Awaitable[None]] | None = None,
        clock: Callable[[], datetime],
        new_id: Callable[[], UUID],
        timing: Timing,
        limits: Limits,
    ) -> None:
        """Join what a driver needs. `plan_of` finds the plan that a case follows, once `know` has seen the case."""
        self._records, self._know = records, know
        self._pool, self._participants, self._plan_of, self._recheck = pool, participants, plan_of, recheck
        self._clock, self._new_id, self._timing, self._limits = clock, new_id, timing, limits
        self._calls: set[asyncio.Task[list[Reply]]] = set()
        self._listeners: dict[asyncio.Future[None], Collection[Key]] = {}
        self.late: list[Reply] = []

    async def drive(self, taken: Iterable[Case], late: Iterable[Reply] = ()) -> None:
        """Take due cases, and the cases of late replies, as far as they go now.

        A case that breaks its batch by a fault of ours (a plan that nobody knows) is found by halving and put off
        alone. Raises what the platform's database raises; nothing unsaved was sent then, and the cases stay due.
        """
        cases, replies = list(taken), list(late)
        try:
            await self._together(cases, replies)
        except (*SILENCE, asyncpg.PostgresError):
            raise
        except Exception:  # noqa: BLE001 - whatever one case breaks must not stop the others
            keys = sorted({case.key for case in cases} | {(reply.account_id, reply.case_no) for reply in replies})
            if len(keys) == 1:
                _log.exception("case_not_driven", state=[case.state.value for case in cases])
                await store.put_off(self._pool, keys, self._clock() + self._timing.resend_limit)
                return
            for half in (set(keys[: len(keys) // 2]), set(keys[len(keys) // 2 :])):
                await self.drive(
                    [case for case in cases if case.key in half],
                    [reply for reply in replies if (reply.account_id, reply.case_no) in half],
                )

    async def _together(self, taken: Sequence[Case], late: Sequence[Reply]) -> None:
        events: dict[Key, Event] = {}
        work = {case.key: case for case in taken}
        replied = _by_case(late)
        if missing := replied.keys() - work.keys():
            work |= await store.load_many(self._pool, missing)
        if self._know is not None:
            await self._know(work.values())
        for key, case in work.items():
            events[key] = Replied(replied[key]) if key in replied else Woken()
            if case.state is State.READY and case.withdraw_at is None:
                del events[key]
        ready = [case for key, case in work.items() if key not in events]
        if ready:
            events |= await self._recheck(ready)
        BATCH_SIZE.observe(len(work))
        learnt: dict[Key, list[dict[str, Any]]] = {}
        while events:
            work, sends, events = await self._step_and_save(work, events, learnt)
            if sends:
                events |= {key: Replied(replies) for key, replies in _by_case(await self._round(work, sends)).items()}
        if learnt:
            now = self._clock()
            await self._save([Save(case=moved(work[key], work[key].state), entries=learnt[key]) for key in learnt], now)

    async def aclose(self) -> None:
        """Let outstanding calls go; what they did is found again by the next worker."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _step_and_save(
        self, work: Mapping[Key, Case], events: Mapping[Key, Event], learnt: dict[Key, list[dict[str, Any]]]
    ) -> tuple[dict[Key, Case], list[Send], dict[Key, Event]]:
        """Step every case that has an event and save what must be.

        Returns the cases still ours, what may now be sent, and events for cases whose save met a wish to withdraw.
        `learnt` holds timeline entries of what needs no save yet, by case; the case's next save takes them in.
        """
        now = self._clock()
        kept, sends, decided, saves = dict(work), list[Send](), dict[Key, Decision](), list[Save]()
        for key, event in events.items():
            before = work.get(key)
            if before is None:
                continue
            decision = step(before, self._plan_of(before), event, now, self._timing)
            if decision.case is before:
                continue
            replies = event.replies if isinstance(event, Replied) else ()
            told = learnt.pop(key, []) + entries(before, decision.case, decision.sends, replies, now)
            if decision.case.revision == before.revision:
                kept[key], learnt[key] = decision.case, told
                sends.extend(decision.sends)
            else:
                decided[key] = decision
                saves.append(self._save_of(decision.case, told, event))
        if not saves:
            return kept, sends, {}
        saved = await self._save(saves, now)
        for case in saved.values():
            if case.state in ENDED:
                ENDED_TOTAL.labels(case.state).inc()
        sends.extend(send for key in saved for send in decided[key].sends)
        lost = decided.keys() - saved.keys()
        kept = {key: case for key, case in kept.items() if key not in lost} | saved
        if not lost:
            return kept, sends, {}
        LOST_SAVES_TOTAL.inc(len(lost))
        reloaded = await store.load_many(self._pool, lost)
        wished = {
            key: case
            for key, case in reloaded.items()
            if case.withdraw_at is not None and work[key].withdraw_at is None and case.revision == work[key].revision
        }
        return kept | wished, sends, {key: Woken() for key in wished}

    def _save_of(self, after: Case, told: list[dict[str, Any]], event: Event) -> Save:
        ended = after.state in ENDED
        return Save(
            case=after,
            entries=told,
            template=f"case_{after.state.value}" if ended else None,
            message_id=self._new_id() if ended else None,
            record=_record(after, event),
        )

    async def _save(self, saves: Sequence[Save], now: datetime) -> dict[Key, Case]:
        """Save a batch; one that the database refuses as a whole is halved until the bad case stands alone."""
        records = {save.case.key: save.record for save in saves if save.record is not None}
        try:
            if not records:
                return await store.save(self._pool, saves, now)
            async with self._pool.acquire() as connection, connection.transaction():
                saved = await store.save(connection, saves, now)
                await self._records.keep(connection, [records[key] for key in records.keys() & saved.keys()])
                return saved
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
            if len(saves) == 1:
                _log.exception("save_refused", state=saves[0].case.state, marks=saves[0].case.marks)
                # Still due, it would be taken up and refused again without a pause.
                await store.put_off(self._pool, [saves[0].case.key], now + self._timing.resend_limit)
                return {}
        half = len(saves) // 2
        return await self._save(saves[:half], now) | await self._save(saves[half:], now)

    async def _round(self, work: Mapping[Key, Case], sends: Iterable[Send]) -> list[Reply]:
        """Send everything, one call a participant and op, and gather replies until the round closes."""
        grouped: defaultdict[tuple[str, Op, str], list[Order]] = defaultdict(list)
        plans: dict[str, Plan] = {}
        for send in sends:
            plan = self._plan_of(work[send.account_id, send.case_no])
            plans[plan.name] = plan
            grouped[send.participant, send.op, plan.name].append(Order(send.account_id, send.case_no, send.version))
        calls = {
            asyncio.create_task(self._call(name, op, orders, plans[plan]))
            for (name, op, plan), orders in grouped.items()
        }
        await self._closed(calls, work)
        for call in calls:
            if not call.done():
                self._calls.add(call)
                call.add_done_callback(self._came_late)
        return [reply for call in calls if call.done() for reply in call.result()] + self.take_late(work.keys())

    async def _closed(self, calls: set[asyncio.Task[list[Reply]]], work: Mapping[Key, Case]) -> None:
        """Wait until a round closes: all have answered, a late answer came for one of its cases, or time is up."""
        late = asyncio.get_running_loop().create_future()
        everybody = asyncio.create_task(asyncio.wait(calls))
        self._listeners[late] = work.keys()
        if any((reply.account_id, reply.case_no) in work for reply in self.late):
            late.set_result(None)
        try:
            limit = self._limits.round.total_seconds()
            await asyncio.wait({everybody, late}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._listeners[late]
            everybody.cancel()

    @property
    def still(self) -> bool:
        """Whether no call is under way that outlived its round."""
        return not self._calls

    def forget(self) -> None:
        """Drop the late replies: what they tell may be undone by a restore, and whoever owes one is asked again."""
        self.late.clear()

    def take_late(self, keys: Collection[Key]) -> list[Reply]:
        """Take the late replies to these cases."""
        taken = [reply for reply in self.late if (reply.account_id, reply.case_no) in keys]
        if taken:
            self.late = [reply for reply in self.late if (reply.account_id, reply.case_no) not in keys]
        return taken

    def _came_late(self, call: asyncio.Task[list[Reply]]) -> None:
        self._calls.discard(call)
        if call.cancelled():
            return
        self.late.extend(call.result())
        heard = {(reply.account_id, reply.case_no) for reply in call.result()}
        for listener, keys in self._listeners.items():
            if not listener.done() and not heard.isdisjoint(keys):
                listener.set_result(None)

    async def _call(self, name: str, op: Op, orders: Sequence[Order], plan: Plan) -> list[Reply]:
        """Call one participant; silence is an empty list. A batch that fails as a whole is halved."""
        try:
            async with asyncio.timeout(self._limits.call.total_seconds()):
                replies = await self._participants[name].apply(op, orders, plan.effects.get(name, {}))
        except SILENCE as error:
            SILENCES_TOTAL.labels(name, op).inc()
            _log.warning(
                "participant_silent", participant=name, op=op.value, cases=len(orders), error=type(error).__name__
            )
            return []
        except Exception:  # noqa: BLE001 - whatever one case breaks must not stop the others
            if len(orders) == 1:
                SILENCES_TOTAL.labels(name, op).inc()
                _log.exception("case_fails_at_participant", participant=name, op=op.value)
                return []
            half = len(orders) // 2
            halves = await asyncio.gather(
                self._call(name, op, orders[:half], plan), self._call(name, op, orders[half:], plan)
            )
            return [reply for replies in halves for reply in replies]
        for answer, count in Counts(reply.answer for reply in replies).items():
            ANSWERS_TOTAL.labels(name, op, answer).inc(count)
        if any(reply.at is None for reply in replies):
            now = self._clock()
            return [msgspec.structs.replace(reply, at=now) for reply in replies]
        return list(replies)


def _record(after: Case, event: Event) -> Record | None:
    """Return the record of the check that ended a case; a case that goes on rests on the one that opened it."""
    if (
        after.state is not State.REJECTED
        or not isinstance(event, Rechecked)
        or not isinstance(event.evidence, Evidence)
    ):
        return None
    return record_of(event.evidence, after.case_no, Step.TAKE, after.reason or "")


def _by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(of_case) for key, of_case in grouped.items()}
