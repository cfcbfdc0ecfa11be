"""Findings in both languages: a Chinese reader is told what is wrong with a field, not only that something is."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import Kind
from jiebang.model.decoding import translate_finding


class Body(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    amount: Annotated[int, msgspec.Meta(ge=1)] = 1
    name: Annotated[str, msgspec.Meta(pattern="^a$")] = "a"
    many: Annotated[list[int], msgspec.Meta(min_length=1)] | None = None


@pytest.mark.parametrize(
    ("body", "chinese"),
    [
        ({"kind": 1}, "须为 str,实为 int"), ({}, "缺少字段 kind"), ({"kind": "revoke", "x": 1}, "不认识的字段 x"),
        ({"kind": "revoke", "name": "b"}, "格式须为 ^a$"), ({"kind": "revoke", "many": []}, "长度须 >= 1"),
        ({"kind": "revoke", "amount": 0}, "数值须 >= 1"), ({"kind": "vanish"}, "不在可选值之中:'vanish'"),
        ([], "须为 object,实为 array"),
    ],
)  # fmt: skip
def test_what_msgspec_really_says(body: object, chinese: str) -> None:
    """The forms are msgspec's own: a new version that words them otherwise fails here, not at a reader's."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(body, Body)
    assert translate_finding(str(caught.value).partition(" - at ")[0]).zh == chinese


@given(st.text(max_size=1000))
def test_anything_is_survived(finding: str) -> None:
    """A finding quotes the caller: braces and all."""
    both = translate_finding(finding)
    assert len(both.en) <= 300
    assert both.zh
