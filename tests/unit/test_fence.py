"""The fence: its whole table cell by cell, and what must hold over every sequence of ops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, Verdict, fence

N = 5
TABLE = """
row               | try                              | confirm                | cancel
above tried       | refused                          | stale                  | stale
above confirmed   | refused                          | stale                  | stale
above cancelled   | refused                          | stale                  | stale
below tried       | pending                          | pending                | pending
below confirmed   | granted writes tried             | error                  | done writes cancelled
below cancelled   | granted writes tried             | error                  | done writes cancelled
same tried        | granted                          | done writes confirmed  | done writes cancelled
same confirmed    | granted                          | done                   | error
same cancelled    | refused                          | error                  | done
"""
NUMBER_OF = {"above": N + 2, "below": N - 1, "same": N}
HEAD, *ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
CELLS = [(row[0], op, cell) for row in ROWS for op, cell in zip(HEAD[1:], row[1:], strict=True)]

rows = st.builds(FenceRow, st.integers(0, 4), st.sampled_from(CaseOp))
orders = st.tuples(st.integers(1, 4), st.sampled_from(Op), st.sampled_from([None, "PAY-PENDING"]))


def written(cell: str) -> tuple[str, FenceRow | None]:
    answer, _, write = cell.partition(" writes ")
    return answer, FenceRow(N, CaseOp(write)) if write else None


@pytest.mark.parametrize(("row", "op", "cell"), CELLS)
def test_every_cell_of_the_table(row: str, op: str, cell: str) -> None:
    """Each cell is a promise to somebody: a late Try refused, a repeat answered alike, a newer case left alone."""
    above_or_below, _, case_op = row.partition(" ")
    verdict = fence(FenceRow(NUMBER_OF[above_or_below], CaseOp(case_op)), N, Op(op))
    assert (str(verdict.answer), verdict.write) == written(cell)
    assert (verdict.code is not None) == (verdict.answer in (Answer.REFUSED, Answer.STALE, Answer.ERROR))


@pytest.mark.parametrize(("row", "op", "cell"), CELLS)
def test_a_business_refusal_matters_only_to_the_first_try(row: str, op: str, cell: str) -> None:
    """A Try granted before keeps its grant, or a repeat would tear a case that had already committed."""
    above_or_below, _, case_op = row.partition(" ")
    before = FenceRow(NUMBER_OF[above_or_below], CaseOp(case_op))
    if op == "try" and above_or_below == "below" and case_op != "tried":
        marked = FenceRow(N, CaseOp.CANCELLED)
        assert fence(before, N, Op.TRY, "PAY-PENDING") == Verdict(Answer.REFUSED, marked, "PAY-PENDING")
    else:
        assert fence(before, N, Op(op), "PAY-PENDING") == fence(before, N, Op(op)), cell


def test_an_account_without_a_row_counts_as_finished_number_zero() -> None:
    """The first case of a person meets no row at all."""
    assert fence(NO_ROW, 1, Op.TRY).write == FenceRow(1, CaseOp.TRIED)
    assert fence(NO_ROW, 1, Op.CANCEL).write == FenceRow(1, CaseOp.CANCELLED)
    assert fence(NO_ROW, 1, Op.CONFIRM).answer is Answer.ERROR


@given(rows, orders)
def test_a_row_never_goes_back(row: FenceRow, order: tuple[int, Op, str | None]) -> None:
    """A row that forgets a newer case would let the old one be undone over it."""
    after = fence(row, *order).write
    if after is not None:
        assert after.case_no == order[0]
        assert after.case_no > row.case_no or (after.case_no == row.case_no and row.case_op is CaseOp.TRIED)
        assert after != row


@given(rows, orders, st.sampled_from([None, "PAY-PENDING"]))
def test_a_repeat_writes_nothing_and_answers_alike(
    row: FenceRow, order: tuple[int, Op, str | None], later: str | None
) -> None:
    """Networks repeat. Whatever the business says by then, the second answer is the first and changes nothing."""
    first = fence(row, *order)
    again = fence(first.write or row, order[0], order[1], later)
    if first.write is not None:
        assert (again.answer, again.write) == (first.answer, None)


@given(st.lists(orders, max_size=30))
def test_over_any_history_no_case_is_both_confirmed_and_cancelled(history: list[tuple[int, Op, str | None]]) -> None:
    """All or nothing at one participant: a case is applied at most once, never after a refusal, never undone after."""
    row = NO_ROW
    applied, cancelled, refused = set[int](), set[int](), set[int]()
    for case_no, op, refusal in history:
        verdict = fence(row, case_no, op, refusal)
        if op is Op.TRY and verdict.answer is Answer.GRANTED:
            assert case_no not in refused
            assert case_no not in cancelled
        if op is Op.TRY and verdict.answer is Answer.REFUSED:
            refused.add(case_no)
        if verdict.write is None:
            continue
        row = verdict.write
        if row.case_op is CaseOp.CONFIRMED:
            assert case_no not in applied | cancelled
            applied.add(case_no)
        elif row.case_op is CaseOp.CANCELLED:
            assert case_no not in applied | cancelled
            cancelled.add(case_no)


@given(rows, st.integers(1, 4), st.sampled_from([Op.CONFIRM, Op.CANCEL]))
def test_an_unfinished_older_case_holds_the_row(row: FenceRow, case_no: int, op: Op) -> None:
    """Somebody else's reserve is neither applied nor released by a later number."""
    verdict = fence(row, case_no, op)
    if row.case_op is CaseOp.TRIED and row.case_no < case_no:
        assert verdict == Verdict(Answer.PENDING)
