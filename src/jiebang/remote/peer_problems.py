"""What a peer says of its refusal: code and detail of its problem details (RFC 9457), cleaned for logs and terminals.

A peer is another team's program: whatever it writes may hold control characters, text that runs the other way, or
somebody's number. What is kept is short, printable, and without long runs of digits.
"""

from __future__ import annotations

import re
from typing import Any, Final

from jiebang.model.decoding import decode_any
from jiebang.model.errors import InvalidInputError

_CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{0,63}")
_NUMBER: Final = re.compile(r"\d{5,}")
_LONGEST: Final = 200
_HIDDEN: Final = "#"
"""Stands in place of a number that may be an account's, a card's or a document's."""


def read_peer_problem(body: bytes) -> tuple[str | None, str | None]:
    """Return the code and the detail of a peer's refusal; None for what is missing or cannot be read.

    The detail is what our own form of a problem says of its `fields` (its `detail` says what to do), else the problem's
    `detail`, else its `title`.
    """
    try:
        problem = decode_any(body)
    except InvalidInputError:
        return None, None
    if not isinstance(problem, dict):
        return None, None
    code = problem.get("code")
    known = isinstance(code, str) and _CODE.fullmatch(code) is not None
    details = (_fault_of_field(problem.get("fields")), problem.get("detail"), problem.get("title"))
    cleaned = (clean(detail) for detail in details if isinstance(detail, str))
    return code if known else None, next(filter(None, cleaned), None)


def clean(text: str) -> str:
    """Return a peer's text on one line, printable, without long numbers, cut to 200 characters."""
    plain = "".join(one if one.isprintable() else " " for one in text[: 8 * _LONGEST])
    return _NUMBER.sub(_HIDDEN, " ".join(plain.split()))[:_LONGEST]


def _fault_of_field(fields: Any) -> str | None:
    if not isinstance(fields, dict):
        return None
    field, reason = fields.get("field"), fields.get("reason")
    words = reason.get("en") if isinstance(reason, dict) else reason
    said = [one for one in (field, words) if isinstance(one, str)]
    return ": ".join(said) or None
