"""Turns the true answer of a clearing network into a false one. Pure: the network's ledger stays correct.

The protocol rejects (remote/wire.py) an answer for a case not in the request, two answers that contradict each other
or their own fence row, and an answer to another request. A lying network can still refuse and be silent, and the saga
handles both: a refused Try rolls back, a refused Confirm or Cancel waits for an operator. A network that answers
"granted" and reserves nothing is found out only at its Confirm: it refuses, is parked, and the audit names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.remote.wire import CaseOutcome, Result, ResultRow
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op
from jiebang.sandbox.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

SAID: Final = "NETWORK-LIES"
"""The code that a liar refuses with."""
_UNASKED: Final = 8
"""Grants of cases refused before that a fickle network adds to its answers."""


class FickleMemory:
    """Cases that a fickle network reserved but refused, to grant them later. Lost when the process ends."""

    def __init__(self) -> None:
        """Begin empty."""
        self._cases: dict[tuple[int, int], None] = {}

    def take(self, results: Iterable[Result]) -> list[Result]:
        """Turn grants of cases not refused before into refusals, and remember these cases."""
        return [self._refuse(one) if self._new(one) else one for one in results]

    def _new(self, one: Result) -> bool:
        granted = one.outcome is CaseOutcome.GRANTED and one.row.case_op is CaseOp.TRIED
        return granted and (int(one.account), one.case_no) not in self._cases

    def _refuse(self, one: Result) -> Result:
        self._cases[int(one.account), one.case_no] = None
        return _refusal(one)

    def unasked(self, asked: Collection[tuple[int, int]]) -> list[Result]:
        """Return grants for some refused cases that are not in the present request, `asked`."""
        idle = [case for case in self._cases if case not in asked][-_UNASKED:]
        return [Result(str(account), no, CaseOutcome.GRANTED, ResultRow(no, CaseOp.TRIED)) for account, no in idle]


def apply_lie(lie: FaultKind | None, op: Op, results: Sequence[Result], memory: FickleMemory) -> list[Result]:
    """Return the answers of a network that tells this lie; `results`: the true ones."""
    answers = list(results)
    match lie:
        case FaultKind.FICKLE:
            asked = {(int(one.account), one.case_no) for one in results}
            return (memory.take(answers) if op is Op.TRY else answers) + memory.unasked(asked)
        case FaultKind.TWO_VOICES:
            return answers + [
                _refusal(one) if one.outcome is CaseOutcome.GRANTED else _grant(op, one) for one in answers
            ]
        case FaultKind.STRANGE:
            return _answer_strangers(answers)
        case _:
            return answers


def deny_all(cases: Sequence[tuple[int, int]], rows: Mapping[int, FenceRow]) -> list[Result]:
    """Refuse every case, with its fence row as it is."""
    rows_held = [(account, no, rows.get(account, NO_ROW)) for account, no in cases]
    return [
        Result(str(account), no, CaseOutcome.REFUSED, ResultRow(row.case_no, row.case_op), SAID)
        for account, no, row in rows_held
    ]


def _refusal(one: Result) -> Result:
    return msgspec.structs.replace(
        one, outcome=CaseOutcome.REFUSED, row=ResultRow(one.case_no, CaseOp.CANCELLED), code=SAID
    )


_AFTER: Final = {Op.TRY: CaseOp.TRIED, Op.CONFIRM: CaseOp.CONFIRMED, Op.CANCEL: CaseOp.CANCELLED}


def _grant(op: Op, one: Result) -> Result:
    row = ResultRow(one.case_no, _AFTER[op])
    return msgspec.structs.replace(one, outcome=CaseOutcome.GRANTED, row=row, code=None)


def _answer_strangers(results: Sequence[Result]) -> list[Result]:
    """Return answers for the next case of each account and for the next account, but for no case of the request."""
    asked, accounts = {(one.account, one.case_no) for one in results}, {one.account for one in results}
    next_cases = [msgspec.structs.replace(one, case_no=one.case_no + 1) for one in results]
    neighbours = [msgspec.structs.replace(one, account=str(int(one.account) + 1)) for one in results]
    return [one for one in next_cases if (one.account, one.case_no) not in asked] + [
        one for one in neighbours if one.account not in accounts
    ]
