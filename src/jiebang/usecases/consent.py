"""Consents: agree that a case ends what a rule of severity `needs_consent` names, and take that back as easily.

A consent covers exactly what was shown: the ids that the person saw, and no others. What comes later blocks again, also
when the worker checks again as it takes the case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import State
from jiebang.model.check import CheckAnswer, Severity
from jiebang.model.errors import ConsentNotAskedError, NothingToClearError
from jiebang.store import consents, idempotency, remedies
from jiebang.store.consents import Given
from jiebang.store.idempotency import Kept
from jiebang.usecases.context import Context
from jiebang.usecases.remedy import Wanted, checked
from jiebang.usecases.withdraw import wish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jiebang.policy.pack import Pack, Rule
    from jiebang.store.cases import Database
    from jiebang.store.idempotency import Answered, Claim

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


def rule_of(pack: Pack, code: str) -> Rule:
    """Return the rule that asks for consent under `code`. Raises ConsentNotAskedError."""
    asking = {rule.code: rule for rule in pack.rules if rule.severity is Severity.NEEDS_CONSENT}
    if code not in asking:
        raise ConsentNotAskedError(code=code, asked=sorted(asking))
    return asking[code]


def shown_by(pack: Pack, check: CheckAnswer, codes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return by code the ids that a check shows under each of `codes` that stands in it (none: asked as a whole)."""
    found = {}
    for blocker in check.blockers:
        if blocker.code in codes and blocker.severity is Severity.NEEDS_CONSENT:
            listed = rule_of(pack, blocker.code).consent_to
            items = () if listed is None else blocker.facts[listed]
            found[blocker.code] = tuple(str(item["id"]) for item in items)
    return found


def limited_to(what: Mapping[str, tuple[str, ...]], shown: Collection[str] | None) -> dict[str, tuple[str, ...]]:
    """Leave of what a check shows only what the person had been shown (None: they saw this very check)."""
    if shown is None:
        return dict(what)
    seen = {code: tuple(each for each in ids if each in shown) for code, ids in what.items()}
    return {code: ids for code, ids in seen.items() if ids or not what[code]}


def items_of(what: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, str | None], ...]:
    """Return consents as a check takes them: (code, id; None for the whole)."""
    return tuple((code, item) for code, ids in what.items() for item in ids or (None,))


async def give(
    context: Context, asked: Wanted, code: str, shown: Collection[str] | None, claim: Claim, render: Render
) -> Answered:
    """Agree to what rule `code` names. `shown`: the ids the person was shown; None: what a check shows at this moment.

    Raises ConsentNotAskedError, NothingToClearError (nothing of it stands), UnknownAccountError,
    KindNotOfferedError, IdempotencyReusedError.
    """
    kept = await idempotency.recall(context.platform, claim, context.clock())
    if kept is not None:
        return idempotency.Answered(kept, replayed=True)
    pack = context.pack()
    rule_of(pack, code)
    what = limited_to(shown_by(pack, await checked(context, asked), [code]), shown)
    if code not in what:
        raise NothingToClearError(items=sorted(shown or ()))
    now = context.clock()
    async with context.platform.acquire() as connection, connection.transaction():
        kept = await idempotency.take(connection, claim, now)
        if kept is not None:
            return idempotency.Answered(kept, replayed=True)
        await remedies.lock(connection, [asked.account_id])
        given = Given(account_id=asked.account_id, consent_id=context.new_id(), code=code, what=what[code])
        await consents.give(connection, [given], now)
    return await _told(context, asked, code, what[code], claim, render)


async def take_back(context: Context, asked: Wanted, code: str, claim: Claim, render: Render) -> Answered:
    """Take a consent back. A case that has not passed its commit point and rests on it is withdrawn with it.

    Nothing stands: nothing changes. Raises ConsentNotAskedError, TooLateToWithdrawError (a case that rests on it is
    past its commit point), UnknownAccountError, KindNotOfferedError, IdempotencyReusedError.
    """
    kept = await idempotency.recall(context.platform, claim, context.clock())
    if kept is not None:
        return idempotency.Answered(kept, replayed=True)
    rule_of(context.pack(), code)
    await checked(context, asked)
    now = context.clock()
    async with context.platform.acquire() as connection, connection.transaction():
        kept = await idempotency.take(connection, claim, now)
        if kept is not None:
            return idempotency.Answered(kept, replayed=True)
        await _taken_back(context, connection, asked.account_id, code, now)
    return await _told(context, asked, code, None, claim, render)


async def _told(
    context: Context, asked: Wanted, code: str, what: tuple[str, ...] | None, claim: Claim, render: Render
) -> Answered:
    """Keep what stands now, with a check of what was just committed."""
    async with idempotency.held(context.platform, claim):
        check = await checked(context, asked)
        kept = render(Standing(account_id=asked.account_id, code=code, what=what, check=check))
        await idempotency.keep(context.platform, claim, kept)
    return idempotency.Answered(kept, replayed=False)


async def _taken_back(context: Context, db: Database, account_id: int, code: str, now: datetime) -> None:
    """Hold the live case first: a worker that has read the consent must not pass the commit point meanwhile."""
    live = await consents.lock_live_case(db, account_id)
    stood = await consents.withdraw(db, [(account_id, code)], now)
    if live is None or not any(one.case_no in (None, live[0]) for one in stood):
        return
    if live[1] in _MAY_STILL_WIN or live[1] is State.CONFIRMING:
        await wish(context, db, (account_id, live[0]), now)
