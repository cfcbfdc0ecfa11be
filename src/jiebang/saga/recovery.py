"""Decide what to do about an account's cases after a restore from backup. Pure.

Any database, the platform's or a participant's, may have been put back to an older state: it never holds more than was
true, only less. So a restored database cannot prove that something did not happen, and these rules hold:

1. Case numbers are never reused: the next one is above every number seen anywhere. A restored platform may also have
   assigned numbers that no database holds any more; `gap` skips them.
2. **Committed** is proven by one confirmed row, or by a platform that holds `confirming` or `done`. Every participant
   of the plan must then confirm: at the commit point all had granted.
3. **Broken off** is proven by a platform that holds `cancelling` or `aborted`; by a cancelled row where nothing proves
   a commit; or by a participant that was not restored and is still below *n*: it cannot have granted. Where nothing
   proves either and no later case exists, tried rows are cancelled: no remaining evidence contradicts that. So a case
   in `trying` is always broken off.
4. A row above *n* has finished *n*, one way or the other, and is left alone. A platform that holds *n* unfinished while
   a row is above it has lost how *n* ended: **undecided**, unless rule 2 or 3 still finds a proof.
5. The fence's rules do not change. A participant put back to before *n* takes *n* again, in ascending order of numbers:
   Cancel for a case broken off; Try (without a version: the one it was granted at is lost) and then Confirm for a
   committed one. A Confirm without the Try would be answered with an error.
6. Only the highest case of an account may be live: it is put into `confirming` or `cancelling`, and the workers end it.
   Ops for lower and ended cases, and every Try, are sent by recovery itself, before that, one op per participant at a
   time (`sends`), the lowest case first; then the rows are read and decided again. Each op raises a row, so this
   terminates. A settled case is saved before a row that may be its only proof moves on (`again`).
7. A case that the platform lost is inserted again under its number where every plan that it may have had leads to the
   same record and the same ops.
8. Nothing is guessed. Left to operators: a platform and a row that contradict each other; an outcome or a plan that no
   database holds any more; a committed case whose Try was refused (parked there, as a refused Confirm is). A number
   that a restored platform may have assigned, that no database holds and that another restored participant is below,
   may be a case that the others carried out: its outcome is lost. No op is sent past an undecided case. Outcomes that
   operators establish (`outcomes`) are used where nothing is proven.
9. A refused Try leaves a permanent mark. So a Try that would be refused is not sent: a refusal that clears by itself
   is waited for (`waits`), up to a limit; any other, or one that did not clear in time, is left to an operator, and
   the row can still take the Try once it is cleared.
10. The wallet may reach a version number from before its restore a second time, with other money behind it: a case in
   `ready` that was proven at such a version is rejected, as if its funds had moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import ENDED, Case, Mark, State
from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import FUNDS_MOVED, Send
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op
from jiebang.saga.recovery_evidence import (
    OUTCOME_LOST,
    PLATFORM,
    AccountEvidence,
    CaseAssessment,
    ProvenOutcome,
    RestoredInstallation,
    UndecidedReason,
    assess_case,
    is_at,
    is_finished,
    numbers_to_assess,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "OUTCOME_LOST",
    "AccountEvidence",
    "Recovery",
    "RefusalWait",
    "RestoredInstallation",
    "UndecidedCase",
    "UndecidedReason",
    "decide_recovery",
]

RECOVERED: Final = "RECOVERED"
"""Reason of a case that was broken off because no proof of its commit is left."""


class UndecidedCase(msgspec.Struct, frozen=True, order=True):
    """A case that an operator must decide. `participants`: those at which it is stuck, as far as known.

    `codes`: with Why.CANNOT_TRY, the code with which each of them would refuse its Try.
    """

    account_id: int
    case_no: int
    why: UndecidedReason
    participants: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class RefusalWait(msgspec.Struct, frozen=True, order=True):
    """A committed case whose Try this participant would refuse now, with a code that clears by itself."""

    account_id: int
    case_no: int
    participant: str
    code: str


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one account.

    `sends`: the ops that recovery sends itself, at most one per participant; `waits`: the refusals it waits for. Unless
    both are empty, `changed` and `made` are empty (save for `again`): send or wait, read again, decide again. `plans`:
    by case number, the plan whose operations `sends` carry out. `changed`: cases to save, one revision on. `made`: lost
    cases to insert. `again`: decide again once these are saved. `refusals`: those already known, to be passed to the
    next decision. `last_case_no`: the next case's number is above it.
    """

    account_id: int
    last_case_no: int
    sends: tuple[Send, ...] = ()
    waits: tuple[RefusalWait, ...] = ()
    again: bool = False
    refusals: Mapping[str, str] = {}
    plans: Mapping[int, Plan] = {}
    changed: tuple[Case, ...] = ()
    made: tuple[Case, ...] = ()
    undecided: tuple[UndecidedCase, ...] = ()


def decide_recovery(seen: AccountEvidence, restored: RestoredInstallation, now: datetime) -> Recovery:
    """Decide what to do about one account. Idempotent: asked about its own result, it finds nothing more to do.

    `seen.rows` must be read before the cases, and while no worker claims any.
    """
    numbers = numbers_to_assess(seen, restored)
    last = max(seen.last_case_no, *numbers, 0)
    if PLATFORM in restored.databases:
        last += restored.gap
    assessed = [assess_case(seen, restored, number, above=number < numbers[-1]) for number in numbers]
    live = _find_live(assessed)
    needed = [send for name in _list_participants(assessed, seen) if (send := _next_send(seen, assessed, name, live))]
    sends = tuple(send for send in needed if not _would_be_refused(seen, send))
    waits = _list_waits(seen, restored, needed)
    lowest = min((send.case_no for send in sends), default=0)
    sends = tuple(send for send in sends if send.case_no == lowest)
    below = [each for each in assessed if each.case_no < lowest and _is_finished_everywhere(seen, each)]
    settled = [
        (each, after)
        for each in below
        if (after := _decide_case(seen, assessed, each, restored, now, lives=False)[0]) is not None
        and after is not each.case
    ]
    if settled:  # before a row that may be their only proof moves on
        return Recovery(
            account_id=seen.account_id,
            last_case_no=seen.last_case_no,  # forgotten numbers are looked for above it until everything is decided
            again=True,
            changed=tuple(after for each, after in settled if each.case is not None),
            made=tuple(after for each, after in settled if each.case is None),
        )
    undecided = [
        UndecidedCase(seen.account_id, each.case_no, each.reason, _list_stuck(seen, each))
        for each in assessed
        if each.reason is not None
    ]
    changed, made = list[Case](), list[Case]()
    for each in assessed if not sends and not waits else ():
        after, why = _decide_case(seen, assessed, each, restored, now, lives=each is live)
        if why is not None and each.reason is None:
            undecided.append(_describe_undecided(seen, each, why))
        if after is not None and after is not each.case:
            (made if each.case is None else changed).append(after)
    blocked = _find_blocked(seen, changed, made)
    made = [case for case in made if case.case_no not in blocked]
    undecided += [UndecidedCase(seen.account_id, number, UndecidedReason.WAITS_BELOW) for number in sorted(blocked)]
    return Recovery(
        account_id=seen.account_id,
        last_case_no=last,
        sends=sends,
        waits=waits,
        refusals=seen.refusals,
        plans={each.case_no: each.plan for each in assessed if each.plan is not None} if sends else {},
        changed=tuple(changed),
        made=tuple(made),
        undecided=tuple(sorted(undecided)),
    )


def _find_live(assessed: Sequence[CaseAssessment]) -> CaseAssessment | None:
    """Return the highest case, if its plan is known and it has not ended: the one that workers go on with."""
    if not assessed or not assessed[-1].plan:
        return None
    highest = assessed[-1]
    return highest if highest.case is None or highest.case.state not in ENDED else None


def _list_stuck(seen: AccountEvidence, one: CaseAssessment) -> tuple[str, ...]:
    """Return the participants whose row is at an undecided case; of a forgotten one, those restored to before it."""
    at_it = tuple(name for name in one.participants if is_at(seen, name, one))
    return at_it or (one.participants if one.case is None else ())


def _list_participants(assessed: Sequence[CaseAssessment], seen: AccountEvidence) -> list[str]:
    return list(dict.fromkeys((*(name for one in assessed for name in one.participants), *seen.rows)))


def _is_finished_everywhere(seen: AccountEvidence, one: CaseAssessment) -> bool:
    return all(is_finished(seen, name, one) for name in one.participants)


def _is_held_up(seen: AccountEvidence, assessed: Sequence[CaseAssessment], name: str, one: CaseAssessment) -> bool:
    """Whether a lower case that cannot be ended now stands between the participant's row and this one."""
    return any(
        lower.case_no < one.case_no and name in lower.participants and not _has_passed(seen, name, lower)
        for lower in assessed
    )


def _has_passed(seen: AccountEvidence, name: str, one: CaseAssessment) -> bool:
    """Whether the participant may take a later case: above this one, or at its end where that is decided."""
    row = seen.rows.get(name, NO_ROW)
    ended = row.case_op is not CaseOp.TRIED and one.outcome is not ProvenOutcome.OPEN
    return row.case_no >= one.case_no if ended else row.case_no > one.case_no


def _next_send(
    seen: AccountEvidence, assessed: Sequence[CaseAssessment], name: str, live: CaseAssessment | None
) -> Send | None:
    """Rules 5 and 6: the next op that recovery sends this participant. None: it needs none, or must not go on yet."""
    row = seen.rows.get(name, NO_ROW)
    for one in assessed:
        if name not in one.participants or row.case_no > one.case_no or one.outcome is ProvenOutcome.UNTOUCHED:
            continue
        if one.outcome is ProvenOutcome.OPEN:
            return None  # no op is sent past an undecided case: the row may be all that is left to prove it
        here = row.case_no == one.case_no
        if here and row.case_op is not CaseOp.TRIED:
            continue
        op = Op.CANCEL if one.outcome is ProvenOutcome.BROKEN_OFF else Op.CONFIRM if here else Op.TRY
        return None if one is live and op is not Op.TRY else Send(seen.account_id, one.case_no, name, op)
    return None


def _would_be_refused(seen: AccountEvidence, send: Send) -> bool:
    return send.op is Op.TRY and send.participant in seen.refusals


def _list_waits(
    seen: AccountEvidence, restored: RestoredInstallation, needed: Sequence[Send]
) -> tuple[RefusalWait, ...]:
    """Rule 9: the Trys that would be refused with a code that clears by itself; none once patience has run out."""
    if seen.waited >= restored.patience:
        return ()
    refused = [(send, seen.refusals[send.participant]) for send in needed if _would_be_refused(seen, send)]
    return tuple(
        RefusalWait(send.account_id, send.case_no, send.participant, code)
        for send, code in refused
        if code in restored.passing
    )


def _cannot_try(seen: AccountEvidence, name: str, one: CaseAssessment) -> bool:
    """Whether a committed case still lacks its Try here, and it would be refused."""
    lacks_try = one.outcome is ProvenOutcome.COMMITTED and seen.rows.get(name, NO_ROW).case_no < one.case_no
    return lacks_try and name in seen.refusals


def _describe_undecided(seen: AccountEvidence, one: CaseAssessment, why: UndecidedReason) -> UndecidedCase:
    """Return what an operator must still do about a case whose outcome is proven."""
    if why is UndecidedReason.CANNOT_TRY:
        names = tuple(name for name in one.participants if _cannot_try(seen, name, one))
        return UndecidedCase(seen.account_id, one.case_no, why, names, tuple(seen.refusals[name] for name in names))
    unfinished = tuple(name for name in one.participants if not is_finished(seen, name, one))
    return UndecidedCase(seen.account_id, one.case_no, why, unfinished)


def _decide_case(
    seen: AccountEvidence,
    assessed: Sequence[CaseAssessment],
    one: CaseAssessment,
    restored: RestoredInstallation,
    now: datetime,
    *,
    lives: bool,
) -> tuple[Case | None, UndecidedReason | None]:
    """Return the case as it is to be saved (None: there is none to save), and why it cannot be settled, if so."""
    held = one.case
    if one.outcome is ProvenOutcome.UNTOUCHED:
        return _reject_if_stale(held, restored) if held else None, None
    if one.outcome is ProvenOutcome.OPEN or one.plan is None:
        return _leave_open(seen, one), None
    if lives:
        return _resume(seen, assessed, one, restored, now)
    if not _is_finished_everywhere(seen, one):
        obstacles = (
            _find_obstacle(seen, assessed, name, one) or UndecidedReason.WAITS_BELOW for name in one.participants
        )
        return held, min(obstacles, key=_SEVEREST_FIRST)
    closed_unproven = held is not None and held.state is State.REJECTED and held.reason == OUTCOME_LOST
    if held is not None and held.state in ENDED and not closed_unproven:
        return held, None
    committed = one.outcome is ProvenOutcome.COMMITTED
    state, mark = (State.DONE, Mark.CONFIRMED) if committed else (State.ABORTED, Mark.CANCELLED)
    return _put_into(seen, one, now, state=state, marks=mark * len(one.participants), due_at=None), None


_SEVEREST_FIRST: Final = (UndecidedReason.CANNOT_CONFIRM, UndecidedReason.CANNOT_TRY, UndecidedReason.WAITS_BELOW).index
"""Of several obstacles an operator is told the one that does not clear together with the others."""


def _find_obstacle(
    seen: AccountEvidence, assessed: Sequence[CaseAssessment], name: str, one: CaseAssessment
) -> UndecidedReason | None:
    """Return what keeps this participant from ending a case whose outcome is proven, if anything does."""
    if one.outcome is ProvenOutcome.COMMITTED and seen.rows.get(name) == FenceRow(one.case_no, CaseOp.CANCELLED):
        return UndecidedReason.CANNOT_CONFIRM
    if _is_held_up(seen, assessed, name, one):
        return UndecidedReason.WAITS_BELOW
    return UndecidedReason.CANNOT_TRY if _cannot_try(seen, name, one) else None


def _resume(
    seen: AccountEvidence,
    assessed: Sequence[CaseAssessment],
    one: CaseAssessment,
    restored: RestoredInstallation,
    now: datetime,
) -> tuple[Case, UndecidedReason | None]:
    """Return the live case as the workers are to go on with it. Marks that agree with the rows stay as they are.

    An op parked before the restore is sent again to a restored participant: its refusal was undone with the rest.
    """
    committed = one.outcome is ProvenOutcome.COMMITTED
    sent, ended = (Mark.CONFIRM_SENT, Mark.CONFIRMED) if committed else (Mark.CANCEL_SENT, Mark.CANCELLED)
    state = State.CONFIRMING if committed else State.CANCELLING
    before = one.case.marks if one.case and one.case.state is state else sent * len(one.participants)
    parked = Mark.CONFIRM_PARKED if committed else Mark.CANCEL_PARKED
    obstacles = [_find_obstacle(seen, assessed, name, one) for name in one.participants]
    after = list[str]()
    for name, mark, obstacle in zip(one.participants, before, obstacles, strict=True):
        undone = mark == ended and not is_finished(seen, name, one)
        resend = undone or (mark == parked and name in restored.databases)
        after.append(parked if obstacle else sent if resend else mark)
    why = min((obstacle for obstacle in obstacles if obstacle), key=_SEVEREST_FIRST, default=None)
    marks = "".join(after)
    if one.case and one.case.state is state and one.case.marks == marks:
        return one.case, why
    open_ops = any(mark in (sent, Mark.CONFIRM_REFUSED, Mark.CANCEL_REFUSED) for mark in marks)
    return _put_into(seen, one, now, state=state, marks=marks, due_at=now if open_ops else None), why


def _leave_open(seen: AccountEvidence, one: CaseAssessment) -> Case | None:
    """Return a case that is left to an operator: no longer due, or closed where only its outcome is lost.

    Closed with reason OUTCOME_LOST are those that every participant is past, and those whose Trys were not out.
    """
    held = one.case
    if held is None or held.state in ENDED or one.reason is not UndecidedReason.OUTCOME_LOST:
        return _clear_due(held)
    passed = all(seen.rows.get(name, NO_ROW).case_no > one.case_no for name in one.participants)
    if not passed and held.state not in (State.OPEN, State.IN_REVIEW, State.READY):
        return _clear_due(held)  # one that is not tried yet is closed: its person could prove it and set it going
    if held.state is State.TRYING:
        closed: tuple[State, str] = (State.ABORTED, Mark.CANCELLED * len(held.marks))
    else:
        closed = (State.REJECTED, held.marks)
    return msgspec.structs.replace(
        held, state=closed[0], marks=closed[1], revision=held.revision + 1, due_at=None, reason=OUTCOME_LOST
    )


def _clear_due(held: Case | None) -> Case | None:
    """Return the case without a `due_at`, so that no worker takes up what is undecided."""
    if held is None or held.due_at is None:
        return held
    return msgspec.structs.replace(held, due_at=None, revision=held.revision + 1)


def _reject_if_stale(held: Case, restored: RestoredInstallation) -> Case:
    """Rule 10: reject a `ready` case where the wallet was restored."""
    if held.state is not State.READY or WALLET not in restored.databases:
        return held
    return msgspec.structs.replace(
        held, state=State.REJECTED, revision=held.revision + 1, due_at=None, reason=FUNDS_MOVED
    )


def _put_into(
    seen: AccountEvidence, one: CaseAssessment, now: datetime, *, state: State, marks: str, due_at: datetime | None
) -> Case:
    """Return the case in the state that is proven, inserted anew where the platform lost it.

    It does not go through the state table: the case has made these transitions already, and a restore undid the record
    of them. After a commit no wish to withdraw is kept.
    """
    committed = one.outcome is ProvenOutcome.COMMITTED
    if one.case is None:
        if one.kind is None or one.plan is None:
            raise ValueError("a case without a plan is not made")
        reason = None if committed else RECOVERED
        return Case(
            account_id=seen.account_id,
            case_no=one.case_no,
            kind=one.kind,
            state=state,
            plan=one.plan.name,
            marks=marks,
            revision=1,
            created_at=now,
            due_at=due_at,
            versions=(0,) * len(marks),
            reason=reason,
        )
    held = one.case
    return msgspec.structs.replace(
        held,
        state=state,
        marks=marks,
        revision=held.revision + 1,
        due_at=due_at,
        deadline=None,
        attempt=0,
        versions=held.versions or (0,) * len(marks),
        withdraw_at=None if committed else held.withdraw_at,
        reason=(None if committed else held.reason or RECOVERED),
    )


def _find_blocked(seen: AccountEvidence, changed: Sequence[Case], made: Sequence[Case]) -> set[int]:
    """Return the lost cases that cannot be inserted yet: another case is still live, and an account has at most one."""
    after = {case.case_no: case for case in (*seen.cases, *changed)}
    alive = any(case.state not in ENDED for case in after.values())
    return {case.case_no for case in made if alive and case.state not in ENDED}
