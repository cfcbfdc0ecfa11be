"""What a remote party says is believed only where it can be true; a lie or a slip must never end a case."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.errors import InvalidInputError
from jiebang.remote import wire
from jiebang.remote.wire import IgnoreReason
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Order

ROWS = st.builds(FenceRow, st.integers(0, 4), st.sampled_from(CaseOp))


def said(*results: Any) -> bytes:
    return msgspec.json.encode({"results": results})


def one(outcome: str, case_no: int = 5, op: str = "tried", held: int = 5, **more: Any) -> dict[str, Any]:
    row = {"case_no": held, "case_op": op}
    return {"account": "1", "case_no": case_no, "outcome": outcome, "row": row, **more}


def read(op: Op, *results: Any) -> tuple[list[Reply], list[IgnoreReason]]:
    return wire.read_replies("unionpay", op, [Order(1, 5), Order(2, 5)], said(*results))


@given(ROWS, st.integers(1, 4), st.sampled_from(Op), st.sampled_from([None, "NETWORK-HOLD"]))
def test_every_answer_of_the_fence_survives_the_wire(row: FenceRow, case_no: int, op: Op, refusal: str | None) -> None:
    """A network that keeps the fence would otherwise be read as silent, or as having said something else."""
    verdict = fence(row, case_no, op, refusal)
    body = said(msgspec.to_builtins(wire.build_result(1, case_no, verdict, row)))
    replies, ignored = wire.read_replies("unionpay", op, [Order(1, case_no)], body)
    expected = Reply(1, case_no, "unionpay", op, verdict.answer, verdict.code, verdict.write or row)
    assert (replies, ignored) == ([expected], [])


@pytest.mark.parametrize(
    ("op", "result"),
    [
        (Op.TRY, one("granted", op="cancelled")),
        (Op.TRY, one("granted", held=4)),
        (Op.TRY, one("granted", held=6)),
        (Op.TRY, one("refused", code="NETWORK-HOLD")),  # refused, yet its row would admit a Confirm
        (Op.TRY, one("refused", op="cancelled")),  # no code: nobody could tell the person why
        (Op.TRY, one("refused", held=6, code="NETWORK-HOLD")),
        (Op.CONFIRM, one("granted")),
        (Op.CONFIRM, one("granted", op="cancelled")),
        (Op.CONFIRM, one("refused", op="confirmed", code="NETWORK-HOLD")),
        (Op.CONFIRM, one("refused", op="confirmed", code="FENCE-LATER-CASE")),
        (Op.CANCEL, one("granted")),
        (Op.CANCEL, one("granted", op="confirmed")),
        (Op.CANCEL, one("granted", op="cancelled", held=4)),
        (Op.CANCEL, one("refused", op="cancelled", code="NETWORK-HOLD")),
    ],
)
def test_an_answer_against_its_own_row_is_not_believed(op: Op, result: dict[str, Any]) -> None:
    """A Confirm 'granted' by a network whose row says otherwise would close a case that network never released."""
    assert read(op, result) == ([], [IgnoreReason.CONTRADICTORY])


def test_of_two_answers_that_contradict_each_other_neither_counts() -> None:
    """Else the order in which they happen to stand would decide the case."""
    granted, refused = one("granted"), one("refused", op="cancelled", code="NETWORK-HOLD")
    assert read(Op.TRY, granted, refused) == ([], [IgnoreReason.CONTRADICTORY])
    assert read(Op.TRY, refused, granted, granted)[0] == []


def test_repeats_strangers_and_rubbish_are_left_out_and_counted() -> None:
    """One bad entry must cost neither its neighbours nor the person it names."""
    replies, ignored = read(
        Op.TRY,
        one("granted"),
        one("granted"),
        one("granted", case_no=4, held=4),
        one("granted") | {"account": "9"},
        one("granted") | {"account": 2},
        one("granted") | {"account": "2", "outcome": "perhaps"},
        "?",
    )
    assert [reply.account_id for reply in replies] == [1]
    assert Counter(ignored) == {IgnoreReason.REPEATED: 1, IgnoreReason.NOT_ASKED: 2, IgnoreReason.MALFORMED: 3}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"results":{}}', b'{"results":[}', b"\xff"])
def test_an_answer_that_is_none_is_refused_whole(body: bytes) -> None:
    """An error page of a proxy must read as silence, not as 'no case answered'."""
    with pytest.raises(InvalidInputError):
        wire.read_replies("unionpay", Op.TRY, [Order(1, 5)], body)


@given(st.binary(max_size=200), st.sampled_from(Op))
def test_no_answer_makes_the_reader_stumble(body: bytes, op: Op) -> None:
    """Bytes from outside may only ever be refused in our own words: any other exception would stop the worker."""
    with suppress(InvalidInputError):
        wire.read_replies("unionpay", op, [Order(1, 5)], body)
    with suppress(InvalidInputError):
        wire.read_look(body, [1])


def test_a_pending_answer_is_asked_again_whatever_the_row_says() -> None:
    """A network that is still working must not be taken for one that refused."""
    replies, _ = read(Op.CONFIRM, one("pending"))
    assert [reply.answer for reply in replies] == [Answer.PENDING]


@pytest.mark.parametrize(
    "rows",
    [
        [{"account": "3", "case_no": 1, "case_op": "tried"}],
        [{"account": "1", "case_no": 1, "case_op": "tried"}, {"account": "1", "case_no": 2, "case_op": "tried"}],
    ],
)
def test_a_look_that_names_strangers_or_an_account_twice_is_refused(rows: list[dict[str, Any]]) -> None:
    """Recovery raises case numbers above what a look says; it must not be led astray."""
    with pytest.raises(InvalidInputError):
        wire.read_look(msgspec.json.encode({"rows": rows}), [1, 2])


@pytest.mark.parametrize(
    ("case", "place"),
    [
        ({"account": 1, "case_no": 1}, "$.cases[0].account"),
        ({"account": "0", "case_no": 1}, "$.cases[0].account"),
        ({"account": "1\n", "case_no": 1}, "$.cases[0].account"),
        ({"account": "١", "case_no": 1}, "$.cases[0].account"),
        ({"account": "1", "case_no": 0}, "$.cases[0].case_no"),
        ({"account": "1", "case_no": 1 << 32}, "$.cases[0].case_no"),
        ({"account": "1", "case_no": 1, "op": "try"}, "$.cases[0]"),
    ],
)
def test_a_wrong_request_is_told_where_it_is_wrong(case: dict[str, Any], place: str) -> None:
    """Another team implementing the protocol must find its mistake from the answer alone."""
    with pytest.raises(InvalidInputError) as caught:
        wire.parse(msgspec.json.encode({"cases": [case]}), wire.CaseBatch)
    assert caught.value.fields["field"] == place
