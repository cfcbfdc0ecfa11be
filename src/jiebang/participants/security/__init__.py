"""Participant security: devices, logins, second factors, holds. Confirmation of logins: `logins.py`."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.participants.core import load_facts_sql, load_limits_sql

DECLARATION: Final = Declaration(
    owner="security",
    package=__name__,
    databases={"security": "shenzhen"},
    facts=specs(
        "security",
        ("primary_device_id", FactType.TEXT, "主设备", "the primary device"),
        ("primary_device_since", FactType.TIME, "主设备启用时间", "since when the primary device is primary"),
        ("abnormal_login_at", FactType.TIME, "最近异常登录时间", "last abnormal login not confirmed by the person"),
        (
            "abnormal_login_items",
            {"id": FactType.TEXT, "at": FactType.TIME, "place": FactType.TEXT, "device": FactType.TEXT},
            "异常登录",
            "unconfirmed abnormal logins",
        ),
        ("legal_hold", FactType.BOOL, "司法冻结", "a court or authority holds the account"),
        ("legal_hold_authority", FactType.TEXT, "冻结机关", "who holds it and how to reach them"),
        ("risk_hold", FactType.BOOL, "风控限制", "the risk engine holds the account"),
        (
            "risk_hold_contact",
            FactType.TEXT,
            "风控联系方式",
            "who decides on the risk engine's hold and how to reach them",
        ),
    ),
    facts_sql=load_facts_sql(__name__),
    limits=(
        LimitSpec(name="login", title=Text("登录须短信验证码", "logins ask for an SMS code"), effect="login_needs_sms"),
    ),
    limits_sql=load_limits_sql(__name__),
    operations={
        "require_sms": Operation(
            effects={"login_needs_sms": ValueType(bool, weaker=Weaker.LESS)},
            on_confirm={"login_needs_sms": "coalesce(e.login_needs_sms, a.login_needs_sms)"},
        ),
    },
    formerly="require_sms",
)
