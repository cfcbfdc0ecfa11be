"""Bodies and answers of remedies on the spot and consents. Account and item ids are decimal strings."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.api.shapes import Account, Check, MovementState, Rule, Shown, check_shape
from jiebang.model.case import Kind

if TYPE_CHECKING:
    from jiebang.usecases.cases.consent import ConsentStatus
    from jiebang.usecases.cases.remedy import ClearedBlocker
    from jiebang.usecases.cases.step_up import PendingStepUp

ITEMS_LIMIT = 1000
Checked = Annotated[Kind, Meta(description="What the check in the answer is for 答复中检查的申请类型")]
Items = Annotated[
    list[Annotated[str, Meta(pattern="^[1-9][0-9]{0,18}$")]],
    Meta(
        min_length=1,
        max_length=ITEMS_LIMIT,
        description="Ids as the check names them; absent: all there are 检查结果所列编号;不填为全部",
        examples=[["1"]],
    ),
]


class PacketAction(StrEnum):
    """What to do with red packets."""

    OPEN = "open"
    RETURN = "return"


class RemedyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose blocker to clear 要处理的账户."""

    account: Account
    kind: Checked = Kind.REVOKE


class RedPacketsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which red packets to open or to return 要处理的红包."""

    account: Account
    kind: Checked = Kind.REVOKE
    packets: Items | None = None
    action: Annotated[PacketAction, Meta(description="open 拆开, return 退回")] = PacketAction.OPEN


class AutoDebitsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which auto-debit contracts to end 要终止的自动扣费."""

    account: Account
    kind: Checked = Kind.REVOKE
    contracts: Items | None = None


class LoginsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which abnormal logins were the person's own 要确认的登录."""

    account: Account
    kind: Checked = Kind.REVOKE
    logins: Items | None = None


class LoginsProofBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both proofs that the logins were the person's own 确认登录所需的两项验证."""

    account: Account
    remedy: Annotated[UUID, Meta(description="The id that asking for it answered 发起时返回的编号")]
    password: Annotated[str, Meta(min_length=1, max_length=64, description="Payment password 支付密码")]
    code: Annotated[str, Meta(min_length=1, max_length=64, description="The code sent by SMS 短信验证码")]


class UnlockProofBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both proofs that free locked ones 解除验证锁定所需的两项验证."""

    account: Account
    remedy: Annotated[UUID, Meta(description="The id that asking for it answered 发起时返回的编号")]
    password: Annotated[str, Meta(min_length=1, max_length=64, description="Payment password 支付密码")]
    code: Annotated[str, Meta(min_length=1, max_length=64, description="The code sent by SMS 短信验证码")]


class ApprovalBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The code that the other device shows 另一设备显示的代码."""

    account: Account
    kind: Checked = Kind.REVOKE
    code: Annotated[str, Meta(min_length=1, max_length=64, description="As scanned or typed 扫描或输入所得")]


class ConsentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the person agrees that a case ends 同意由申请终止的事项."""

    account: Account
    code: Rule
    shown: Shown | None = None
    kind: Checked = Kind.REVOKE


class Remedied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a remedy did, and what stands in the way now 处理结果与新的检查."""

    id: Annotated[UUID, Meta(description="Id of the remedy; of the ledger entry where money moved 处理编号")]
    account: Account
    code: Rule
    at: datetime
    items: Annotated[list[str], Meta(description="What it cleared 已处理的编号")]
    count: Annotated[int, Meta(ge=0, description="How many there were 处理项数")]
    check: Check
    state: Annotated[MovementState | None, Meta(description="Where money moved 资金变动状态")] = None
    amount_fen: Annotated[int, Meta(ge=0, description="How much was moved 金额")] | None = None


class Awaited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A remedy that waits for its proof 等待验证的处理."""

    id: Annotated[UUID, Meta(description="Id of the remedy 处理编号")]
    account: Account
    code: Rule
    items: Annotated[list[str], Meta(description="What it will clear 将处理的编号")]
    tries_left: Annotated[int, Meta(ge=0)]
    expires_at: datetime
    show: Annotated[
        str | None, Meta(description="The one-time code for the primary device to scan 供主设备扫描的一次性代码")
    ] = None


class ConsentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is agreed to under one rule, and what stands in the way now 同意状态与新的检查."""

    account: Account
    code: Rule
    agreed: Annotated[
        list[str] | None,
        Meta(description="Ids agreed to (empty: to the whole); null: nothing 已同意的编号;空为整体同意,null 为未同意"),
    ]
    check: Check


def remedy_shape(cleared: ClearedBlocker) -> Remedied:
    """Return the answer of a remedy that was carried out."""
    return Remedied(
        id=cleared.remedy_id,
        account=str(cleared.account_id),
        code=cleared.code,
        at=cleared.at,
        items=list(cleared.items),
        count=len(cleared.items),
        check=check_shape(cleared.check),
        state=None if cleared.amount_fen is None else MovementState(cleared.state),
        amount_fen=cleared.amount_fen,
    )


def pending_remedy_shape(waiting: PendingStepUp) -> Awaited:
    """Return the answer of a remedy that waits for its proof, without the code to show, which is never stored."""
    step_up = waiting.step_up
    return Awaited(
        id=step_up.remedy_id,
        account=str(step_up.account_id),
        code=waiting.code,
        items=list(step_up.what),
        tries_left=waiting.tries_left,
        expires_at=step_up.expires_at,
    )


def consent_shape(standing: ConsentStatus) -> ConsentAnswer:
    """Return the answer of a change of consent."""
    return ConsentAnswer(
        account=str(standing.account_id),
        code=standing.code,
        agreed=None if standing.what is None else list(standing.what),
        check=check_shape(standing.check),
    )
