"""Take participants out of service: new cases that need one are refused, ready ones wait, all others go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.participants import PARTICIPANTS
from jiebang.store.operations import outages as store
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.model.participants import ParticipantRegistry
    from jiebang.store.operations.outages import Outage
    from jiebang.store.postgres.pool import Database

_RECENT: Final = 20


def check_names(
    names: Sequence[str], *, also: Sequence[str] = (), declared: ParticipantRegistry = PARTICIPANTS
) -> None:
    """Raise InvalidInputError for a name that is neither a participant's nor one of `also`."""
    known = (*declared.names, *also)
    for name in names:
        if name not in known:
            these = ", ".join(known)
            reason = Text(f"没有这个参与方;应为 {these}", f"there is no such one; known: {these}")
            raise InvalidInputError(field=name, reason=reason)


async def list_outages(pool: Database) -> list[Outage]:
    """Return the latest outages, current and past, the latest first."""
    return await store.load_outages(pool, _RECENT)


async def take_out(
    pool: Database,
    names: Sequence[str],
    reason: str,
    by: str,
    now: datetime,
    declared: ParticipantRegistry = PARTICIPANTS,
) -> list[Outage]:
    """Take participants out of service, in every process at once; return the history.

    `reason` is for operators, never shown to persons. Raises InvalidInputError for an unknown name, and without a
    reason or a name of who did it.
    """
    check_names(names, declared=declared)
    require_text("reason", reason)
    require_text("by", by)
    await store.take_out(pool, names, reason, by, now)
    return await list_outages(pool)


async def take_back(
    pool: Database, names: Sequence[str], by: str, now: datetime, declared: ParticipantRegistry = PARTICIPANTS
) -> list[Outage]:
    """Put participants back into service: waiting cases go on. Return the history. Raises as `take_out`."""
    check_names(names, declared=declared)
    require_text("by", by)
    await store.take_back(pool, names, by, now)
    return await list_outages(pool)
