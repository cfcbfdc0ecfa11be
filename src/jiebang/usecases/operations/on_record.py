"""What is kept on record of an operator's deed is never empty: who did it, and why."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError


def require_text(field: str, value: str) -> None:
    """Raise InvalidInputError for an empty text. `field`: what it says."""
    if not value.strip():
        raise InvalidInputError(field=field, reason=Text("不可为空", "it must not be empty"))
