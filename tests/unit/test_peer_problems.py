"""A peer's problem details: what reaches a log, a task and a terminal of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.remote.peer_problems import clean, read_peer_problem


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("answer", "code", "detail"),
    [
        (body(code="EFFECTS-UNKNOWN", detail="no effect 'x'"), "EFFECTS-UNKNOWN", "no effect 'x'"),
        (body(title="Unprocessable"), None, "Unprocessable"),
        (body(code="A", title="t", fields={"field": "$.x", "reason": {"zh": "错", "en": "wrong"}}), "A", "$.x: wrong"),
        (body(code="A", fields={"field": "$.x", "reason": "wrong"}), "A", "$.x: wrong"),
        (body(code="lower", detail=7, title=None, fields=[1]), None, None),
        (body(code=["A"], detail=""), None, None),
        (b"[]", None, None),
        (b"{", None, None),
        (b'{"detail": "\xff"}', None, None),
        (b"[" * 10_000, None, None),
        (b"", None, None),
    ],
)
def test_what_is_said_is_read_and_what_is_not_is_none(answer: bytes, code: str | None, detail: str | None) -> None:
    """The team at the other end wrote the reason down; an operator at night must be able to read it."""
    assert read_peer_problem(answer) == (code, detail)


def test_what_would_steer_a_terminal_or_name_a_person_is_cleaned() -> None:
    """Another team's program writes into our operators' terminals and logs."""
    text = "account 88001234 \x1b[2J\u202eabc\n\x00 card 6214830000000000001"
    assert clean(text) == "account # [2J abc card #"
    assert len(clean("x" * 5_000)) == 200


@given(st.binary(max_size=300) | st.dictionaries(st.text(), st.text() | st.integers()).map(lambda one: body(**one)))
def test_no_answer_breaks_the_reader(answer: bytes) -> None:
    """One bad peer must not become an error of ours."""
    code, detail = read_peer_problem(answer)
    assert code is None or code.isascii()
    assert detail is None or detail.isprintable()
