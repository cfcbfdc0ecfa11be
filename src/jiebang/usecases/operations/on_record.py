"""What is recorded of an operator's action, who and why, must not be empty."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.model.plain import find_acting


def require_text(field: str, value: str) -> None:
    """Raise InvalidInputError for an empty text, or one with characters that act on a reader. `field`: its name."""
    if not value.strip():
        raise InvalidInputError(field=field, reason=Text("不可为空", "it must not be empty"))
    found = find_acting(value)
    if found is not None:
        reason = Text(f"含有不允许的控制字符 {found}", f"it holds the control character {found}")
        raise InvalidInputError(field=field, reason=reason)
