"""The remote-participant protocol's messages, and the validation of replies. Shared by both ends, no I/O.

docs/remote-participants.md says the same in words, for whoever implements the other side.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from jiebang.model.check import Text
from jiebang.model.decoding import build_error, decode
from jiebang.model.errors import InvalidInputError, UndecodableError
from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import LATER_CASE, Answer, CaseOp, FenceRow, Op, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.saga.orders import Order

MAX_BATCH: Final = 1024
"""Cases, or accounts of a look, in one request."""
MAX_BODY: Final = 1 << 20
"""Bytes of a request or a reply. A full batch is well below."""

AccountText = Annotated[str, Meta(pattern=rf"\A{ACCOUNT_PATTERN.strip('^$')}\Z")]
"""An account in JSON: a decimal string, so that no JSON reader rounds it."""
CaseNo = Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
Code = Annotated[str, Meta(pattern=r"\A[A-Z0-9][A-Z0-9-]{0,63}\Z")]


class CaseOutcome(StrEnum):
    """The party's answer for one case."""

    GRANTED = "granted"
    REFUSED = "refused"
    PENDING = "pending"


class CaseOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One case of a Try, Confirm or Cancel. `version`: the facts_version that a Try requires, if any."""

    account: AccountText
    case_no: CaseNo
    version: Annotated[int, Meta(ge=1)] | None = None


class CaseBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a Try, Confirm or Cancel. `effects`: those of the plan, for a Try and a Confirm.

    `operation`: the party's operation that the plan names; absent: the one it had before operations had names.
    """

    cases: Annotated[list[CaseOrder], Meta(min_length=1, max_length=MAX_BATCH)]
    effects: dict[str, Any] = {}
    operation: Annotated[str, Meta(pattern=r"\A([a-z][a-z0-9_]{0,63})?\Z")] = ""


class ResultRow(msgspec.Struct, frozen=True, gc=False):
    """The party's fence row of the account after the op (0, cancelled: none)."""

    case_no: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
    case_op: CaseOp


class Result(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The result for one case. `code`: the reason of a refusal."""

    account: AccountText
    case_no: CaseNo
    outcome: CaseOutcome
    row: ResultRow
    code: Code | None = None


class Results(msgspec.Struct, frozen=True):
    """The answer to a batch, in any order; the outcome of a missing case is unknown."""

    results: list[Result]


class LookBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a look."""

    accounts: Annotated[list[AccountText], Meta(min_length=1, max_length=MAX_BATCH)]


class MarksRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a read of marks: accounts above `after`, up to and with `upto`."""

    after: Annotated[str, Meta(pattern=rf"\A(0|{ACCOUNT_PATTERN.strip('^$')})\Z")]
    upto: AccountText


class LookRow(msgspec.Struct, frozen=True, gc=False):
    """One account's fence row."""

    account: AccountText
    case_no: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
    case_op: CaseOp


class LookResults(msgspec.Struct, frozen=True):
    """The answer to a look, without accounts that have no row."""

    rows: list[LookRow]


class _RawResults(msgspec.Struct, frozen=True):
    results: list[msgspec.Raw]


T = TypeVar("T")


def parse(body: bytes, shape: type[T]) -> T:
    """Decode a message strictly. Raises InvalidInputError with the place (`field`) and the reason in both languages."""
    return decode(body, shape)


def convert(value: Any, shape: type[T]) -> T:
    """Convert a decoded value to `shape`, as strictly as `parse`. Raises InvalidInputError."""
    try:
        return msgspec.convert(value, type=shape)
    except msgspec.ValidationError as error:
        raise build_error(error) from error


def build_result(account_id: int, case_no: int, verdict: Verdict, before: FenceRow) -> Result:
    """Return the fence's verdict on one case as a result. `before`: the row that the fence judged by."""
    row = verdict.write or before
    return Result(str(account_id), case_no, OUTCOMES[verdict.answer], ResultRow(row.case_no, row.case_op), verdict.code)


OUTCOMES: Final[Mapping[Answer, CaseOutcome]] = {
    Answer.GRANTED: CaseOutcome.GRANTED,
    Answer.DONE: CaseOutcome.GRANTED,
    Answer.REFUSED: CaseOutcome.REFUSED,
    Answer.STALE: CaseOutcome.REFUSED,
    Answer.ERROR: CaseOutcome.REFUSED,
    Answer.PENDING: CaseOutcome.PENDING,
}
"""How the protocol writes each answer."""


class IgnoreReason(StrEnum):
    """Why a result was ignored."""

    MALFORMED = "malformed"
    NOT_ASKED = "not_asked"
    REPEATED = "repeated"
    CONTRADICTORY = "contradictory"


def read_replies(
    participant: str, op: Op, orders: Sequence[Order], body: bytes
) -> tuple[list[Reply], list[IgnoreReason]]:
    """Read the answer to a batch: at most one reply per order, and the reason for each ignored result.

    A result is ignored where it is malformed, was not asked for, repeats an earlier one, or contradicts another or
    its own fence row; of two that contradict each other both are ignored. Raises InvalidInputError where the answer
    as a whole violates the protocol.
    """
    results, ignored = _parse_results(body)
    asked = {(order.account_id, order.case_no) for order in orders}
    accepted = dict[tuple[int, int], Result]()
    contradicted = set[tuple[int, int]]()
    for one in results:
        key = (int(one.account), one.case_no)
        if key not in asked:
            ignored.append(IgnoreReason.NOT_ASKED)
        elif not _is_consistent(op, one):
            ignored.append(IgnoreReason.CONTRADICTORY)
            contradicted.add(key)
        elif key not in accepted:
            accepted[key] = one
        elif accepted[key] == one:
            ignored.append(IgnoreReason.REPEATED)
        else:
            ignored.append(IgnoreReason.CONTRADICTORY)
            contradicted.add(key)
    return [
        Reply(
            account, case_no, participant, op, _to_answer(op, one), one.code, FenceRow(one.row.case_no, one.row.case_op)
        )
        for (account, case_no), one in accepted.items()
        if (account, case_no) not in contradicted
    ], ignored


def _parse_results(body: bytes) -> tuple[list[Result], list[IgnoreReason]]:
    try:
        return decode(body, Results, count_members=_count_members).results, []
    except UndecodableError:
        raise
    except InvalidInputError:
        good, ignored = list[Result](), list[IgnoreReason]()
        for raw in parse(body, _RawResults).results:
            try:
                good.append(decode(bytes(raw), Result))
            except InvalidInputError:
                ignored.append(IgnoreReason.MALFORMED)
        return good, ignored


def _count_members(whole: Results) -> int:
    """Return the members of an answer as we write it ourselves: a full batch is not read twice."""
    return 1 + sum(6 if one.code is None else 7 for one in whole.results)


def _is_consistent(op: Op, one: Result) -> bool:
    """Return whether outcome and fence row are consistent (the fence's table, read from the answer)."""
    here, row = one.row.case_no == one.case_no, one.row
    if one.outcome is CaseOutcome.PENDING:
        return True
    if one.outcome is CaseOutcome.GRANTED:
        return here and row.case_op in _HELD_AFTER[op]
    if one.code is None or (one.code == LATER_CASE) != (row.case_no > one.case_no):
        return False
    if op is Op.TRY:
        return row.case_no > one.case_no or (here and row.case_op is CaseOp.CANCELLED)
    return not (here and row.case_op in _HELD_AFTER[op])


_HELD_AFTER: Final[Mapping[Op, tuple[CaseOp, ...]]] = {
    Op.TRY: (CaseOp.TRIED, CaseOp.CONFIRMED),
    Op.CONFIRM: (CaseOp.CONFIRMED,),
    Op.CANCEL: (CaseOp.CANCELLED,),
}
"""The states that a row at the case's own number may have once the op was granted."""


def _to_answer(op: Op, one: Result) -> Answer:
    if one.outcome is CaseOutcome.PENDING:
        return Answer.PENDING
    if op is Op.TRY:
        return Answer.GRANTED if one.outcome is CaseOutcome.GRANTED else Answer.REFUSED
    if one.outcome is CaseOutcome.GRANTED:
        return Answer.DONE
    return Answer.STALE if one.code == LATER_CASE else Answer.ERROR


def read_marks(body: bytes, after: int, upto: int) -> dict[int, FenceRow]:
    """Read the answer to a read of marks. Raises InvalidInputError for rows out of the range, or out of order."""
    rows = parse(body, LookResults).rows
    accounts = [int(row.account) for row in rows]
    if len(rows) > MAX_BATCH or not all(below < above for below, above in pairwise([after, *accounts, upto + 1])):
        raise InvalidInputError(
            field="$.rows", reason=Text("账户越界、重复或未排序", "an account out of range, twice, or out of order")
        )
    return {
        account: FenceRow(row.case_no, row.case_op) for account, row in zip(accounts, rows, strict=True) if row.case_no
    }


def read_look(body: bytes, accounts: Sequence[int]) -> dict[int, FenceRow]:
    """Read the answer to a look. Raises InvalidInputError for accounts that were not asked for, or twice."""
    rows = parse(body, LookResults).rows
    fence_rows = {int(row.account): FenceRow(row.case_no, row.case_op) for row in rows}
    if len(fence_rows) != len(rows) or not fence_rows.keys() <= set(accounts):
        raise InvalidInputError(
            field="$.rows", reason=Text("含有未询问或重复的账户", "an account not asked for, or twice")
        )
    return fence_rows
