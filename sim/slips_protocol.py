"""Planted mistakes in what workers and participants share: the store's guard, participants, the fence, the coordinator.

Each is one plausible slip of a programmer; sim/mistakes.py names them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import Case, Mark, State
from jiebang.saga.coordinator import Decision, Event, Rechecked, Replied, Reply, Send, Timing, Unparked, Woken, step
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, Verdict, fence
from sim.parties import Applied, Party, PartyRow, Wallet, apply
from sim.store import Key, Store

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.plan import Plan
    from sim.parties import Fence


# In the store.


class ForgetsWish(Store):
    def save(self, after: Case) -> Case | None:
        held = self.cases[after.key]
        if held.revision != after.revision - 1:
            return None
        self.moves[held.state, after.state] += 1
        self.cases[after.key] = after
        return after


class CommitsOverWish(Store):
    def admits(self, held: Case, after: Case) -> bool:
        return held.revision == after.revision - 1


class NoRevision(Store):
    def admits(self, held: Case, after: Case) -> bool:
        return not (after.state is State.CONFIRMING and held.withdraw_at is not None)


class RollbackIsOver(Store):
    def live(self, account: int) -> bool:
        last = self.cases.get((account, self.numbers.get(account, 0)))
        return super().live(account) and (last is None or last.state is not State.CANCELLING)


class ReusesNumber(Store):
    def create(self, account: int, plan: Plan, kind: object, now: datetime, due_at: datetime | None) -> Case | None:
        last = self.cases.get((account, self.numbers.get(account, 0)))
        if last is not None and last.state in (State.WITHDRAWN, State.EXPIRED, State.REJECTED, State.ABORTED):
            self.numbers[account] -= 1
        return super().create(account, plan, kind, now, due_at)  # type: ignore[arg-type]


class WithdrawsTooLate(Store):
    def withdraw(self, key: Key, now: datetime) -> Case | None:
        held = self.cases[key]
        return super().withdraw(key, now) or (held if held.state is State.CONFIRMING else None)


# In the participant.


def any_version(fence: Fence, row: PartyRow, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
    return apply(fence, row, case_no, op, None if asked is not None else asked, whim)


class AnyVersion(Party):
    apply = staticmethod(any_version)


class AnyVersionWallet(Wallet):
    apply = staticmethod(any_version)


class NeverBusy(Wallet):
    def busy(self, account: int) -> bool:
        del account
        return False


class QuietMovement(Wallet):
    def write(self, account: int, amount: int, entries: int) -> tuple[int, int]:
        before, after = super().write(account, amount, entries)
        if not entries or not amount:
            self.rows[account] = self.rows[account]._replace(version=before)
            after = before
        return before, after


# In the fence.


def admits_late_try(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.TRY and row == FenceRow(case_no, CaseOp.CANCELLED) and refusal is None:
        return Verdict(Answer.GRANTED, FenceRow(case_no, CaseOp.TRIED))
    return fence(row, case_no, op, refusal)


def grants_older_try(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.TRY and row.case_no > case_no:
        return Verdict(Answer.GRANTED)
    return fence(row, case_no, op, refusal)


def no_mark(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    verdict = fence(row, case_no, op, refusal)
    return Verdict(verdict.answer, None, verdict.code) if verdict.answer is Answer.REFUSED else verdict


def overwrites_newer(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CANCEL and row.case_no > case_no:
        return Verdict(Answer.DONE, FenceRow(case_no, CaseOp.CANCELLED))
    return fence(row, case_no, op, refusal)


def empty_cancel(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CANCEL and row.case_no < case_no:
        return Verdict(Answer.DONE)
    return fence(row, case_no, op, refusal)


def confirms_untried(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CONFIRM and row.case_no == case_no and row.case_op is CaseOp.CONFIRMED:
        return Verdict(Answer.DONE, FenceRow(case_no, CaseOp.CANCELLED))
    return fence(row, case_no, op, refusal)


# In the coordinator.


def refusal_is_grant(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Replied) and case.state is State.TRYING:
        event = Replied(
            tuple(
                msgspec.structs.replace(reply, answer=Answer.GRANTED) if reply.answer is Answer.REFUSED else reply
                for reply in event.replies
            )
        )
    return step(case, plan, event, now, timing)


def silence_is_grant(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    timed_out = isinstance(event, Woken) and case.deadline is not None and now >= case.deadline
    if case.state is State.TRYING and timed_out and case.withdraw_at is None and case.deadline is not None:
        replies = tuple(Reply(*case.key, name, Op.TRY, Answer.GRANTED) for name in plan.participants)
        return step(case, plan, Replied(replies), case.deadline - timedelta(milliseconds=1), timing)
    return step(case, plan, event, now, timing)


def patient(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if case.state is State.TRYING and isinstance(event, Replied) and case.deadline is not None:
        now = min(now, case.deadline - timedelta(milliseconds=1))
    return step(case, plan, event, now, timing)


def deaf_to_wish(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    return step(msgspec.structs.replace(case, withdraw_at=None), plan, event, now, timing)


def forgives_movement(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Rechecked) and case.state is State.READY:
        case = msgspec.structs.replace(case, wallet_version=event.versions.get("wallet"))
    return step(case, plan, event, now, timing)


def asks_no_version(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    return Decision(decision.case, tuple(msgspec.structs.replace(send, version=None) for send in decision.sends))


def all_at_once(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if case.state is not State.READY or decision.case.state is not State.TRYING:
        return decision
    sends = tuple(
        Send(*case.key, name, Op.TRY, version or None)
        for name, version in zip(plan.participants, decision.case.versions, strict=True)
    )
    return Decision(decision.case, sends)


def first_grant_is_enough(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    after = decision.case
    if after.state is not State.TRYING or not isinstance(event, Replied) or decision.sends or after is case:
        return decision
    wave = min(wave for mark, wave in zip(after.marks, plan.waves, strict=True) if mark == Mark.TRY_SENT)
    sends = tuple(
        Send(*case.key, name, Op.TRY, version or None)
        for name, version, of in zip(plan.participants, after.versions, plan.waves, strict=True)
        if of == wave + 1
    )
    return Decision(after, sends)


def spares_the_silent(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if case.state is not State.TRYING or decision.case.state is not State.CANCELLING or "g" not in case.marks:
        return decision
    marks = "".join(Mark.CANCEL_SENT if before == Mark.GRANTED else Mark.CANCELLED for before in case.marks)
    kept = {name for name, mark in zip(plan.participants, marks, strict=True) if mark == Mark.CANCEL_SENT}
    sends = tuple(send for send in decision.sends if send.participant in kept)
    return Decision(msgspec.structs.replace(decision.case, marks=marks), sends)


def cancels_after_commit(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    late = isinstance(event, Woken) and case.deadline is not None and now >= case.deadline
    if case.state is not State.CONFIRMING or not late or not decision.sends:
        return decision
    marks = "".join(Mark.CANCEL_SENT if mark == Mark.CONFIRM_SENT else mark for mark in case.marks)
    sends = tuple(msgspec.structs.replace(send, op=Op.CANCEL) for send in decision.sends)
    changed = msgspec.structs.replace(decision.case, state=State.CANCELLING, marks=marks, reason="LATE")
    return Decision(changed, sends)


def gives_up(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if case.state is State.CONFIRMING and isinstance(event, Woken) and decision.case.attempt > 3:  # noqa: PLR2004
        return Decision(msgspec.structs.replace(decision.case, due_at=None))
    return decision


def parked_is_done(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    open_marks = set(decision.case.marks) - {Mark.CONFIRMED.value}
    if decision.case.state is State.CONFIRMING and open_marks == {Mark.CONFIRM_PARKED.value}:
        return Decision(
            msgspec.structs.replace(decision.case, state=State.DONE, marks="d" * len(case.marks), due_at=None)
        )
    return decision


def operator_decides(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Unparked) and case.state is State.CONFIRMING:
        marks = case.marks.replace(Mark.CONFIRM_PARKED, Mark.CANCEL_SENT)
        cancelling = msgspec.structs.replace(case, state=State.CANCELLING, marks=marks, due_at=now, reason="OPERATOR")
        return Decision(msgspec.structs.replace(cancelling, revision=case.revision + 1))
    return step(case, plan, event, now, timing)
