"""Participant social: contacts, groups, messages, moments, friend requests, e-mail."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation, ValueType, Weaker
from jiebang.participants.core import SQL_SMALLINT, load_facts_sql, load_limits_sql

DECLARATION: Final = Declaration(
    owner="social",
    package=__name__,
    databases={"social": "shenzhen"},
    facts=specs(
        "social",
        ("contacts", FactType.INT, "联系人数", "number of contacts"),
        ("messages", FactType.INT, "消息数", "number of messages"),
        ("email_bound", FactType.BOOL, "已绑定邮箱", "an e-mail is bound"),
    ),
    facts_sql=load_facts_sql(__name__),
    limits=(
        LimitSpec(
            name="moments",
            title=Text("每日朋友圈条数限制", "limit of moments a day"),
            value=FactType.INT,
            effect="moments_per_day",
        ),
        LimitSpec(
            name="friend_requests",
            title=Text("好友申请自动屏蔽", "friend requests blocked"),
            effect="friend_requests_blocked",
        ),
    ),
    limits_sql=load_limits_sql(__name__),
    operations={
        "restrict": Operation(
            effects={
                "friend_requests_blocked": ValueType(bool, weaker=Weaker.LESS),
                "moments_per_day": ValueType(int, most=SQL_SMALLINT, weaker=Weaker.MORE),
            },
            on_confirm={
                "friend_requests_blocked": "coalesce(e.friend_requests_blocked, a.friend_requests_blocked)",
                "moments_per_day": "coalesce(e.moments_per_day::smallint, a.moments_per_day)",
            },
        ),
    },
    formerly="restrict",
)
