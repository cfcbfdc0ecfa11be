"""Set right the effects of a frozen plan, by two people, where a participant cannot end a case that others confirmed.

A version of policy never changes, and a case follows its plan for ever. Where a participant cannot apply an effect (an
earlier jiebang admitted the value, a column was narrowed, a remote party refuses it), a case that all others have
confirmed would stay half unbound. A correction puts another value in its place, for every case that follows the plan;
decisions stay as they are. It is possible only where a case waits for it, and is recorded with both names and the
reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import Mark
from jiebang.model.check import Text
from jiebang.model.confusables import looks_alike
from jiebang.model.errors import (
    CorrectionNeedlessError,
    InvalidInputError,
    JiebangError,
    SamePersonError,
    UnknownCorrectionError,
    UnknownPackError,
)
from jiebang.store.operations import tasks
from jiebang.store.policy import corrections as store
from jiebang.store.policy import packs
from jiebang.store.policy.corrections import Correction, NewCorrection
from jiebang.usecases.operations.on_record import require_text
from jiebang.usecases.operations.stuck import RetryOutcome, list_owing, retry
from jiebang.usecases.operations.tasks import RESENT, SOON
from jiebang.usecases.policy.lifecycle import normalize_name
from jiebang.usecases.policy.registry import LEAD, PackRegistry

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key, Kind
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.model.plan import Plan
    from jiebang.saga.coordinator import Timing
    from jiebang.store.postgres.pool import Pool

_MOST: Final = 10_000
_HISTORY: Final = 100
_REFUSED: Final = frozenset({Mark.CONFIRM_REFUSED.value, Mark.CONFIRM_PARKED.value})


class UnfitEffect(msgspec.Struct, frozen=True):
    """An effect of a plan that its participant cannot apply, and why."""

    participant: str
    effect: str
    value: Any
    reason: Text


class ConfirmingCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case past the commit point that has not ended: who owes its Confirm, and what they could not apply."""

    case: Case
    waits_for: tuple[str, ...]
    unfit: tuple[UnfitEffect, ...]


def find_unfit(plan: Plan, declared: ParticipantRegistry) -> tuple[UnfitEffect, ...]:
    """Return the effects of a plan that its participants cannot apply, as far as they declare what they can."""
    found = list[UnfitEffect]()
    for name, planned in plan.operations.items():
        known = _list_effects(declared, plan, name)
        for effect, value in planned.effects.items():
            fault = known[effect].fault(value) if effect in known else None
            if fault is not None:
                found.append(UnfitEffect(name, effect, value, fault))
    return tuple(found)


def _list_effects(declared: ParticipantRegistry, plan: Plan, name: str) -> Mapping[str, Any]:
    try:
        return declared[name].operation(plan.operations[name].operation)[1].effects or {}
    except KeyError:
        return {}  # an operation of another version: whatever it is sent is refused as a whole


async def list_confirming(
    db: Pool, plans: PackRegistry, timing: Timing, now: datetime, limit: int
) -> list[ConfirmingCase]:
    """Return the cases past the commit point that have not ended, the longest first, at most `limit`."""
    found = await tasks.load_confirming(db, now + timing.resend_limit + SOON, limit)
    await plans.know(found)
    listed = list[ConfirmingCase]()
    for case in found:
        waits_for = list_owing(case, plans.plan_of)
        try:
            unfit = find_unfit(plans.plan_of(case), plans.declared)
        except (KeyError, JiebangError):
            unfit = ()
        listed.append(
            ConfirmingCase(
                case=case, waits_for=waits_for, unfit=tuple(one for one in unfit if one.participant in waits_for)
            )
        )
    return listed


async def propose(
    db: Pool,
    plans: PackRegistry,
    *,
    pack: str,
    kind: Kind,
    participant: str,
    effect: str,
    value: Any,
    why: str,
    by: str,
    timing: Timing,
    now: datetime,
) -> Correction:
    """Propose another value for an effect (None: leave it out). A second person must approve it.

    Raises UnknownPackError, InvalidInputError (field, reason) for what the plan or the participant does not have, or a
    value that could not be applied either; CorrectionNeedlessError where no case waits for this; NameUnusableError.
    """
    who = normalize_name(by)
    require_text("why", why)
    await plans.refresh()
    was = _require_fit(plans, pack, kind, participant, effect, value)
    waiting = await _find_waiting(db, plans, (pack, kind, participant), timing, now)
    if not any(_is_kept_by(case, plans, participant, effect) for case in waiting):
        raise CorrectionNeedlessError(pack=pack, kind=kind, participant=participant, waiting=len(waiting))
    new = NewCorrection(
        pack=pack, kind=kind, participant=participant, effect=effect, value=value, was=was, why=why.strip()
    )
    async with db.acquire() as connection, connection.transaction():
        await packs.load_state(connection, lock=True)
        number = await store.propose(connection, new, who, now)
    return Correction(correction_no=number, proposed_by=who, proposed_at=now, **msgspec.structs.asdict(new))


def _require_fit(plans: PackRegistry, pack: str, kind: Kind, participant: str, effect: str, value: Any) -> Any:
    """Return what stands in the plan now. Raises as `propose`."""
    if kind not in plans.pack(pack).plans:
        raise InvalidInputError(field="kind", reason=Text("该版本没有此类申请", "the version does not offer this kind"))
    plan = plans.plan_named(pack, kind)
    if participant not in plan.operations:
        names = ", ".join(plan.participants)
        raise InvalidInputError(field="participant", reason=Text(f"应为 {names}", f"must be one of {names}"))
    current = plan.operations[participant].effects
    known = _list_effects(plans.declared, plan, participant)
    if effect not in known and effect not in current:
        names = ", ".join(known or current) or "—"
        raise InvalidInputError(field="effect", reason=Text(f"应为以下之一：{names}", f"must be one of {names}"))
    fault = known[effect].fault(value) if effect in known and value is not None else None
    if fault is None and effect not in known and not isinstance(value, (int, str, bool, type(None))):
        fault = Text("应为数、文本、真假值或 null", "must be a number, a text, true, false or null")
    if fault is not None:
        raise InvalidInputError(field="value", reason=fault)
    return current.get(effect)


async def _find_waiting(
    db: Pool, plans: PackRegistry, of: tuple[str, Kind, str], timing: Timing, now: datetime
) -> list[Case]:
    """Return the cases past the commit point that follow a plan and wait for one of its participants."""
    pack, kind, participant = of
    found = await tasks.load_confirming(db, now + timing.resend_limit + SOON, _MOST)
    return [
        case
        for case in found
        if (case.plan, case.kind) == (pack, kind) and participant in list_owing(case, plans.plan_of)
    ]


def _is_kept_by(case: Case, plans: PackRegistry, participant: str, effect: str) -> bool:
    """Whether an effect may be what keeps a waiting case from its end.

    The participant refused its Confirm, or declares that it cannot apply the effect; one that declares no effects (a
    remote one) and was asked again and again may have failed on it.
    """
    plan = plans.plan_of(case)
    if case.marks[plan.participants.index(participant)] in _REFUSED:
        return True
    known = _list_effects(plans.declared, plan, participant)
    if effect not in known:
        return case.attempt >= RESENT
    return any((one.participant, one.effect) == (participant, effect) for one in find_unfit(plan, plans.declared))


async def approve(
    db: Pool, plans: PackRegistry, number: int, by: str, timing: Timing, now: datetime
) -> tuple[Correction, dict[Key, RetryOutcome]]:
    """Approve another person's proposal: it is in force at once, and the cases that wait for it are sent again.

    Returns the correction and what became of each such case. Raises UnknownCorrectionError, SamePersonError,
    UnknownPackError, InvalidInputError (the value does not fit any more), NameUnusableError.
    """
    who = normalize_name(by)
    await plans.refresh()
    async with db.acquire() as connection, connection.transaction():
        if await packs.load_state(connection, lock=True) is None:
            raise UnknownPackError(pack="", known=[])
        proposed = await store.load_open(connection, number)
        if proposed is None:
            raise UnknownCorrectionError(number=number)
        if looks_alike(proposed.proposed_by, who):
            raise SamePersonError(pack=proposed.pack, proposed_by=proposed.proposed_by)
        _require_fit(plans, proposed.pack, proposed.kind, proposed.participant, proposed.effect, proposed.value)
        await store.approve(connection, number, who, now)
        await packs.touch(connection)
    await plans.refresh()
    await asyncio.sleep(LEAD.total_seconds())  # by then every worker has read it
    of = (proposed.pack, proposed.kind, proposed.participant)
    waiting = await _find_waiting(db, plans, of, timing, now)
    outcomes = await retry(db, plans, [case.key for case in waiting], who, now + LEAD, timing) if waiting else {}
    return msgspec.structs.replace(proposed, approved_by=who, approved_at=now), outcomes


async def list_corrections(db: Pool) -> Sequence[Correction]:
    """Return the latest corrections: those that wait, were approved, or lapsed."""
    return await store.load_history(db, _HISTORY)
