"""Planted mistakes in what drives cases: the worker and its driver, a participant's process, and recovery.

Each is one plausible slip of a programmer or an operator; sim/mistakes.py names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from jiebang.model.case import ENDED, Case, Key, State
from jiebang.saga.batch import CaseGroup, GroupReplies, GroupStep, Save, SaveOutcome
from jiebang.saga.coordinator import Woken, versions_to_start
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.needs import SAVE_REFUSED, GroupSave, ParticipantCall, Postponement, Round
from jiebang.saga.recovery import AccountEvidence, Recovery, RestoredInstallation, decide_recovery
from sim.batch import BatchWorld, WorldBatch
from sim.driver import Driver, TornError
from sim.parties import Applied, Party, Wallet
from sim.restores import Restores
from sim.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from jiebang.model.plan import Plan
    from jiebang.saga.coordinator import Decision, Event, Rechecked, Reply, Send, Timing
    from jiebang.saga.needs import CallKey, DriverCourse
    from jiebang.saga.orders import Answers
    from sim.process import Steps
    from sim.world import World


# In the batch.


class SendsFirst(WorldBatch):
    def save_steps(self, steps: list[GroupStep]) -> DriverCourse[tuple[list[GroupStep], dict[Key, Event]]]:
        if early := [step for step in steps if step.sends]:
            yield from self.request(Round(frozenset(), list(self.calls(early).values())))
        return (yield from super().save_steps(steps))


class SendsAnyway(WorldBatch):
    def save_steps(self, steps: list[GroupStep]) -> DriverCourse[tuple[list[GroupStep], dict[Key, Event]]]:
        left, events = yield from super().save_steps(steps)
        kept = {key for step in left for key in step.group.keys}
        return [*left, *(lost for step in steps if (lost := step.without(kept)).group.keys)], events


class RemembersGrants(WorldBatch):
    """Keeps what a case learnt by account, and so takes a case's grants for the next one's."""

    def __init__(self, world: BatchWorld, now: datetime) -> None:
        super().__init__(world, now)
        self.grants: dict[int, str] = world.__dict__.setdefault("remembered_grants", {})
        self._decided = self.step
        self.step = self._step

    def _step(self, case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
        known = self.grants.get(case.account_id, "")
        if case.state is State.TRYING and len(known) == len(case.marks):
            marks = "".join("g" if "g" in pair else pair[0] for pair in zip(case.marks, known, strict=True))
            case = case if marks == case.marks else msgspec.structs.replace(case, marks=marks)
        decision = self._decided(case, plan, event, now, timing)
        if decision.case.state is State.TRYING and "g" in decision.case.marks:
            self.grants[case.account_id] = decision.case.marks
        return decision


class SavesLearntAsSent(WorldBatch):
    """Takes a wave for granted once it was sent: what was learnt is not looked at again."""

    def step_group(self, each: GroupReplies) -> GroupStep:
        step = super().step_group(each)
        if step.after.state is State.TRYING and step.unsaved and step.sends:
            step.after = msgspec.structs.replace(step.after, marks=step.after.marks.replace("t", "g"))
        return step


class NewestPlan(WorldBatch):
    def plan_of(self, case: Case) -> Plan:
        newest = cast("World", self.world).pack
        return newest if len(newest.participants) == len(case.marks) else super().plan_of(case)


class SaveNotHalved(WorldBatch):
    def save(self, saves: Sequence[Save]) -> DriverCourse[SaveOutcome]:
        outcome = yield from self.request(GroupSave(saves))
        if isinstance(outcome, SaveOutcome):
            return outcome
        keys = [case.key for save in saves for case in save.cases]
        yield from self.request(Postponement(keys, self.timing.resend_limit, SAVE_REFUSED, outcome.error))
        return SaveOutcome(lost=frozenset(keys))


class WishForEver(WorldBatch):
    """Takes a recorded wish in again and again while its save is refused."""

    def save_steps(self, steps: list[GroupStep]) -> DriverCourse[tuple[list[GroupStep], dict[Key, Event]]]:
        left, again = yield from super().save_steps(steps)
        kept = {key for step in left for key in step.group.keys} | again.keys()
        for step in steps:
            for key in set(step.group.keys) - kept if step.before.withdraw_at is not None else ():
                self.alone[key], again[key] = cast("World", self.world).store.cases[key], Woken()
        return left, again


class AsksNoVersion(WorldBatch):
    def calls(self, sending: Sequence[GroupStep]) -> dict[CallKey, ParticipantCall]:
        return {
            asked: msgspec.structs.replace(call, orders=msgspec.structs.replace(call.orders, versions=None))
            for asked, call in super().calls(sending).items()
        }


class LeavesOneOut(WorldBatch):
    """Saves all of a group but its last, and goes on as if it had saved that one too."""

    def save_of(self, step: GroupStep) -> Save:
        save = super().save_of(step)
        return msgspec.structs.replace(save, cases=save.cases[:-1]) if len(save.cases) > 1 else save


class HearsForOne(WorldBatch):
    """Takes the replies of a group for its first member's alone: the others heard nothing."""

    def assign_replies(
        self, sending: Sequence[GroupStep], answered: Mapping[CallKey, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplies], dict[Key, Event], list[GroupStep]]:
        heard, events, silent = super().assign_replies(sending, answered, replies)
        first = [msgspec.structs.replace(each, group=CaseGroup.of(each.group.cases[:1])) for each in heard]
        told = {key for each in first for key in each.group.keys} | events.keys()
        silent += [left for step in sending if (left := step.without(told)).group.keys and step not in silent]
        return first, events, silent


class RefusesAll(WorldBatch):
    """Takes what one member of a group was refused for what all of it was."""

    def assign_replies(
        self, sending: Sequence[GroupStep], answered: Mapping[CallKey, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplies], dict[Key, Event], list[GroupStep]]:
        heard, events, silent = super().assign_replies(sending, answered, replies)
        for step in sending:
            keys = set(step.group.keys)
            of_step = [each for each in heard if keys.issuperset(each.group.keys)]
            refused = [each for each in of_step if any(one.answer is Answer.REFUSED for one in each.replies)]
            if refused and len(of_step) > 1:
                cases = sorted((case for each in of_step for case in each.group.cases), key=lambda case: case.key)
                everybody = msgspec.structs.replace(refused[0], group=CaseGroup.of(cases))
                heard = [each for each in heard if each not in of_step] + [everybody]
        return heard, events, silent


class LateForAll(WorldBatch):
    """Takes a late reply to one member of a group for a reply to all of it."""

    def assign_replies(
        self, sending: Sequence[GroupStep], answered: Mapping[CallKey, Sequence[Answers]], replies: Sequence[Reply]
    ) -> tuple[list[GroupReplies], dict[Key, Event], list[GroupStep]]:
        late = {(reply.account_id, reply.case_no) for reply in replies}
        more = [
            msgspec.structs.replace(reply, account_id=key[0], case_no=key[1])
            for step in sending
            if len(step.group.keys) > 1 and not late.isdisjoint(step.group.keys)
            for reply in replies
            if (reply.account_id, reply.case_no) in step.group.keys
            for key in step.group.keys
            if key not in late
        ]
        return super().assign_replies(sending, answered, [*replies, *more])


class SendsLost(WorldBatch):
    """Goes on with a member whose save was lost, in the group it was saved with."""

    def save_steps(self, steps: list[GroupStep]) -> DriverCourse[tuple[list[GroupStep], dict[Key, Event]]]:
        left, events = yield from super().save_steps(steps)
        for step in left:
            whole = next(one for one in steps if set(one.group.keys) >= set(step.group.keys))
            missing = len(whole.group.keys) - len(step.group.keys)
            if missing > 0 and not events and len(step.group.keys) > 1:
                step.group = whole.group
        return left, events


class VersionOfAnother(WorldBatch):
    """Builds the orders of a group with the versions of its neighbours."""

    def calls(self, sending: Sequence[GroupStep]) -> dict[CallKey, ParticipantCall]:
        calls = super().calls(sending)
        for asked, call in calls.items():
            if (versions := call.orders.versions) is not None and len(versions) > 1:
                shifted = [*versions[1:], versions[0]]
                calls[asked] = msgspec.structs.replace(
                    call, orders=msgspec.structs.replace(call.orders, versions=shifted)
                )
        return calls


def forgives_at_start(case: Case, plan: Plan, event: Rechecked) -> tuple[int, ...] | None:
    forgiven = msgspec.structs.replace(case, wallet_version=event.versions.get("wallet"))
    return versions_to_start(forgiven, plan, event)


class ForgivesMovement(WorldBatch):
    versions_to_start = staticmethod(forgives_at_start)


# In the runner and the worker.


class BelievesTorn(Driver):
    def _save(self, saves: Sequence[Save]) -> Steps:
        try:
            return (yield from super()._save(saves))
        except TornError:
            return SaveOutcome()


class TrustsLease(Driver):
    def _commit(self, saves: Sequence[Save], now: datetime, stored: dict[Key, Case]) -> None:
        held = self.world.store.cases
        ours = [
            msgspec.structs.replace(
                save,
                cases=[case],
                like=msgspec.structs.replace(save.stepped, revision=held[case.key].revision + 1),
            )
            for save in saves
            for case in save.cases
            if case.key in held
        ]
        super()._commit(ours, now, stored)


class MixesCases(Worker):
    def hear_late(self, replies: Sequence[Reply]) -> None:
        latest = self.world.store.numbers
        super().hear_late([msgspec.structs.replace(reply, case_no=latest[reply.account_id]) for reply in replies])


# In a participant's process.


class ForgetsInRestart(Party):
    """Answers before what it did is durable."""

    unsaved: tuple[int, Any] | None = None

    def take(self, account: int, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
        self.unsaved = (account, self.row(account))
        return super().take(account, case_no, op, asked, whim)

    def restart(self) -> None:
        super().restart()
        if self.unsaved is not None:
            account, row = self.unsaved
            self.rows[account] = row


# In recovery.


def reuses_numbers(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    return msgspec.structs.replace(decide_recovery(seen, restored, now), last_case_no=seen.last_case_no)


def ignores_confirmed(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    rows = {
        name: FenceRow(row.case_no, CaseOp.TRIED) if row.case_op is CaseOp.CONFIRMED else row
        for name, row in seen.rows.items()
    }
    return decide_recovery(msgspec.structs.replace(seen, rows=rows), restored, now)


def believes_the_platform(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    """Takes up only what the platform still has open."""
    decided = decide_recovery(seen, restored, now)
    live = {case.case_no for case in seen.cases if case.state not in ENDED}
    return msgspec.structs.replace(
        decided, sends=tuple(send for send in decided.sends if send.case_no in live), made=()
    )


def confirms_without_try(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    decided = decide_recovery(seen, restored, now)
    return msgspec.structs.replace(decided, sends=tuple(_confirm(send) for send in decided.sends))


def _confirm(send: Send) -> Send:
    return msgspec.structs.replace(send, op=Op.CONFIRM) if send.op is Op.TRY else send


def commits_what_was_tried(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    """Takes a tried row for a grant that counts, and goes on to commit."""
    cases = tuple(
        msgspec.structs.replace(case, state=State.CONFIRMING, marks="c" * len(case.marks))
        if case.state is State.TRYING
        else case
        for case in seen.cases
    )
    return decide_recovery(msgspec.structs.replace(seen, cases=cases), restored, now)


def overlooks_forgotten(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    """Looks only at cases that somebody still holds: one that the platform and one more forgot is passed by."""
    held = [*(case.case_no for case in seen.cases), *(row.case_no for row in seen.rows.values())]
    last = max(seen.last_case_no, *held, 0)
    return decide_recovery(msgspec.structs.replace(seen, last_case_no=last, theirs=()), restored, now)


class Unforgiving(Wallet):
    """Leaves its mark where it refuses a recovery's Try, as it does for everybody else's."""

    def refusal(self, account: int) -> None:
        del account


class NoRecovery(Restores):
    def _run(self, names: tuple[str, ...]) -> Steps:
        del names
        yield 1
        return True


class OpensAtOnce(Restores):
    """The database is back and open before what was under way has come in."""

    quiet = 0


class WarmWorkers(Restores):
    """Workers go on after a recovery with what they heard before it."""

    def stop(self, worker: Worker) -> None:
        del worker
