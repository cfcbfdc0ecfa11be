"""Record a wish to withdraw, in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.model.case import ENDED, State
from jiebang.model.errors import TooLateToWithdrawError, UnknownCaseError
from jiebang.saga import timeline
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import WITHDRAWN, Woken, step
from jiebang.store.cases import cases
from jiebang.usecases.cases.context import Context

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.case import Case, Key
    from jiebang.store.postgres.pool import Database

_AT_ONCE = frozenset({State.OPEN, State.IN_REVIEW, State.READY})
"""States in which nothing has been sent to any participant: the wish takes effect here, without a worker."""


async def record_wish(context: Context, db: Database, key: Key, now: datetime) -> Case:
    """Record the wish in the transaction of `db`; return the case. Raises UnknownCaseError, TooLateToWithdrawError."""
    recorded = await cases.wish_withdraw(db, [key], now)
    case = (await cases.load_many(db, [key])).get(key)
    if case is None:
        raise UnknownCaseError
    await context.know([case])
    if key not in recorded and not (case.state in ENDED and case.reason == WITHDRAWN):
        raise TooLateToWithdrawError(state=case.state.value)
    if case.state in _AT_ONCE:
        case = await _step_with_wish(context, db, case, now)
    return case


async def _step_with_wish(context: Context, db: Database, case: Case, now: datetime) -> Case:
    """Step the case. Recording the wish has locked its row, so the guarded save cannot be refused."""
    decision = step(case, context.plan_of(case), Woken(), now, context.timing)
    told = timeline.entries(case, decision.case, decision.sends, (), now)
    save = Save(cases=[decision.case], entries=told, template=f"case_{decision.case.state}")
    saved = await cases.save(db, [save], now)
    return saved.kept().get(case.key, case)
