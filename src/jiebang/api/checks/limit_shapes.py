"""Bodies and answers about the limits of an account. Docstrings here are part of the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.api.shapes import CHECK_LIMIT, Account, CaseId
from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.facts import FactType

if TYPE_CHECKING:
    from jiebang.model.ids import CaseIds
    from jiebang.model.limits import AccountLimits, LimitInForce


_UNITS: Final = {FactType.FEN: "fen", FactType.INT: "count"}


class LimitsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which accounts to tell the limits in force 要查询限制的账户."""

    accounts: Annotated[
        list[Account],
        Meta(
            min_length=1,
            max_length=CHECK_LIMIT,
            description="1 to 1,000 accounts; a person only their own 1 至 1000 个账户",
        ),
    ]


class LimitOfAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One limit in force 一项生效中的限制."""

    name: Annotated[str, Meta(description="Which limit 限制名称", examples=["receiving"])]
    participant: Annotated[str, Meta(description="Who enforces it 由谁执行", examples=["wallet"])]
    owner: Annotated[Text, Meta(description="The same for people 执行方名称")]
    title: Text
    value: Annotated[
        int | None,
        Meta(
            description="What it is limited to, money in fen; null: it is off, or asks for something 上限,金额单位为分"
        ),
    ]
    unit: Annotated[str | None, Meta(description="What `value` and `used` count: `fen` or `count` 单位")]
    used: Annotated[int | None, Meta(description="How much of `value` was used this Shanghai day 当日已用")]
    case: Annotated[CaseId | None, Meta(description="The case that caused it; null: none did 造成此限制的申请")]
    kind: Annotated[Kind | None, Meta(description="The kind of that case 该申请的种类")]
    since: Annotated[
        datetime | None,
        Meta(description="Since when; null: no case caused it, or its end is being saved now 起始时间"),
    ]
    until: Annotated[datetime | None, Meta(description="Until when; null: until it is lifted 截止时间,空为直至解除")]
    explanation: Annotated[Text | None, Meta(description="Why, from the policy in force; null: it does not say 原因")]
    lifted: Annotated[Text | None, Meta(description="How it is lifted 如何解除")]
    appeal: Annotated[Text | None, Meta(description="Where to appeal 申诉途径")]
    source: str | None
    legal_basis: Annotated[str | None, Meta(description="Law and article, or `platform` 法律依据,或 platform 平台策略")]


class LimitsOfAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What restricts one account now 一个账户生效中的限制."""

    account: Account
    pack: Annotated[str, Meta(description="Policy pack and version 规则包版本")]
    read_at: datetime
    limits: list[LimitOfAccount]
    unread: Annotated[
        list[str],
        Meta(description="Systems that did not answer: what they restrict is unknown 未应答的系统,其限制未知"),
    ]


class LimitsOfAccounts(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of each account, in the order asked 各账户的限制,按请求次序."""

    accounts: list[LimitsOfAccount]


def limits_shape(found: AccountLimits, ids: CaseIds) -> LimitsOfAccount:
    """Return what is told of an account's limits."""
    return LimitsOfAccount(
        account=str(found.account_id),
        pack=found.pack,
        read_at=found.read_at,
        limits=[_limit_shape(found.account_id, each, ids) for each in found.limits],
        unread=list(found.unread),
    )


def _limit_shape(account_id: int, limit: LimitInForce, ids: CaseIds) -> LimitOfAccount:
    return LimitOfAccount(
        name=limit.name,
        participant=limit.participant,
        owner=limit.owner,
        title=limit.title,
        value=limit.value,
        unit=None if limit.value_type is None else _UNITS[limit.value_type],
        used=limit.used,
        case=None if limit.case_no is None else ids.encode(account_id, limit.case_no),
        kind=limit.kind,
        since=limit.since,
        until=limit.until,
        explanation=limit.explanation,
        lifted=limit.lifted,
        appeal=limit.appeal,
        source=limit.source,
        legal_basis=limit.legal_basis,
    )
