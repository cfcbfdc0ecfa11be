"""What a lying clearing network answers, made from the truth. Pure: the network keeps its ledger as it should.

A liar can do harm only where what it says can be believed. The protocol refuses (remote/wire.py): an answer for a
case that was not asked about, two answers that contradict each other or their own fence row, an answer to another
request. What is left to a liar is to refuse and to be silent, and both the saga can bear: a refused Try rolls back, a
refused Confirm or Cancel waits for an operator. A network that says "granted" and reserves nothing cannot be found
out before its Confirm; then it refuses, is parked, and the audit names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.remote.wire import Outcome, Result, Row
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op
from jiebang.sandbox.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

SAID: Final = "NETWORK-LIES"
"""The code that a liar refuses with."""
_UNASKED: Final = 8
"""Grants of cases refused before that a fickle network adds to its answers."""


class Grudges:
    """The cases that a fickle network has reserved and refused: what it grants later on. Lost when the process ends."""

    def __init__(self) -> None:
        """Begin with none."""
        self._cases: dict[tuple[int, int], None] = {}

    def take(self, results: Iterable[Result]) -> list[Result]:
        """Refuse the grants that were never refused before, and remember them."""
        return [self._refused(one) if self._new(one) else one for one in results]

    def _new(self, one: Result) -> bool:
        granted = one.outcome is Outcome.GRANTED and one.row.case_op is CaseOp.TRIED
        return granted and (int(one.account), one.case_no) not in self._cases

    def _refused(self, one: Result) -> Result:
        self._cases[int(one.account), one.case_no] = None
        return _refusal(one)

    def unasked(self, asked: Collection[tuple[int, int]]) -> list[Result]:
        """Grant some of the cases that were refused and that nobody asks about now."""
        idle = [case for case in self._cases if case not in asked][-_UNASKED:]
        return [Result(str(account), no, Outcome.GRANTED, Row(no, CaseOp.TRIED)) for account, no in idle]


def told(lie: FaultKind | None, op: Op, results: Sequence[Result], grudges: Grudges) -> list[Result]:
    """Return what a network answers that tells this lie, where `results` is the truth."""
    said = list(results)
    match lie:
        case FaultKind.FICKLE:
            asked = {(int(one.account), one.case_no) for one in results}
            return (grudges.take(said) if op is Op.TRY else said) + grudges.unasked(asked)
        case FaultKind.TWO_VOICES:
            return said + [_refusal(one) if one.outcome is Outcome.GRANTED else _grant(op, one) for one in said]
        case FaultKind.STRANGE:
            return _strange(said)
        case _:
            return said


def denied(cases: Sequence[tuple[int, int]], rows: Mapping[int, FenceRow]) -> list[Result]:
    """Refuse every case, its fence row untouched and told as it is."""
    held = [(account, no, rows.get(account, NO_ROW)) for account, no in cases]
    return [Result(str(account), no, Outcome.REFUSED, Row(row.case_no, row.case_op), SAID) for account, no, row in held]


def _refusal(one: Result) -> Result:
    return msgspec.structs.replace(one, outcome=Outcome.REFUSED, row=Row(one.case_no, CaseOp.CANCELLED), code=SAID)


_AFTER: Final = {Op.TRY: CaseOp.TRIED, Op.CONFIRM: CaseOp.CONFIRMED, Op.CANCEL: CaseOp.CANCELLED}


def _grant(op: Op, one: Result) -> Result:
    row = Row(one.case_no, _AFTER[op])
    return msgspec.structs.replace(one, outcome=Outcome.GRANTED, row=row, code=None)


def _strange(results: Sequence[Result]) -> list[Result]:
    """Answer for the next case of each account asked about, and for its neighbour, and for none that was asked."""
    asked, accounts = {(one.account, one.case_no) for one in results}, {one.account for one in results}
    next_cases = [msgspec.structs.replace(one, case_no=one.case_no + 1) for one in results]
    neighbours = [msgspec.structs.replace(one, account=str(int(one.account) + 1)) for one in results]
    return [one for one in next_cases if (one.account, one.case_no) not in asked] + [
        one for one in neighbours if one.account not in accounts
    ]
