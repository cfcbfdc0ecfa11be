"""Ask for a batch; where that fails because of what one row holds, ask for halves until the bad row is alone.

One person's unreadable row must not make anything unknown about others. Silence is never halved: it says nothing about
any row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from jiebang.store.postgres.faults import Fault, fault_of

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_FAILURES: Final = 200
"""Failed questions after which a batch is given up: a party that answers only nonsense is not asked for each row."""

_log = structlog.get_logger(__name__)


class HalvedAnswers(msgspec.Struct, Generic[Item, Answer], frozen=True):
    """What was answered, in parts, and the items that were not because what they hold makes a question fail."""

    parts: Sequence[tuple[Sequence[Item], Answer]]
    failed: Sequence[Item] = ()


async def ask_in_halves(
    items: Sequence[Item], ask: Callable[[Sequence[Item]], Awaitable[Answer]], *, what: str
) -> HalvedAnswers[Item, Answer]:
    """Ask for all `items`, and for ever smaller halves where that fails on data. `what`: names the question in the log.

    Raises what `ask` raises for any other reason than data.
    """
    failures = 0

    async def ask_for(part: Sequence[Item]) -> HalvedAnswers[Item, Answer]:
        nonlocal failures
        try:
            return HalvedAnswers([(part, await ask(part))])
        except Exception as error:
            if fault_of(error) is not Fault.DATA:
                raise
            failures += 1
            # The message of an error quotes values, which may be personal.
            _log.warning("row_unreadable", what=what, items=len(part), error=type(error).__name__)
        half = len(part) // 2
        if not half or failures >= MOST_FAILURES:
            return HalvedAnswers([], part)
        first, second = await asyncio.gather(ask_for(part[:half]), ask_for(part[half:]))
        return HalvedAnswers([*first.parts, *second.parts], [*first.failed, *second.failed])

    return await ask_for(items)
