"""The root of our errors, and one class for each party whose fault an error may be."""

from __future__ import annotations

from typing import Any, ClassVar

from jiebang.model.check import Text


class JiebangError(Exception):
    """The root. `code` is stable and public, `title` says what is wrong, `action` what to do, `fields` particulars."""

    code: ClassVar[str] = "INTERNAL"
    title: ClassVar[Text] = Text("系统内部错误", "Something went wrong on our side")
    action: ClassVar[Text] = Text(
        "请稍后重试;若持续出现,请联系运维。", "Try again later; if it stays, tell the operators."
    )

    def __init__(self, **fields: Any) -> None:
        """Keep the particulars; they must hold nothing personal."""
        super().__init__(self.code, fields)
        self.fields = fields


class CallerError(JiebangError):
    """The caller's request cannot be carried out as it is; repeating it unchanged will not help."""


class PolicyRefusalError(JiebangError):
    """The request is well formed, but policy does not allow it now."""


class OtherSystemError(JiebangError):
    """Another system is silent or failing; trying again later may help."""


class OurFaultError(JiebangError):
    """A broken promise of ours: alarm, do not retry blindly."""


class OverloadedError(JiebangError):
    """More work than can be taken on, by nobody's fault: nothing was begun, and later the same request may pass."""
