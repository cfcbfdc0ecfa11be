"""Tell what restricts accounts now: what is in force at each participant, which case caused it, how it is lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from jiebang.model.case import State
from jiebang.model.check import Text
from jiebang.model.errors import ParticipantUnavailableError, UnknownAccountError
from jiebang.model.facts import PLATFORM, FactType
from jiebang.model.limits import AccountLimits, LimitInForce, LimitReading, LimitSpec
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.policy.wording import fill, render
from jiebang.store.checks import limit_causes
from jiebang.store.postgres.faults import UNANSWERED

if TYPE_CHECKING:
    from jiebang.policy.pack import Pack
    from jiebang.store.checks.limit_causes import LimitCause
    from jiebang.usecases.cases.context import Context

T = TypeVar("T")

_COMMITTED: Final = (State.DONE, State.CONFIRMING)

_log = structlog.get_logger(__name__)


async def read_limits(
    context: Context, accounts: Sequence[int], *, within: timedelta = timedelta(seconds=1)
) -> list[AccountLimits]:
    """Return what restricts each of `accounts`, in their order: one query a participant, all at once.

    A participant that does not answer `within` that time is named in `unread`: what it restricts is unknown, which is
    not the same as nothing. Raises UnknownAccountError, naming all accounts unknown to the platform, and
    ParticipantUnavailableError where the platform's own database does not answer.
    """
    pack, now = context.pack(), context.clock()
    limiting = {
        name: one
        for name, one in context.participants.items()
        if isinstance(one, DatabaseParticipant) and pack.registry[name].limits
    }
    causes, answers = await asyncio.gather(
        _within(within, limit_causes.read(context.platform, accounts)),
        asyncio.gather(*(_within(within, participant.limits(accounts)) for participant in limiting.values())),
    )
    if causes is None:
        raise ParticipantUnavailableError(participant=PLATFORM)
    unknown = sorted(set(accounts) - causes.keys())
    if unknown:
        raise UnknownAccountError(accounts=[str(account) for account in unknown])
    read = dict(zip(limiting, answers, strict=True))
    unread = tuple(name for name, found in read.items() if found is None)
    for name in unread:
        _log.warning("limits_unread", owner=name)
    return [
        AccountLimits(
            account_id=account_id,
            pack=pack.id,
            read_at=now,
            limits=[
                _explain(pack, name, reading, causes[account_id])
                for name, found in read.items()
                for reading in (found or {}).get(account_id, ())
            ],
            unread=unread,
        )
        for account_id in accounts
    ]


async def _within(limit: timedelta, reading: Awaitable[T]) -> T | None:
    """Return what was read; None where it was not, or not in time."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await reading
    except UNANSWERED:
        return None


def _explain(pack: Pack, participant: str, read: LimitReading, causes: Sequence[LimitCause]) -> LimitInForce:
    spec = pack.registry.limits[read.name]
    cause = _find_cause(pack, participant, spec, causes)
    owner = pack.registry.owner_of(participant)
    known = LimitInForce(
        participant=participant,
        owner=pack.owners.get(owner, Text(owner, owner)),
        name=read.name,
        title=spec.title,
        value=read.value,
        used=read.used,
        value_type=spec.value,
        case_no=None if cause is None else cause.case_no,
        kind=None if cause is None else cause.kind,
        since=None if cause is None else cause.created_at if spec.running else cause.ended_at,
        until=read.until,
    )
    words = pack.limits.get(read.name)
    if words is None:
        return known
    explanation, lifted = (words.explanation, words.lifted)
    if cause is None and words.otherwise is not None:
        explanation, lifted = words.otherwise
    values = _render_values(pack, spec, read)
    return msgspec.structs.replace(
        known,
        title=fill(words.title, values),
        explanation=fill(explanation, values),
        lifted=fill(lifted, values),
        appeal=fill(words.appeal, values),
        source=words.source,
        legal_basis=words.legal_basis,
    )


def _render_values(pack: Pack, spec: LimitSpec, read: LimitReading) -> Mapping[str, Text]:
    return {
        "value": render(read.value, spec.value or FactType.INT, pack.currency, pack.zone),
        "until": render(read.until, FactType.TIME, zone=pack.zone),
    }


def _find_cause(pack: Pack, participant: str, spec: LimitSpec, causes: Sequence[LimitCause]) -> LimitCause | None:
    """Return the newest case whose kind puts this limit on accounts; for one that is `running`, the case under way."""
    for cause in reversed(causes):
        plan = pack.plans.get(cause.kind)
        if plan is None or participant not in plan.operations:
            continue
        if spec.running and cause.ended_at is None:
            return cause
        if spec.effect in plan.operations[participant].effects and cause.state in _COMMITTED:
            return cause
    return None
