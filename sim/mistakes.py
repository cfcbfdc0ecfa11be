"""Planted mistakes: each is one plausible slip of a programmer, and each must be caught, or the simulator is blind.

`tests/sim/test_mistakes.py` fails if one is not. `python -m sim --mistake NAME` shows what being caught looks like.
None of this is reachable from the product.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Mark, State
from jiebang.saga.coordinator import Decision, Event, Rechecked, Replied, Reply, Timing, Unparked, Woken, step
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, Verdict, fence
from sim.parties import Applied, Party, PartyRow, Wallet, apply
from sim.store import Key, Store
from sim.worker import Worker
from sim.world import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jiebang.model.plan import Plan
    from sim.parties import Fence


class Mistake(msgspec.Struct, frozen=True):
    """What the programmer did, the parts that do it, and whether the walk over every interleaving sees it too.

    The walk has its own driver, so it sees slips in step, fence, participant and guard, not in the worker.
    """

    what: str
    parts: Parts
    walked: bool = False


# In the worker.


class _SendsFirst(Worker):
    def carry_out(self, decision: Decision, late: bool) -> None:
        for send in decision.sends:
            self.world.after(self.world.up_to(4), self.send, send, self.life)
        super().carry_out(msgspec.structs.replace(decision, sends=()), late)


class _SendsAnyway(Worker):
    def save(self, decision: Decision, late: bool, life: int) -> None:
        super().save(decision, late, life)
        if self.world.store.cases[decision.case.key] != decision.case:
            for send in decision.sends:
                self.world.after(1, self.send, send, life)


class _MixesCases(Worker):
    def hear(self, reply: Reply, life: int) -> None:
        latest = self.world.store.numbers[reply.account_id]
        super().hear(msgspec.structs.replace(reply, case_no=latest), life)


# In the store.


class _ForgetsWish(Store):
    def save(self, after: Case) -> Case | None:
        held = self.cases[after.key]
        if held.revision != after.revision - 1:
            return None
        self.moves[held.state, after.state] += 1
        self.cases[after.key] = after
        return after


class _CommitsOverWish(Store):
    def admits(self, held: Case, after: Case) -> bool:
        return held.revision == after.revision - 1


class _NoRevision(Store):
    def admits(self, held: Case, after: Case) -> bool:
        return not (after.state is State.CONFIRMING and held.withdraw_at is not None)


class _RollbackIsOver(Store):
    def live(self, account: int) -> bool:
        last = self.cases.get((account, self.numbers.get(account, 0)))
        return super().live(account) and (last is None or last.state is not State.CANCELLING)


class _ReusesNumber(Store):
    def create(self, account: int, plan: Plan, kind: object, now: datetime, due_at: datetime | None) -> Case | None:
        last = self.cases.get((account, self.numbers.get(account, 0)))
        if last is not None and last.state in (State.WITHDRAWN, State.EXPIRED, State.REJECTED, State.ABORTED):
            self.numbers[account] -= 1
        return super().create(account, plan, kind, now, due_at)  # type: ignore[arg-type]


class _WithdrawsTooLate(Store):
    def withdraw(self, key: Key, now: datetime) -> Case | None:
        held = self.cases[key]
        return super().withdraw(key, now) or (held if held.state is State.CONFIRMING else None)


# In the participant.


def _any_version(fence: Fence, row: PartyRow, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
    return apply(fence, row, case_no, op, None if asked is not None else asked, whim)


class _AnyVersion(Party):
    apply = staticmethod(_any_version)


class _AnyVersionWallet(Wallet):
    apply = staticmethod(_any_version)


class _NeverBusy(Wallet):
    def busy(self, account: int) -> bool:
        del account
        return False


class _QuietMovement(Wallet):
    def write(self, account: int, amount: int, entries: int) -> tuple[int, int]:
        before, after = super().write(account, amount, entries)
        if not entries or not amount:
            self.rows[account] = self.rows[account]._replace(version=before)
            after = before
        return before, after


# In the fence.


def _admits_late_try(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.TRY and row == FenceRow(case_no, CaseOp.CANCELLED) and refusal is None:
        return Verdict(Answer.GRANTED, FenceRow(case_no, CaseOp.TRIED))
    return fence(row, case_no, op, refusal)


def _grants_older_try(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.TRY and row.case_no > case_no:
        return Verdict(Answer.GRANTED)
    return fence(row, case_no, op, refusal)


def _no_mark(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    verdict = fence(row, case_no, op, refusal)
    return Verdict(verdict.answer, None, verdict.code) if verdict.answer is Answer.REFUSED else verdict


def _overwrites_newer(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CANCEL and row.case_no > case_no:
        return Verdict(Answer.DONE, FenceRow(case_no, CaseOp.CANCELLED))
    return fence(row, case_no, op, refusal)


def _empty_cancel(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CANCEL and row.case_no < case_no:
        return Verdict(Answer.DONE)
    return fence(row, case_no, op, refusal)


def _confirms_untried(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    if op is Op.CONFIRM and row.case_no == case_no and row.case_op is CaseOp.CONFIRMED:
        return Verdict(Answer.DONE, FenceRow(case_no, CaseOp.CANCELLED))
    return fence(row, case_no, op, refusal)


# In the coordinator.


def _refusal_is_grant(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Replied) and case.state is State.TRYING:
        event = Replied(
            tuple(
                msgspec.structs.replace(reply, answer=Answer.GRANTED) if reply.answer is Answer.REFUSED else reply
                for reply in event.replies
            )
        )
    return step(case, plan, event, now, timing)


def _silence_is_grant(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    timed_out = isinstance(event, Woken) and case.deadline is not None and now >= case.deadline
    if case.state is State.TRYING and timed_out and case.withdraw_at is None and case.deadline is not None:
        replies = tuple(Reply(*case.key, name, Op.TRY, Answer.GRANTED) for name in plan.participants)
        return step(case, plan, Replied(replies), case.deadline - timedelta(milliseconds=1), timing)
    return step(case, plan, event, now, timing)


def _patient(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if case.state is State.TRYING and isinstance(event, Replied) and case.deadline is not None:
        now = min(now, case.deadline - timedelta(milliseconds=1))
    return step(case, plan, event, now, timing)


def _deaf_to_wish(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    return step(msgspec.structs.replace(case, withdraw_at=None), plan, event, now, timing)


def _forgives_movement(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Rechecked) and case.state is State.READY:
        case = msgspec.structs.replace(case, wallet_version=event.versions.get("wallet"))
    return step(case, plan, event, now, timing)


def _asks_no_version(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    return Decision(decision.case, tuple(msgspec.structs.replace(send, version=None) for send in decision.sends))


def _all_at_once(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    waves = (0,) * len(plan.waves)
    return (
        step(case, plan, event, now, timing)
        if case.state is not State.READY
        else _flat(case, plan, waves, event, now, timing)
    )


def _flat(case: Case, plan: Plan, waves: tuple[int, ...], event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if decision.case.state is not State.TRYING:
        return decision
    marks = Mark.TRY_SENT * len(waves)
    sends = tuple(
        msgspec.structs.replace(decision.sends[0], participant=name, version=version or None)
        for name, version in zip(plan.participants, decision.case.versions, strict=True)
    )
    return Decision(msgspec.structs.replace(decision.case, marks=marks), sends)


def _spares_the_silent(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if case.state is not State.TRYING or decision.case.state is not State.CANCELLING or "g" not in case.marks:
        return decision
    marks = "".join(
        "." if before == Mark.TRY_SENT else now for before, now in zip(case.marks, decision.case.marks, strict=True)
    )
    kept = {name for name, mark in zip(plan.participants, marks, strict=True) if mark == Mark.CANCEL_SENT}
    sends = tuple(send for send in decision.sends if send.participant in kept)
    return Decision(msgspec.structs.replace(decision.case, marks=marks), sends)


def _cancels_after_commit(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    late = isinstance(event, Woken) and case.deadline is not None and now >= case.deadline
    if case.state is not State.CONFIRMING or not late or not decision.sends:
        return decision
    marks = "".join(Mark.CANCEL_SENT if mark == Mark.CONFIRM_SENT else mark for mark in case.marks)
    sends = tuple(msgspec.structs.replace(send, op=Op.CANCEL) for send in decision.sends)
    changed = msgspec.structs.replace(decision.case, state=State.CANCELLING, marks=marks, reason="LATE")
    return Decision(changed, sends)


def _gives_up(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    if case.state is State.CONFIRMING and isinstance(event, Woken) and decision.case.attempt > 3:  # noqa: PLR2004
        return Decision(msgspec.structs.replace(decision.case, due_at=None))
    return decision


def _parked_is_done(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    decision = step(case, plan, event, now, timing)
    open_marks = set(decision.case.marks) - {Mark.CONFIRMED.value}
    if decision.case.state is State.CONFIRMING and open_marks == {Mark.CONFIRM_PARKED.value}:
        return Decision(
            msgspec.structs.replace(decision.case, state=State.DONE, marks="d" * len(case.marks), due_at=None)
        )
    return decision


def _operator_decides(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Unparked) and case.state is State.CONFIRMING:
        marks = case.marks.replace(Mark.CONFIRM_PARKED, Mark.CANCEL_SENT)
        cancelling = msgspec.structs.replace(case, state=State.CANCELLING, marks=marks, due_at=now, reason="OPERATOR")
        return Decision(msgspec.structs.replace(cancelling, revision=case.revision + 1))
    return step(case, plan, event, now, timing)


MISTAKES: Final[Mapping[str, Mistake]] = {
    "send-before-save": Mistake("sends leave before the decision is saved", Parts(worker=_SendsFirst)),
    "send-after-lost-save": Mistake("sends leave though the guarded save failed", Parts(worker=_SendsAnyway)),
    "mixes-cases": Mistake("a late reply is taken for the account's current case", Parts(worker=_MixesCases)),
    "save-forgets-wish": Mistake("a save overwrites a wish to withdraw", Parts(store=_ForgetsWish)),
    "commit-over-wish": Mistake(
        "the guard lets a commit through over a recorded wish", Parts(store=_CommitsOverWish), walked=True
    ),
    "no-revision": Mistake("the guard does not compare revisions", Parts(store=_NoRevision)),
    "rollback-is-over": Mistake("the next case starts while the last is rolled back", Parts(store=_RollbackIsOver)),
    "number-reused": Mistake("the number of a case that came to nothing is used again", Parts(store=_ReusesNumber)),
    "withdraws-too-late": Mistake(
        "202 is answered after the commit point", Parts(store=_WithdrawsTooLate), walked=True
    ),
    "stale-version": Mistake(
        "participants grant at whatever version they have",
        Parts(party=_AnyVersion, wallet=_AnyVersionWallet),
        walked=True,
    ),
    "never-busy": Mistake("the wallet lets money move while it is tried", Parts(wallet=_NeverBusy), walked=True),
    "quiet-movement": Mistake("money moves and the version stays", Parts(wallet=_QuietMovement), walked=True),
    "late-try": Mistake("the fence admits a Try after its Cancel", Parts(fence=_admits_late_try), walked=True),
    "older-try": Mistake("the fence grants a Try of an older case", Parts(fence=_grants_older_try), walked=True),
    "no-mark": Mistake("a refused Try leaves no mark", Parts(fence=_no_mark), walked=True),
    "cancel-overwrites-newer": Mistake(
        "an old Cancel overwrites a newer case", Parts(fence=_overwrites_newer), walked=True
    ),
    "empty-cancel": Mistake("a Cancel that finds no Try leaves no mark", Parts(fence=_empty_cancel), walked=True),
    "confirm-twice": Mistake("a repeated Confirm undoes the first", Parts(fence=_confirms_untried), walked=True),
    "refused-wave": Mistake("confirms after a refused wave", Parts(step=_refusal_is_grant), walked=True),
    "silence-is-grant": Mistake("a Try that timed out counts as granted", Parts(step=_silence_is_grant), walked=True),
    "patient": Mistake("grants after the deadline still commit", Parts(step=_patient), walked=True),
    "deaf-to-wish": Mistake("the coordinator overlooks the wish to withdraw", Parts(step=_deaf_to_wish), walked=True),
    "forgives-movement": Mistake(
        "money moved since the last proof is forgiven", Parts(step=_forgives_movement), walked=True
    ),
    "asks-no-version": Mistake("Trys ask for no version", Parts(step=_asks_no_version), walked=True),
    "all-at-once": Mistake("all waves go out together", Parts(step=_all_at_once), walked=True),
    "spares-the-silent": Mistake(
        "no Cancel for a Try that was saved as sent but never answered", Parts(step=_spares_the_silent), walked=True
    ),
    "cancel-after-commit": Mistake(
        "a time-out after the commit point rolls back", Parts(step=_cancels_after_commit), walked=True
    ),
    "gives-up": Mistake("a Confirm is not repeated for ever", Parts(step=_gives_up)),
    "parked-is-done": Mistake("a parked Confirm counts as done", Parts(step=_parked_is_done), walked=True),
    "operator-decides": Mistake("unparking turns a Confirm into a Cancel", Parts(step=_operator_decides), walked=True),
}
"""Every planted mistake by name."""
