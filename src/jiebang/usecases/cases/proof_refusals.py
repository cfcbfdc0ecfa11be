"""The refusals of a proof."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from jiebang.model.check import Text
from jiebang.model.errors import ProofRefusedError
from jiebang.model.proof import Method


class RefusalCause(StrEnum):
    """Why a proof was not accepted."""

    WRONG = "wrong"
    USED_UP = "used_up"
    LOCKED = "locked"
    EXPIRED = "expired"
    ACCEPTED = "accepted"
    NOT_ASKED = "not_asked"
    NOT_AWAITED = "not_awaited"


REASONS: Final = {
    RefusalCause.WRONG: Text("不正确", "It is wrong"),
    RefusalCause.USED_UP: Text("本次申请的可试次数已用完", "This case has no tries left"),
    RefusalCause.LOCKED: Text(
        "近期错误次数过多,请明日再试、在主设备上解除锁定,或联系客服",
        "Too many wrong tries of late: try tomorrow, free your proofs on your primary device, or ask for help",
    ),
    RefusalCause.EXPIRED: Text("已过期,请重新获取", "It has expired: ask for a new one"),
    RefusalCause.ACCEPTED: Text("此项已通过,无需重复", "This proof was accepted before"),
    RefusalCause.NOT_ASKED: Text("此申请不需要该项验证", "This case does not ask for it"),
    RefusalCause.NOT_AWAITED: Text("此申请已不再等待验证", "The case no longer waits for a proof"),
}


def make_refusal(method: Method, cause: RefusalCause, tries_left: int) -> ProofRefusedError:
    """Return the error that refuses a proof."""
    return ProofRefusedError(method=method.value, cause=cause.value, reason=REASONS[cause], tries_left=tries_left)
