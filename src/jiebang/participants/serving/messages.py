"""What a participant's service reads of a request: the batch of an op, and the single-case form."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.remote import wire
from jiebang.saga.fence import Op

_GID: Final = re.compile(r"\A([1-9][0-9]{0,15})-([1-9][0-9]{0,9})\Z")
SINGLE_STATUS: Final[Mapping[wire.CaseOutcome, HTTPStatus]] = {
    wire.CaseOutcome.GRANTED: HTTPStatus.OK,
    wire.CaseOutcome.REFUSED: HTTPStatus.CONFLICT,
    wire.CaseOutcome.PENDING: HTTPStatus.TOO_EARLY,
}
"""The status of an answer in the single-case form, by DTM's convention."""


class ReceivedBatch(msgspec.Struct, frozen=True):
    """A batch as it was received: (account, case number) of each case, and the plan's operation and effects."""

    cases: Sequence[tuple[int, int]]
    operation: str
    effects: Mapping[str, object]


def read_batch(body: bytes, operations: Collection[str]) -> ReceivedBatch:
    """Read the body of a Try, Confirm or Cancel, strictly. Raises InvalidInputError."""
    batch = wire.parse(body, wire.CaseBatch)
    if batch.operation and batch.operation not in operations:
        known = ", ".join(operations)
        reason = Text(f"没有此操作；可用：{known}", f"there is no such operation; known are {known}")
        raise InvalidInputError(field="$.operation", reason=reason)
    cases = [(int(case.account), case.case_no) for case in batch.cases]
    if len(set(cases)) != len(cases):
        raise InvalidInputError(field="$.cases", reason=Text("同一笔重复出现", "a case is named twice"))
    return ReceivedBatch(cases, batch.operation, batch.effects)


def read_single_case(parameters: Mapping[str, Sequence[str]]) -> tuple[Op, tuple[int, int]]:
    """Read the query of the single-case form: the op, and (account, case number). Raises InvalidInputError."""
    for name, values in parameters.items():
        if name not in {"gid", "branch_id", "op", "trans_type"} or len(values) != 1:
            raise InvalidInputError(
                field=name, reason=Text("未知或重复的参数", "an unknown parameter, or one named twice")
            )
    query = {name: values[0] for name, values in parameters.items()}
    match = _GID.match(query.get("gid", ""))
    if match is None or not query.get("branch_id"):
        raise InvalidInputError(
            field="gid, branch_id",
            reason=Text("gid 须为“账户号-案号”,且须有 branch_id", "gid is account-case_no; branch_id must be set"),
        )
    if query.get("op") not in set(Op) or query.get("trans_type", "tcc") != "tcc":
        raise InvalidInputError(
            field="op, trans_type", reason=Text("op 须为 try、confirm 或 cancel", "op is try, confirm or cancel")
        )
    case = wire.convert({"account": match[1], "case_no": int(match[2])}, wire.CaseOrder)
    return Op(query["op"]), (int(case.account), case.case_no)
