"""Request bodies and answers. Account ids are decimal strings, money is integer fen, time is UTC.

A body with an unknown field is refused. Docstrings here are part of the OpenAPI document.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from jiebang.model.case import Kind, Mark, State
from jiebang.model.check import Alternative, Blocker, Consequence
from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.model.proof import Method
from jiebang.saga.chain import time_text
from jiebang.saga.seals import PathStep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiebang.model.check import CheckAnswer
    from jiebang.model.ids import CaseIds
    from jiebang.saga.chain import ChainRow
    from jiebang.store.cases.proofs import Proof
    from jiebang.usecases.cases.context import CaseDetails

CHECK_LIMIT: Final = 1000

Account = Annotated[
    str, Meta(pattern=ACCOUNT_PATTERN, description="Account id, a decimal string 账户号", examples=["100000000001"])
]
RULE_PATTERN: Final = "^[A-Z][A-Z0-9-]{1,63}$"
Rule = Annotated[str, Meta(pattern=RULE_PATTERN, description="Code of a rule 规则代码", examples=["PAY-AUTODEBIT"])]
Shown = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(
        max_length=1000,
        description="Ids of exactly what the person was shown: nothing else is agreed to. Absent: what a check shows "
        "at this moment 向本人展示过的编号,仅同意这些;不填为此刻检查所列",
        examples=[["1"]],
    ),
]
CASE_PATTERN: Final = "^case_[a-z2-7]{26}$"
CaseId = Annotated[
    str, Meta(pattern=CASE_PATTERN, description="Public case id 申请编号", examples=["case_abcdefghijklmnopqrstuvwxyz"])
]


class CheckBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which accounts to check, for what 要检查的账户与申请类型."""

    accounts: Annotated[
        list[Account],
        Meta(
            min_length=1,
            max_length=CHECK_LIMIT,
            description="1 to 1,000 accounts; a person only their own 1 至 1000 个账户",
        ),
    ]
    kind: Annotated[Kind, Meta(description="What would be asked for 申请类型")] = Kind.REVOKE


class SubmitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for, for whom 提交申请."""

    account: Account
    kind: Annotated[Kind, Meta(description="What is asked for 申请类型")]
    consents: Annotated[
        list[Rule],
        Meta(
            max_length=16,
            description="Rules whose consent comes with the case: it ends what they name 随申请一并同意的事项代码",
        ),
    ] = []
    shown: Shown | None = None


class IdentityBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The identity that a case brings 本申请所带来的身份."""

    name: Annotated[str, Meta(min_length=1, max_length=100, description="As on the document 证件上的姓名")]
    document_type: Annotated[
        Literal["resident_id", "residence_permit"],
        Meta(description="resident_id 居民身份证, residence_permit 港澳台居民居住证"),
    ]
    number: Annotated[str, Meta(min_length=1, max_length=64, description="As printed 证件号码")]

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "IdentityBody(…)"


class ProofBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A proof that it is you 身份验证."""

    method: Annotated[
        Literal["payment_password", "sms_code"],
        Meta(description="payment_password 支付密码, sms_code 短信验证码; a document 证件 is brought to /identity"),
    ]
    secret: Annotated[
        str, Meta(min_length=1, max_length=64, description="The password or the code 密码或验证码", examples=["123456"])
    ]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that stands in the way of one account, that follows, and what else could be done 检查结果."""

    account: Account
    kind: Kind
    pack: Annotated[str, Meta(description="Policy pack and version 规则包版本")]
    checked_at: datetime
    passes: Annotated[bool, Meta(description="Nothing stands in the way 没有阻碍")]
    offered: Annotated[bool, Meta(description="A case of this kind can be submitted today 此类申请目前可提交")]
    blockers: list[Blocker]
    consequences: Annotated[list[Consequence], Meta(description="What will happen to this person 办理后果")]
    alternatives: Annotated[
        list[Alternative], Meta(description="What else could reach the goal, the recommended first 其他办法")
    ]
    consents: Annotated[list[str], Meta(description="Rules the person agreed to, which block no more 已同意的事项")]
    versions: Annotated[
        dict[str, int | None],
        Meta(description="The version of each participant's facts; null: could not be read 各系统事实版本"),
    ]


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """The checks, in the order asked 检查结果列表."""

    checks: list[Check]


class ProofState(StrEnum):
    """Where one proof of a case stands."""

    WANTED = "wanted"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    USED_UP = "used_up"


class WantedProof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One proof a case asks for 所需验证."""

    method: Method
    state: ProofState
    tries_left: Annotated[int, Meta(ge=0)]
    expires_at: datetime | None = None


class ParticipantState(StrEnum):
    """What one participant of a case was sent and answered, in words."""

    UNTOUCHED = "untouched"
    TRYING = "trying"
    RESERVED = "reserved"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    PARKED = "parked"


_WORDS: Final = {
    Mark.UNSENT: ParticipantState.UNTOUCHED,
    Mark.TRY_SENT: ParticipantState.TRYING,
    Mark.GRANTED: ParticipantState.RESERVED,
    Mark.CONFIRM_SENT: ParticipantState.CONFIRMING,
    Mark.CONFIRM_REFUSED: ParticipantState.CONFIRMING,
    Mark.CONFIRM_PARKED: ParticipantState.PARKED,
    Mark.CONFIRMED: ParticipantState.CONFIRMED,
    Mark.CANCEL_SENT: ParticipantState.CANCELLING,
    Mark.CANCEL_REFUSED: ParticipantState.CANCELLING,
    Mark.CANCEL_PARKED: ParticipantState.PARKED,
    Mark.CANCELLED: ParticipantState.CANCELLED,
}


Hash = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256, hexadecimal 十六进制哈希", examples=["0" * 64])
]


class SealAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The platform's signature on the timeline of a case that has ended 平台对时间线的签名."""

    number: Annotated[int, Meta(ge=1, description="Number of the seal 封印编号")]
    sealed_at: datetime
    statement: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$",
            description="What was signed, as JWS; its key is at /.well-known/jwks.json 签名声明(JWS)",
        ),
    ]
    record: Annotated[
        Hash | None,
        Meta(
            description="Hash of what else is stored of the case: times, reason, proofs, ...; absent in a seal of an "
            "earlier version 申请其余记录的哈希;旧版封印没有"
        ),
    ] = None
    path: Annotated[list[PathStep], Meta(description="From the head to the statement's root 从头哈希到根")]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What proves later what this case's timeline said now; how to check it: docs/receipts.md 回执,可由第三方核验."""

    case_no: Annotated[int, Meta(ge=1, description="Number of the case at its account 该账户的第几份申请")]
    revision: Annotated[int, Meta(ge=1, description="Rows of the timeline that the head is of 时间线已有几行")]
    head: Annotated[Hash, Meta(description="Hash of the whole timeline so far 时间线至此的哈希")]
    seal: Annotated[
        SealAnswer | None, Meta(description="Absent until some seconds after the end of the case 结束后数秒才有")
    ] = None


class CaseAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A case 申请."""

    id: CaseId
    account: Account
    kind: Kind
    state: State
    revision: Annotated[int, Meta(ge=1, description="Grows with every change 每次变更加一")]
    created_at: datetime
    proofs: list[WantedProof]
    participants: Annotated[
        dict[str, ParticipantState], Meta(description="Each database and network, and where it stands 各系统状态")
    ]
    reason: Annotated[str | None, Meta(description="Why it ended otherwise, codes 结束原因代码")] = None
    withdraw_asked_at: datetime | None = None
    receipt: Receipt


class RecordedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a timeline, exactly as its hash is made 时间线的一行,与计算哈希时一致."""

    revision: Annotated[int, Meta(ge=1)]
    at: Annotated[
        str, Meta(description="UTC, with six digits of a second 世界时", examples=["2026-04-01T08:00:00.000000Z"])
    ]
    entries: list[dict[str, Any]]


class RecordedTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """A timeline as it was recorded, with the receipt that it is checked against 时间线原文与回执."""

    account: Account
    receipt: Receipt
    rows: list[RecordedRow]


class MovementState(StrEnum):
    """What became of a movement of money that was not refused."""

    PENDING = "pending"
    COMPLETED = "completed"
    RETURNED = "returned"


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key (RFC 7517, RFC 8037) 公钥."""

    kty: str
    crv: str
    x: str
    kid: Annotated[str, Meta(description="Named in the header of what it signed 签名头部所引用的编号")]
    use: str
    alg: str


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A JWK Set: the keys of all seals, the present one first 全部封印公钥,当前的在前."""

    keys: list[PublicKey]


class Health(msgspec.Struct, frozen=True):
    """The process is alive 进程存活."""

    status: str


class HeldUp(msgspec.Struct, frozen=True, kw_only=True):
    """Why a process has not begun to serve 尚未开始服务的原因."""

    code: str
    zh: str
    en: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served 可否服务. Participants that do not answer are named: their facts are unknown."""

    ready: bool
    participants: Annotated[dict[str, bool], Meta(description="Who answers 各系统是否应答")]
    clock_off_ms: Annotated[
        int | None,
        Meta(
            description="By how much this process's own clock is ahead of the database's, where that is more than two "
            "seconds; null: it is right 本进程时钟偏差(毫秒),超过两秒才给出;null 为正常"
        ),
    ]
    held_up: Annotated[
        HeldUp | None, Meta(description="What `jiebang config check` says too; null: nothing 尚未开始服务的原因")
    ] = None
    stand_ins: Annotated[
        list[str], Meta(description="What the sandbox stands in for; empty outside a sandbox 由沙箱代替的外部系统")
    ] = []


def check_shape(answer: CheckAnswer) -> Check:
    """Return the answer of a check."""
    return Check(
        account=str(answer.account_id),
        kind=answer.kind,
        pack=answer.pack,
        checked_at=answer.checked_at,
        passes=answer.passes,
        offered=answer.offered,
        blockers=list(answer.blockers),
        consequences=list(answer.consequences),
        alternatives=list(answer.alternatives),
        consents=list(answer.consents),
        versions=dict(answer.versions),
    )


def case_shape(found: CaseDetails, ids: CaseIds, now: datetime) -> CaseAnswer:
    """Return the answer that shows a case."""
    case = found.case
    return CaseAnswer(
        id=ids.encode(*case.key),
        account=str(case.account_id),
        kind=case.kind,
        state=case.state,
        revision=case.revision,
        created_at=case.created_at,
        proofs=[_proof_shape(proof, now) for proof in found.proofs.values()],
        participants={name: _WORDS[Mark(mark)] for name, mark in zip(found.plan.participants, case.marks, strict=True)},
        reason=case.reason,
        withdraw_asked_at=case.withdraw_at,
        receipt=_receipt(found),
    )


def timeline_shape(found: CaseDetails, rows: Iterable[ChainRow]) -> RecordedTimeline:
    """Return the answer with a timeline as it was recorded."""
    return RecordedTimeline(
        account=str(found.case.account_id),
        receipt=_receipt(found),
        rows=[
            RecordedRow(revision=row.revision, at=time_text(row.at), entries=msgspec.json.decode(row.entries))
            for row in rows
        ],
    )


def _receipt(found: CaseDetails) -> Receipt:
    case, sealed, seal = found.case, found.sealed, None
    if sealed is not None:
        seal = SealAnswer(
            number=sealed.seal_no,
            sealed_at=sealed.at,
            statement=sealed.statement,
            record=sealed.record.hex() or None,
            path=list(sealed.path),
        )
    return Receipt(case_no=case.case_no, revision=case.revision, head=case.head.hex(), seal=seal)


def _proof_shape(proof: Proof, now: datetime) -> WantedProof:
    if proof.proven_at is not None:
        state = ProofState.ACCEPTED
    elif proof.tries_left == 0:
        state = ProofState.USED_UP
    elif proof.expires_at is not None and now >= proof.expires_at:
        state = ProofState.EXPIRED
    else:
        state = ProofState.WANTED
    return WantedProof(method=proof.method, state=state, tries_left=proof.tries_left, expires_at=proof.expires_at)


def event_data(entries: list[dict[str, Any]], revision: int, at: datetime) -> bytes:
    """Return one row of a timeline as the data of a server-sent event."""
    return msgspec.json.encode({"revision": revision, "at": at, "entries": entries})
