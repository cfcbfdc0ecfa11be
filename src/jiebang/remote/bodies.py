"""Bodies of requests, for every HTTP service here: decoded, validated, and compared for whether they say the same."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from jiebang.model.check import Text
from jiebang.model.decoding import decode_any, translate_finding
from jiebang.model.errors import InvalidInputError, UndecodableError
from jiebang.model.ids import account_of
from jiebang.remote.problem_details import BodyNotJsonError

Shape = TypeVar("Shape", bound=msgspec.Struct)


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
    """Convert a decoded JSON body to `shape`, strictly: "1" is not 1. Raises InvalidInputError."""
    try:
        return msgspec.convert(_use_whole_numbers(body), shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise InvalidInputError(field=place.rstrip("`").lstrip(".") or "body", reason=translate_finding(what)) from None
    except RecursionError:
        raise InvalidInputError(field="body", reason=Text("嵌套过深", "is nested too deeply")) from None


def parse_account(text: str, field: str = "account") -> int:
    """Return the account id in a field of a body. Raises InvalidInputError."""
    account_id = account_of(text)
    if account_id is None:
        raise InvalidInputError(field=field, reason=Text("须为账户号", "must be an account id"))
    return account_id
