"""Errors of a request as such: its fields, caller, signature, size, rate and idempotency key."""

from __future__ import annotations

from jiebang.model.check import Text
from jiebang.model.errors.base import CallerError, OurFaultError, OverloadedError


class InvalidInputError(CallerError):
    """A field has a wrong type or value. fields: field, reason."""

    code = "INVALID-INPUT"
    title = Text("请求内容有误", "The request has a wrong value")
    action = Text(
        "请按 field 与 reason 修正后重试。", "Correct the field named in `field` as `reason` says, then try again."
    )


class UndecodableError(InvalidInputError):
    """The text is no JSON at all: no UTF-8, nested too deeply, or not of its grammar. fields: field, reason."""


class HeaderRepeatedError(CallerError):
    """A header that can hold one value came twice. fields: header."""

    code = "HEADER-REPEATED"
    title = Text("请求头重复", "A header came twice that can only come once")
    action = Text("请只发送一个 header 所列的请求头。", "Send the header that `header` names once.")


class UnknownAccountError(CallerError):
    """No such account. fields: accounts."""

    code = "UNKNOWN-ACCOUNT"
    title = Text("账户不存在", "There is no such account")
    action = Text("请核对账户号。", "Check the account number.")


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


class AnswerUnreadableError(OurFaultError):
    """The answer that is kept for a repeated request cannot be opened."""

    code = "ANSWER-UNREADABLE"
    title = Text("此前的答复无法打开", "The answer given before cannot be opened")
    action = Text(
        "请求已处理过,未再执行;请查看申请的现状。运维请核对本机的 bodies.key 与写入时一致;若一致,则该答复曾被改动。",
        "The request was carried out before and was not repeated: look at the case as it is. Operators: see that "
        "bodies.key is the one it was stored with; if it is, the answer was changed.",
    )
