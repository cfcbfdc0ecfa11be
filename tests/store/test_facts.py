"""Facts: each participant answers every fact of the declarations that it owns, rightly, for a whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from jiebang.model.facts import FactBatch, FactType
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from tests.rows import AT, insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

RICH, BARE, REVOKED, STRANGER = 101, 102, 103, 104
LATER = AT + timedelta(days=1)
TEXT_AT, TEXT_LATER = "2026-03-01T04:00:00+00:00", "2026-03-02T04:00:00+00:00"
ENTRY = UUID(int=7)

# What stands in the databases beside the account rows, for RICH and in the same epoch for REVOKED, whose account is an
# epoch further: what dies with its epoch must be gone there.
CHILDREN: Mapping[str, tuple[str, list[dict[str, Any]]]] = {
    "wallet.entry": (
        "wallet",
        [
            {
                "entry_id": UUID(int=number),
                "kind": "payment",
                "title": "美团",
                "amount_fen": -1800,
                "state": state,
                "made_at": AT,
                "expected_at": LATER if state == "pending" else None,
                "ended_at": None if state == "pending" else AT,
            }
            for number, state in ((7, "pending"), (8, "completed"), (9, "returned"))
        ],
    ),
    "wallet.red_packet": (
        "wallet",
        [
            {
                "packet_id": number,
                "sender": "王芳",
                "amount_fen": 100 * number,
                "state": state,
                "sent_at": AT,
                "expires_at": LATER,
                "ended_at": None if state == "unclaimed" else AT,
            }
            for number, state in ((1, "unclaimed"), (2, "unclaimed"), (3, "returned"))
        ],
    ),
    "wallet.arrears": (
        "wallet",
        [
            {"arrears_id": 1, "title": "话费", "owed_fen": 300, "due_at": AT, "repaid_at": None},
            {"arrears_id": 2, "title": "话费", "owed_fen": 40, "due_at": AT, "repaid_at": None},
            {"arrears_id": 3, "title": "话费", "owed_fen": 999, "due_at": AT, "repaid_at": AT},
        ],
    ),
    "wallet.freeze": (
        "wallet",
        [
            {
                "freeze_id": number,
                "authority": "南山区人民法院",
                "contact": "0755-1",
                "amount_fen": 70,
                "frozen_at": AT,
                "lifted_at": lifted,
            }
            for number, lifted in ((1, None), (2, AT))
        ],
    ),
    "wallet.autodebit_contract": (
        "wallet",
        [
            {
                "contract_id": number,
                "epoch": 1,
                "merchant": "腾讯视频",
                "service": "会员",
                "amount_fen": amount,
                "next_charge_at": LATER,
                "signed_at": AT,
                "ended_at": ended,
            }
            for number, amount, ended in ((1, 2500, None), (2, None, None), (3, 1, AT))
        ],
    ),
    "wallet.credit_product": (
        "wallet",
        [
            {"product_id": 1, "product": "微粒贷", "owed_fen": 5000, "opened_at": AT, "closed_at": None},
            {"product_id": 2, "product": "分付", "owed_fen": 0, "opened_at": AT, "closed_at": AT},
        ],
    ),
    "wallet.bank_card": (
        "wallet",
        [
            {
                "card_id": number,
                "epoch": 1,
                "bank": "招商银行",
                "kind": "debit",
                "tail": "0042",
                "doubt": "check_character",
                "bound_at": AT,
                "unbound_at": unbound,
            }
            for number, unbound in ((1, None), (2, AT))
        ],
    ),
    "security.device": (
        "security",
        [
            {
                "device_id": "phone",
                "platform": "ios",
                "model": "iPhone 13",
                "os_version": "17.1",
                "biometric": True,
                "registered_at": AT,
                "last_seen_at": AT,
            }
        ],
    ),
    "security.login": (
        "security",
        [
            {"login_id": 1, "device_id": "phone", "place": "深圳", "at": AT, "anomaly": None, "confirmed_at": None},
            {
                "login_id": 2,
                "device_id": "phone",
                "place": "三亚",
                "at": AT,
                "anomaly": "far_place",
                "confirmed_at": None,
            },
            {
                "login_id": 3,
                "device_id": "other",
                "place": "大连",
                "at": LATER,
                "anomaly": "new_device",
                "confirmed_at": None,
            },
            {
                "login_id": 4,
                "device_id": "x",
                "place": "北京",
                "at": LATER,
                "anomaly": "odd_hour",
                "confirmed_at": LATER,
            },
        ],
    ),
    "security.hold": (
        "security",
        [
            {"hold_id": 1, "kind": "risk", "authority": "风控", "contact": "95017", "placed_at": AT, "lifted_at": None},
            {
                "hold_id": 2,
                "kind": "legal",
                "authority": "法院",
                "contact": "12368",
                "placed_at": LATER,
                "lifted_at": None,
            },
            {"hold_id": 3, "kind": "legal", "authority": "旧案", "contact": "-", "placed_at": AT, "lifted_at": AT},
        ],
    ),
    "social.contact": ("social", [{"contact_id": number, "remark": "", "added_at": AT} for number in (1, 2, 3)]),
    "social.message": (
        "social",
        [
            {"message_id": number, "peer_id": 2, "sender_id": 2, "kind": "text", "body": "你好", "sent_at": AT}
            for number in range(1, 6)
        ],
    ),
    "openplatform.oauth_grant": (
        "openplatform",
        [
            {
                "grant_id": number,
                "epoch": 1,
                "app_id": "wx1",
                "app_name": "滴滴出行",
                "scopes": ["snsapi_base", "snsapi_userinfo"],
                "granted_at": AT,
                "revoked_at": revoked,
            }
            for number, revoked in ((1, None), (2, AT))
        ],
    ),
    "openplatform.app": (
        "openplatform",
        [
            {"app_id": app, "name": name, "technical_lead": lead, "created_at": AT, "closed_at": closed}
            for app, name, lead, closed in (
                ("wx1", "记账", False, None),
                ("wx2", "点餐", True, None),
                ("wx3", "旧应用", True, AT),
            )
        ],
    ),
    "openplatform.mini_program": (
        "openplatform",
        [
            {"program_id": f"wx{state}", "name": "点餐", "state": state, "created_at": AT}
            for state in ("published", "draft", "closed")
        ],
    ),
    "openplatform.official_account": (
        "openplatform",
        [
            {"official_id": f"gh_{number}", "name": "读书", "role": role, "joined_at": AT, "left_at": left}
            for number, role, left in ((1, "administrator", None), (2, "operator", None), (3, "administrator", AT))
        ],
    ),
    "enterprise.membership": (
        "enterprise",
        [
            {
                "enterprise_id": number,
                "name": "深圳甲公司",
                "credit_code": "91440300MA5FK0XX0A",
                "credit_code_doubt": "check_character",
                "role": role,
                "legal_person": number != 1,
                "joined_at": AT,
                "left_at": left,
            }
            for number, role, left in ((1, "administrator", None), (2, "member", None), (3, "administrator", AT))
        ],
    ),
    "enterprise.approval": (
        "enterprise",
        [
            {
                "approval_id": number,
                "epoch": 1,
                "enterprise_id": 1,
                "title": "报销",
                "state": state,
                "submitted_at": AT,
                "ended_at": None if state == "in_flight" else AT,
            }
            for number, state in ((1, "in_flight"), (2, "in_flight"), (3, "approved"))
        ],
    ),
    "merchant.merchant_number": (
        "merchant",
        [
            {
                "merchant_no": f"160000000{number}",
                "name": "小店",
                "category": "餐饮",
                "opened_at": AT,
                "closed_at": closed,
            }
            for number, closed in ((1, None), (2, AT))
        ],
    ),
}
ACCOUNT: Mapping[str, Mapping[str, Any]] = {
    "identity": {"document_doubt": "region_unlisted"},
    "wallet": {"balance_fen": 12_345, "open_entries": 1, "receive_limit_fen": 5_000_000},
    "openplatform": {"api_quota_level": "standard"},
    "enterprise": {"api_rights": True},
    "security": {"primary_device_id": "phone", "primary_device_since": AT},
    "social": {"email": "a@example.com"},
    "gaming": {"game_guard": True},
}
EXPECTED: Mapping[str, Any] = {
    "identity_state": "active",
    "identity_changed_at": AT,
    "document_type": "resident_id",
    "birth_date": date(1990, 5, 17),
    "document_doubt": "region_unlisted",
    "balance_fen": 12_345,
    "open_transactions": 1,
    "open_transaction_items": [
        {"id": str(ENTRY), "title": "美团", "amount_fen": -1800, "expected_at": TEXT_LATER},
    ],
    "unclaimed_red_packets": 2,
    "unclaimed_red_packet_items": [
        {"id": "1", "sender": "王芳", "amount_fen": 100, "expires_at": TEXT_LATER},
        {"id": "2", "sender": "王芳", "amount_fen": 200, "expires_at": TEXT_LATER},
    ],
    "arrears_fen": 340,
    "frozen_fen": 70,
    "freeze_items": [{"id": "1", "authority": "南山区人民法院", "amount_fen": 70, "contact": "0755-1"}],
    "autodebit_contracts": 2,
    "autodebit_items": [
        {"id": "1", "merchant": "腾讯视频", "next_charge_at": TEXT_LATER, "amount_fen": 2500},
        {"id": "2", "merchant": "腾讯视频", "next_charge_at": TEXT_LATER, "amount_fen": None},
    ],
    "open_credit": 1,
    "credit_items": [{"id": "1", "product": "微粒贷", "owed_fen": 5000}],
    "receive_limited": True,
    "payment_closed": False,
    "receive_limit_fen": 5_000_000,
    "bank_cards": 1,
    "bank_card_items": [{"id": "1", "bank": "招商银行", "tail": "0042"}],
    "doubtful_bank_cards": 1,
    "doubtful_bank_card_items": [{"id": "1", "bank": "招商银行", "tail": "0042", "doubt": "check_character"}],
    "primary_device_id": "phone",
    "primary_device_since": AT,
    "abnormal_login_at": LATER,
    "abnormal_login_items": [
        {"id": "3", "at": TEXT_LATER, "place": "大连", "device": "other"},
        {"id": "2", "at": TEXT_AT, "place": "三亚", "device": "iPhone 13"},
    ],
    "legal_hold": True,
    "legal_hold_authority": "法院 12368",
    "risk_hold": True,
    "risk_hold_contact": "风控 95017",
    "contacts": 3,
    "messages": 5,
    "email_bound": True,
    "grants": 1,
    "grant_items": [{"id": "1", "app": "滴滴出行", "scopes": "snsapi_base, snsapi_userinfo"}],
    "mini_programs": 1,
    "mini_program_items": [{"id": "wxpublished", "name": "点餐"}],
    "official_accounts": 1,
    "official_account_items": [{"id": "gh_1", "name": "读书"}],
    "apps": 2,
    "app_items": [{"id": "wx1", "name": "记账"}, {"id": "wx2", "name": "点餐"}],
    "led_apps": 1,
    "led_app_items": [{"id": "wx2", "name": "点餐"}],
    "api_quota_level": "standard",
    "administered_enterprises": 1,
    "enterprise_items": [{"id": "1", "name": "深圳甲公司", "credit_code": "91440300MA5FK0XX0A"}],
    "doubtful_enterprises": 1,
    "doubtful_enterprise_items": [
        {"id": "1", "name": "深圳甲公司", "credit_code": "91440300MA5FK0XX0A", "doubt": "check_character"}
    ],
    "open_approvals": 2,
    "approval_items": [{"id": "1", "title": "报销"}, {"id": "2", "title": "报销"}],
    "legal_person_enterprises": 1,
    "api_rights": True,
    "open_merchants": 1,
    "merchant_items": [{"id": "1600000001", "name": "小店"}],
    "game_guard": True,
}
ABSENT: Mapping[str, Any] = {
    **{
        name: {FactType.ITEMS: (), FactType.INT: 0, FactType.FEN: 0, FactType.BOOL: False}.get(
            PARTICIPANTS.facts[name].type
        )
        for name in EXPECTED
    },
    **{name: value for name, value in EXPECTED.items() if PARTICIPANTS.facts[name].owner == "identity"},
    "document_doubt": None,
}
"""An account with a row and nothing else (its identity apart): counted as none, never as unread."""
DEAD = {
    "autodebit_contracts": 0,
    "autodebit_items": (),
    "grants": 0,
    "grant_items": (),
    "open_approvals": 0,
    "approval_items": (),
    "bank_cards": 0,
    "bank_card_items": (),
    "doubtful_bank_cards": 0,
    "doubtful_bank_card_items": (),
}
TYPES = {
    FactType.INT: int,
    FactType.FEN: int,
    FactType.BOOL: bool,
    FactType.TEXT: str,
    FactType.TIME: datetime,
    FactType.DATE: date,
    FactType.ITEMS: list,
}


@pytest.fixture(scope="module")
async def batches(pools: Mapping[str, Pool]) -> Mapping[str, FactBatch]:
    """What each participant answers about the three accounts and a stranger, asked in no order and one twice."""
    for name in PARTICIPANTS.databases:
        owner = PARTICIPANTS[name].owner
        await insert_accounts(pools[name], owner, [RICH], facts_version=5, **ACCOUNT.get(owner, {}))
        await insert_accounts(pools[name], owner, [BARE])
        await insert_accounts(pools[name], owner, [REVOKED], epoch=2, **ACCOUNT.get(owner, {}))
    for table, (name, rows) in CHILDREN.items():
        await insert(pools[name], table, [{"account_id": who, **row} for who in (RICH, REVOKED) for row in rows])
    participants = open_participants(PARTICIPANTS, pools, lambda: datetime.now(UTC), pepper=bytes(32))
    return {name: await each.facts([STRANGER, REVOKED, RICH, BARE, RICH]) for name, each in participants.items()}


def of(batch: FactBatch, account: int) -> dict[str, Any]:
    at = list(batch.accounts).index(account)
    return {name: column[at] for name, column in batch.columns.items()}


def test_every_fact_of_a_database_is_asked_about_here() -> None:
    """A fact added to the model and to no test would be believed untested."""
    assert set(EXPECTED) == {
        name
        for name, fact in PARTICIPANTS.facts.items()
        if fact.owner in {one.owner for one in PARTICIPANTS.declarations}
    }


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
def test_facts_are_what_stands_in_the_database(batches: Mapping[str, FactBatch], name: str) -> None:
    """A wrong fact blocks a person wrongly, or lets one pass who must not."""
    batch, owner = batches[name], PARTICIPANTS[name].owner
    names = {fact for fact, spec in PARTICIPANTS.facts.items() if spec.owner == owner}
    assert batch.owner == owner
    assert set(batch.columns) == names
    assert of(batch, RICH) == {fact: EXPECTED[fact] for fact in names}
    assert of(batch, BARE) == {fact: ABSENT[fact] for fact in names}
    assert of(batch, REVOKED) == {fact: {**EXPECTED, **DEAD}[fact] for fact in names}
    assert dict(zip(batch.accounts, batch.versions, strict=True)) == {RICH: 5, BARE: 1, REVOKED: 1}


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
def test_facts_have_their_types(batches: Mapping[str, FactBatch], name: str) -> None:
    """The check evaluates typed columns: a time that came as text would be compared as text."""
    for fact, column in batches[name].columns.items():
        assert len(column) == len(batches[name].accounts)
        assert all(
            value is None or value == () or type(value) is TYPES[PARTICIPANTS.facts[fact].type] for value in column
        ), fact
        if PARTICIPANTS.facts[fact].type is FactType.ITEMS:
            assert {field for items in column for item in items for field in item} == set(
                PARTICIPANTS.item_fields[fact]
            ), fact


async def test_the_doubt_goes_with_the_document(pools: Mapping[str, Pool]) -> None:
    """A mark of a document that was taken back says something about a person whom we no longer know."""
    name, account = "identity_shenzhen", 97_501
    await insert_accounts(pools[name], "identity", [account], document_doubt="birth_date_partial")
    identity = open_participants(PARTICIPANTS, pools, lambda: datetime.now(UTC), pepper=bytes(32))[name]
    reclaim = PlannedOperation("reclaim", {"key_destroyed_after_minutes": 5})
    for op in (Op.TRY, Op.CONFIRM):
        await identity.apply(op, [Order(account, 1)], reclaim)
    row = await pools[name].fetchrow(
        "SELECT state, document_doubt FROM identity.account WHERE account_id = $1", account
    )
    assert row is not None
    assert tuple(row) == ("reclaimed", None)


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
async def test_nobody_known_is_an_empty_batch(pools: Mapping[str, Pool], name: str) -> None:
    """No row is an answer too, and not the same as no answer."""
    participant = open_participants(PARTICIPANTS, pools, lambda: datetime.now(UTC), pepper=bytes(32))[name]
    for nobody in ([], [STRANGER]):
        batch = await participant.facts(nobody)
        assert (list(batch.accounts), list(batch.versions)) == ([], [])
        assert batch.columns == {fact: () for fact, spec in PARTICIPANTS.facts.items() if spec.owner == batch.owner}
