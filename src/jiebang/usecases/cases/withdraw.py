"""Withdraw a case: record the wish, which takes effect at once if nothing has been sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.policy.devices import Act
from jiebang.store.cases import idempotency, proofs
from jiebang.usecases.cases.context import CaseDetails, Context, Render
from jiebang.usecases.cases.devices import require_device
from jiebang.usecases.cases.withdrawal import record_wish

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.case import Key
    from jiebang.model.origin import Origin
    from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
    from jiebang.store.postgres.pool import Database


async def withdraw(context: Context, key: Key, origin: Origin, claim: Claim, render: Render) -> MutationResult:
    """Record the wish to withdraw a case.

    One recorded while Trys are out is read by the worker's next step; it wins unless the commit point came first.
    Raises UnknownCaseError, WrongDeviceError, TooLateToWithdrawError, IdempotencyReusedError.
    """
    now = context.clock()
    return await idempotency.run_once(
        context.platform, claim, now, lambda db: _withdraw(context, db, key, origin, render, now)
    )


async def _withdraw(
    context: Context, db: Database, key: Key, origin: Origin, render: Render, now: datetime
) -> KeptAnswer:
    case = await record_wish(context, db, key, now)
    # What was recorded is rolled back with the transaction if this is another device than policy asks for.
    await require_device(context, Act.WITHDRAWAL, case.account_id, origin, case.origin)
    by_case = await proofs.load_of_cases(db, [key])
    return render(CaseDetails(case=case, plan=context.plan_of(case), proofs=by_case.get(key, {})))
