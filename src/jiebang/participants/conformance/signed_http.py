"""Properties of remote participants: signatures, the form of messages, and what can be believed of their answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jiebang.model.check import Text
from jiebang.model.decoding import decode_any
from jiebang.model.errors import BadSignatureError, InvalidInputError
from jiebang.model.ids import MAX_ACCOUNT
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.subject import DeviationError, NotApplicableError, Subject, cut
from jiebang.remote import wire
from jiebang.remote.signing import LIFETIME, Link, Requester, SignedRequest, join_headers
from jiebang.saga.fence import CaseOp, FenceRow, Op

_LIMIT_SECONDS: Final = 10.0
_STALE: Final = 3 * LIFETIME
_DIGEST: Final = "content-digest"
_PROBLEM: Final = "application/problem+json"


class RawAnswer(msgspec.Struct, frozen=True):
    """An answer as it came. `signed`: whether it is signed by the party for exactly this request."""

    status: int
    content_type: str
    body: bytes
    signed: bool

    def show(self) -> Text:
        """Return it for people."""
        told = f"{self.status} {cut(self.body.decode('utf-8', 'replace'))}"
        return (
            Text(told, told)
            if self.signed
            else Text(f"{told}(未按协议签名)", f"{told} (not signed as the protocol says)")
        )


class RawLink:
    """Sends requests that no honest client would: unsigned, changed, repeated, out of time, malformed."""

    def __init__(self, subject: Subject) -> None:
        if subject.link is None:
            raise NotApplicableError(Text("仅适用于远程参与方", "for remote participants alone"))
        self.subject, self._link = subject, subject.link

    def sign(self, path: str, body: bytes, *, late: timedelta = timedelta(), link: Link | None = None) -> SignedRequest:
        """Sign a request. `late`: how long ago it says that it was made."""
        url = self._link.base_url.rstrip("/") + path
        now = datetime.now(UTC) - late
        return Requester(link or self._link).sign("POST", url, body, now=now, nonce=secrets.token_urlsafe(18))

    async def send(self, sent: SignedRequest, body: bytes) -> RawAnswer:
        """Send it. Raises OSError where nothing comes back."""
        try:
            async with httpx.AsyncClient(timeout=_LIMIT_SECONDS, trust_env=False) as client:
                got = await client.request(sent.method, sent.url, headers=sent.headers, content=body)
        except httpx.HTTPError as error:
            raise ConnectionError(type(error).__name__) from error
        try:
            Requester(self._link).verify(sent, got.status_code, join_headers(got.headers.multi_items()), got.content)
        except BadSignatureError:
            signed = False
        else:
            signed = True
        return RawAnswer(got.status_code, got.headers.get("content-type", ""), got.content, signed)

    def cancel(self, account: int) -> bytes:
        """Return the body of a Cancel of case 1 of a new account: carried out, it leaves a row."""
        return self.body({"cases": [{"account": str(account), "case_no": 1}]})

    def body(self, fields: Mapping[str, Any]) -> bytes:
        """Return a body with the operation under test."""
        named = self.subject.operation.operation
        return msgspec.json.encode({**fields, **({"operation": named} if named else {})})

    async def demand_refused(
        self, sent: SignedRequest, body: bytes, status: HTTPStatus, account: int, because: Text
    ) -> RawAnswer:
        """Send it, and demand that it is refused with `status` and has changed nothing of `account`."""
        answer = await self.send(sent, body)
        shown = f"POST {httpx.URL(sent.url).path} {cut(body.decode('utf-8', 'replace'))} [{because.en}]"
        if answer.status != status:
            wanted = Text(f"{status.value}({because.zh})", f"{status.value} ({because.en})")
            raise DeviationError(shown, answer.show(), wanted)
        rows = await self.subject.participant.look([account])
        if rows:
            told = Text(
                f"{status.value},但账户 {account} 已有行 {rows[account].case_op}",
                f"{status.value}, but account {account} now has a row, {rows[account].case_op}",
            )
            raise DeviationError(shown, told, Text("不改动任何内容", "nothing is changed"))
        return answer


async def _sign_answers(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = msgspec.json.encode(wire.LookBatch([str(account)]))
    answer = await raw.send(raw.sign("/look", body), body)
    if answer.status != HTTPStatus.OK or not answer.signed:
        shown = f"POST /look {body.decode()}"
        wanted = Text("200,并以对方的私钥对本请求签名", "200, signed with the party's key for this very request")
        raise DeviationError(shown, answer.show(), wanted)
    try:
        wire.read_look(answer.body, [account])
    except InvalidInputError as error:
        reason = error.fields["reason"]
        wanted = Text(f"查看的应答({reason.zh})", f"the answer to a look ({reason.en})")
        raise DeviationError(f"POST /look {body.decode()}", answer.show(), wanted) from error


async def _refuse_unsigned(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = raw.cancel(account)
    signed = raw.sign("/cancel", body)
    bare = msgspec.structs.replace(signed, headers={"content-type": "application/json"})
    why = Text("请求没有签名", "the request is not signed")
    await raw.demand_refused(bare, body, HTTPStatus.UNAUTHORIZED, account, why)


async def _refuse_other_keys(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = raw.cancel(account)
    stranger = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert subject.link is not None  # noqa: S101 - RawLink has required it
    other = msgspec.structs.replace(subject.link, private_key=stranger)
    why = Text("以陌生私钥签名,但 keyid 相同", "signed with a stranger's key under the platform's keyid")
    await raw.demand_refused(raw.sign("/cancel", body, link=other), body, HTTPStatus.UNAUTHORIZED, account, why)


async def _refuse_changed(subject: Subject) -> None:
    raw = RawLink(subject)
    account, other = await subject.accounts(2)
    body = raw.cancel(account)
    why = Text("正文在签名之后被改动", "the body was changed after it was signed")
    signed = raw.sign("/cancel", raw.cancel(other))
    await raw.demand_refused(signed, body, HTTPStatus.UNAUTHORIZED, account, why)
    digests = {name: value for name, value in raw.sign("/cancel", body).headers.items() if name.lower() == _DIGEST}
    forged = msgspec.structs.replace(signed, headers={**signed.headers, **digests})
    why = Text("正文与摘要在签名之后被改动", "body and digest were changed after the signature")
    await raw.demand_refused(forged, body, HTTPStatus.UNAUTHORIZED, account, why)


async def _refuse_moved(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = raw.cancel(account)
    signed = raw.sign("/try", body)
    moved = msgspec.structs.replace(signed, url=signed.url.removesuffix("/try") + "/cancel")
    why = Text("签名是给 /try 的", "it was signed for /try")
    await raw.demand_refused(moved, body, HTTPStatus.UNAUTHORIZED, account, why)


async def _refuse_stale(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = raw.cancel(account)
    for late, why in (
        (_STALE, Text("签名已过期", "its signature has expired")),
        (-_STALE, Text("签名来自未来", "its signature is from the future")),
    ):
        await raw.demand_refused(raw.sign("/cancel", body, late=late), body, HTTPStatus.UNAUTHORIZED, account, why)


async def _refuse_repeats(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    body = raw.cancel(account)
    sent = raw.sign("/cancel", body)
    first, second = await raw.send(sent, body), await raw.send(sent, body)
    shown = f"POST /cancel {body.decode()}"
    if first.status != HTTPStatus.OK:
        raise DeviationError(shown, first.show(), Text("200", "200"))
    if second.status != HTTPStatus.UNAUTHORIZED:
        wanted = Text("401:同一 nonce 只受理一次", "401: a nonce is taken once")
        raise DeviationError(f"{shown} [again, the same bytes and signature]", second.show(), wanted)


async def _refuse_bad_bodies(subject: Subject) -> None:
    raw = RawLink(subject)
    account, other = map(str, await subject.accounts(2))
    good = {"account": account, "case_no": 1}
    many = [{"account": str(MAX_ACCOUNT - at), "case_no": 1} for at in range(wire.MAX_BATCH)]
    bodies = (
        (b"", Text("空正文", "an empty body")),
        (b'{"cases":[', Text("不是完整的 JSON", "no whole JSON")),
        (raw.body({"cases": []}), Text("没有案件", "no cases")),
        (raw.body({"cases": [good], "colour": "red"}), Text("未知字段", "an unknown field")),
        (raw.body({"cases": [good, {"account": 7, "case_no": 1}]}), Text("账户须为文本", "an account that is no text")),
        (raw.body({"cases": [good, {"account": "0", "case_no": 1}]}), Text("账户从 1 起", "accounts start at 1")),
        (raw.body({"cases": [good, {"account": other, "case_no": 0}]}), Text("案号从 1 起", "numbers start at 1")),
        (raw.body({"cases": [good, {"account": other}]}), Text("缺少案号", "a case without number")),
        (raw.body({"cases": [good, good]}), Text("同一笔出现两次", "a case named twice")),
        (raw.body({"cases": [good, *many]}), Text("多于 1,024 笔", "more than 1,024 cases")),
        (
            f'{{"cases":[{{"account":"{account}","case_no":1,"case_no":2}}]}}'.encode(),
            Text("同一对象中名称重复", "a name twice in one object"),
        ),
    )
    for body, why in bodies:
        sent = raw.sign("/cancel", body)
        answer = await raw.demand_refused(sent, body, HTTPStatus.UNPROCESSABLE_ENTITY, int(account), why)
        _demand_problem(f"POST /cancel {cut(body.decode())}", answer)
    long = b" " * (wire.MAX_BODY + 1)
    why = Text("超过 1 MiB", "over 1 MiB")
    await raw.demand_refused(raw.sign("/cancel", long), long, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, int(account), why)


def _demand_problem(shown: str, answer: RawAnswer) -> None:
    """Demand problem details with a code, signed."""
    try:
        problem = decode_any(answer.body)
    except InvalidInputError:
        problem = None
    code = problem.get("code") if isinstance(problem, dict) else None
    if not answer.signed or answer.content_type != _PROBLEM or not isinstance(code, str):
        wanted = Text(f"签名的 {_PROBLEM},带 code", f"signed {_PROBLEM} with a code")
        raise DeviationError(shown, answer.show(), wanted)


async def _refuse_unknown_operations(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    cases = [{"account": str(account), "case_no": 1}]
    body = msgspec.json.encode({"cases": cases, "operation": "no_such_operation"})
    why = Text("没有此操作", "there is no such operation")
    await raw.demand_refused(raw.sign("/try", body), body, HTTPStatus.UNPROCESSABLE_ENTITY, account, why)


async def _answer_single_cases(subject: Subject) -> None:
    raw = RawLink(subject)
    (account,) = await subject.accounts(1)
    steps = (
        (3, "try", HTTPStatus.OK, FenceRow(3, CaseOp.TRIED)),
        (4, "try", HTTPStatus.TOO_EARLY, FenceRow(3, CaseOp.TRIED)),
        (3, "cancel", HTTPStatus.OK, FenceRow(3, CaseOp.CANCELLED)),
        (3, "confirm", HTTPStatus.CONFLICT, FenceRow(3, CaseOp.CANCELLED)),
    )
    for case_no, op, status, row in steps:
        path = f"/branch?gid={account}-{case_no}&trans_type=tcc&branch_id=01&op={op}"
        answer = await raw.send(raw.sign(path, b""), b"")
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NotApplicableError(Text("未提供单案形式(可选)", "it has no single-case form, which is optional"))
        if answer.status != status:
            wanted = Text(f"{status.value}", f"{status.value}")
            raise DeviationError(f"POST {path}", answer.show(), wanted)
        await subject.expect_rows([account], {account: row}, Text(f"{op} 之后", f"after the {op}"))


async def _say_what_was_asked(subject: Subject) -> None:
    """Ask with every op in one batch each, and demand one result a case and nothing else, read from the bytes."""
    raw = RawLink(subject)
    accounts = await subject.accounts(3)
    for op in (Op.TRY, Op.CONFIRM, Op.CANCEL):
        cases = [{"account": str(account), "case_no": 1} for account in accounts]
        effects = {} if op is Op.CANCEL or not subject.operation.effects else {"effects": subject.operation.effects}
        body = raw.body({"cases": cases, **effects})
        answer = await raw.send(raw.sign(f"/{op}", body), body)
        shown = f"POST /{op} {cut(body.decode())}"
        wanted = Text("每笔恰一个结果,不多不少", "one result for each case asked about, and nothing else")
        try:
            results = wire.parse(answer.body, wire.Results).results
        except InvalidInputError as error:
            reason = error.fields["reason"]
            wrong = Text(f"{wanted.zh};{reason.zh}", f"{wanted.en}; {error.fields['field']} {reason.en}")
            raise DeviationError(shown, answer.show(), wrong) from error
        told = sorted((int(one.account), one.case_no) for one in results)
        if told != sorted((account, 1) for account in accounts):
            raise DeviationError(shown, answer.show(), wanted)


SIGNED_PROPERTIES: Final = (
    Property(
        "signs_its_answers",
        Text(
            "应答以自己的私钥对该请求签名", "its answers are signed with its own key, for the request that they answer"
        ),
        Text(
            "未签名的应答等于沉默:任何案件都不会有结果", "an unsigned answer counts as silence: no case would ever end"
        ),
        _sign_answers,
    ),
    Property(
        "answers_what_was_asked",
        Text("每笔恰一个结果,可采信", "one result a case, that can be believed"),
        Text(
            "多出、重复、自相矛盾的结果不予采信,案件便悬着", "results that cannot be believed leave their cases hanging"
        ),
        _say_what_was_asked,
    ),
    Property(
        "refuses_unsigned_requests",
        Text("未签名的请求:401,不改动任何内容", "a request without signature is answered 401 and changes nothing"),
        Text("否则网络上任何人都能解绑别人", "anybody on the network could unbind anybody"),
        _refuse_unsigned,
    ),
    Property(
        "refuses_other_keys",
        Text("以别的私钥签名的请求:401", "a request signed with another key is answered 401"),
        Text("同上,且知道 keyid 并不难", "as before, and a keyid is no secret"),
        _refuse_other_keys,
    ),
    Property(
        "refuses_changed_requests",
        Text("签名之后被改动的请求:401", "a request changed after its signature is answered 401"),
        Text("途中的人可以把账户换成另一个", "somebody on the way could put another account in"),
        _refuse_changed,
    ),
    Property(
        "refuses_moved_requests",
        Text("签给别的路径的请求:401", "a request signed for another resource is answered 401"),
        Text("途中的人可以把 Try 变成 Cancel", "somebody on the way could make a Cancel of a Try"),
        _refuse_moved,
    ),
    Property(
        "refuses_stale_requests",
        Text("过期或来自未来的请求:401", "a request out of its time is answered 401"),
        Text("记下的请求可在数日后重放", "a recorded request could be played again days later"),
        _refuse_stale,
    ),
    Property(
        "takes_a_request_once",
        Text("同一请求(nonce)只受理一次", "the same request, by its nonce, is taken once"),
        Text("记下的请求可在有效期内重放", "a recorded request could be played again while it is valid"),
        _refuse_repeats,
    ),
    Property(
        "refuses_malformed_batches_whole",
        Text(
            "格式有误的批整体拒绝:422,签名的 problem,不改动任何内容",
            "a malformed batch is refused whole: 422, a signed problem, nothing changed",
        ),
        Text("做了一半的批,没有谁知道是哪一半", "of a batch half done nobody knows which half"),
        _refuse_bad_bodies,
    ),
    Property(
        "refuses_unknown_operations",
        Text("不认识的操作:422", "an operation that it does not know is answered 422"),
        Text("否则它会做没有人要求的事", "it would do what nobody asked for"),
        _refuse_unknown_operations,
    ),
    Property(
        "answers_single_cases",
        Text("单案形式(可选)按 DTM 惯例应答", "the single-case form, which is optional, answers by DTM's convention"),
        Text("依此惯例的调用方会误解结果", "callers by that convention would misread the outcome"),
        _answer_single_cases,
    ),
)
