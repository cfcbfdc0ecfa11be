"""Idempotency: a request and its repeats get the same answer, whichever arrived first (docs/decisions/0007)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jiebang.model.errors import (
    CallerError,
    IdempotencyInUseError,
    IdempotencyReusedError,
    JiebangError,
    NotAllowedError,
    PolicyRefusalError,
    TooSoonError,
)
from jiebang.saga.backoff import exponential_wait
from jiebang.store.cases import idempotency
from jiebang.store.cases.idempotency import MutationResult

if TYPE_CHECKING:
    from jiebang.store.cases.idempotency import Claim, KeptAnswer
    from jiebang.usecases.cases.context import Context

_FIRST_PAUSE: Final = timedelta(milliseconds=10)
_LONGEST_PAUSE: Final = timedelta(milliseconds=200)
_COME_AGAIN: Final = (TooSoonError, IdempotencyInUseError, IdempotencyReusedError, NotAllowedError)


def is_final(error: JiebangError) -> bool:
    """Whether a refusal is kept as the answer: not one that asks to try again, or that denies the caller the right."""
    return isinstance(error, CallerError | PolicyRefusalError) and not isinstance(error, _COME_AGAIN)


async def answer_once(
    context: Context,
    claim: Claim,
    wait: timedelta,
    mutate: Callable[[], Awaitable[MutationResult]],
    refused: Callable[[JiebangError], KeptAnswer],
) -> MutationResult:
    """Carry out a mutation, or return the answer kept under its key. A final refusal is kept too (`refused`).

    Waits up to `wait` for another request that holds the key, then raises IdempotencyInUseError. Raises what `mutate`
    raises, if it is not final.
    """
    until, failures = context.clock() + wait, 0
    while True:
        pause = exponential_wait(_FIRST_PAUSE, failures, _LONGEST_PAUSE)
        try:
            return await _recall_or_mutate(context, claim, mutate, refused)
        except IdempotencyInUseError:
            if context.clock() + pause > until:
                raise
        await asyncio.sleep(pause.total_seconds())
        failures += 1


async def _recall_or_mutate(
    context: Context,
    claim: Claim,
    mutate: Callable[[], Awaitable[MutationResult]],
    refused: Callable[[JiebangError], KeptAnswer],
) -> MutationResult:
    kept = await idempotency.recall(context.platform, claim, context.clock())
    if kept is not None:  # before anything else is read: it has changed since the first request
        return MutationResult(kept, replayed=True)
    try:
        return await mutate()
    except JiebangError as error:
        if not is_final(error):
            raise
        return await idempotency.settle(context.platform, claim, refused(error), context.clock())
