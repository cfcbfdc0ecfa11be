"""The fence: what a participant answers to Try, Confirm and Cancel of case number *n*, and what it writes.

A participant's row for the account remembers the last case number and op it took, a fencing token. The table
(design.md, "Fence"; no row = number 0, finished):

| row is                | Try n                              | Confirm n               | Cancel n                  |
|-----------------------|------------------------------------|-------------------------|---------------------------|
| above n               | refused                            | stale                   | stale                     |
| below n, unfinished   | pending                            | pending                 | pending                   |
| below n, finished     | writes tried, granted; or, on a    | error                   | writes (n, cancelled),    |
|                       | business refusal, writes           |                         | done                      |
|                       | (n, cancelled) and refuses         |                         |                           |
| n, tried              | granted                            | writes confirmed, done  | writes cancelled, done    |
| n, confirmed          | granted                            | done                    | error                     |
| n, cancelled          | refused                            | error                   | done                      |

A refused Try writes (n, cancelled), so that no late or repeated Try of the same number can be granted afterwards.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Op(StrEnum):
    """The three ops of a saga that change a participant; `look` only reads and needs no fence."""

    TRY = "try"
    CONFIRM = "confirm"
    CANCEL = "cancel"


class CaseOp(StrEnum):
    """The last op a participant's row took."""

    TRIED = "tried"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Answer(StrEnum):
    """What a participant answers: to a Try granted, refused or pending; to other ops done, stale, error or pending."""

    GRANTED = "granted"
    REFUSED = "refused"
    PENDING = "pending"  # unknown yet: ask again
    DONE = "done"
    STALE = "stale"  # the row is at a later case
    ERROR = "error"  # cannot happen while everybody keeps the protocol


class FenceRow(msgspec.Struct, frozen=True, gc=False):
    """A participant's fencing token for one account."""

    case_no: int
    case_op: CaseOp


NO_ROW: Final = FenceRow(0, CaseOp.CANCELLED)
"""What an account without a row counts as: number 0, finished."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The fence's answer, the code of a refusal or error, and the row to write in the same statement (None: none)."""

    answer: Answer
    write: FenceRow | None = None
    code: str | None = None


LATER_CASE: Final = "FENCE-LATER-CASE"
CANCELLED_BEFORE: Final = "FENCE-CANCELLED"
NEVER_TRIED: Final = "FENCE-NEVER-TRIED"
CONFIRMED_BEFORE: Final = "FENCE-CONFIRMED"

_PENDING: Final = Verdict(Answer.PENDING)
_GRANTED: Final = Verdict(Answer.GRANTED)
_DONE: Final = Verdict(Answer.DONE)


def fence(row: FenceRow, case_no: int, op: Op, refusal: str | None = None) -> Verdict:
    """Judge `op` of case `case_no` against `row`. `refusal` is the business reason to refuse a Try, None to grant it.

    Shared by the product (remote participants whole, databases for the answer) and the simulator.
    """
    if row.case_no > case_no:
        return Verdict(Answer.REFUSED if op is Op.TRY else Answer.STALE, code=LATER_CASE)
    if row.case_no < case_no:
        return _PENDING if row.case_op is CaseOp.TRIED else _judge_new_case(case_no, op, refusal)
    return _judge_same_case(row, op)


def _judge_new_case(case_no: int, op: Op, refusal: str | None) -> Verdict:
    """Judge an op where the row is below *n* and finished: it is the first of this case."""
    if op is Op.CONFIRM:
        return Verdict(Answer.ERROR, code=NEVER_TRIED)
    if op is Op.CANCEL:
        return Verdict(Answer.DONE, FenceRow(case_no, CaseOp.CANCELLED))
    if refusal is not None:
        return Verdict(Answer.REFUSED, FenceRow(case_no, CaseOp.CANCELLED), refusal)
    return Verdict(Answer.GRANTED, FenceRow(case_no, CaseOp.TRIED))


def _judge_same_case(row: FenceRow, op: Op) -> Verdict:
    """Judge an op where the row is at *n* already."""
    if row.case_op is CaseOp.TRIED:
        if op is Op.TRY:
            return _GRANTED
        after = CaseOp.CONFIRMED if op is Op.CONFIRM else CaseOp.CANCELLED
        return Verdict(Answer.DONE, FenceRow(row.case_no, after))
    if row.case_op is CaseOp.CONFIRMED:
        if op is Op.TRY:
            return _GRANTED
        return _DONE if op is Op.CONFIRM else Verdict(Answer.ERROR, code=CONFIRMED_BEFORE)
    if op is Op.TRY:
        return Verdict(Answer.REFUSED, code=CANCELLED_BEFORE)
    return Verdict(Answer.ERROR, code=CANCELLED_BEFORE) if op is Op.CONFIRM else _DONE
