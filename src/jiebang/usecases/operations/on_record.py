"""What is recorded of an operator's action, who and why, must not be empty."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError


def require_text(field: str, value: str) -> None:
    """Raise InvalidInputError for an empty text. `field`: its name."""
    if not value.strip():
        raise InvalidInputError(field=field, reason=Text("不可为空", "it must not be empty"))
