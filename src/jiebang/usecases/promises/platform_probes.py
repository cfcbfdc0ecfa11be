"""The probes of the platform's own keepers: by type, how the platform's database observes them for a batch of cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.promises import NOTICE, UNKNOWN, Observation, PromiseState
from jiebang.store.promises import done_cases
from jiebang.store.retention import data_keys

if TYPE_CHECKING:
    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database
    from jiebang.store.promises.done_cases import DoneCase, NoticeTimes
    from jiebang.store.retention.data_keys import KeyState


class PromiseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When what the platform itself keeps is late. Technical limits of this installation."""

    notice: timedelta = timedelta(hours=1)
    """How long a notice may wait in the outbox."""
    queue: timedelta = timedelta(minutes=10)
    """How long after the end of a case its key may not be queued for destruction yet."""


class PlatformStores(msgspec.Struct, frozen=True):
    """The platform's own databases. `keys`: None: nothing is known of keys."""

    platform: Database
    keys: Database | None


Observations = Mapping["Key", Sequence[Observation]]
"""By case, an observation of each keeper that was asked for."""
PlatformProbe = Callable[[PlatformStores, Sequence["DoneCase"], Sequence[str], PromiseLimits], Awaitable[Observations]]
"""Observes keepers of one type, by name, for cases that are done."""


async def _probe_notices(
    stores: PlatformStores, cases: Sequence[DoneCase], names: Sequence[str], limits: PromiseLimits
) -> Observations:
    """Observe notices: kept once delivered, due until then.

    Of a case that a recovery made again, earlier ones are lost, and nothing is known of them.
    """
    found = await done_cases.load_notices(stores.platform, [case.key for case in cases], names)
    return {case.key: [_judge_notice(found[(*case.key, name)], case, limits) for name in names] for case in cases}


def _judge_notice(notice: NoticeTimes, case: DoneCase, limits: PromiseLimits) -> Observation:
    if notice.queued_at is None:
        return UNKNOWN if case.remade else Observation(PromiseState.BROKEN)
    if notice.delivered_at is not None:
        return Observation(PromiseState.KEPT, since=notice.delivered_at)
    return Observation(PromiseState.DUE, until=notice.queued_at + limits.notice)


async def _probe_destruction(
    stores: PlatformStores, cases: Sequence[DoneCase], _names: Sequence[str], limits: PromiseLimits
) -> Observations:
    """Observe that the keys a case ended are destroyed: due until their time. Without any there is nothing to open."""
    found = await _load_ended_keys(stores, cases)
    return {
        case.key: [UNKNOWN if found is None else _judge_destruction(found[case.key], case, limits)] for case in cases
    }


def _judge_destruction(keys: Sequence[KeyState], case: DoneCase, limits: PromiseLimits) -> Observation:
    waiting = [key.destroy_at or case.ended_at + limits.queue for key in keys if key.destroyed_at is None]
    if waiting:
        return Observation(PromiseState.DUE, until=max(waiting))
    destroyed = [key.destroyed_at for key in keys if key.destroyed_at is not None]
    return Observation(PromiseState.KEPT, since=max(destroyed, default=None))


async def _probe_retention(
    stores: PlatformStores, cases: Sequence[DoneCase], _names: Sequence[str], limits: PromiseLimits
) -> Observations:
    """Observe what law keeps of a name: there until its end, and gone from then on, unless an operator holds it."""
    found = await _load_ended_keys(stores, cases)
    return {case.key: [UNKNOWN if found is None else _judge_retention(found[case.key], case, limits)] for case in cases}


def _judge_retention(keys: Sequence[KeyState], case: DoneCase, limits: PromiseLimits) -> Observation:
    unlocked = [key for key in keys if not key.is_retained and key.retention_ended_at is None]
    if any(key.destroyed_at is not None for key in unlocked):
        return Observation(PromiseState.BROKEN)
    if unlocked or any(key.retention_ends_at is None for key in keys if key.is_retained):
        return Observation(PromiseState.DUE, until=case.ended_at + limits.queue)
    ends = [key.retention_ends_at for key in keys if key.is_retained and key.held_at is None]
    return Observation(PromiseState.KEPT, until=min((each for each in ends if each is not None), default=None))


async def _load_ended_keys(
    stores: PlatformStores, cases: Sequence[DoneCase]
) -> Mapping[Key, Sequence[KeyState]] | None:
    """Return by case the keys that its account had when it was opened; None where the keys are not known."""
    if stores.keys is None:
        return None
    of = defaultdict[int, list["KeyState"]](list)
    for state in await data_keys.load_states(stores.keys, [case.account_id for case in cases]):
        of[state.account_id].append(state)
    return {case.key: [key for key in of[case.account_id] if key.made_at <= case.begun_at] for case in cases}


PLATFORM_PROBES: Final[Mapping[str, PlatformProbe]] = {
    NOTICE: _probe_notices,
    "job": _probe_destruction,
    "retention": _probe_retention,
}
"""By type of keeper (`model.promises.PLATFORM_KEEPERS`)."""
