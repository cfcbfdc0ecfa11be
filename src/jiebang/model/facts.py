"""Facts: every typed value about an account that a rule may name, and the participant that owns it (domain.md §2).

A participant answers `facts(accounts)` with one `FactBatch`: columns of equal length. NULL in a column means the
thing is absent ("never logged in abnormally"); a fact that could not be *read* is one whose whole participant is
missing from the gathered batches, and it is unknown, which never passes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLATFORM: Final = "platform"
"""Our own store as an owner of facts (the live case)."""
QUOTA: Final = "quota"
"""Our own store again, for what it knows of the *document* of a case: unread where nobody can say which that is.

Apart from PLATFORM, so that two identity databases which differ leave the account's live case known."""
REQUEST: Final = "request"
"""What the request itself brings (the device it comes from). Always read."""


class FactType(StrEnum):
    """The type of a fact's column. `ITEMS` is a list of JSON objects, shown to the person, never compared."""

    INT = "int"
    FEN = "fen"
    BOOL = "bool"
    TEXT = "text"
    TIME = "time"
    DATE = "date"
    ITEMS = "items"


class FactSpec(msgspec.Struct, frozen=True):
    """One fact: its name, owner, type, and what it means in both languages."""

    name: str
    owner: str
    type: FactType
    zh: str
    en: str


class FactBatch(msgspec.Struct, frozen=True):
    """What one participant knows of a batch of accounts.

    `accounts` are those it has a row for, in any order; `versions[i]` is that row's facts_version and
    `columns[name][i]` its value of the fact. Accounts without a row are simply absent.
    """

    owner: str
    accounts: Sequence[int]
    versions: Sequence[int]
    columns: Mapping[str, Sequence[Any]]


def _specs(owner: str, *facts: tuple[str, FactType, str, str]) -> tuple[FactSpec, ...]:
    return tuple(FactSpec(name, owner, kind, zh, en) for name, kind, zh, en in facts)


_I, _F, _B, _T, _AT, _D, _L = (
    FactType.INT,
    FactType.FEN,
    FactType.BOOL,
    FactType.TEXT,
    FactType.TIME,
    FactType.DATE,
    FactType.ITEMS,
)

PARTICIPANTS_OUT: Final = "participant_out_items"
"""The fact that says which participants of the case's plan operators took out of service: no case begins meanwhile."""
CONSENTS: Final = "consents"
"""The fact that says what a person agreed to: one item for each thing, `code` the rule's, `item` the id of an item of
its list (absent: agreed to as a whole)."""

FACTS: Final[Mapping[str, FactSpec]] = {
    spec.name: spec
    for spec in (
        *_specs(
            "identity",
            ("identity_state", _T, "实名状态", "binding of the real name: active, pending_reclaim, reclaimed or none"),
            ("identity_changed_at", _AT, "上次变更实名的时间", "when the identity was last changed"),
            ("document_type", _T, "证件类型", "type of the bound document"),
            ("birth_date", _D, "出生日期", "birth date on the document"),
        ),
        *_specs(
            "wallet",
            ("balance_fen", _F, "零钱余额", "balance"),
            ("open_transactions", _I, "未完成交易数", "number of unfinished transactions"),
            ("open_transaction_items", _L, "未完成交易", "unfinished transactions: id, title, amount_fen, expected_at"),
            ("unclaimed_red_packets", _I, "未领取红包数", "number of unclaimed red packets"),
            (
                "unclaimed_red_packet_items",
                _L,
                "未领取红包",
                "unclaimed red packets: id, sender, amount_fen, expires_at",
            ),
            ("arrears_fen", _F, "欠款", "arrears"),
            ("frozen_fen", _F, "冻结金额", "frozen funds"),
            ("freeze_items", _L, "冻结明细", "freezes: id, authority, amount_fen, contact"),
            ("autodebit_contracts", _I, "自动扣费签约数", "number of active auto-debit contracts"),
            ("autodebit_items", _L, "自动扣费签约", "active contracts: id, merchant, next_charge_at, amount_fen"),
            ("open_credit", _I, "未结清信贷数", "number of credit products open or owing"),
            ("credit_items", _L, "信贷产品", "credit products: id, product, owed_fen"),
            ("receive_limited", _B, "有单日收款限额", "there is a daily receiving limit"),
            ("receive_limit_fen", _F, "单日收款限额", "daily receiving limit, 0 where there is none"),
            ("bank_cards", _I, "已绑定银行卡数", "number of bound bank cards"),
            ("bank_card_items", _L, "已绑定银行卡", "bound bank cards: id, bank, tail"),
        ),
        *_specs(
            "security",
            ("primary_device_id", _T, "主设备", "the primary device"),
            ("primary_device_since", _AT, "主设备启用时间", "since when the primary device is primary"),
            ("abnormal_login_at", _AT, "最近异常登录时间", "last abnormal login not confirmed by the person"),
            ("abnormal_login_items", _L, "异常登录", "unconfirmed abnormal logins: id, at, place, device"),
            ("legal_hold", _B, "司法冻结", "a court or authority holds the account"),
            ("legal_hold_authority", _T, "冻结机关", "who holds it and how to reach them"),
            ("risk_hold", _B, "风控限制", "the risk engine holds the account"),
            ("risk_hold_contact", _T, "风控联系方式", "who decides on the risk engine's hold and how to reach them"),
        ),
        *_specs(
            "social",
            ("contacts", _I, "联系人数", "number of contacts"),
            ("messages", _I, "消息数", "number of messages"),
            ("email_bound", _B, "已绑定邮箱", "an e-mail is bound"),
        ),
        *_specs(
            "openplatform",
            ("grants", _I, "授权应用数", "number of live OAuth grants"),
            ("grant_items", _L, "授权应用", "live grants: id, app, scopes"),
            ("mini_programs", _I, "小程序数", "number of published mini programs"),
            ("mini_program_items", _L, "小程序", "published mini programs: id, name"),
            ("official_accounts", _I, "管理的公众号数", "official accounts administered"),
            ("official_account_items", _L, "管理的公众号", "official accounts administered: id, name"),
            ("apps", _I, "开发的应用数", "number of apps developed"),
            ("app_items", _L, "开发的应用", "apps developed: id, name"),
            ("led_apps", _I, "任技术负责人的应用数", "number of apps led technically"),
            ("led_app_items", _L, "任技术负责人的应用", "apps led technically: id, name"),
            ("api_quota_level", _T, "接口调用配额级别", "level of API quotas; absent for who develops nothing"),
        ),
        *_specs(
            "enterprise",
            ("administered_enterprises", _I, "管理的企业数", "enterprises administered"),
            ("enterprise_items", _L, "管理的企业", "enterprises administered: id, name, credit_code"),
            ("open_approvals", _I, "处理中的审批数", "approvals in flight"),
            ("approval_items", _L, "处理中的审批", "approvals in flight: id, title"),
            ("legal_person_enterprises", _I, "任法定代表人的企业数", "enterprises whose legal person this is"),
            ("api_rights", _B, "企业接口权限", "may call enterprise APIs"),
        ),
        *_specs(
            "merchant",
            ("open_merchants", _I, "未注销商户号数", "open merchant numbers"),
            ("merchant_items", _L, "商户号", "open merchant numbers: id, name"),
        ),
        *_specs("gaming", ("game_guard", _B, "防沉迷", "playing-time guard for minors is on")),
        *_specs(
            PLATFORM,
            ("live_case", _T, "进行中的申请", "public id of the account's live case"),
            ("account_known", _B, "账户存在", "the platform knows the account"),
            ("consents", _L, "已同意的事项", "what the person agreed that a case may end: code, item, at"),
            ("participants_out", _I, "停用的系统数", "number of systems out of service that a case needs"),
            (
                "participant_out_items",
                _L,
                "停用的系统",
                "systems out of service that a case needs: participant, name_zh, name_en, since",
            ),
        ),
        *_specs(
            QUOTA,
            (
                "document_changes_this_year",
                _I,
                "该证件本年度已变更实名次数",
                "identity changes the bound document was used for this calendar year, on whatever accounts",
            ),
            ("quota_refused_at", _AT, "最近一次超出次数被拒的时间", "when a change beyond the quota was last refused"),
        ),
        *_specs(
            REQUEST, ("request_device_id", _T, "发起设备", "the device the request comes from; absent for a service")
        ),
    )
}
"""Every fact by name. Owners are participants (`identity`: both data centres), PLATFORM, QUOTA and REQUEST."""

VALUE_WORDS: Final[Mapping[str, Mapping[str, Text]]] = {
    "identity_state": {
        "active": Text("已生效", "in force"),
        "pending_reclaim": Text("待回收", "pending reclaim"),
        "reclaimed": Text("已回收", "reclaimed"),
        "none": Text("未实名", "none"),
    },
    "document_type": {
        "resident_id": Text("居民身份证", "resident identity card"),
        "residence_permit": Text("港澳台居民居住证", "residence permit for Hong Kong, Macao and Taiwan residents"),
        "hk_macao_permit": Text("港澳居民来往内地通行证", "mainland travel permit for Hong Kong and Macao residents"),
        "taiwan_permit": Text("台湾居民来往大陆通行证", "mainland travel permit for Taiwan residents"),
        "foreign_permanent_residence": Text("外国人永久居留身份证", "foreign permanent resident identity card"),
        "passport": Text("护照", "passport"),
    },
    "api_quota_level": {
        "test": Text("测试", "test"),
        "standard": Text("标准", "standard"),
        "high": Text("高", "high"),
    },
}
"""By fact: what a person reads for each of its values, where a participant answers with a word of its own."""

ITEM_FIELDS: Final[Mapping[str, Mapping[str, FactType]]] = {
    "open_transaction_items": {"id": _T, "title": _T, "amount_fen": _F, "expected_at": _AT},
    "unclaimed_red_packet_items": {"id": _T, "sender": _T, "amount_fen": _F, "expires_at": _AT},
    "freeze_items": {"id": _T, "authority": _T, "amount_fen": _F, "contact": _T},
    "autodebit_items": {"id": _T, "merchant": _T, "next_charge_at": _AT, "amount_fen": _F},
    "credit_items": {"id": _T, "product": _T, "owed_fen": _F},
    "bank_card_items": {"id": _T, "bank": _T, "tail": _T},
    "abnormal_login_items": {"id": _T, "at": _AT, "place": _T, "device": _T},
    "grant_items": {"id": _T, "app": _T, "scopes": _T},
    "mini_program_items": {"id": _T, "name": _T},
    "official_account_items": {"id": _T, "name": _T},
    "app_items": {"id": _T, "name": _T},
    "led_app_items": {"id": _T, "name": _T},
    "enterprise_items": {"id": _T, "name": _T, "credit_code": _T},
    "approval_items": {"id": _T, "title": _T},
    "merchant_items": {"id": _T, "name": _T},
    "consents": {"code": _T, "item": _T, "at": _AT},
    "participant_out_items": {"participant": _T, "name_zh": _T, "name_en": _T, "since": _AT},
}
"""The fields of each fact of type ITEMS. Items are JSON objects, so their times are ISO 8601 strings."""
