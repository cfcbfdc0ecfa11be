"""Pauses and caps on what is asked for in an account's name, by account and by address, as policy says."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from jiebang.model.errors import TooSoonError, UnknownAccountError
from jiebang.store.cases import allowances
from jiebang.store.cases.allowances import UNLIMITED, Allowance, Use

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.origin import Origin
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.cases.context import Context


def find_allowance(context: Context, now: datetime) -> Allowance:
    """Return what the policy in force allows each account."""
    protection = context.pack().protection
    if protection is None:
        return UNLIMITED
    return Allowance(
        since=now - protection.window,
        case_pause=protection.case_pause,
        cases=protection.account.cases,
        codes=protection.account.codes,
        messages=protection.account.messages,
    )


def take_up_of_address(
    context: Context, origin: Origin, now: datetime, *, cases: int = 0, codes: int = 0, messages: int = 0
) -> None:
    """Count what a person asks for against their address; a service asks for many. Raises TooSoonError."""
    protection = context.pack().protection
    if protection is not None and not origin.service:
        context.addresses.take_up(origin.address, protection, now, cases=cases, codes=codes, messages=messages)


async def take_up(
    context: Context, db: Database, account_id: int, origin: Origin, now: datetime, *, codes: int = 0, messages: int = 0
) -> None:
    """Count codes and messages against account and address. Raises TooSoonError (fields: retry_after_s)."""
    use = Use(account_id=account_id, codes=codes, messages=messages)
    if account_id not in await allowances.take_up(db, [use], find_allowance(context, now), now):
        await refuse_beyond_limits(context, db, use, now)
        raise UnknownAccountError(accounts=[str(account_id)])
    take_up_of_address(context, origin, now, codes=codes, messages=messages)


async def refuse_beyond_limits(context: Context, db: Database, use: Use, now: datetime, *, cases: int = 0) -> None:
    """Raise TooSoonError with when the account may ask again, if what it asks for is beyond its limits; else return.

    For a request that its statement did not let through. `cases`: how many it would open.
    """
    protection, used = context.pack().protection, (await allowances.read(db, [use.account_id])).get(use.account_id)
    if protection is None or used is None:
        return
    if used.counted_since is None or used.counted_since + protection.window <= now:
        return
    waits, limits = [timedelta()], protection.account
    if cases and used.case_opened_at is not None:
        waits.append(used.case_opened_at + protection.case_pause * (used.cases_counted - 1) - now)
    if (
        used.cases_counted + cases > limits.cases
        or used.codes_counted + use.codes > limits.codes
        or used.messages_counted + use.messages > limits.messages
    ):
        waits.append(used.counted_since + protection.window - now)
    if max(waits) > timedelta():
        raise TooSoonError(retry_after_s=int(max(waits).total_seconds()) + 1)
