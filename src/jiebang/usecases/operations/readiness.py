"""Readiness: whether the platform's database can be written and the participants answer now."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.usecases.cases.context import Context

_log = structlog.get_logger(__name__)


async def check_readiness(context: Context, within: timedelta) -> dict[str, bool]:
    """Ask the platform's database and all participants at once; return by name who answered `within` the limit.

    The platform's database has answered if it can be written.
    """

    async def ask(name: str, participant: Participant | None) -> tuple[str, bool]:
        try:
            async with asyncio.timeout(within.total_seconds()):
                if participant is None:
                    # A server that became a standby answers, but takes nothing.
                    return name, await context.platform.fetchval("SHOW transaction_read_only") == "off"
                await participant.look([1])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others are told of
            _log.warning("not_ready", participant=name, error=type(error).__name__)
            return name, False
        return name, True

    parties: dict[str, Participant | None] = {"platform": None, **context.participants}
    return dict(await asyncio.gather(*(ask(name, party) for name, party in parties.items())))
