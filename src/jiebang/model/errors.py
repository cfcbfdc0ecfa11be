"""Every error we raise on purpose: one tree, split by whose fault it is. HTTP appears only in `api/problems.py`.

An error carries a stable code, both languages (what is wrong, and what to do) and fields, never prose alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jiebang.model.check import CheckAnswer, Text


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


class InvalidInputError(CallerError):
    """A field has a wrong type or value. fields: field, reason."""

    code = "INVALID-INPUT"
    title = Text("请求内容有误", "The request has a wrong value")
    action = Text(
        "请按 field 与 reason 修正后重试。", "Correct the field named in `field` as `reason` says, then try again."
    )


class UnknownAccountError(CallerError):
    """No such account. fields: accounts."""

    code = "UNKNOWN-ACCOUNT"
    title = Text("账户不存在", "There is no such account")
    action = Text("请核对账户号。", "Check the account number.")


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


class IdempotencyReusedError(CallerError):
    """The Idempotency-Key came before with another body."""

    code = "IDEMPOTENCY-KEY-REUSED"
    title = Text("幂等键已用于另一请求", "The Idempotency-Key was used with another body")
    action = Text("新请求请换用新的幂等键。", "Use a new key for a new request.")


class IdempotencyInUseError(CallerError):
    """A request with this Idempotency-Key is still being carried out. fields: retry_after_s."""

    code = "IDEMPOTENCY-KEY-IN-USE"
    title = Text("同一幂等键的请求仍在处理", "A request with this Idempotency-Key is still being carried out")
    action = Text(
        "请在 retry_after_s 秒后原样重试,即可得到其答复。",
        "Send the same request again after `retry_after_s` seconds: you will be told what it came to.",
    )


class IdempotencyMissingError(CallerError):
    """A mutation came without an Idempotency-Key."""

    code = "IDEMPOTENCY-KEY-MISSING"
    title = Text("缺少幂等键", "The Idempotency-Key header is missing")
    action = Text(
        "请在请求头加入 Idempotency-Key。", "Send an Idempotency-Key header of 1 to 128 printable characters."
    )


class NotAuthenticatedError(CallerError):
    """No bearer token, or one that is malformed, expired or of an unknown issuer. fields: cause."""

    code = "NOT-AUTHENTICATED"
    title = Text("未通过身份验证", "The access token is missing or not valid")
    action = Text("请重新获取访问令牌。", "Get a new access token and try again.")


class NotAllowedError(CallerError):
    """The token lacks the scope, or names another person's account. fields: scope or account."""

    code = "NOT-ALLOWED"
    title = Text("无权执行此操作", "This token does not allow that")
    action = Text("请使用本人账户及所需权限的令牌。", "Use a token of that account that carries the scope needed.")


class BadSignatureError(CallerError):
    """A signed message is not the other party's, was changed, is too old, or came before. fields: reason."""

    code = "BAD-SIGNATURE"
    title = Text("消息签名无效", "The message signature is missing or not valid")
    action = Text(
        "请按 docs/remote-participants.md 签名,并核对密钥与时钟。未作任何变更。",
        "Sign as docs/remote-participants.md says, and check keys and clocks. Nothing was changed.",
    )


class NoSuchRouteError(CallerError):
    """Nothing answers at this address."""

    code = "NO-SUCH-ROUTE"
    title = Text("地址不存在", "There is nothing at this address")
    action = Text("请查阅接口文档:/openapi.json 或 docs。", "See the interface's document: /openapi.json, or docs.")


class BodyTooLargeError(CallerError):
    """The request's body is longer than this door takes. fields: limit_bytes."""

    code = "BODY-TOO-LARGE"
    title = Text("请求体过大", "The request body is too large")
    action = Text("请分批提交。", "Send it in smaller batches.")


class RequestTooSlowError(CallerError):
    """The request's headers or body did not arrive in time. fields: limit_s."""

    code = "REQUEST-TOO-SLOW"
    title = Text("请求发送过慢", "The request took too long to arrive")
    action = Text("未作任何处理,请重新发送。", "Nothing was done; send it again.")


class HeadersTooLargeError(CallerError):
    """The request's headers are longer, or more, than this door takes. fields: limit_bytes, limit_headers."""

    code = "HEADERS-TOO-LARGE"
    title = Text("请求头过大", "The request headers are too large")
    action = Text("请减少请求头后重试。", "Send fewer or shorter headers.")


class RateExceededError(CallerError):
    """The caller, or an address without valid tokens, asks faster than they may. fields: retry_after_s."""

    code = "RATE-EXCEEDED"
    title = Text("请求过多", "Too many requests")
    action = Text(
        "未作任何处理;请在 retry_after_s 秒后以同一幂等键重试。",
        "Nothing was done. Try again after `retry_after_s` seconds, with the same Idempotency-Key.",
    )


class PlatformFullError(OverloadedError):
    """The platform takes nothing more on just now. fields: retry_after_s."""

    code = "PLATFORM-FULL"
    title = Text("平台繁忙", "The platform is full just now")
    action = Text(
        "未作任何处理,也未丢失任何内容;请在 retry_after_s 秒后以同一幂等键重试。",
        "Nothing was done and nothing was lost. Try again after `retry_after_s` seconds, with the same "
        "Idempotency-Key.",
    )


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


class TooSoonError(PolicyRefusalError):
    """Asked again before the pause between two is over. fields: retry_after_s."""

    code = "TOO-SOON"
    title = Text("请求过于频繁", "Too soon after the last one")
    action = Text("请在 retry_after_s 秒后重试。", "Wait as many seconds as `retry_after_s` says, then try again.")


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


class NothingToClearError(PolicyRefusalError):
    """What is to be cleared is not there, or not open any more. fields: items (the ids), if any were named."""

    code = "NOTHING-TO-CLEAR"
    title = Text("没有可处理的事项", "There is nothing of the kind to clear")
    action = Text("请重新检查,items 所列事项可能已处理。", "Check again: what `items` names may have been cleared.")


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


class RecoveringError(OtherSystemError):
    """A recovery after a restore from backup is under way: no case is opened until it has ended. fields: since."""

    code = "RECOVERING"
    title = Text("系统正在从备份恢复", "The platform is recovering from a restore")
    action = Text(
        "恢复结束前不受理新申请,已有申请不会丢失。请稍后重试。",
        "Until that has ended no new case is opened; nothing of running cases is lost. Try again later.",
    )


class OutOfServiceError(OtherSystemError):
    """A system that a case of this kind needs was taken out of service. fields: participants, since."""

    code = "OUT-OF-SERVICE"
    title = Text("所需系统已停用", "A system that such a case needs is out of service")
    action = Text(
        "participants 所列系统自 since 起停用,恢复后即可重新提交;已有申请不会丢失。",
        "The systems in `participants` have been out of service since `since`. Ask again once they are back; nothing "
        "of running cases is lost.",
    )


class WorkersBusyError(OtherSystemError):
    """Workers did not come to a stop in time. fields: workers."""

    code = "WORKERS-BUSY"
    title = Text("仍有工作进程在处理申请", "Workers are still driving cases")
    action = Text(
        "请查看 workers 所列进程(jiebang workers),必要时停止它们,再重新执行。申请的领取保持停止。",
        "Look at the processes in `workers` (jiebang workers), stop them if need be, and run this again. Claims stay "
        "stopped meanwhile.",
    )


class HomeUnusableError(CallerError):
    """The home folder cannot hold or run the embedded databases. fields: path, reason."""

    code = "HOME-UNUSABLE"
    title = Text("数据目录不可用", "The home folder cannot be used")
    action = Text(
        "请按 reason 处理 path,或用 JIEBANG_HOME 另选一个可写的目录。",
        "Mend `path` as `reason` says, or choose another writable folder with JIEBANG_HOME.",
    )


class DiskFullError(CallerError):
    """No space is left where the embedded databases lie. fields: path."""

    code = "DISK-FULL"
    title = Text("磁盘空间不足", "The disk is full")
    action = Text(
        "请在 path 所在磁盘释放空间后重试。已提交的数据未丢失。",
        "Free space on the disk that holds `path`, then start again. Nothing committed was lost.",
    )


class DatabaseDamagedError(CallerError):
    """The files of an embedded server are damaged or of another version. fields: server, path, log, reason."""

    code = "DATABASE-DAMAGED"
    title = Text("内置数据库的文件已损坏或版本不符", "The embedded database's files are damaged or of another version")
    action = Text(
        "请从备份恢复 path;若其中只有演示数据,可将 path 移走后重新开始。详情见 log。",
        "Restore `path` from a backup; if it holds only demo data, move it away and start afresh. `log` tells more.",
    )


class DatabaseStartError(OurFaultError):
    """An embedded server did not start. fields: server, log, reason (the log's last lines)."""

    code = "DATABASE-START"
    title = Text("内置数据库未能启动", "An embedded database did not start")
    action = Text("请按 reason 与 log 处理后重试。", "See `reason` and `log`, then start again.")


class MigrationRefusedError(OurFaultError):
    """A database does not fit this version's migrations. fields: owner, version, name, reason."""

    code = "MIGRATION-REFUSED"
    title = Text("数据库迁移被拒绝", "The database cannot be migrated")
    action = Text(
        "请使用与数据库一致的解绑版本;已应用的迁移文件不可改动,请改为新增迁移。未作任何更改。",
        "Use the version of jiebang that fits the database; never change a migration once applied, add another. "
        "Nothing was changed.",
    )


class NotMigratedError(CallerError):
    """A database lacks tables or columns of this version. fields: databases."""

    code = "NOT-MIGRATED"
    title = Text("数据库尚未升级到本版本的结构", "A database has not been migrated to this version")
    action = Text(
        "请先运行 jiebang migrate,再重新启动。未作任何更改。",
        "Run `jiebang migrate`, then start again. Nothing was changed.",
    )


class ProcessStartError(OurFaultError):
    """A process that we run beside ours did not start. fields: process, log."""

    code = "PROCESS-START"
    title = Text("所需的进程未能启动", "A process that this needs did not start")
    action = Text("原因见 log;处理后重试。", "`log` tells why; mend it, then try again.")


class SettingsError(CallerError):
    """The settings are wrong. fields: problems, all of them at once: [{where, zh, en}]."""

    code = "SETTINGS-INVALID"
    title = Text("配置有误", "The settings are wrong")
    action = Text("请逐项修正 problems 后重新启动。", "Correct each of `problems`, then start again.")


class UnknownCodeError(CallerError):
    """No blocker, consequence, reason, error or older system's code is called so. fields: asked, near."""

    code = "UNKNOWN-CODE"
    title = Text("没有这个代码", "There is no such code")
    action = Text("请核对代码；near 列出了相近的代码。", "Check the code; `near` lists codes that are like it.")


class PackInvalidError(CallerError):
    """A policy pack does not load. fields: problems, all of them at once: [{file, line, column, zh, en}]."""

    code = "PACK-INVALID"
    title = Text("策略包有误，未加载", "The policy pack is not valid and was not loaded")
    action = Text(
        "请按 problems 中的行列逐项修正；现行策略包不受影响。",
        "Correct each of `problems` at its line and column; the pack in force is untouched.",
    )


class UnknownPackError(CallerError):
    """No such version of a policy. fields: pack, known (the versions there are)."""

    code = "PACK-UNKNOWN"
    title = Text("没有这个版本的策略包", "There is no such version of a policy")
    action = Text(
        "请改用 known 中的版本,或先用 jiebang policy add 加入。",
        "Choose one of `known`, or add the version first: jiebang policy add FILE.",
    )


class PackExistsError(CallerError):
    """Another text was admitted under this name and version before. fields: pack, added_by, added_at."""

    code = "PACK-EXISTS"
    title = Text("该版本已存在且内容不同", "This version exists, with another text")
    action = Text(
        "版本一经加入即不可更改:请提高 version 后重新加入。",
        "A version never changes once it was added: raise `version` and add it again.",
    )


class NameUnusableError(CallerError):
    """The name of who acts on policy is empty, too long, or holds what is no text. fields: name."""

    code = "NAME-UNUSABLE"
    title = Text("姓名不可用", "The name cannot be used")
    action = Text("请用 --by 写明本人姓名,1 至 64 字。", "Say who you are with --by, in 1 to 64 characters.")


class SamePersonError(PolicyRefusalError):
    """A version needs the agreement of two different people. fields: pack, proposed_by."""

    code = "SAME-PERSON"
    title = Text("须由另一人批准", "Somebody else must approve it")
    action = Text(
        "该版本已由您提出;请另一位同事以自己的姓名执行同一命令。",
        "You proposed this version; a colleague must run the same command with their own name.",
    )


class AlreadyInForceError(PolicyRefusalError):
    """The version is in force, or in shadow, as it is. fields: pack."""

    code = "ALREADY-IN-FORCE"
    title = Text("该版本已生效", "This version is in force already")
    action = Text("无需操作。", "There is nothing to do.")


class NothingToRollBackError(PolicyRefusalError):
    """No version was in force before this one. fields: pack."""

    code = "NOTHING-TO-ROLL-BACK"
    title = Text("没有更早的版本可以退回", "There is no earlier version to go back to")
    action = Text("请改为启用另一个版本。", "Activate another version instead.")


class NoRecordError(CallerError):
    """The case has no decision record: it was opened before records were kept. fields: case."""

    code = "NO-RECORD"
    title = Text("该申请没有检查记录", "No check is recorded for this case")
    action = Text("请核对申请编号。", "Check the case number.")


class RecordUnreadableError(OurFaultError):
    """A decision record cannot be opened or read. fields: step, at."""

    code = "RECORD-UNREADABLE"
    title = Text("检查记录无法打开", "A decision record cannot be opened")
    action = Text(
        "请核对本机的 records.key 与写入时一致;若一致,则该记录曾被改动,请告知安全负责人。",
        "See that records.key is the one it was sealed with; if it is, the record was changed: tell who answers for "
        "security.",
    )


class PortTakenError(CallerError):
    """The address cannot be listened on. fields: host, port."""

    code = "PORT-TAKEN"
    title = Text("无法监听该地址", "Cannot listen on this address")
    action = Text("请改用其他端口(--port),或停掉占用它的程序。", "Choose another port (--port), or stop what uses it.")
