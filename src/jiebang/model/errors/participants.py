"""Errors of participants: busy, silent, out of service, and the wallet's refusals to move money."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors.base import CallerError, OtherSystemError, PolicyRefusalError


class InsufficientFundsError(PolicyRefusalError):
    """The sender's balance does not cover the transfer."""

    code = "INSUFFICIENT-FUNDS"
    title = Text("余额不足", "The balance is not enough")
    action = Text("请减少金额。", "Send a smaller amount.")


class ReceiveLimitError(PolicyRefusalError):
    """The receiver may not receive that much more today."""

    code = "RECEIVE-LIMIT"
    title = Text("超出收款方当日收款额度", "More than the receiver may receive today")
    action = Text("请减少金额,或改日再试。", "Send a smaller amount, or try again another day.")


class ReceiverUnavailableError(PolicyRefusalError):
    """The receiver takes no such transfer: no such account, or more than it may receive. Which of them is not told."""

    code = "RECEIVER-UNAVAILABLE"
    title = Text("对方暂时无法收取这笔款项", "The receiver cannot take this transfer")
    action = Text(
        "未扣款。请核对账户号,或减少金额、改日再试。",
        "No money was taken. Check the account number, or send less, or try again another day.",
    )


class AccountBusyError(OtherSystemError):
    """A case stands between a participant's Try and its Confirm or Cancel. Retry in a moment. fields: participant."""

    code = "ACCOUNT-BUSY"
    title = Text("账户正忙", "The account is busy for a moment")
    action = Text("请稍后片刻再试。", "Try again in a moment.")


class CashOutPausedError(PolicyRefusalError):
    """Cash-outs are paused after a revoke. fields: until."""

    code = "CASH-OUT-PAUSED"
    title = Text("提现暂停中", "Cash-outs are paused")
    action = Text("请在 until 之后再试。", "Try again after `until`.")


class MomentsLimitError(PolicyRefusalError):
    """As many moments as may be were posted today. fields: limit (a day), until (when the next may be posted)."""

    code = "MOMENTS-LIMIT"
    title = Text("今日发布的朋友圈已达上限", "No more moments may be posted today")
    action = Text(
        "每日上限见 limit,请在 until 之后再发。重新实名后不再受此限制。",
        "`limit` says how many a day; post the next after `until`. Binding a real name again ends this.",
    )


class FriendUnavailableError(PolicyRefusalError):
    """The receiver takes no friend request: no such account, or they are blocked. Which of them is not told."""

    code = "FRIEND-UNAVAILABLE"
    title = Text("暂时无法添加对方为好友", "This person cannot be added as a friend")
    action = Text("请核对账户号,或改日再试。", "Check the account number, or try again another day.")


class LoginCodeNeededError(PolicyRefusalError):
    """The account's logins ask for an SMS code, which was sent. fields: expires_at."""

    code = "LOGIN-CODE-NEEDED"
    title = Text("登录须输入短信验证码", "This login asks for an SMS code")
    action = Text(
        "验证码已发送至绑定的手机,请在 expires_at 之前凭验证码再次登录。重新实名后不再要求。",
        "A code was sent to the account's phone; log in again with it before `expires_at`. Binding a real name again "
        "ends this.",
    )


class LoginCodeRefusedError(PolicyRefusalError):
    """The code of a login does not pass. fields: cause (wrong, expired, tries_used_up, not_sent), tries_left."""

    code = "LOGIN-CODE-REFUSED"
    title = Text("验证码未通过", "The code does not pass")
    action = Text(
        "原因见 cause。还可重试 tries_left 次;为 0 时请不带验证码重新登录,以获取新的验证码。",
        "`cause` says why. `tries_left` more tries; at 0 log in without a code to be sent a new one.",
    )


class GamesOffError(PolicyRefusalError):
    """A case is under way for an account whose playing time is guarded."""

    code = "GAMES-OFF"
    title = Text("办理期间游戏功能关闭", "Games are off while a case is under way")
    action = Text(
        "此账户受防沉迷保护。申请结束(完成、中止或撤回)后即可再次开始游戏。",
        "Playing time on this account is guarded. Games return when the case ends, whether done, broken off or "
        "withdrawn.",
    )


class NoSuchGameError(PolicyRefusalError):
    """The account may not play this game. fields: game."""

    code = "NO-SUCH-GAME"
    title = Text("此账户不能玩这个游戏", "This account may not play that game")
    action = Text("请核对 game。", "Check `game`.")


class ApiQuotaUsedError(PolicyRefusalError):
    """An app or mini program has used up its calls of the day.

    fields: limit (calls a day), until (when the next is admitted), retry_after_s, at_test_level.
    """

    code = "API-QUOTA-USED"
    title = Text("今日接口调用已达配额", "The day's quota of API calls is used up")
    action = Text(
        "每日配额见 limit,请在 until 之后再调用。at_test_level 为 true 时按测试级别计:"
        "在开放平台重新提交主体资质,通过后恢复原有配额。",
        "`limit` says how many a day; call again after `until`. Where `at_test_level` is true it is the test level's: "
        "submit the qualification anew on the open platform, and the former quota returns once it is accepted.",
    )


class NoSuchAppError(PolicyRefusalError):
    """It is no open app and no published mini program of the account. fields: subject."""

    code = "NO-SUCH-APP"
    title = Text("此账户没有这个应用或小程序", "The account has no such app or mini program")
    action = Text("请核对 subject;已关闭或下架的不能调用接口。", "Check `subject`; one that is closed cannot call.")


class ApiKeyEndedError(PolicyRefusalError):
    """The API credential may not call: it was ended, died with its holder's name, or never was."""

    code = "API-KEY-ENDED"
    title = Text("接口凭证已失效", "The API credential has ended")
    action = Text(
        "请由企业的其他管理员签发新的凭证,并替换系统中的旧凭证。",
        "Have another administrator of the enterprise issue a new one, and replace the old one in your systems.",
    )


class WalletBusyError(OtherSystemError):
    """The wallet is between a case's Try and its Confirm or Cancel. Retry in a moment."""

    code = "WALLET-BUSY"
    title = Text("钱包正忙", "The wallet is busy for a moment")
    action = Text("请稍后片刻再试。", "Try again in a moment.")


class ParticipantUnavailableError(OtherSystemError):
    """A database or network that the request needs does not answer. fields: participant."""

    code = "PARTICIPANT-UNAVAILABLE"
    title = Text("所需系统暂不可用", "A system that this needs does not answer")
    action = Text("请稍后重试。未丢失任何内容。", "Try again later. Nothing was lost.")


class OutOfServiceError(OtherSystemError):
    """A system that a case of this kind needs was taken out of service. fields: participants, since."""

    code = "OUT-OF-SERVICE"
    title = Text("所需系统已停用", "A system that such a case needs is out of service")
    action = Text(
        "participants 所列系统自 since 起停用,恢复后即可重新提交;已有申请不会丢失。",
        "The systems in `participants` have been out of service since `since`. Ask again once they are back; nothing "
        "of running cases is lost.",
    )


class RecoveringError(OtherSystemError):
    """A recovery after a restore from backup is under way: no case is opened until it has ended. fields: since."""

    code = "RECOVERING"
    title = Text("系统正在从备份恢复", "The platform is recovering from a restore")
    action = Text(
        "恢复结束前不受理新申请,已有申请不会丢失。请稍后重试。",
        "Until that has ended no new case is opened; nothing of running cases is lost. Try again later.",
    )


class LinkUnusableError(CallerError):
    """The link to a remote participant cannot be used: its address or its key files. fields: name, reason."""

    code = "LINK-UNUSABLE"
    title = Text("到该参与方的链路不可用", "The link to this participant cannot be used")
    action = Text(
        "请按 reason 改正地址,或备齐密钥文件:NAME-request.pem(我方私钥)与 NAME-reply.pub.pem(对方公钥),"
        "见 docs/remote-participants.md。",
        "Correct the address as `reason` says, or supply the key files: NAME-request.pem, our private key, and "
        "NAME-reply.pub.pem, the other party's public one; see docs/remote-participants.md.",
    )


class ParticipantSilentError(OtherSystemError):
    """A remote participant under test does not answer at all. fields: name, url, reason."""

    code = "PARTICIPANT-SILENT"
    title = Text("该参与方没有应答", "This participant does not answer")
    action = Text(
        "请确认服务已启动、地址(包括路径)正确且可从本机访问,然后重试。",
        "See that the service runs, and that its address, path included, is right and can be reached from here; then "
        "try again.",
    )
