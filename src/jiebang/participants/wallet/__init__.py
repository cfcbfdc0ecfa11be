"""Participant wallet: balance, ledger, limits, cards, contracts, credit. Movements of money: `money.py`."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.participants.core import CENTURY_HOURS, load_facts_sql, load_limits_sql

FUNDS_MOVING: Final = "FUNDS-MOVING"
"""Refusal: a movement of money is between its two steps."""
BALANCE_LEFT: Final = "BALANCE-LEFT"
"""Refusal: a payment account that holds money cannot be closed."""
PAYMENT_CLOSED: Final = "PAYMENT-CLOSED"
"""Refusal: the payment account is closed already."""

DECLARATION: Final = Declaration(
    owner="wallet",
    package=__name__,
    databases={"wallet": "shenzhen"},
    facts=specs(
        "wallet",
        ("balance_fen", FactType.FEN, "零钱余额", "balance"),
        ("open_transactions", FactType.INT, "未完成交易数", "number of unfinished transactions"),
        (
            "open_transaction_items",
            {"id": FactType.TEXT, "title": FactType.TEXT, "amount_fen": FactType.FEN, "expected_at": FactType.TIME},
            "未完成交易",
            "unfinished transactions",
        ),
        ("unclaimed_red_packets", FactType.INT, "未领取红包数", "number of unclaimed red packets"),
        (
            "unclaimed_red_packet_items",
            {"id": FactType.TEXT, "sender": FactType.TEXT, "amount_fen": FactType.FEN, "expires_at": FactType.TIME},
            "未领取红包",
            "unclaimed red packets",
        ),
        ("arrears_fen", FactType.FEN, "欠款", "arrears"),
        ("frozen_fen", FactType.FEN, "冻结金额", "frozen funds"),
        (
            "freeze_items",
            {"id": FactType.TEXT, "authority": FactType.TEXT, "amount_fen": FactType.FEN, "contact": FactType.TEXT},
            "冻结明细",
            "freezes",
        ),
        ("autodebit_contracts", FactType.INT, "自动扣费签约数", "number of active auto-debit contracts"),
        (
            "autodebit_items",
            {
                "id": FactType.TEXT,
                "merchant": FactType.TEXT,
                "next_charge_at": FactType.TIME,
                "amount_fen": FactType.FEN,
            },
            "自动扣费签约",
            "active contracts",
        ),
        ("open_credit", FactType.INT, "未结清信贷数", "number of credit products open or owing"),
        (
            "credit_items",
            {"id": FactType.TEXT, "product": FactType.TEXT, "owed_fen": FactType.FEN},
            "信贷产品",
            "credit products",
        ),
        ("receive_limited", FactType.BOOL, "有单日收款限额", "there is a daily receiving limit"),
        ("receive_limit_fen", FactType.FEN, "单日收款限额", "daily receiving limit, 0 where there is none"),
        ("bank_cards", FactType.INT, "已绑定银行卡数", "number of bound bank cards"),
        (
            "bank_card_items",
            {"id": FactType.TEXT, "bank": FactType.TEXT, "tail": FactType.TEXT},
            "已绑定银行卡",
            "bound bank cards",
        ),
        (
            "doubtful_bank_cards",
            FactType.INT,
            "卡号存疑的已绑定银行卡数",
            "number of bound bank cards whose number departs from its standard",
        ),
        (
            "doubtful_bank_card_items",
            {"id": FactType.TEXT, "bank": FactType.TEXT, "tail": FactType.TEXT, "doubt": FactType.TEXT},
            "卡号存疑的已绑定银行卡",
            "bound bank cards whose number departs from its standard",
        ),
        ("payment_closed", FactType.BOOL, "支付账户已注销", "the payment account is closed"),
    ),
    facts_sql=load_facts_sql(__name__),
    limits=(
        LimitSpec(
            name="receiving",
            title=Text("单日收款限额", "daily receiving limit"),
            value=FactType.FEN,
            effect="receive_limit_fen",
        ),
        LimitSpec(name="cash_out", title=Text("提现暂停", "cash-outs paused"), effect="cash_out_pause_hours"),
    ),
    limits_sql=load_limits_sql(__name__),
    operations={
        "downgrade": Operation(
            effects={
                "receive_limit_fen": ValueType(int, weaker=Weaker.MORE),
                "cash_out_pause_hours": ValueType(int, most=CENTURY_HOURS, weaker=Weaker.LESS),
            },
            refusals={FUNDS_MOVING: "a.open_entries > 0"},
            on_confirm={
                "receive_limit_fen": "coalesce(e.receive_limit_fen, a.receive_limit_fen)",
                "cash_out_paused_until": "CASE WHEN e.cash_out_pause_hours IS NULL THEN a.cash_out_paused_until "
                "ELSE e.now + make_interval(hours => e.cash_out_pause_hours::integer) END",
            },
        ),
        # Cards and contracts die with their epoch. The payment password stays: it proves requests about what is left of
        # the account. While the case is tried no money moves, so the balance is still nothing when it is confirmed.
        "close": Operation(
            refusals={
                PAYMENT_CLOSED: "a.state = 'closed'",
                FUNDS_MOVING: "a.open_entries > 0",
                BALANCE_LEFT: "a.balance_fen > 0",
            },
            on_confirm={"state": "'closed'"},
        ),
    },
    formerly="downgrade",
)
