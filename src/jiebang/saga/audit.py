"""The audit of a running installation: do the participants' fence rows agree with the cases?

Pure; used by `jiebang verify`. It knows the state table's *meaning* but neither the coordinator nor the fence: it judges what stands in the databases.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Mark, State
from jiebang.saga.fence import CaseOp, FenceRow

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


class Violation(msgspec.Struct, frozen=True):
    """One breach: account and case number are ids, nothing personal."""

    breach: Breach
    account_id: int
    case_no: int
    participant: str


_ALLOWED: Final[Mapping[State, frozenset[CaseOp]]] = {
    State.OPEN: frozenset(),
    State.IN_REVIEW: frozenset(),
    State.READY: frozenset(),
    State.TRYING: frozenset({CaseOp.TRIED, CaseOp.CANCELLED}),
    State.CONFIRMING: frozenset({CaseOp.TRIED, CaseOp.CONFIRMED}),
    State.CANCELLING: frozenset({CaseOp.TRIED, CaseOp.CANCELLED}),
    State.DONE: frozenset({CaseOp.CONFIRMED}),
    State.ABORTED: frozenset({CaseOp.CANCELLED}),
    State.REJECTED: frozenset(),
    State.WITHDRAWN: frozenset(),
    State.EXPIRED: frozenset(),
}
"""What a fence row at a case's own number may say in each state of the case."""


def audit(
    cases: Iterable[Case], rows: Mapping[str, Mapping[int, FenceRow]], plan_of: Callable[[Case], Plan]
) -> list[Violation]:
    """Compare all cases of some accounts with the fence rows of those accounts, by participant.

    A participant absent from `rows` could not be read and is not judged; the caller must say so.
    """
    found: list[Violation] = []
    by_account: defaultdict[int, dict[int, Case]] = defaultdict(dict)
    for case in cases:
        by_account[case.account_id][case.case_no] = case
    for participant, of_participant in rows.items():
        for account_id, row in of_participant.items():
            if row.case_no:
                found.extend(_row(participant, account_id, row, by_account[account_id].get(row.case_no)))
    for of_account in by_account.values():
        found.extend(_live(of_account.values()))
        for case in of_account.values():
            found.extend(_case(case, rows, plan_of(case)))
    return found


def _row(participant: str, account_id: int, row: FenceRow, case: Case | None) -> Iterable[Violation]:
    if case is None:
        yield Violation(Breach.UNEXPLAINED, account_id, row.case_no, participant)
    elif not _ALLOWED[case.state]:
        yield Violation(Breach.TOUCHED, account_id, row.case_no, participant)
    elif row.case_op not in _ALLOWED[case.state]:
        yield Violation(Breach.DISAGREES, account_id, row.case_no, participant)


def _live(cases: Iterable[Case]) -> Iterable[Violation]:
    live = sorted(case.case_no for case in cases if case.state not in (*_ENDED,))
    for case in cases:
        if live[1:] and case.case_no == live[-1]:
            yield Violation(Breach.TWO_LIVE, case.account_id, case.case_no, "platform")


def _case(case: Case, rows: Mapping[str, Mapping[int, FenceRow]], plan: Plan) -> Iterable[Violation]:
    """An ended case needs every participant that it marked to have taken its last op, or to have gone on since."""
    if case.state not in (State.DONE, State.ABORTED):
        return
    breach = Breach.NOT_CONFIRMED if case.state is State.DONE else Breach.NOT_CANCELLED
    for participant, mark in zip(plan.participants, case.marks, strict=True):
        if mark == Mark.UNSENT or participant not in rows:
            continue
        row = rows[participant].get(case.account_id)
        if row is None or row.case_no < case.case_no:
            yield Violation(breach, case.account_id, case.case_no, participant)


_ENDED: Final = (State.DONE, State.ABORTED, State.REJECTED, State.WITHDRAWN, State.EXPIRED)
