"""The life of a batch of cases: load, step, **save, then send**, hear, step again, until nothing moves any more.

Written once and run by the workers of the product and by those of the simulator. It has no I/O and no clock: it is a
generator that yields what it needs done (a `Need`) and is sent `(now, result)`, the moment at which that was done and
what came of it. What each need's result is stands in its docstring. Decisions are the coordinator's; here is who steps
together, what is saved and sent when, and who hears what:

1. Cases that meet the same step as one group (`saga.batch`) and stay together while they hear the same.
2. Only what a guarded save returned is sent. What a case learnt that needs no save yet (the grants of a wave) is kept
   for its next save, at the latest at the end of the batch.
3. A round asks each participant once for all cases, and closes after a limit. Replies that come later are another
   round's or another batch's; whoever hears one steps alone.
4. What fails as a whole (a batch, a save, a call) is halved until the bad case stands alone; that one is put off.

A runner throws into the generator what one case may have caused, which halves the batch, and closes it where the
platform's database is gone: nothing unsaved was sent then, and the cases stay due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.case import ENDED, Case, Key, Kind, State, moved
from jiebang.model.plan import Plan
from jiebang.saga import coordinator
from jiebang.saga.batch import (
    Group,
    GroupReplied,
    GroupStep,
    IndexedAnswers,
    Save,
    SaveOutcome,
    group_by_case,
    halve_saves,
    join_steps,
    merge_orders,
    split_by_replies,
)
from jiebang.saga.coordinator import Event, Rechecked, Replied, Reply, Timing, Woken, start_together
from jiebang.saga.fence import Op
from jiebang.saga.orders import Answers, Orders
from jiebang.saga.timeline import entries

Followed = tuple[str, Kind]
"""What tells which plan a case follows: the version it was opened under has one for each kind."""
Asked = tuple[str, Op, Followed]
"""Who is asked for what under which plan: one call."""


class CaseLoad(msgspec.Struct, frozen=True):
    """Load cases from the store. Result: those that exist, by key."""

    keys: frozenset[Key]


class PlanLookup(msgspec.Struct, frozen=True):
    """Find the plans that cases follow; one case stands for all that follow the same. Result: plans by what follows."""

    cases: Mapping[Followed, Case]


class FactsRecheck(msgspec.Struct, frozen=True):
    """Check cases in `ready` on fresh facts. Result: `Rechecked` by key; a case left out could not be checked now."""

    cases: Sequence[Case]


class GroupSave(msgspec.Struct, frozen=True):
    """Save groups in one statement. Result: a SaveOutcome, or SaveRefused where the store refused it as a whole."""

    saves: Sequence[Save]


class SaveRefused(msgspec.Struct, frozen=True):
    """A save that the store refused as a whole because of what one of its cases holds. Nothing of it is stored."""

    error: Exception


class Call(msgspec.Struct, frozen=True):
    """One op for a batch at one participant, under the plan that all of its cases follow."""

    participant: str
    op: Op
    orders: Orders
    plan: Plan

    def halves(self) -> tuple[Call, Call] | None:
        """Return the two calls that a call which failed as a whole becomes; None: its one case is silence."""
        half = len(self.orders) // 2
        if not half:
            return None
        first, second = self.orders.part(0, half), self.orders.part(half, None)
        return msgspec.structs.replace(self, orders=first), msgspec.structs.replace(self, orders=second)


class Round(msgspec.Struct, frozen=True):
    """Make calls, all at once, and gather answers until the round closes. Result: RoundAnswers.

    It closes when all have answered, when a late reply to one of `keys` came in, or after the runner's limit.
    """

    keys: frozenset[Key]
    calls: Sequence[Call]


class RoundAnswers(msgspec.Struct, frozen=True):
    """What a round brought. `answers`: by call, in order; several where a call was halved, none where it is silent yet.

    `late`: replies to cases of the batch that belong to earlier rounds.
    """

    answers: Sequence[Sequence[Answers]]
    late: Sequence[Reply] = ()


class Postponement(msgspec.Struct, frozen=True):
    """Put cases off for `wait`: they could not be driven (`why`, `error`), and nothing was decided. Result: None."""

    keys: Sequence[Key]
    wait: timedelta
    why: str
    error: Exception
    case: Case | None = None


Need = CaseLoad | PlanLookup | FactsRecheck | GroupSave | Round | Postponement
T = TypeVar("T")
Life = Generator[Need, tuple[datetime, Any], T]
"""Yields needs, is sent (now, result) for each."""

NOT_DRIVEN: Final = "case_not_driven"
SAVE_REFUSED: Final = "save_refused"


def drive(
    taken: Sequence[Case],
    late: Sequence[Reply],
    now: datetime,
    timing: Timing,
    batch: Callable[[datetime, Timing], Batch] | None = None,
) -> Life[datetime]:
    """Take due cases, and the cases of late replies, as far as they go now; return when that was.

    A case that breaks its batch by a fault of ours (a plan that nobody knows) is found by halving and put off alone.
    `batch`: makes who drives; only a simulator names another.
    """
    driving = (batch or Batch)(now, timing)
    try:
        yield from driving.run(taken, late)
    except Exception as error:  # noqa: BLE001 - whatever one case breaks must not stop the others
        keys = sorted({case.key for case in taken} | {(reply.account_id, reply.case_no) for reply in late})
        if len(keys) == 1:
            case = next(iter(taken), None)
            yield from driving.do(Postponement(keys, timing.resend_limit, NOT_DRIVEN, error, case))
            return driving.now
        now = driving.now
        for half in (set(keys[: len(keys) // 2]), set(keys[len(keys) // 2 :])):
            now = yield from drive(
                [case for case in taken if case.key in half],
                [reply for reply in late if (reply.account_id, reply.case_no) in half],
                now,
                timing,
                batch,
            )
        return now
    return driving.now


class Batch:
    """One batch on its way. `alone`: its cases that are in no group now; a case in a group is not among them."""

    step = staticmethod(coordinator.step)
    versions_to_start = staticmethod(coordinator.versions_to_start)

    def __init__(self, now: datetime, timing: Timing) -> None:
        """Begin at `now`."""
        self.now, self.timing = now, timing
        self.alone: dict[Key, Case] = {}
        self.plans: Mapping[Followed, Plan] = {}
        self.learnt: dict[Key, list[dict[str, Any]]] = {}
        """Timeline entries of what needs no save yet, by case; the case's next save takes them in."""

    def do(self, need: Need) -> Life[Any]:
        """Have something done; return what came of it, and know what time it is by then."""
        self.now, result = yield need
        return result

    def plan_of(self, case: Case) -> Plan:
        """Return the plan that a case follows."""
        return self.plans[case.plan, case.kind]

    def run(self, taken: Sequence[Case], late: Sequence[Reply]) -> Life[None]:
        """Drive the batch to its end."""
        replied = group_by_case(late)
        # Everything goes in order of account from here.
        self.alone = {case.key: case for case in sorted(taken, key=attrgetter("account_id"))}
        if missing := replied.keys() - self.alone.keys():
            loaded = yield from self.do(CaseLoad(frozenset(missing)))
            self.alone = dict(sorted((self.alone | loaded).items()))
        self.plans = yield from self.do(PlanLookup({(case.plan, case.kind): case for case in self.alone.values()}))
        keys = frozenset(self.alone)
        events = yield from self.first_events(replied)
        replies: list[GroupReplied] = []
        while events or replies:
            steps, events = yield from self.save_steps(self.take_steps(events, replies))
            replies, divided = [], [step for step in steps if not step.sends and step.after.state not in ENDED]
            if sending := [step for step in steps if step.sends]:
                calls = self.calls(sending)
                closed: RoundAnswers = yield from self.do(Round(keys, list(calls.values())))
                answered = dict(zip(calls, closed.answers, strict=True))
                replies, heard_late, silent = self.hear(sending, answered, closed.late)
                events |= heard_late
                divided += silent
            for step in divided:
                self.divide(step)
        yield from self.save_learnt()

    def first_events(self, replied: Mapping[Key, tuple[Reply, ...]]) -> Life[dict[Key, Event]]:
        """Return the first event of each case: late replies, a re-check, or that it is due."""
        events: dict[Key, Event] = {}
        ready: list[Case] = []
        for key, case in self.alone.items():
            if key in replied:
                events[key] = Replied(replied[key])
            elif case.state is State.READY and case.withdraw_at is None:
                ready.append(case)
            else:
                events[key] = Woken()
        if ready:
            events.update((yield from self.do(FactsRecheck(ready))))
        return events

    # Stepping.

    def take_steps(self, events: Mapping[Key, Event], replies: Iterable[GroupReplied]) -> list[GroupStep]:
        """Step every case that has an event: those that met the same together, the others one by one."""
        steps, starting = self.step_alone(events)
        steps = join_steps(steps)
        steps += [self.start(together) for together in starting]
        for each in replies:
            step = self.step_together(each)
            if step.after is step.before:  # "pending" alone moves nobody
                self.divide(step)
            else:
                steps.append(step)
        for step in steps:
            step.entries = step.entries + entries(step.before, step.after, step.sends, step.replies, self.now)
        return steps

    def step_alone(
        self, events: Mapping[Key, Event]
    ) -> tuple[list[GroupStep], Iterable[list[tuple[Case, tuple[int, ...], Rechecked]]]]:
        """Step cases one by one; return their steps, and who may start together, each with the versions to try at.

        Whoever takes a step is no longer among `alone`.
        """
        alone, now = self.alone, self.now
        steps: list[GroupStep] = []
        starting: defaultdict[Hashable, list[tuple[Case, tuple[int, ...], Rechecked]]] = defaultdict(list)
        for key, event in events.items():
            before = alone.get(key)
            if before is None:
                continue
            plan = self.plan_of(before)
            if (
                isinstance(event, Rechecked)
                and before.state is State.READY
                and (versions := self.versions_to_start(before, plan, event)) is not None
            ):
                del alone[key]
                starting[before.plan, before.kind, before.revision].append((before, versions, event))
                continue
            decision = self.step(before, plan, event, now, self.timing)
            if decision.case is before:
                continue
            del alone[key]
            replies = event.replies if isinstance(event, Replied) else ()
            learnt = self.learnt.pop(key, [])
            group, evidence = Group.of([decision.case]), _evidence(decision.case, event)
            steps.append(GroupStep(group, before, decision.case, decision.sends, replies, evidence, learnt))
        return steps, starting.values()

    def start(self, together: list[tuple[Case, tuple[int, ...], Rechecked]]) -> GroupStep:
        """Step cases that start together: they are a group from here on."""
        together.sort(key=_account)
        cases, versions = [case for case, _, _ in together], [versions for _, versions, _ in together]
        plan, event = self.plan_of(cases[0]), together[0][2]
        after, decision = start_together(cases, plan, versions, event, self.now, self.timing, self.step)
        return GroupStep(Group.of(after), cases[0], decision.case, decision.sends)

    def step_together(self, each: GroupReplied) -> GroupStep:
        """Step a group that heard the same: its members took their last step together, and take this one so."""
        event = Replied(each.replies)
        decision = self.step(each.one, self.plan_of(each.one), event, self.now, self.timing)
        return GroupStep(each.group, each.one, decision.case, decision.sends, each.replies, None, each.learnt)

    def divide(self, step: GroupStep) -> None:
        """Let cases that took a step together stand alone from here."""
        self.alone.update(zip(step.group.keys, step.each(), strict=True))
        if step.unsaved and step.entries:
            self.learnt.update(dict.fromkeys(step.group.keys, step.entries))

    # Saving.

    def save_steps(self, steps: list[GroupStep]) -> Life[tuple[list[GroupStep], dict[Key, Event]]]:
        """Save what must be; what is no longer ours is left out from then on.

        Returns the steps whose sends may leave now, and events for cases whose save met a wish to withdraw: these
        stand alone again.
        """
        saves = [self.save_of(step) for step in steps if not step.unsaved]
        if not saves:
            return steps, {}
        outcome = yield from self.save(saves)
        if outcome.wishes:
            steps = [part for step in steps for part in step.split(outcome.wishes)]
        if not outcome.lost:
            return steps, {}
        before = {key: step.before for step in steps for key in step.group.keys}
        loaded: Mapping[Key, Case] = yield from self.do(CaseLoad(frozenset(outcome.lost)))
        wished = {
            key: case
            for key, case in loaded.items()
            if case.withdraw_at is not None
            and before[key].withdraw_at is None
            and case.revision == before[key].revision
        }
        self.alone |= wished
        left = [step.without(outcome.lost) for step in steps]
        return [step for step in left if step.group.keys], {key: Woken() for key in wished}

    def save_of(self, step: GroupStep) -> Save:
        """Return what is to be saved of a step."""
        return Save(
            cases=step.group.cases,
            like=step.after,
            entries=step.entries,
            template=f"case_{step.after.state.value}" if step.after.state in ENDED else None,
            evidence=step.evidence,
            versions=not step.replies,
        )

    def save(self, saves: Sequence[Save]) -> Life[SaveOutcome]:
        """Save a batch; one that the store refuses as a whole is halved until the bad case stands alone."""
        outcome: SaveOutcome | SaveRefused = yield from self.do(GroupSave(saves))
        if isinstance(outcome, SaveOutcome):
            return outcome
        if len(saves) == len(saves[0].cases) == 1:
            [case] = saves[0].cases
            # Still due, it would be taken up and refused again without a pause.
            wait, stepped = self.timing.resend_limit, saves[0].stepped
            yield from self.do(Postponement([case.key], wait, SAVE_REFUSED, outcome.error, stepped))
            return SaveOutcome(lost=frozenset([case.key]))
        lost, wishes = set[Key](), dict[Key, datetime]()
        for half in halve_saves(saves):
            part = yield from self.save(half)
            lost |= part.lost
            wishes |= part.wishes
        return SaveOutcome(lost=lost, wishes=wishes)

    def save_learnt(self) -> Life[None]:
        """Save what was learnt and found no other save: who shared a step shares the entries, and is saved as one."""
        groups: defaultdict[int, list[Key]] = defaultdict(list)
        for key, learnt in self.learnt.items():
            groups[id(learnt)].append(key)
        saves = [
            Save(
                cases=[moved(self.alone[key], self.alone[key].state) for key in sorted(keys)],
                entries=self.learnt[keys[0]],
            )
            for keys in groups.values()
        ]
        if saves:
            yield from self.save(saves)

    # Sending.

    def calls(self, sending: Sequence[GroupStep]) -> dict[Asked, Call]:
        """Return the calls of a round: one a participant, op and plan, for all groups."""
        plans: dict[Followed, Plan] = {}
        columns: defaultdict[Asked, list[tuple[Group, Sequence[int | None] | None]]] = defaultdict(list)
        for step in sending:
            plan, followed = self.plan_of(step.after), _followed(step)
            plans[followed] = plan
            for send in step.sends:
                at = plan.participants.index(send.participant) if send.op is Op.TRY else None
                versions = None if at is None else step.group.versions(at)
                columns[send.participant, send.op, followed].append((step.group, versions))
        return {
            (name, op, followed): Call(name, op, merge_orders(parts), plans[followed])
            for (name, op, followed), parts in columns.items()
        }

    def hear(
        self, sending: Sequence[GroupStep], answered: Mapping[Asked, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplied], dict[Key, Event], list[GroupStep]]:
        """Divide the groups of a round by what they heard; `replies` are late ones.

        Returns which cases heard the same in time, the replies to those who heard something late, and the steps that
        these, and those who heard nothing, had taken.
        """
        indexed = {where: [IndexedAnswers.of(each) for each in answers] for where, answers in answered.items()}
        late = group_by_case(replies)
        heard, silent = list[GroupReplied](), list[GroupStep]()
        for step in sending:
            followed = _followed(step)
            to_step = [indexed[send.participant, send.op, followed] for send in step.sends]
            together, left = split_by_replies(step, to_step, late)
            heard += together
            if left.group.keys:
                silent.append(left)
        if not late:
            return heard, {}, silent
        # Whoever hears something late steps alone, with all that it was told.
        every = [each for of_one in indexed.values() for each in of_one]
        return (
            heard,
            {
                key: Replied((*(reply for each in every for reply in each.to(key)), *of_case))
                for key, of_case in late.items()
            },
            silent,
        )


def _followed(step: GroupStep) -> Followed:
    return step.after.plan, step.after.kind


def _account(starting: tuple[Case, tuple[int, ...], Rechecked]) -> int:
    return starting[0].account_id


def _evidence(after: Case, event: Event) -> object | None:
    """Return the evidence of the check that ended a case; a case that goes on rests on the one that opened it."""
    return event.evidence if after.state is State.REJECTED and isinstance(event, Rechecked) else None
