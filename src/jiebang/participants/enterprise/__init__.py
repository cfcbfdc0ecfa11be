"""Participant enterprise: memberships and administrators, approvals, API credentials."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.participants.core import load_facts_sql, load_limits_sql

DECLARATION: Final = Declaration(
    owner="enterprise",
    package=__name__,
    databases={"enterprise": "guiyang"},
    facts=specs(
        "enterprise",
        ("administered_enterprises", FactType.INT, "管理的企业数", "enterprises administered"),
        (
            "enterprise_items",
            {"id": FactType.TEXT, "name": FactType.TEXT, "credit_code": FactType.TEXT},
            "管理的企业",
            "enterprises administered",
        ),
        (
            "doubtful_enterprises",
            FactType.INT,
            "统一社会信用代码存疑的管理企业数",
            "enterprises administered whose credit code departs from its standard",
        ),
        (
            "doubtful_enterprise_items",
            {"id": FactType.TEXT, "name": FactType.TEXT, "credit_code": FactType.TEXT, "doubt": FactType.TEXT},
            "统一社会信用代码存疑的管理企业",
            "enterprises administered whose credit code departs from its standard",
        ),
        ("open_approvals", FactType.INT, "处理中的审批数", "approvals in flight"),
        ("approval_items", {"id": FactType.TEXT, "title": FactType.TEXT}, "处理中的审批", "approvals in flight"),
        ("legal_person_enterprises", FactType.INT, "任法定代表人的企业数", "enterprises whose legal person this is"),
        ("api_rights", FactType.BOOL, "企业接口权限", "may call enterprise APIs"),
    ),
    facts_sql=load_facts_sql(__name__),
    limits=(LimitSpec(name="enterprise_api", title=Text("企业接口停用", "enterprise API ended"), effect="api_rights"),),
    limits_sql=load_limits_sql(__name__),
    operations={
        "revoke": Operation(
            effects={"api_rights": ValueType(bool, weaker=Weaker.MORE)},
            # An effect never grants rights that were not there.
            on_confirm={"api_rights": "a.api_rights AND coalesce(e.api_rights, true)"},
        ),
    },
    formerly="revoke",
)
