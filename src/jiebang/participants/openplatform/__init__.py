"""Participant openplatform: OAuth grants and tokens, apps, mini programs, official accounts, reviews, quotas."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.participants.core import SQL_INTEGER, load_facts_sql, load_limits_sql

DECLARATION: Final = Declaration(
    owner="openplatform",
    package=__name__,
    databases={"openplatform": "guiyang"},
    facts=specs(
        "openplatform",
        ("grants", FactType.INT, "授权应用数", "number of live OAuth grants"),
        (
            "grant_items",
            {"id": FactType.TEXT, "app": FactType.TEXT, "scopes": FactType.TEXT},
            "授权应用",
            "live grants",
        ),
        ("mini_programs", FactType.INT, "小程序数", "number of published mini programs"),
        ("mini_program_items", {"id": FactType.TEXT, "name": FactType.TEXT}, "小程序", "published mini programs"),
        ("official_accounts", FactType.INT, "管理的公众号数", "official accounts administered"),
        (
            "official_account_items",
            {"id": FactType.TEXT, "name": FactType.TEXT},
            "管理的公众号",
            "official accounts administered",
        ),
        ("apps", FactType.INT, "开发的应用数", "number of apps developed"),
        ("app_items", {"id": FactType.TEXT, "name": FactType.TEXT}, "开发的应用", "apps developed"),
        ("led_apps", FactType.INT, "任技术负责人的应用数", "number of apps led technically"),
        ("led_app_items", {"id": FactType.TEXT, "name": FactType.TEXT}, "任技术负责人的应用", "apps led technically"),
        ("api_quota_level", FactType.TEXT, "接口调用配额级别", "level of API quotas; absent for who develops nothing"),
    ),
    facts_sql=load_facts_sql(__name__),
    value_words={
        "api_quota_level": {
            "test": Text("测试", "test"),
            "standard": Text("标准", "standard"),
            "high": Text("高", "high"),
        },
    },
    limits=(
        LimitSpec(
            name="api_calls",
            title=Text("接口调用配额为测试级别", "API quota at test level"),
            value=FactType.INT,
            effect="api_quota_level",
        ),
    ),
    limits_sql=load_limits_sql(__name__),
    operations={
        "revoke": Operation(
            effects={
                "api_quota_level": ValueType(str, among=("none", "test", "standard", "high"), weaker=Weaker.MORE),
                "test_calls_per_day": ValueType(int, most=SQL_INTEGER, weaker=Weaker.MORE),
            },
            # An account without apps keeps the level none: an effect never grants what was not there.
            on_confirm={
                "api_quota_level": "CASE a.api_quota_level WHEN 'none' THEN 'none' "
                "ELSE coalesce(e.api_quota_level, a.api_quota_level) END",
                # Nothing falls for who has no apps, or was at test level before: neither is told of it.
                "test_calls_per_day": "CASE WHEN a.api_quota_level IN ('none', 'test') THEN a.test_calls_per_day "
                "ELSE coalesce(e.test_calls_per_day::integer, a.test_calls_per_day) END",
            },
        ),
    },
    formerly="revoke",
)
