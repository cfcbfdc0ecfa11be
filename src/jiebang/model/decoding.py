"""Decodes JSON that comes from outside: bodies, tokens, key sets, peers' answers, files. One standard, one error.

The text must be UTF-8 without a byte order mark (RFC 8259, 8.1) and have no name twice in one object (RFC 7493, 2.3):
whoever reads the first and whoever reads the last would otherwise understand two different things. What msgspec raises
beside its own errors, for bytes that are no UTF-8 and for text nested too deep, is the same error here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError, UndecodableError
from jiebang.model.ids import ACCOUNT_PATTERN, MAX_ACCOUNT

T = TypeVar("T")

_LONGEST: Final = 300
_NAME_LONGEST: Final = 64
_TWICE: Final = Text("同一对象中出现重复的名称", "the name stands twice in one object")
_NO_UTF8: Final = Text("不是有效的 UTF-8", "is not valid UTF-8")
_TOO_DEEP: Final = Text("嵌套过深", "is nested too deeply")
_NO_JSON: Final = Text("不是有效的 JSON", "is not valid JSON")
_NO_ACCOUNT: Final = Text(f"须为账户号(1 至 {MAX_ACCOUNT})", f"must be an account id (1 to {MAX_ACCOUNT})")
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


class _RepeatedNameError(ValueError):
    """A name stands twice in one object."""


def decode(content: bytes | str, shape: type[T], *, count_members: Callable[[T], int] | None = None) -> T:
    """Decode JSON from outside as `shape`.

    `count_members`: for large texts, how many members (name and value) the decoded value accounts for; where the text
    has no more colons than that, no name can stand twice, and it need not be read again to find out.

    Raises InvalidInputError (fields: field, reason) and nothing else; UndecodableError, one kind of it, where the text
    is no JSON at all.
    """
    try:
        text = content if isinstance(content, str) else str(content, "utf-8")
        decoded = msgspec.json.decode(text, type=shape)
        few = text.count(":") <= (1 if count_members is None else count_members(decoded))
        # As fast as msgspec where it can be: a text that is written as we would write what it says, says nothing twice.
        if not few and msgspec.json.encode(decoded) != text.encode():
            json.loads(text, object_pairs_hook=_refuse_repeats)
    except msgspec.ValidationError as error:
        raise build_error(error) from error
    except _RepeatedNameError as error:
        raise InvalidInputError(field=str(error), reason=_TWICE) from None
    except UnicodeError:  # its message quotes the text
        raise UndecodableError(field="$", reason=_NO_UTF8) from None
    except RecursionError:
        raise UndecodableError(field="$", reason=_TOO_DEEP) from None
    except (msgspec.MsgspecError, ValueError):
        raise UndecodableError(field="$", reason=_NO_JSON) from None
    return decoded


def decode_any(content: bytes | str) -> Any:
    """Decode JSON of any shape. Raises as `decode` does."""
    anything: Any = Any
    return decode(content, anything)


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) == len(pairs):
        return
    for name, _ in pairs:
        if name not in names:
            printable = name[:_NAME_LONGEST].encode("ascii", "backslashreplace").decode()
            raise _RepeatedNameError(printable)
        names.discard(name)


def build_error(error: msgspec.ValidationError) -> InvalidInputError:
    """Return what msgspec says of a value: the place as `field`, the reason in both languages."""
    what, _, place = str(error).partition(" - at `")
    return InvalidInputError(field=place.rstrip("`") or "$", reason=translate_finding(what))


def translate_finding(finding: str) -> Text:
    """Return a validation message in both languages, cut short, because it may quote what the caller sent."""
    if ACCOUNT_PATTERN.strip("^$") in finding:
        return _NO_ACCOUNT
    english = finding[:_LONGEST]
    for form, chinese in _FORMS:
        match = form.fullmatch(english)
        if match is not None:
            return Text(chinese.format(*match.groups()), english)
    return Text(f"内容不符合要求:{english}", english)
