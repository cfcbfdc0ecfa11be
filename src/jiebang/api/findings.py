"""What msgspec finds wrong with a value, in Chinese as well: its findings come in a few fixed forms."""

from __future__ import annotations

import re
from typing import Final

from jiebang.model.check import Text

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


def in_both(finding: str) -> Text:
    """Return a finding in both languages, cut short: it may quote what the caller sent."""
    english = finding[:_LONGEST]
    for form, chinese in _FORMS:
        match = form.fullmatch(english)
        if match is not None:
            return Text(chinese.format(*match.groups()), english)
    return Text(f"内容不符合要求:{english}", english)
