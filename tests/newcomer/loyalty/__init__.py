"""A participant that nobody has heard of: a shop's points and coupons. All that is known of it stands here."""

from __future__ import annotations

from datetime import date
from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.participants import Declaration, Operation, ValueType
from jiebang.model.promises import Probe
from jiebang.participants.core import SQL_INTEGER, load_facts_sql

REDEEMING: Final = "LOYALTY-REDEEMING"
"""Points are being redeemed."""
SAME_PARTNER: Final = "LOYALTY-SAME-PARTNER"
"""The points are with that partner already."""

_RELEASED: Final = {"frozen": "false"}

DECLARATION: Final = Declaration(
    owner="loyalty",
    package=__name__,
    databases={"loyalty": "guiyang"},
    facts=specs(
        "loyalty",
        ("points", FactType.INT, "积分", "points"),
        ("loyalty_tier", FactType.TEXT, "会员等级", "tier of membership; absent for who has none"),
        ("redeeming", FactType.BOOL, "积分兑换中", "points are being redeemed"),
        ("loyalty_since", FactType.TIME, "入会时间", "since when it is a member"),
        ("coupons", FactType.INT, "优惠券数", "number of coupons"),
        (
            "coupon_items",
            {"id": FactType.TEXT, "title": FactType.TEXT, "expires_at": FactType.TIME},
            "优惠券",
            "coupons",
        ),
    ),
    facts_sql=load_facts_sql(__name__),
    value_words={"loyalty_tier": {"silver": Text("银卡", "silver"), "gold": Text("金卡", "gold")}},
    operations={
        "forfeit": Operation(
            effects={"points_kept": ValueType(int, most=SQL_INTEGER)},
            refusals={REDEEMING: "a.redeeming"},
            on_try={"frozen": "true"},
            on_confirm={
                **_RELEASED,
                "points": "least(a.points, coalesce(e.points_kept, a.points))",
                "partner": "NULL",
                "partner_since": "NULL",
                "partner_mark": "NULL",
            },
            on_cancel=_RELEASED,
        ),
        "transfer": Operation(
            effects={"notify": ValueType(bool)},
            given={
                "partner": ValueType(str, least=1, most=40),
                "since": ValueType(date),
                "mark": ValueType(bytes, least=4, most=4),
                "points": ValueType(int, most=SQL_INTEGER),
            },
            refusals={SAME_PARTNER: "a.partner = g.partner"},
            on_try={"frozen": "true"},
            on_confirm={
                **_RELEASED,
                "points": "g.points",
                "partner": "g.partner",
                "partner_since": "g.since",
                "partner_mark": "g.mark",
                "notify": "coalesce(e.notify, a.notify)",
            },
            on_cancel=_RELEASED,
        ),
    },
    probes={
        "effect": {
            "points_kept": Probe(holds="a.points <= e.points_kept"),
            "notify": Probe(holds="a.notify = e.notify"),
        },
        "operation": {
            "forfeit": Probe(holds="a.partner IS NULL AND NOT a.frozen", by=("forfeit",)),
            "transfer": Probe(holds="a.partner IS NOT NULL AND NOT a.frozen", by=("transfer",)),
        },
    },
)
