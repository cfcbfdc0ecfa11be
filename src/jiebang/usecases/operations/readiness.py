"""Readiness: whether the platform's database and the participants answer now."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from jiebang.participants.base import UNANSWERED

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.usecases.cases.context import Context


async def check_readiness(context: Context, within: timedelta) -> dict[str, bool]:
    """Ask the platform's database and all participants at once; return by name who answered `within` the limit."""

    async def ask(name: str, participant: Participant | None) -> tuple[str, bool]:
        try:
            async with asyncio.timeout(within.total_seconds()):
                if participant is None:
                    await context.platform.fetchval("SELECT 1")
                else:
                    await participant.look([1])
        except UNANSWERED:
            return name, False
        return name, True

    parties: dict[str, Participant | None] = {"platform": None, **context.participants}
    return dict(await asyncio.gather(*(ask(name, party) for name, party in parties.items())))
