"""Participant gaming: the playing-time guard for minors (防沉迷) and game access."""

from __future__ import annotations

from typing import Final

from jiebang.model.check import Text
from jiebang.model.facts import FactType, specs
from jiebang.model.limits import LimitSpec
from jiebang.model.participants import Declaration, Operation
from jiebang.participants.core import load_facts_sql, load_limits_sql

DECLARATION: Final = Declaration(
    owner="gaming",
    package=__name__,
    databases={"gaming": "guiyang"},
    facts=specs(
        "gaming",
        ("game_guard", FactType.BOOL, "防沉迷", "playing-time guard for minors is on"),
    ),
    facts_sql=load_facts_sql(__name__),
    limits=(LimitSpec(name="games", title=Text("游戏功能关闭", "games are off"), running=True),),
    limits_sql=load_limits_sql(__name__),
    operations={
        "suspend": Operation(
            effects={},
            # A minor's games are suspended while the case runs, whatever its outcome.
            on_try={"suspended": "a.game_guard"},
            on_confirm={"suspended": "false"},
            on_cancel={"suspended": "false"},
        ),
    },
    formerly="suspend",
)
