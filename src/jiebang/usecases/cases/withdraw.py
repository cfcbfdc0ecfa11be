"""Withdraw a case: record the wish, and take it in at once where no worker is needed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.store.cases import idempotency, proofs
from jiebang.usecases.cases.context import Context, Found, Render
from jiebang.usecases.cases.withdrawal import wish

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.case import Key
    from jiebang.store.cases.idempotency import Answered, Claim, Kept
    from jiebang.store.postgres.pool import Database


async def withdraw(context: Context, key: Key, claim: Claim, render: Render) -> Answered:
    """Wish a case withdrawn. Raises UnknownCaseError, TooLateToWithdrawError, IdempotencyReusedError.

    A wish recorded while Trys are out is taken in by the worker's next step; it wins unless the commit point was first.
    """
    now = context.clock()
    return await idempotency.once(context.platform, claim, now, lambda db: _wished(context, db, key, render, now))


async def _wished(context: Context, db: Database, key: Key, render: Render, now: datetime) -> Kept:
    case = await wish(context, db, key, now)
    held = await proofs.of_cases(db, [key])
    return render(Found(case=case, plan=context.plan_of(case), proofs=held.get(key, {})))
