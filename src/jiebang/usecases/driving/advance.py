"""Advance cases: run `saga.driver` for a worker, with a pool, real participants and a clock.

The driver decides what a batch does and in which order. This does what it asks for: it loads, re-checks, saves (with
the records of checks), calls participants concurrently under a time limit, and keeps replies that come after their
round has closed (`late`) for the case's next round or for another batch. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from jiebang.model.case import ENDED, Case, Key
from jiebang.participants.base import ColumnarParticipant, Participant, explain_silence, may_be_one_case
from jiebang.policy.record import Evidence
from jiebang.saga.batch import Save, SaveOutcome, split_replies
from jiebang.saga.coordinator import Rechecked, Reply, Timing
from jiebang.saga.driver import drive
from jiebang.saga.fence import Answer, Op
from jiebang.saga.needs import (
    CaseLoad,
    FactsRecheck,
    GroupSave,
    Need,
    ParticipantCall,
    PlanLookup,
    Postponement,
    Round,
    RoundAnswers,
    SaveRefusal,
)
from jiebang.saga.orders import Answers, collect_answers
from jiebang.store.cases import cases as store
from jiebang.store.checks.records import CheckRecordStore, CheckStep, build_record
from jiebang.store.postgres.faults import Fault, fault_of
from jiebang.store.postgres.halving import MOST_FAILURES

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.store.postgres.pool import Pool

Recheck = Callable[[Sequence[Case]], Awaitable[Mapping[Key, Rechecked]]]
"""Checks a batch of cases in `ready` on fresh facts. A case missing from the result could not be checked now."""

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
    """Drives batches of cases. Between batches it keeps nothing of a case but its late replies."""

    def __init__(
        self,
        *,
        pool: Pool,
        participants: Mapping[str, Participant],
        plan_of: Callable[[Case], Plan],
        recheck: Recheck,
        records: CheckRecordStore,
        know: Callable[[Iterable[Case]], Awaitable[None]] | None = None,
        clock: Callable[[], datetime],
        timing: Timing,
        limits: Limits,
    ) -> None:
        """`plan_of`: the plan that a case follows; it is called after `know` has loaded the plans of those cases."""
        self._records, self._know = records, know
        self._pool, self._participants, self._plan_of, self._recheck = pool, participants, plan_of, recheck
        self._clock, self._timing, self._limits = clock, timing, limits
        self._calls: set[asyncio.Task[list[Answers]]] = set()
        self._listeners: dict[asyncio.Future[None], Collection[Key]] = {}
        self._silences: dict[tuple[str, Op], str] = {}
        self.late: list[Reply] = []

    def last_silence(self, participant: str, op: Op) -> str | None:
        """Return what was last heard of why a participant does not answer an op; None: it does, or nothing was."""
        return self._silences.get((participant, op)) or None

    async def drive(self, taken: Iterable[Case], late: Iterable[Reply] = ()) -> None:
        """Advance due cases, and the cases of late replies, as far as they go now.

        Raises what the platform's database raises; nothing unsaved has been sent then, and the cases stay due.
        """
        cases, replies = list(taken), list(late)
        BATCH_SIZE.observe(len({case.key for case in cases} | {(each.account_id, each.case_no) for each in replies}))
        course = drive(cases, replies, self._clock(), self._timing)
        try:
            need = next(course)
            while True:
                try:
                    result = await self._fulfil(need)
                except Exception as error:
                    if fault_of(error) is not Fault.DATA:
                        raise
                    need = course.throw(error)  # one case may be the cause: the driver finds out which
                else:
                    need = course.send((self._clock(), result))
        except StopIteration:
            return
        finally:
            course.close()

    async def _fulfil(self, need: Need) -> object:
        match need:
            case Round():
                return await self._round(need)
            case GroupSave():
                return await self._save(need.saves)
            case FactsRecheck():
                return await self._recheck(need.cases)
            case PlanLookup():
                if self._know is not None:
                    await self._know(need.cases.values())
                return {followed: self._plan_of(case) for followed, case in need.cases.items()}
            case CaseLoad():
                return await store.load_many(self._pool, need.keys)
            case Postponement():
                await self._postpone(need)
                return None

    async def _postpone(self, need: Postponement) -> None:
        log_fields = {} if need.case is None else {"state": need.case.state.value, "marks": need.case.marks}
        _log.error(need.why, exc_info=need.error, **log_fields)
        await store.put_off(self._pool, need.keys, self._clock() + need.wait)

    async def aclose(self) -> None:
        """Cancel outstanding calls; the next worker asks the participants again."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _save(self, saves: Sequence[Save]) -> SaveOutcome | SaveRefusal:
        """Save a batch, in one transaction with the records of the checks that ended a case."""
        now = self._clock()
        records = {
            save.cases[0].key: build_record(
                save.evidence, save.cases[0].case_no, CheckStep.TAKE, save.stepped.reason or ""
            )
            for save in saves
            if isinstance(save.evidence, Evidence)
        }
        try:
            if records:
                async with self._pool.acquire() as connection, connection.transaction():
                    saved = await store.save(connection, saves, now)
                    await self._records.keep(connection, [records[key] for key in records.keys() - saved.lost])
            else:
                saved = await store.save(self._pool, saves, now)
        except asyncpg.PostgresError as error:
            if fault_of(error) is not Fault.DATA:
                raise
            return SaveRefusal(error)
        for save in saves:
            if save.stepped.state in ENDED:
                missed = sum(case.key in saved.lost for case in save.cases) if saved.lost else 0
                ENDED_TOTAL.labels(save.stepped.state).inc(len(save.cases) - missed)
        LOST_SAVES_TOTAL.inc(len(saved.lost))
        return saved

    async def _round(self, need: Round) -> RoundAnswers:
        """Make the calls, and gather the answers that come before the round closes."""
        calls = [asyncio.create_task(self._call(call)) for call in need.calls]
        await self._wait_until_closed(set(calls), need.keys)
        for call in calls:
            if not call.done():
                self._calls.add(call)
                call.add_done_callback(self._keep_late)
        answers = [call.result() if call.done() else [] for call in calls]
        return RoundAnswers(answers, self.take_late(need.keys))

    async def _wait_until_closed(self, calls: set[asyncio.Task[list[Answers]]], keys: frozenset[Key]) -> None:
        """Wait until the round closes: all have answered, one of its cases got a late reply, or time is up."""
        late = asyncio.get_running_loop().create_future()
        all_calls = asyncio.create_task(asyncio.wait(calls))
        self._listeners[late] = keys
        if any((reply.account_id, reply.case_no) in keys for reply in self.late):
            late.set_result(None)
        try:
            limit = self._limits.round.total_seconds()
            await asyncio.wait({all_calls, late}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._listeners[late]
            all_calls.cancel()

    @property
    def still(self) -> bool:
        """Whether no call is under way that outlived its round."""
        return not self._calls

    def forget(self) -> None:
        """Drop the late replies: a restore may have undone what they report. The participants are asked again."""
        self.late.clear()

    def take_late(self, keys: Collection[Key]) -> list[Reply]:
        """Remove and return the late replies for the cases `keys`."""
        taken, self.late = split_replies(self.late, keys)
        return taken

    def _keep_late(self, call: asyncio.Task[list[Answers]]) -> None:
        self._calls.discard(call)
        if call.cancelled():
            return
        replies = [reply for answers in call.result() for reply in answers.one_by_one()]
        self.late.extend(replies)
        replied = {(reply.account_id, reply.case_no) for reply in replies}
        for listener, keys in self._listeners.items():
            if not listener.done() and not replied.isdisjoint(keys):
                listener.set_result(None)

    async def _call(self, call: ParticipantCall, failures: Counts[Op] | None = None) -> list[Answers]:
        """Call one participant. Silence gives no answers; a call that one case may break is halved and repeated.

        `failures`: counts them over all halves. After `MOST_FAILURES` nothing is halved any more in this round: then
        it is not one case that is bad.
        """
        name, op = call.participant, call.op
        failures = Counts() if failures is None else failures
        try:
            async with asyncio.timeout(self._limits.call.total_seconds()):
                answers = await self._ask(call)
        except Exception as error:  # noqa: BLE001 - one case must not stop the others
            failures[op] += 1
            halves = call.halves() if may_be_one_case(error) and failures[op] < MOST_FAILURES else None
            if halves is not None:
                parts = await asyncio.gather(*(self._call(each, failures) for each in halves))
                return [answers for part in parts for answers in part]
            if fault_of(error) is Fault.SILENCE:
                SILENCES_TOTAL.labels(name, op).inc()
                why = explain_silence(error)
                self._silences[name, op] = " ".join(str(why[part]) for part in ("reason", "detail") if part in why)
                _log.warning("participant_silent", participant=name, op=op.value, cases=len(call.orders), **why)
                return []
            SILENCES_TOTAL.labels(name, op).inc()
            _log.exception("case_fails_at_participant", participant=name, op=op.value)
            return []
        self._silences.pop((name, op), None)
        if answers.yes:
            ANSWERS_TOTAL.labels(name, op, Answer.GRANTED if op is Op.TRY else Answer.DONE).inc(len(answers.yes))
        for answer, count in Counts(reply.answer for reply in answers.rest).items():
            ANSWERS_TOTAL.labels(name, op, answer).inc(count)
        return [answers]

    async def _ask(self, call: ParticipantCall) -> Answers:
        participant, planned = self._participants[call.participant], call.plan.operations[call.participant]
        if isinstance(participant, ColumnarParticipant):
            return await participant.carry_out(call.op, call.orders, planned)
        replies = await participant.apply(call.op, call.orders.one_by_one(), planned)
        return collect_answers(participant.name, call.op, call.orders, replies, self._clock())
