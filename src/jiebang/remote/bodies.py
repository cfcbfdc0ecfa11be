"""Bodies of requests, for every HTTP service here: decoded, validated, and compared for whether they say the same."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.check import Text
from jiebang.model.decoding import decode_any, translate_finding
from jiebang.model.errors import InvalidInputError, UndecodableError
from jiebang.model.ids import account_of
from jiebang.model.plain import find_acting, make_plain
from jiebang.remote.problem_details import BodyNotJsonError

Shape = TypeVar("Shape", bound=msgspec.Struct)


_FIELD_LONGEST: Final = 300
"""So much of the place of a fault is told."""


def decode_body(body: bytes) -> Any:
    """Decode a JSON body. Raises BodyNotJsonError, and InvalidInputError for a name that stands twice."""
    try:
        return decode_any(body)
    except UndecodableError as error:
        raise BodyNotJsonError(reason=error.fields["reason"]) from None


def fingerprint(body: bytes) -> bytes:
    """Return what two bodies that say the same have in common, for the Idempotency-Key.

    JSON objects are unordered (RFC 8259, 4), so the order of names, spaces, and how a letter or a number is written say
    nothing. A body that is not JSON stands for itself.
    """
    try:
        return msgspec.json.encode(_use_whole_numbers(decode_any(body)), order="sorted")
    except (InvalidInputError, RecursionError):
        return body


def _use_whole_numbers(value: Any) -> Any:
    """Write 1.0 as 1, at every depth: in JSON they are the same number (JSON Schema says so too)."""
    if isinstance(value, dict):
        return {key: _use_whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_use_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def convert_strictly(body: object, shape: type[Shape]) -> Shape:
    """Convert a decoded JSON body to `shape`, strictly: "1" is not 1. Raises InvalidInputError.

    Text with characters that act on a reader's screen, or that a database refuses, is refused.
    """
    require_plain(body)
    try:
        return msgspec.convert(_use_whole_numbers(body), shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise InvalidInputError(field=place.rstrip("`").lstrip(".") or "body", reason=translate_finding(what)) from None
    except RecursionError:
        raise InvalidInputError(field="body", reason=Text("嵌套过深", "is nested too deeply")) from None


def require_plain(body: object) -> None:
    """Raise InvalidInputError for text in a decoded body, names of fields too, that holds an acting character."""
    waiting = [("", body)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            for name, each in value.items():
                inside = f"{place}.{name}".lstrip(".")
                waiting += [(inside, each), (inside, name)]
        elif isinstance(value, list):
            waiting += [(f"{place}[{index}]", each) for index, each in enumerate(value)]
        elif isinstance(value, str) and (found := find_acting(value)) is not None:
            reason = Text(f"含有不允许的控制字符 {found}", f"holds the control character {found}")
            raise InvalidInputError(field=make_plain(place, lines=False)[:_FIELD_LONGEST] or "body", reason=reason)


def parse_account(text: str, field: str = "account") -> int:
    """Return the account id in a field of a body. Raises InvalidInputError."""
    account_id = account_of(text)
    if account_id is None:
        raise InvalidInputError(field=field, reason=Text("须为账户号", "must be an account id"))
    return account_id
