"""Drive a batch of cases: load, step, **save, then send**, gather replies, step again, until no case can go on.

Run by the product's workers and by the simulator's. It has no I/O and no clock: it is a generator that yields a request
(a `Need`) and is sent `(now, result)`: the time at which its runner carried the request out, and the result that the
request's docstring states. The coordinator decides what a case does; this module decides which cases step together,
what is saved and sent when, and which replies reach which case:

1. Cases that take the same step form a group (`saga.batch`) and stay together while they get the same replies.
2. Ops are sent only for cases that a guarded save returned. Grants, which need no save of their own, are kept for the
   case's next save, at the latest at the end of the batch.
3. A round makes one call per participant, op and plan for all cases, and closes after a limit. Later replies go to a
   later round or another batch; a case that gets one steps alone.
4. What fails as a whole (a batch, a save, a call) is halved until the bad case is alone; that case is postponed.

A runner throws into the generator an error that one case may have caused, which halves the batch. It closes the
generator where the platform's database is unreachable: nothing unsaved was sent then, and the cases stay due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from jiebang.model.case import ENDED, Case, Key, State, transition
from jiebang.model.plan import Plan
from jiebang.saga import coordinator
from jiebang.saga.batch import (
    CaseGroup,
    GroupReplies,
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
from jiebang.saga.needs import (
    NOT_DRIVEN,
    SAVE_REFUSED,
    CallKey,
    CaseLoad,
    DriverCourse,
    FactsRecheck,
    GroupSave,
    Need,
    ParticipantCall,
    PlanKey,
    PlanLookup,
    Postponement,
    Round,
    RoundAnswers,
    SaveRefusal,
)
from jiebang.saga.orders import Answers
from jiebang.saga.timeline import entries


def drive(
    taken: Sequence[Case],
    late: Sequence[Reply],
    now: datetime,
    timing: Timing,
    batch: Callable[[datetime, Timing], BatchDriver] | None = None,
) -> DriverCourse[datetime]:
    """Drive due cases, and the cases of late replies, as far as they can go now; return the time of the end.

    A case that makes its batch fail by a fault of ours (such as an unknown plan) is found by halving and postponed.
    `batch`: the driver to use; only a simulator passes another than `BatchDriver`.
    """
    driver = (batch or BatchDriver)(now, timing)
    try:
        yield from driver.run(taken, late)
    except Exception as error:  # noqa: BLE001 - a fault of one case must not stop the others
        keys = sorted({case.key for case in taken} | {(reply.account_id, reply.case_no) for reply in late})
        if len(keys) == 1:
            case = next(iter(taken), None)
            yield from driver.request(Postponement(keys, timing.resend_limit, NOT_DRIVEN, error, case))
            return driver.now
        now = driver.now
        for half in (set(keys[: len(keys) // 2]), set(keys[len(keys) // 2 :])):
            now = yield from drive(
                [case for case in taken if case.key in half],
                [reply for reply in late if (reply.account_id, reply.case_no) in half],
                now,
                timing,
                batch,
            )
        return now
    return driver.now


class BatchDriver:
    """Drives one batch. `alone`: those of its cases that are in no group now, by key."""

    step = staticmethod(coordinator.step)
    versions_to_start = staticmethod(coordinator.versions_to_start)

    def __init__(self, now: datetime, timing: Timing) -> None:
        """Begin at `now`."""
        self.now, self.timing = now, timing
        self.alone: dict[Key, Case] = {}
        self.plans: Mapping[PlanKey, Plan] = {}
        self.learnt: dict[Key, list[dict[str, Any]]] = {}
        """Timeline entries that are not saved yet, by case; the case's next save includes them."""

    def request(self, need: Need) -> DriverCourse[Any]:
        """Yield a request and return its result; sets `now`."""
        self.now, result = yield need
        return result

    def plan_of(self, case: Case) -> Plan:
        """Return the plan that a case follows."""
        return self.plans[case.plan, case.kind]

    def run(self, taken: Sequence[Case], late: Sequence[Reply]) -> DriverCourse[None]:
        """Drive the batch to its end."""
        replied = group_by_case(late)
        # From here on cases are in order of account.
        self.alone = {case.key: case for case in sorted(taken, key=attrgetter("account_id"))}
        if missing := replied.keys() - self.alone.keys():
            loaded = yield from self.request(CaseLoad(frozenset(missing)))
            self.alone = dict(sorted((self.alone | loaded).items()))
        self.plans = yield from self.request(PlanLookup({(case.plan, case.kind): case for case in self.alone.values()}))
        keys = frozenset(self.alone)
        events = yield from self.first_events(replied)
        replies: list[GroupReplies] = []
        while events or replies:
            steps, events = yield from self.save_steps(self.take_steps(events, replies))
            replies, dissolved = [], [step for step in steps if not step.sends and step.after.state not in ENDED]
            if sending := [step for step in steps if step.sends]:
                calls = self.calls(sending)
                round_answers: RoundAnswers = yield from self.request(Round(keys, list(calls.values())))
                answered = dict(zip(calls, round_answers.answers, strict=True))
                replies, late_events, silent = self.assign_replies(sending, answered, round_answers.late)
                events |= late_events
                dissolved += silent
            for step in dissolved:
                self.dissolve(step)
        yield from self.save_learnt()

    def first_events(self, replied: Mapping[Key, tuple[Reply, ...]]) -> DriverCourse[dict[Key, Event]]:
        """Return each case's first event: late replies, a re-check, or Woken; none where it cannot be checked now."""
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
            events.update((yield from self.request(FactsRecheck(ready))))
        return events

    # Stepping.

    def take_steps(self, events: Mapping[Key, Event], replies: Iterable[GroupReplies]) -> list[GroupStep]:
        """Step every case that has an event or replies: groups as one, the others one by one."""
        steps, starting = self.step_alone(events)
        steps = join_steps(steps)
        steps += [self.start(together) for together in starting]
        for each in replies:
            step = self.step_group(each)
            if step.after is step.before:  # replies that change nothing, such as "pending"
                self.dissolve(step)
            else:
                steps.append(step)
        for step in steps:
            step.entries = step.entries + entries(step.before, step.after, step.sends, step.replies, self.now)
        return steps

    def step_alone(
        self, events: Mapping[Key, Event]
    ) -> tuple[list[GroupStep], Iterable[list[tuple[Case, tuple[int, ...], Rechecked]]]]:
        """Step cases one by one; return their steps, and cases that may start together, with versions to try at.

        A case that takes a step is removed from `alone`.
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
            group, evidence = CaseGroup.of([decision.case]), _select_evidence(decision.case, event)
            steps.append(GroupStep(group, before, decision.case, decision.sends, replies, evidence, learnt))
        return steps, starting.values()

    def start(self, together: list[tuple[Case, tuple[int, ...], Rechecked]]) -> GroupStep:
        """Step cases that start together; they are a group from here on."""
        together.sort(key=_first_account)
        cases, versions = [case for case, _, _ in together], [versions for _, versions, _ in together]
        plan, event = self.plan_of(cases[0]), together[0][2]
        after, decision = start_together(cases, plan, versions, event, self.now, self.timing, self.step)
        return GroupStep(CaseGroup.of(after), cases[0], decision.case, decision.sends)

    def step_group(self, each: GroupReplies) -> GroupStep:
        """Step a group whose members got the same replies, by stepping one of them."""
        event = Replied(each.replies)
        decision = self.step(each.one, self.plan_of(each.one), event, self.now, self.timing)
        return GroupStep(each.group, each.one, decision.case, decision.sends, each.replies, None, each.learnt)

    def dissolve(self, step: GroupStep) -> None:
        """Dissolve a step's group: its cases are in no group from here on."""
        self.alone.update(zip(step.group.keys, step.each(), strict=True))
        if step.unsaved and step.entries:
            self.learnt.update(dict.fromkeys(step.group.keys, step.entries))

    # Saving.

    def save_steps(self, steps: list[GroupStep]) -> DriverCourse[tuple[list[GroupStep], dict[Key, Event]]]:
        """Save the steps that need it; cases whose revision guard failed leave the batch.

        Returns the steps whose sends may be sent now, and events for cases whose guard failed only because of a new
        wish to withdraw: these are in no group again.
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
        loaded: Mapping[Key, Case] = yield from self.request(CaseLoad(frozenset(outcome.lost)))
        withdrawing = {
            key: case
            for key, case in loaded.items()
            if case.withdraw_at is not None
            and before[key].withdraw_at is None
            and case.revision == before[key].revision
        }
        self.alone |= withdrawing
        rest = [step.without(outcome.lost) for step in steps]
        return [step for step in rest if step.group.keys], {key: Woken() for key in withdrawing}

    def save_of(self, step: GroupStep) -> Save:
        """Return the save of a step."""
        return Save(
            cases=step.group.cases,
            like=step.after,
            entries=step.entries,
            template=f"case_{step.after.state.value}" if step.after.state in ENDED else None,
            evidence=step.evidence,
            versions=not step.replies,
        )

    def save(self, saves: Sequence[Save]) -> DriverCourse[SaveOutcome]:
        """Save in one statement. What the store refuses as a whole is halved until the bad case is alone, and lost."""
        outcome: SaveOutcome | SaveRefusal = yield from self.request(GroupSave(saves))
        if isinstance(outcome, SaveOutcome):
            return outcome
        if len(saves) == len(saves[0].cases) == 1:
            [case] = saves[0].cases
            # While still due, the case would be claimed and refused again without a pause.
            wait, stepped = self.timing.resend_limit, saves[0].stepped
            yield from self.request(Postponement([case.key], wait, SAVE_REFUSED, outcome.error, stepped))
            return SaveOutcome(lost=frozenset([case.key]))
        lost, wishes = set[Key](), dict[Key, datetime]()
        for half in halve_saves(saves):
            part = yield from self.save(half)
            lost |= part.lost
            wishes |= part.wishes
        return SaveOutcome(lost=lost, wishes=wishes)

    def save_learnt(self) -> DriverCourse[None]:
        """Save the entries that no other save included, in one save for all cases that share their entries."""
        groups: defaultdict[int, list[Key]] = defaultdict(list)
        for key, learnt in self.learnt.items():
            groups[id(learnt)].append(key)
        saves = [
            Save(
                cases=[transition(self.alone[key], self.alone[key].state) for key in sorted(keys)],
                entries=self.learnt[keys[0]],
            )
            for keys in groups.values()
        ]
        if saves:
            yield from self.save(saves)

    # Sending.

    def calls(self, sending: Sequence[GroupStep]) -> dict[CallKey, ParticipantCall]:
        """Return the calls of a round: one for each participant, op and plan, for all groups."""
        plans: dict[PlanKey, Plan] = {}
        columns: defaultdict[CallKey, list[tuple[CaseGroup, Sequence[int | None] | None]]] = defaultdict(list)
        for step in sending:
            plan, plan_key = self.plan_of(step.after), _plan_key(step)
            plans[plan_key] = plan
            for send in step.sends:
                index = plan.participants.index(send.participant) if send.op is Op.TRY else None
                versions = None if index is None else step.group.versions(index)
                columns[send.participant, send.op, plan_key].append((step.group, versions))
        return {
            (name, op, plan_key): ParticipantCall(name, op, merge_orders(parts), plans[plan_key])
            for (name, op, plan_key), parts in columns.items()
        }

    def assign_replies(
        self, sending: Sequence[GroupStep], answered: Mapping[CallKey, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplies], dict[Key, Event], list[GroupStep]]:
        """Split the groups of a round by their replies; `replies` are the late ones.

        Returns the groups with equal replies, an event for each case that got a late reply, and the steps of these
        cases and of those without replies.
        """
        indexed = {call: [IndexedAnswers.of(each) for each in answers] for call, answers in answered.items()}
        late = group_by_case(replies)
        groups, silent = list[GroupReplies](), list[GroupStep]()
        for step in sending:
            plan_key = _plan_key(step)
            to_step = [indexed[send.participant, send.op, plan_key] for send in step.sends]
            equal, unanswered = split_by_replies(step, to_step, late)
            groups += equal
            if unanswered.group.keys:
                silent.append(unanswered)
        if not late:
            return groups, {}, silent
        # A case that got a late reply steps alone, with all of its replies.
        every = [each for to_call in indexed.values() for each in to_call]
        return (
            groups,
            {
                key: Replied((*(reply for each in every for reply in each.to(key)), *late_replies))
                for key, late_replies in late.items()
            },
            silent,
        )


def _plan_key(step: GroupStep) -> PlanKey:
    return step.after.plan, step.after.kind


def _first_account(starting: tuple[Case, tuple[int, ...], Rechecked]) -> int:
    return starting[0].account_id


def _select_evidence(after: Case, event: Event) -> object | None:
    """Return the evidence of the re-check that ended a case. A case that goes on keeps its first check's record."""
    return event.evidence if after.state is State.REJECTED and isinstance(event, Rechecked) else None
