"""The audit of a running installation: do the participants' fence rows agree with the cases?

Pure; used by `jiebang verify`. It knows what the marks mean and shares no code with the coordinator or the fence: it
checks only what the databases hold.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import COUNTED, LIVE, Case, Mark, Slot, State
from jiebang.model.errors import JiebangError
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jiebang.model.plan import Plan


class Breach(StrEnum):
    """What can be wrong."""

    UNEXPLAINED = "fence_mark_without_case"
    DISAGREES = "participant_disagrees_with_case"
    NOT_CONFIRMED = "case_done_but_not_confirmed"
    NOT_CANCELLED = "case_aborted_but_not_cancelled"
    TOUCHED = "case_never_tried_but_participant_marked"
    TWO_LIVE = "two_live_cases"
    MISFIT = "marks_do_not_fit_plan"
    NO_PLAN = "case_follows_unknown_plan"
    SLOT_LEAKED = "quota_slot_without_case"
    SLOT_MISSING = "case_without_quota_slot"
    NUMBER_SET_BACK = "case_number_would_be_given_again"
    KEY_NOT_DESTROYED = "key_outlives_the_name_that_was_taken_back"
    KEPT_TOO_LONG = "retained_key_outlives_its_day"
    NOT_ACTIVATED = "policy_in_force_was_not_activated"


class Violation(msgspec.Struct, frozen=True):
    """One breach, and where: the ids of account and case, which are not personal, and the participant."""

    breach: Breach
    account_id: int
    case_no: int
    participant: str


_TRIED, _CONFIRMED, _CANCELLED = CaseOp.TRIED, CaseOp.CONFIRMED, CaseOp.CANCELLED
_ALLOWED_OPS: Final[Mapping[str, frozenset[CaseOp | None]]] = {
    Mark.UNSENT: frozenset({None}),
    Mark.TRY_SENT: frozenset({None, _TRIED, _CANCELLED}),
    Mark.GRANTED: frozenset({_TRIED}),
    Mark.CONFIRM_SENT: frozenset({_TRIED, _CONFIRMED}),
    Mark.CONFIRM_REFUSED: frozenset({_TRIED, _CONFIRMED}),
    Mark.CONFIRM_PARKED: frozenset({_TRIED, _CONFIRMED}),
    Mark.CONFIRMED: frozenset({_CONFIRMED}),
    Mark.CANCEL_SENT: frozenset({None, _TRIED, _CANCELLED}),
    Mark.CANCEL_REFUSED: frozenset({None, _TRIED, _CANCELLED}),
    Mark.CANCEL_PARKED: frozenset({None, _TRIED, _CANCELLED}),
    Mark.CANCELLED: frozenset({_CANCELLED}),
}
"""By a case's mark for a participant: the last ops that the participant's row may hold of the case (None: no op).

A row that is at a later case says nothing about this one; it is checked against the later case.
"""


def audit(
    cases: Iterable[Case], rows: Mapping[str, Mapping[int, FenceRow]], plan_of: Callable[[Case], Plan]
) -> list[Violation]:
    """Compare all cases of some accounts with the fence rows of those accounts, by participant.

    `plan_of` raises KeyError or a JiebangError for a plan it does not know. A participant absent from `rows` could not
    be read and is not checked; the caller must report that.
    """
    violations: list[Violation] = []
    by_account: defaultdict[int, dict[int, Case]] = defaultdict(dict)
    for case in cases:
        by_account[case.account_id][case.case_no] = case
    for participant, of_participant in rows.items():
        for account_id, row in of_participant.items():
            case_at = by_account[account_id].get(row.case_no) if row.case_no else None
            if case_at is None and row.case_no:
                violations.append(Violation(Breach.UNEXPLAINED, account_id, row.case_no, participant))
            elif (
                case_at is not None
                and (plan := _look_up_plan(case_at, plan_of))
                and participant not in plan.participants
            ):
                violations.append(Violation(Breach.TOUCHED, account_id, row.case_no, participant))
    for of_account in by_account.values():
        violations.extend(_check_live(of_account.values()))
        for case in of_account.values():
            violations.extend(_check_case(case, rows, _look_up_plan(case, plan_of)))
    return violations


def find_leaked_slots(slots: Iterable[Slot], cases: Mapping[tuple[int, int], Case]) -> list[Slot]:
    """Return the slots that no case may hold: each keeps the document's owner from using the document."""
    may_hold = COUNTED | {State.READY}
    return [
        slot
        for slot in slots
        if (case := cases.get(slot.of_case)) is None
        or case.state not in may_hold
        or case.document_index != slot.document_index
    ]


def find_cases_without_slot(cases: Iterable[Case], slots: Iterable[Slot]) -> list[Violation]:
    """Return the cases that changed an identity, or are about to, without holding a slot of the document's quota."""
    held = {(slot.of_case, slot.document_index) for slot in slots}
    return [
        Violation(Breach.SLOT_MISSING, case.account_id, case.case_no, "platform")
        for case in cases
        if case.document_index is not None and case.state in COUNTED and (case.key, case.document_index) not in held
    ]


def _look_up_plan(case: Case, plan_of: Callable[[Case], Plan]) -> Plan | None:
    """Return the case's plan; None where this installation does not have it, so that the audit can go on."""
    try:
        return plan_of(case)
    except (KeyError, JiebangError):
        return None


def _check_live(cases: Iterable[Case]) -> Iterable[Violation]:
    live = sorted((case for case in cases if case.state in LIVE), key=lambda case: case.case_no)
    for case in live[1:]:
        yield Violation(Breach.TWO_LIVE, case.account_id, case.case_no, "platform")


def _check_case(case: Case, rows: Mapping[str, Mapping[int, FenceRow]], plan: Plan | None) -> Iterable[Violation]:
    """Compare a case with the fence row of each participant of its plan."""
    if plan is None:
        yield Violation(Breach.NO_PLAN, case.account_id, case.case_no, "platform")
        return
    if len(case.marks) != len(plan.participants):
        yield Violation(Breach.MISFIT, case.account_id, case.case_no, "platform")
        return
    for participant, mark in zip(plan.participants, case.marks, strict=True):
        row = rows.get(participant, {}).get(case.account_id, NO_ROW)
        if participant not in rows or row.case_no > case.case_no:
            continue
        last_op = row.case_op if row.case_no == case.case_no else None
        if last_op not in _ALLOWED_OPS[mark]:
            yield Violation(_classify(case, mark, last_op), case.account_id, case.case_no, participant)


def _classify(case: Case, mark: str, last_op: CaseOp | None) -> Breach:
    if mark == Mark.UNSENT:
        return Breach.TOUCHED
    return _MISSING.get(case.state, Breach.DISAGREES) if last_op is None else Breach.DISAGREES


_MISSING: Final = {State.DONE: Breach.NOT_CONFIRMED, State.ABORTED: Breach.NOT_CANCELLED}
