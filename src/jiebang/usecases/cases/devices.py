"""Require that a request comes from the device that policy asks for. Services have none, and say who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.model.errors import ParticipantUnavailableError, WrongDeviceError
from jiebang.participants.base import UNANSWERED
from jiebang.policy.devices import Act, DeviceRule
from jiebang.store.cases import cases

if TYPE_CHECKING:
    from jiebang.model.origin import Origin
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.cases.context import Context

_SECURITY = "security"


async def require_device(context: Context, act: Act, account_id: int, origin: Origin, opener: Origin | None) -> None:
    """Raise WrongDeviceError unless `origin` may do this under the policy in force. Costs nobody a try.

    `opener`: who opened the case, or asked for the remedy, that the request is about (None: there is none yet). Raises
    ParticipantUnavailableError where the primary device counts and cannot be read.
    """
    rule = context.pack().devices.get(act, DeviceRule.ANY)
    if origin.service or rule is DeviceRule.ANY:
        return
    if rule is DeviceRule.CASE and opener is not None and not opener.service:
        wanted = opener.device
    else:
        wanted = await read_primary_device(context, account_id)
    if not origin.device or origin.device != wanted:
        raise WrongDeviceError(wanted=rule.value)


async def require_device_of_live_case(
    context: Context, db: Database, act: Act, account_id: int, origin: Origin
) -> None:
    """The same for a request that names no case: the account's live one counts, where there is one."""
    if origin.service or context.pack().devices.get(act, DeviceRule.ANY) is DeviceRule.ANY:
        return
    live = (await cases.load_live(db, [account_id])).get(account_id)
    await require_device(context, act, account_id, origin, None if live is None else live.origin)


async def read_primary_device(context: Context, account_id: int) -> str | None:
    """Return the account's primary device, None without one. Raises ParticipantUnavailableError."""
    try:
        batch = await context.participants[_SECURITY].facts([account_id])
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=_SECURITY) from None
    if batch is None or not batch.accounts:
        return None
    primary: str | None = batch.columns["primary_device_id"][0]
    return primary
