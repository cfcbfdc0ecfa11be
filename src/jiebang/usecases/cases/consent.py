"""Consents: agree that a case ends what a rule of severity `needs_consent` names, or take that back.

A consent covers exactly the ids that the person saw. An item that appears later blocks again, in the worker's re-check
too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import State
from jiebang.model.check import CheckAnswer
from jiebang.model.errors import NothingToClearError
from jiebang.policy.devices import Act
from jiebang.store.cases import consents, idempotency, remedies
from jiebang.store.cases.consents import NewConsent
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.usecases.cases.consent_rules import find_consent_rule, limit_to_shown, list_shown
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.devices import require_device_of_live_case
from jiebang.usecases.cases.remedy_request import RemedyRequest, check_request
from jiebang.usecases.cases.withdrawal import record_wish

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.cases.idempotency import Claim, LaterWork, MutationResult
    from jiebang.store.postgres.pool import Database

_MAY_STILL_WIN = frozenset({State.READY, State.TRYING, State.CANCELLING})
"""States in which a worker may have read the consent but the case has not passed its commit point."""


class ConsentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a person agrees to under one rule, as ids (empty: the whole; None: nothing), and the check after it."""

    account_id: int
    code: str
    what: tuple[str, ...] | None
    check: CheckAnswer


Render = Callable[[ConsentStatus], KeptAnswer]
"""Turns the status after a mutation into the answer kept for repeats."""


async def give(
    context: Context, request: RemedyRequest, code: str, shown: Collection[str] | None, claim: Claim, render: Render
) -> MutationResult:
    """Agree to what rule `code` names. `shown`: the ids the person was shown; None: those that a check shows now.

    Raises ConsentNotAskedError, NothingToClearError (the check shows none of it), UnknownAccountError,
    KindNotOfferedError, WrongDeviceError, IdempotencyReusedError.
    """
    pack = context.pack()
    find_consent_rule(pack, code)
    await require_device_of_live_case(context, context.platform, Act.CONSENT, request.account_id, request.origin)
    what = limit_to_shown(list_shown(pack, await check_request(context, request), [code]), shown)
    if code not in what:
        raise NothingToClearError(items=sorted(shown or ()))
    now = context.clock()

    async def work(db: Database) -> LaterWork:
        await remedies.lock(db, [request.account_id])
        given = NewConsent(account_id=request.account_id, consent_id=context.new_id(), code=code, what=what[code])
        await consents.give(db, [given], now)
        return partial(_check_after, context, request, code, what[code], render)

    return await idempotency.run_once(context.platform, claim, now, work)


async def take_back(
    context: Context, request: RemedyRequest, code: str, claim: Claim, render: Render
) -> MutationResult:
    """Take a consent back. A case that rests on it and has not passed its commit point is withdrawn with it.

    Without a consent nothing changes. Raises ConsentNotAskedError, TooLateToWithdrawError (a case that rests on it is
    past its commit point), WrongDeviceError, UnknownAccountError, KindNotOfferedError, IdempotencyReusedError.
    """
    find_consent_rule(context.pack(), code)
    await check_request(context, request)
    now = context.clock()

    async def work(db: Database) -> LaterWork:
        await require_device_of_live_case(context, db, Act.CONSENT_WITHDRAWAL, request.account_id, request.origin)
        await _take_back(context, db, request.account_id, code, now)
        return partial(_check_after, context, request, code, None, render)

    return await idempotency.run_once(context.platform, claim, now, work)


async def _check_after(
    context: Context, request: RemedyRequest, code: str, what: tuple[str, ...] | None, render: Render
) -> tuple[KeptAnswer, None]:
    """Answer with the new status and a check made after the commit."""
    check = await check_request(context, request)
    return render(ConsentStatus(account_id=request.account_id, code=code, what=what, check=check)), None


async def _take_back(context: Context, db: Database, account_id: int, code: str, now: datetime) -> None:
    """Lock the live case first: a worker that has read the consent must not pass the commit point meanwhile."""
    live = await consents.lock_live_case(db, account_id)
    taken_back = await consents.withdraw(db, [(account_id, code)], now)
    if live is None or not any(one.case_no in (None, live[0]) for one in taken_back):
        return
    if live[1] in _MAY_STILL_WIN or live[1] is State.CONFIRMING:
        await record_wish(context, db, (account_id, live[0]), now)
