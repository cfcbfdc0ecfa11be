"""Participant gaming: the playing-time guard for minors (防沉迷) and game access."""

from __future__ import annotations

from typing import Final

from jiebang.participants.database import Particulars

GAMING: Final = Particulars(
    owner="gaming",
    facts="""
SELECT a.account_id, a.facts_version, a.game_guard
FROM gaming.account a
WHERE a.account_id = ANY ($1::bigint[])
""",
    # A minor's games are off while the case runs; ended either way, they return.
    on_try={"suspended": "a.game_guard"},
    on_confirm={"suspended": "false"},
    on_cancel={"suspended": "false"},
)
