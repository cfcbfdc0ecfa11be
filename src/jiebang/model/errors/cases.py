"""Errors of cases, checks, proofs and remedies."""

from __future__ import annotations

from jiebang.model.check import CheckAnswer, Text
from jiebang.model.errors.base import CallerError, PolicyRefusalError


class UnknownCaseError(CallerError):
    """No such case, or not the caller's. fields: case."""

    code = "UNKNOWN-CASE"
    title = Text("申请不存在", "There is no such case")
    action = Text("请核对申请编号。", "Check the case number.")


class ConsentNotAskedError(CallerError):
    """No rule asks for consent under that code. fields: code, asked (those that do)."""

    code = "CONSENT-NOT-ASKED"
    title = Text("此事项无需同意", "Nothing asks for consent under that code")
    action = Text("请改用 asked 所列代码。", "Use a code that `asked` lists.")


class NothingRetainedError(CallerError):
    """Law keeps nothing of the account: its name is in use, or all of it has ended. fields: account."""

    code = "NOTHING-RETAINED"
    title = Text("该账户没有依法留存的资料", "Law keeps nothing of this account")
    action = Text(
        "请核对账户号;在用的实名不在留存之列。", "Check the number; a name in use is not among what law keeps."
    )


class UnknownRemedyError(CallerError):
    """No such remedy waits for a proof, or not the caller's."""

    code = "UNKNOWN-REMEDY"
    title = Text("没有等待验证的处理", "No such remedy waits for a proof")
    action = Text("请重新发起该项处理。", "Ask for the remedy again.")


class KindNotOfferedError(CallerError):
    """The kind of case exists but no plan offers it yet. fields: kind."""

    code = "KIND-NOT-OFFERED"
    title = Text("暂不支持此类申请", "This kind of case is not offered yet")
    action = Text("请改选 fields.offered 中的类型。", "Choose one of the kinds in `offered`.")


class TooLateToWithdrawError(PolicyRefusalError):
    """The case is past its commit point or ended. fields: state."""

    code = "TOO-LATE-TO-WITHDRAW"
    title = Text("已无法撤回", "It is too late to withdraw")
    action = Text("若已完成,可申请重新实名。", "If the case is done, ask for `restore` instead.")


class BlockedError(PolicyRefusalError):
    """A blocker stands in the way. Carries the whole check."""

    code = "BLOCKED"
    title = Text("尚有事项阻碍此申请", "Something stands in the way")
    action = Text(
        "请按 check 中每一项的办法处理后重试。", "Clear each blocker in `check` as its remedy says, then try again."
    )

    def __init__(self, check: CheckAnswer) -> None:
        """Keep the check, so that the caller sees every blocker at once."""
        super().__init__()
        self.check = check


class ProofRefusedError(PolicyRefusalError):
    """A proof is wrong, expired, used up, or not asked for. fields: method, cause, reason, tries_left."""

    code = "PROOF-REFUSED"
    title = Text("验证未通过", "The proof was not accepted")
    action = Text("请核对后重试,或重新获取验证码。", "Check it and try again, or ask for a new code.")


class IdentityRefusedError(PolicyRefusalError):
    """The identity that was brought may not be bound here. fields: cause, reason."""

    code = "IDENTITY-REFUSED"
    title = Text("此身份不能用于本申请", "This identity cannot be used for the case")
    action = Text(
        "请按 reason 改用其他证件。未计错误次数。",
        "Bring another document, as `reason` says. It cost no try.",
    )


class WrongDeviceError(PolicyRefusalError):
    """The request must come from another device of the person. fields: wanted (`case` or `primary`)."""

    code = "WRONG-DEVICE"
    title = Text("须在另一台设备上办理", "This must be done on another of your devices")
    action = Text(
        "请在发起该申请的设备上继续;尚无申请时,请使用主设备。错误次数未增加。",
        "Use the device on which the request was made or, where there is none yet, your primary one. It cost no try.",
    )


class TooSoonError(PolicyRefusalError):
    """Asked again before the pause between two is over. fields: retry_after_s."""

    code = "TOO-SOON"
    title = Text("请求过于频繁", "Too soon after the last one")
    action = Text("请在 retry_after_s 秒后重试。", "Wait as many seconds as `retry_after_s` says, then try again.")


class NothingToClearError(PolicyRefusalError):
    """What is to be cleared is not there, or not open any more. fields: items (the ids), if any were named."""

    code = "NOTHING-TO-CLEAR"
    title = Text("没有可处理的事项", "There is nothing of the kind to clear")
    action = Text("请重新检查,items 所列事项可能已处理。", "Check again: what `items` names may have been cleared.")
