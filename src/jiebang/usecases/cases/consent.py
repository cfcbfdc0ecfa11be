"""Consents: agree that a case ends what a rule of severity `needs_consent` names, and take that back as easily.

A consent covers exactly what was shown: the ids that the person saw, and no others. What comes later blocks again, also
when the worker checks again as it takes the case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import State
from jiebang.model.check import CheckAnswer
from jiebang.model.errors import NothingToClearError
from jiebang.store.cases import consents, idempotency, remedies
from jiebang.store.cases.consents import Given
from jiebang.store.cases.idempotency import Kept
from jiebang.usecases.cases.consent_rules import limited_to, rule_of, shown_by
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.remedy_request import Wanted, checked
from jiebang.usecases.cases.withdrawal import wish

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.cases.idempotency import Answered, Claim, Elsewhere
    from jiebang.store.postgres.pool import Database

_MAY_STILL_WIN = frozenset({State.READY, State.TRYING, State.CANCELLING})
"""States in which a worker may have read the consent already, and the case has not passed its commit point."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a person agreed to under one rule: ids (none: the whole; None: nothing), and what a check says now."""

    account_id: int
    code: str
    what: tuple[str, ...] | None
    check: CheckAnswer


Render = Callable[[Standing], Kept]
"""Turns what stands after a mutation into the answer kept for repeats."""


async def give(
    context: Context, asked: Wanted, code: str, shown: Collection[str] | None, claim: Claim, render: Render
) -> Answered:
    """Agree to what rule `code` names. `shown`: the ids the person was shown; None: what a check shows at this moment.

    Raises ConsentNotAskedError, NothingToClearError (nothing of it stands), UnknownAccountError,
    KindNotOfferedError, IdempotencyReusedError.
    """
    pack = context.pack()
    rule_of(pack, code)
    what = limited_to(shown_by(pack, await checked(context, asked), [code]), shown)
    if code not in what:
        raise NothingToClearError(items=sorted(shown or ()))
    now = context.clock()

    async def work(db: Database) -> Elsewhere:
        await remedies.lock(db, [asked.account_id])
        given = Given(account_id=asked.account_id, consent_id=context.new_id(), code=code, what=what[code])
        await consents.give(db, [given], now)
        return partial(_told, context, asked, code, what[code], render)

    return await idempotency.once(context.platform, claim, now, work)


async def take_back(context: Context, asked: Wanted, code: str, claim: Claim, render: Render) -> Answered:
    """Take a consent back. A case that has not passed its commit point and rests on it is withdrawn with it.

    Nothing stands: nothing changes. Raises ConsentNotAskedError, TooLateToWithdrawError (a case that rests on it is
    past its commit point), UnknownAccountError, KindNotOfferedError, IdempotencyReusedError.
    """
    rule_of(context.pack(), code)
    await checked(context, asked)
    now = context.clock()

    async def work(db: Database) -> Elsewhere:
        await _taken_back(context, db, asked.account_id, code, now)
        return partial(_told, context, asked, code, None, render)

    return await idempotency.once(context.platform, claim, now, work)


async def _told(
    context: Context, asked: Wanted, code: str, what: tuple[str, ...] | None, render: Render
) -> tuple[Kept, None]:
    """Tell what stands now, with a check of what was just committed."""
    check = await checked(context, asked)
    return render(Standing(account_id=asked.account_id, code=code, what=what, check=check)), None


async def _taken_back(context: Context, db: Database, account_id: int, code: str, now: datetime) -> None:
    """Hold the live case first: a worker that has read the consent must not pass the commit point meanwhile."""
    live = await consents.lock_live_case(db, account_id)
    stood = await consents.withdraw(db, [(account_id, code)], now)
    if live is None or not any(one.case_no in (None, live[0]) for one in stood):
        return
    if live[1] in _MAY_STILL_WIN or live[1] is State.CONFIRMING:
        await wish(context, db, (account_id, live[0]), now)
