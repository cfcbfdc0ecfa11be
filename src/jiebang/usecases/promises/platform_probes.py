"""The probes of the platform's own keepers: by type, how the platform's database observes them for a batch of cases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.promises import NOTICE, UNKNOWN, Observation, PromiseState
from jiebang.store.promises import done_cases

if TYPE_CHECKING:
    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database
    from jiebang.store.promises.done_cases import DoneCase, NoticeTimes


class PromiseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When what the platform itself keeps is late. Technical limits of this installation."""

    notice: timedelta = timedelta(hours=1)
    """How long a notice may wait in the outbox."""


Observations = Mapping["Key", Sequence[Observation]]
"""By case, an observation of each keeper that was asked for."""
PlatformProbe = Callable[["Database", Sequence["DoneCase"], Sequence[str], PromiseLimits], Awaitable[Observations]]
"""Observes keepers of one type, by name, for cases that are done."""


async def _probe_notices(
    db: Database, cases: Sequence[DoneCase], names: Sequence[str], limits: PromiseLimits
) -> Observations:
    """Observe notices: kept once delivered, due until then.

    Of a case that a recovery made again, earlier ones are lost, and nothing is known of them.
    """
    found = await done_cases.load_notices(db, [case.key for case in cases], names)
    return {case.key: [_judge_notice(found[(*case.key, name)], case, limits) for name in names] for case in cases}


def _judge_notice(notice: NoticeTimes, case: DoneCase, limits: PromiseLimits) -> Observation:
    if notice.queued_at is None:
        return UNKNOWN if case.remade else Observation(PromiseState.BROKEN)
    if notice.delivered_at is not None:
        return Observation(PromiseState.KEPT, since=notice.delivered_at)
    return Observation(PromiseState.DUE, until=notice.queued_at + limits.notice)


PLATFORM_PROBES: Final[Mapping[str, PlatformProbe]] = {NOTICE: _probe_notices}
"""By type of keeper (`model.promises.PLATFORM_KEEPERS`)."""
