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
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from jiebang.model.case import ENDED, Case, Kind, State, moved
from jiebang.participants.base import SILENCE, Answers, Columnar, Orders, Participant, in_columns
from jiebang.policy.record import Evidence
from jiebang.saga.coordinator import (
    Event,
    Rechecked,
    Replied,
    Reply,
    Timing,
    Woken,
    start_together,
    step,
    versions_to_start,
)
from jiebang.saga.fence import Answer, Op
from jiebang.saga.timeline import entries
from jiebang.store import cases as store
from jiebang.store.cases import Key, Save
from jiebang.store.records import Record, Records, Step, record_of
from jiebang.usecases.moves import Crowd, Heard, Move, Told, by_case, heard_by, joined, orders_of

if TYPE_CHECKING:
    from jiebang.model.plan import Plan, PlannedOperation

Recheck = Callable[[Sequence[Case]], Awaitable[Mapping[Key, Rechecked]]]
"""The check on fresh facts for a batch of cases in `ready`. A case left out could not be checked now."""

Followed = tuple[str, Kind]
"""What tells which plan a case follows: the version it was opened under has one for each kind."""
Asked = tuple[str, Op, Followed]
"""Who is asked for what under which plan: one call."""

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
        timing: Timing,
        limits: Limits,
    ) -> None:
        """Join what a driver needs. `plan_of` finds the plan that a case follows, once `know` has seen the case."""
        self._records, self._know = records, know
        self._pool, self._participants, self._plan_of, self._recheck = pool, participants, plan_of, recheck
        self._clock, self._timing, self._limits = clock, timing, limits
        self._calls: set[asyncio.Task[list[Answers]]] = set()
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
        replied = by_case(late)
        work = {case.key: case for case in sorted(taken, key=_account)}  # everything goes in order of account from here
        if missing := replied.keys() - work.keys():
            work = dict(sorted((work | await store.load_many(self._pool, missing)).items()))
        if self._know is not None:
            await self._know(work.values())
        BATCH_SIZE.observe(len(work))
        keys, events = frozenset(work), await self._met(work, replied)
        learnt: dict[Key, list[dict[str, Any]]] = {}
        heard: list[Heard] = []
        while events or heard:
            moves = self._steps(work, events, heard, learnt)
            moves, events = await self._saved(work, moves)
            heard, parting = [], [move for move in moves if not move.sends and move.after.state not in ENDED]
            if sends := [move for move in moves if move.sends]:
                heard, answered, apart = await self._round(keys, sends)
                events |= answered
                parting += apart
            for move in parting:
                _part(move, work, learnt)
        if learnt:
            groups: defaultdict[int, list[Key]] = defaultdict(list)
            for key, told in learnt.items():
                groups[id(told)].append(key)  # of one move, whose cases are alike
            saves = [
                Save(cases=[moved(work[key], work[key].state) for key in sorted(keys)], entries=learnt[keys[0]])
                for keys in groups.values()
            ]
            await self._save(saves, self._clock())

    async def _met(self, work: Mapping[Key, Case], replied: Mapping[Key, tuple[Reply, ...]]) -> dict[Key, Event]:
        """Return what every case meets first: late replies, a re-check, or that it is due."""
        events: dict[Key, Event] = {}
        ready: list[Case] = []
        for key, case in work.items():
            if key in replied:
                events[key] = Replied(replied[key])
            elif case.state is State.READY and case.withdraw_at is None:
                ready.append(case)
            else:
                events[key] = Woken()
        if ready:
            events.update(await self._recheck(ready))
        return events

    async def aclose(self) -> None:
        """Let outstanding calls go; what they did is found again by the next worker."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _steps(
        self,
        work: dict[Key, Case],
        events: Mapping[Key, Event],
        heard: Iterable[Heard],
        learnt: dict[Key, list[dict[str, Any]]],
    ) -> list[Move]:
        """Step every case that has an event: those that met the same together, the others one by one.

        `work` holds the cases that stand alone, and loses those that go on together. `learnt` holds timeline entries of
        what needs no save yet, by case; the case's next save takes them in.
        """
        now = self._clock()
        moves: list[Move] = []
        starting: defaultdict[Hashable, list[tuple[Case, tuple[int, ...], Rechecked]]] = defaultdict(list)
        for key, event in events.items():
            before = work.get(key)
            if before is None:
                continue
            plan = self._plan_of(before)
            if (
                isinstance(event, Rechecked)
                and before.state is State.READY
                and (versions := versions_to_start(before, plan, event)) is not None
            ):
                del work[key]
                starting[before.plan, before.kind, before.revision].append((before, versions, event))
                continue
            decision = step(before, plan, event, now, self._timing)
            if decision.case is before:
                continue
            del work[key]
            replies = event.replies if isinstance(event, Replied) else ()
            record = _record(decision.case, event)
            crowd = Crowd.of([decision.case])
            moves.append(Move(crowd, before, decision.case, decision.sends, replies, record, learnt.pop(key, [])))
        moves = joined(moves)
        for together in starting.values():
            together.sort(key=lambda each: each[0].account_id)
            cases, versions_of_each = [case for case, _, _ in together], [versions for _, versions, _ in together]
            plan, event = self._plan_of(cases[0]), together[0][2]
            after, decision = start_together(cases, plan, versions_of_each, event, now, self._timing)
            moves.append(Move(Crowd.of(after), cases[0], decision.case, decision.sends))
        for each in heard:
            move = self._heard(each, now)
            if move.after is move.before:  # "pending" alone moves nobody
                _part(move, work, learnt)
            else:
                moves.append(move)
        for move in moves:
            move.entries = move.entries + entries(move.before, move.after, move.sends, move.replies, now)
        return moves

    def _heard(self, heard: Heard, now: datetime) -> Move:
        """Step those who heard the same: they took their last step together, and take this one so."""
        decision = step(heard.one, self._plan_of(heard.one), Replied(heard.replies), now, self._timing)
        return Move(heard.crowd, heard.one, decision.case, decision.sends, heard.replies, None, heard.learnt)

    async def _saved(self, work: dict[Key, Case], moves: list[Move]) -> tuple[list[Move], dict[Key, Event]]:
        """Save what must be; what is no longer ours is left out from then on.

        Returns the moves whose sends may leave now, and events for cases whose save met a wish to withdraw: these are
        in `work` again.
        """
        saves = [
            Save(
                cases=move.crowd.cases,
                like=move.after,
                entries=move.entries,
                template=f"case_{move.after.state.value}" if move.after.state in ENDED else None,
                record=move.record,
                versions=not move.replies,
            )
            for move in moves
            if not move.unsaved
        ]
        if not saves:
            return moves, {}
        lost, wishes = await self._save(saves, self._clock())
        for save in saves:
            if save.stepped.state in ENDED:
                missed = sum(case.key in lost for case in save.cases) if lost else 0
                ENDED_TOTAL.labels(save.stepped.state).inc(len(save.cases) - missed)
        if wishes:
            moves = [part for move in moves for part in move.parted(wishes)]
        if not lost:
            return moves, {}
        LOST_SAVES_TOTAL.inc(len(lost))
        before = {key: move.before for move in moves for key in move.crowd.keys}
        wished = {
            key: case
            for key, case in (await store.load_many(self._pool, lost)).items()
            if case.withdraw_at is not None
            and before[key].withdraw_at is None
            and case.revision == before[key].revision
        }
        work |= wished
        left = [move.without(lost) for move in moves]
        return [move for move in left if move.crowd.keys], {key: Woken() for key in wished}

    async def _save(self, saves: Sequence[Save], now: datetime) -> tuple[AbstractSet[Key], Mapping[Key, datetime]]:
        """Save a batch; one that the database refuses as a whole is halved until the bad case stands alone.

        Returns whose save was lost, and who of the others wishes to withdraw, since when.
        """
        records = {save.cases[0].key: save.record for save in saves if save.record is not None}
        try:
            if not records:
                saved = await store.save(self._pool, saves, now)
                return saved.lost, saved.wishes
            async with self._pool.acquire() as connection, connection.transaction():
                saved = await store.save(connection, saves, now)
                await self._records.keep(connection, [records[key] for key in records.keys() - saved.lost])
                return saved.lost, saved.wishes
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
            if len(saves) == len(saves[0].cases) == 1:
                [case], stepped = saves[0].cases, saves[0].stepped
                _log.exception("save_refused", state=stepped.state, marks=stepped.marks)
                # Still due, it would be taken up and refused again without a pause.
                await store.put_off(self._pool, [case.key], now + self._timing.resend_limit)
                return {case.key}, {}
        lost, wishes = set[Key](), dict[Key, datetime]()
        for half in _halves(saves):
            more_lost, more_wishes = await self._save(half, now)
            lost |= more_lost
            wishes |= more_wishes
        return lost, wishes

    async def _round(
        self, keys: frozenset[Key], moves: Sequence[Move]
    ) -> tuple[list[Heard], dict[Key, Event], list[Move]]:
        """Send everything, one call a participant and op, and gather answers until the round closes.

        `keys`: of the whole batch, whose late replies are heard. Returns which cases heard the same in time, the
        replies to those who heard something late, and the moves that these, and those who heard nothing, had taken.
        """
        plans: dict[Followed, Plan] = {}
        columns: defaultdict[Asked, list[tuple[Crowd, Sequence[int | None] | None]]] = defaultdict(list)
        for move in moves:
            plan, followed = self._plan_of(move.after), _followed(move)
            plans[followed] = plan
            for send in move.sends:
                at = plan.participants.index(send.participant) if send.op is Op.TRY else None
                versions = None if at is None else move.crowd.versions(at)
                columns[send.participant, send.op, followed].append((move.crowd, versions))
        calls = {
            asyncio.create_task(self._call(name, op, orders_of(parts), plans[followed])): (name, op, followed)
            for (name, op, followed), parts in columns.items()
        }
        await self._closed(set(calls), keys)
        for call in calls:
            if not call.done():
                self._calls.add(call)
                call.add_done_callback(self._came_late)
        answered = {where: [Told.of(each) for each in call.result()] for call, where in calls.items() if call.done()}
        late = by_case(self.take_late(keys))
        heard, apart = list[Heard](), list[Move]()
        for move in moves:
            followed = _followed(move)
            answers = [answered.get((send.participant, send.op, followed), ()) for send in move.sends]
            together, left = heard_by(move, answers, late)
            heard += together
            if left.crowd.keys:
                apart.append(left)
        if not late:
            return heard, {}, apart
        # Whoever is told something late steps alone, with all that it was told.
        told = [each for of_one in answered.values() for each in of_one]
        return (
            heard,
            {
                key: Replied((*(reply for each in told for reply in each.to(key)), *of_case))
                for key, of_case in late.items()
            },
            apart,
        )

    async def _closed(self, calls: set[asyncio.Task[list[Answers]]], keys: frozenset[Key]) -> None:
        """Wait until a round closes: all have answered, a late answer came for one of its cases, or time is up."""
        late = asyncio.get_running_loop().create_future()
        everybody = asyncio.create_task(asyncio.wait(calls))
        self._listeners[late] = keys
        if any((reply.account_id, reply.case_no) in keys for reply in self.late):
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

    def _came_late(self, call: asyncio.Task[list[Answers]]) -> None:
        self._calls.discard(call)
        if call.cancelled():
            return
        replies = [reply for answers in call.result() for reply in answers.one_by_one()]
        self.late.extend(replies)
        heard = {(reply.account_id, reply.case_no) for reply in replies}
        for listener, keys in self._listeners.items():
            if not listener.done() and not heard.isdisjoint(keys):
                listener.set_result(None)

    async def _call(self, name: str, op: Op, orders: Orders, plan: Plan) -> list[Answers]:
        """Call one participant; silence is no answer at all. A batch that fails as a whole is halved."""
        try:
            async with asyncio.timeout(self._limits.call.total_seconds()):
                answers = await self._ask(self._participants[name], op, orders, plan.operations[name])
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
                self._call(name, op, orders.part(0, half), plan), self._call(name, op, orders.part(half, None), plan)
            )
            return [answers for each in halves for answers in each]
        if answers.yes:
            ANSWERS_TOTAL.labels(name, op, Answer.GRANTED if op is Op.TRY else Answer.DONE).inc(len(answers.yes))
        for answer, count in Counts(reply.answer for reply in answers.rest).items():
            ANSWERS_TOTAL.labels(name, op, answer).inc(count)
        return [answers]

    async def _ask(self, participant: Participant, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        if isinstance(participant, Columnar):
            return await participant.carry_out(op, orders, planned)
        replies = await participant.apply(op, orders.one_by_one(), planned)
        return in_columns(participant.name, op, orders, replies, self._clock())


def _followed(move: Move) -> Followed:
    return move.after.plan, move.after.kind


def _part(move: Move, work: dict[Key, Case], learnt: dict[Key, list[dict[str, Any]]]) -> None:
    """Let cases that took a step together stand alone from here."""
    cases = move.each()
    work.update(zip(move.crowd.keys, cases, strict=True))
    if move.unsaved and move.entries:
        learnt.update(dict.fromkeys(move.crowd.keys, move.entries))


def _halves(saves: Sequence[Save]) -> tuple[list[Save], list[Save]]:
    """Part saves in two: by groups, and one group by its cases."""
    half = len(saves) // 2
    if half:
        return list(saves[:half]), list(saves[half:])
    [save] = saves
    half = len(save.cases) // 2
    first, second = (msgspec.structs.replace(save, cases=part) for part in (save.cases[:half], save.cases[half:]))
    return [first], [second]


def _account(case: Case) -> int:
    return case.account_id


def _record(after: Case, event: Event) -> Record | None:
    """Return the record of the check that ended a case; a case that goes on rests on the one that opened it."""
    if (
        after.state is not State.REJECTED
        or not isinstance(event, Rechecked)
        or not isinstance(event.evidence, Evidence)
    ):
        return None
    return record_of(event.evidence, after.case_no, Step.TAKE, after.reason or "")
