"""Participant identity: what an account's real name is bound to, in both data centres."""

from __future__ import annotations

from datetime import date
from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.model.verification import LEVELS
from jiebang.participants.core import CENTURY_MINUTES, LAST_SECOND, SQL_BIGINT, load_facts_sql
from jiebang.policy.documents import BROUGHT_DOCUMENTS

EPOCH_CHANGED: Final = "EPOCH-CHANGED"
"""Refusal: the new identity was sealed for another epoch than the one that this Confirm would begin."""
NOT_BOUND: Final = "ID-NONE"
"""Refusal: there is no active identity to reclaim."""
DESTROYED_AFTER: Final = "key_destroyed_after_minutes"
"""The effect that ends the key of an identity: in how many minutes it is destroyed."""

DECLARATION: Final = Declaration(
    owner="identity",
    package=__name__,
    databases={"identity_shenzhen": "shenzhen", "identity_guiyang": "guiyang"},
    facts=specs(
        "identity",
        (
            "identity_state",
            FactType.TEXT,
            "实名状态",
            "binding of the real name: active, pending_reclaim, reclaimed or none",
        ),
        ("identity_changed_at", FactType.TIME, "上次变更实名的时间", "when the identity was last changed"),
        ("document_type", FactType.TEXT, "证件类型", "type of the bound document"),
        (
            "birth_date",
            FactType.DATE,
            "出生日期(成年后只到年,记为当年最后一天)",
            "birth date; of adults the last day of their year of birth",
        ),
        ("document_doubt", FactType.TEXT, "证件存疑之处", "how the document departs from its standard"),
    ),
    # Each data centre reclaims at its own time, and a check trusts the two only where they agree: facts.sql gives no
    # time of change for a reclaimed identity, which nothing can be requested for.
    facts_sql=load_facts_sql(__name__),
    value_words={
        "identity_state": {
            "active": Text("已生效", "in force"),
            "pending_reclaim": Text("待回收", "pending reclaim"),
            "reclaimed": Text("已回收", "reclaimed"),
            "none": Text("未实名", "none"),
        },
        "document_type": {
            "resident_id": Text("居民身份证", "resident identity card"),
            "residence_permit": Text("港澳台居民居住证", "residence permit for Hong Kong, Macao and Taiwan residents"),
            "hk_macao_permit": Text(
                "港澳居民来往内地通行证", "mainland travel permit for Hong Kong and Macao residents"
            ),
            "taiwan_permit": Text("台湾居民来往大陆通行证", "mainland travel permit for Taiwan residents"),
            "foreign_permanent_residence": Text("外国人永久居留身份证", "foreign permanent resident identity card"),
            "passport": Text("护照", "passport"),
        },
        "document_doubt": {
            "region_unlisted": Text("地区代码不在历年区划代码表中", "its region is in no list of region codes"),
            "birth_date_partial": Text("出生日期不完整", "its birth date is not known whole"),
        },
    },
    operations={
        "reclaim": Operation(
            effects={DESTROYED_AFTER: ValueType(int, most=CENTURY_MINUTES, weaker=Weaker.MORE)},
            refusals={NOT_BOUND: "a.state <> 'active'"},
            missing=NOT_BOUND,
            on_try={"state": "'pending_reclaim'"},
            on_confirm={
                "state": "'reclaimed'",
                "level": "0",
                "document_type": "NULL",
                "document_index": "NULL",
                "birth_date": "NULL",
                "document_doubt": "NULL",
                "region": "NULL",
                "changed_at": "e.now",
                "key_destroy_at": "e.now + make_interval(mins => coalesce(e.key_destroyed_after_minutes, 0)::integer)",
            },
            on_cancel={"state": "CASE WHEN a.state = 'pending_reclaim' THEN 'active' ELSE a.state END"},
        ),
        # The new identity takes the old one's place in one statement; the old one stays sealed beside it, for law.
        # It counts as changed from when it was verified: both data centres must say the same time.
        "swap": Operation(
            effects={DESTROYED_AFTER: ValueType(int, most=CENTURY_MINUTES, weaker=Weaker.MORE)},
            given={
                "epoch": ValueType(int, least=1, most=SQL_BIGINT),
                "level": ValueType(int, least=LEVELS[0], most=LEVELS[1]),
                "document_type": ValueType(str, among=BROUGHT_DOCUMENTS),
                "document_index": ValueType(bytes, least=32, most=32),
                "document_doubt": ValueType(str, among=("", "region_unlisted")),
                "birth_date": ValueType(date),
                "sealed": ValueType(bytes, least=29),
                "verified_at": ValueType(int, most=LAST_SECOND),
            },
            refusals={NOT_BOUND: "a.state <> 'active'", EPOCH_CHANGED: "g.epoch <> a.epoch + 1"},
            missing=NOT_BOUND,
            on_confirm={
                "level": "g.level::smallint",
                "document_type": "g.document_type",
                "document_index": "g.document_index",
                "document_doubt": "nullif(g.document_doubt, '')",
                "birth_date": "g.birth_date",
                "region": "NULL",
                "sealed": "g.sealed",
                "changed_at": "to_timestamp(g.verified_at)",
                "former_sealed": "array_append(a.former_sealed, a.sealed)",
                "former_epochs": "array_append(a.former_epochs, a.epoch)",
                "former_key_destroy_at": "e.now + "
                "make_interval(mins => coalesce(e.key_destroyed_after_minutes, 0)::integer)",
            },
        ),
    },
    formerly="reclaim",
)
