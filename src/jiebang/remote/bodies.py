"""Validation of JSON bodies. msgspec's messages have a few fixed forms, which are translated into Chinese."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.model.ids import account_of

Shape = TypeVar("Shape", bound=msgspec.Struct)

_LONGEST: Final = 300
_FORMS: Final = tuple(
    (re.compile(form, re.DOTALL), chinese)
    for form, chinese in (
        (r"Expected `(.*)`, got `(.*)`", "须为 {0},实为 {1}"),
        (r"Object missing required field `(.*)`", "缺少字段 {0}"),
        (r"Object contains unknown field `(.*)`", "不认识的字段 {0}"),
        (r"Expected `.*` matching regex '?(.*?)'?", "格式须为 {0}"),
        (r"Expected `.*` of length (.*)", "长度须 {0}"),
        (r"Expected `.*` ([<>]=? .*)", "数值须 {0}"),
        (r"Invalid enum value (.*)", "不在可选值之中:{0}"),
        (r"Missing required (?:header|query|path|cookie)? ?parameter '?(.*?)'?(?: for .*)?", "缺少参数 {0}"),
    )
)


def translate_finding(finding: str) -> Text:
    """Return a validation message in both languages, cut short, because it may quote what the caller sent."""
    english = finding[:_LONGEST]
    for form, chinese in _FORMS:
        match = form.fullmatch(english)
        if match is not None:
            return Text(chinese.format(*match.groups()), english)
    return Text(f"内容不符合要求:{english}", english)


def convert_strictly(body: object, shape: type[Shape]) -> Shape:
    """Convert a decoded JSON body to `shape`, strictly: "1" is not 1. Raises InvalidInputError."""
    if isinstance(body, dict):
        # In JSON 1.0 is the integer 1 (JSON Schema says so too); for msgspec it is a float.
        body = {
            key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in body.items()
        }
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise InvalidInputError(field=place.rstrip("`").lstrip(".") or "body", reason=translate_finding(what)) from None


def parse_account(text: str, field: str = "account") -> int:
    """Return the account id in a field of a body. Raises InvalidInputError."""
    account_id = account_of(text)
    if account_id is None:
        raise InvalidInputError(field=field, reason=Text("须为账户号", "must be an account id"))
    return account_id
