"""Facts: every typed value about an account that a rule may name has a `FactSpec` (domain.md §2).

A participant declares those that it owns (`model.participants`); those of our own store and of the request are
declared here. A participant answers `facts(accounts)` with one `FactBatch`: columns of equal length. NULL in a column
means absent ("never logged in abnormally"). A fact is *unread* where its participant's batch is missing; an unread fact
is unknown, and never passes a rule.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLATFORM: Final = "platform"
"""Our own store as an owner of facts (the live case)."""
QUOTA: Final = "quota"
"""Our own store as the owner of facts about a case's *document*: unread where the document is unknown.

Separate from PLATFORM, so that the live case stays readable when the two identity databases differ."""
REQUEST: Final = "request"
"""The request itself as an owner of facts (the device it comes from). Always read."""


class FactType(StrEnum):
    """The type of a fact's column. `ITEMS` is a list of JSON objects, shown to the person but never compared."""

    INT = "int"
    FEN = "fen"
    BOOL = "bool"
    TEXT = "text"
    TIME = "time"
    DATE = "date"
    ITEMS = "items"


class FactSpec(msgspec.Struct, frozen=True):
    """One fact: its name, owner, type, and what it means in both languages.

    `fields`: of a fact of type ITEMS, the fields of each item. Items are JSON objects, so their times are ISO 8601
    strings.
    """

    name: str
    owner: str
    type: FactType
    zh: str
    en: str
    fields: Mapping[str, FactType] = {}


class FactBatch(msgspec.Struct, frozen=True):
    """One participant's facts about a batch of accounts.

    `accounts` are those it has a row for, in any order; `versions[i]` is that row's facts_version and
    `columns[name][i]` its value of the fact. Accounts without a row are absent.
    """

    owner: str
    accounts: Sequence[int]
    versions: Sequence[int]
    columns: Mapping[str, Sequence[Any]]


def specs(owner: str, *facts: tuple[str, FactType | Mapping[str, FactType], str, str]) -> tuple[FactSpec, ...]:
    """Return the facts of one owner, each given as its name, its type, and its meaning in Chinese and in English.

    For a list of items, the item's fields are given in place of the type.
    """
    return tuple(
        FactSpec(name, owner, kind, zh, en)
        if isinstance(kind, FactType)
        else FactSpec(name, owner, FactType.ITEMS, zh, f"{en}: {', '.join(kind)}", kind)
        for name, kind, zh, en in facts
    )


PARTICIPANTS_OUT: Final = "participant_out_items"
"""The fact that lists the participants of the case's plan that are out of service: no case begins meanwhile."""
CONSENTS: Final = "consents"
"""The fact that lists a person's consents. `code`: the rule's; `item`: the id of an item of the rule's list (absent:
consent to the whole)."""

OWN_FACTS: Final[tuple[FactSpec, ...]] = (
    *specs(
        PLATFORM,
        ("live_case", FactType.TEXT, "进行中的申请", "public id of the account's live case"),
        ("account_known", FactType.BOOL, "账户存在", "the platform knows the account"),
        (
            "consents",
            {"code": FactType.TEXT, "item": FactType.TEXT, "at": FactType.TIME},
            "已同意的事项",
            "what the person agreed that a case may end",
        ),
        ("participants_out", FactType.INT, "停用的系统数", "number of systems out of service that a case needs"),
        (
            "participant_out_items",
            {"participant": FactType.TEXT, "name_zh": FactType.TEXT, "name_en": FactType.TEXT, "since": FactType.TIME},
            "停用的系统",
            "systems out of service that a case needs",
        ),
    ),
    *specs(
        QUOTA,
        (
            "document_changes_this_year",
            FactType.INT,
            "该证件本年度已变更实名次数",
            "identity changes the bound document was used for this calendar year, on whatever accounts",
        ),
        (
            "quota_refused_at",
            FactType.TIME,
            "最近一次超出次数被拒的时间",
            "when a change beyond the quota was last refused",
        ),
    ),
    *specs(
        REQUEST,
        ("request_device_id", FactType.TEXT, "发起设备", "the device the request comes from; absent for a service"),
        ("request_by_service", FactType.BOOL, "由平台服务发起", "the request comes from a service of the platform"),
    ),
)
"""The facts that no participant owns."""
