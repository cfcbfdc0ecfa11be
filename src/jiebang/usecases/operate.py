"""What an operator sees and may do of cases that do not get on. Nothing here changes what was decided.

A case past its decision needs a person when a participant refused its Confirm or Cancel twice (parked), goes unanswered
for longer than a limit (silent), or when a recovery could not decide it: each is a task, raised by a worker's chore and
closed by it once the op is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import ENDED, Case, Key, Mark, State
from jiebang.model.errors import JiebangError
from jiebang.participants.base import UNANSWERED, Participant
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import FACT_UNAVAILABLE, Timing, Unparked, step
from jiebang.saga.timeline import entries, told
from jiebang.store import cases as store
from jiebang.store import tasks
from jiebang.store.tasks import NewTask, Task
from jiebang.usecases.seldom import Turns

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.saga.fence import FenceRow
    from jiebang.store.pool import Pool

_PARKED: Final = frozenset({Mark.CONFIRM_PARKED.value, Mark.CANCEL_PARKED.value})
_OWED: Final = frozenset({Mark.CONFIRM_SENT.value, Mark.CONFIRM_REFUSED, Mark.CANCEL_SENT, Mark.CANCEL_REFUSED})
_SOON: Final = timedelta(seconds=1)
_RESENT: Final = 2
"""An op that was sent again as often as this may be one that goes unanswered; fewer are nothing to look at."""
_BATCH: Final = 1_000


class Watchfulness(msgspec.Struct, frozen=True, kw_only=True):
    """When a case needs a person. Technical limits of this installation."""

    silent: timedelta = timedelta(minutes=2)
    """How long a Confirm or Cancel may go unanswered, and a case under way unheard of."""
    every: timedelta = timedelta(seconds=2)
    """How often a worker looks."""


class Watch:
    """A worker's chore: raises tasks for the cases of its buckets, and closes what is done."""

    def __init__(
        self,
        pool: Pool,
        plan_of: Callable[[Case], Plan],
        *,
        limits: Watchfulness,
        timing: Timing,
    ) -> None:
        """`timing`: the coordinator's, whose longest wait bounds what can be silent."""
        self._pool, self._plan_of, self._limits, self._timing = pool, plan_of, limits, timing
        self._turns = Turns(limits.every)

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Look once, if it is time; return 0, because there is never a rest that could not wait."""
        if not buckets or not self._turns.due(now):
            return 0
        due_by = now + self._timing.resend_limit + _SOON
        found = await tasks.suspects(self._pool, buckets, due_by, _RESENT, _BATCH)
        owed = [task for case, since in found for task in self._owed(case, since, now)]
        await tasks.raise_(self._pool, owed, now)
        await tasks.close_done(self._pool, buckets, now)
        self._turns.taken(now)
        return 0

    def _owed(self, case: Case, since: datetime | None, now: datetime) -> list[NewTask]:
        try:
            names = self._plan_of(case).participants
        except (KeyError, JiebangError):
            return []
        silent = since is not None and now - since >= self._limits.silent
        found = list[NewTask]()
        for place, (name, mark) in enumerate(zip(names, case.marks, strict=False)):
            if mark in _PARKED or (silent and mark in _OWED):
                found.append(
                    NewTask(
                        account_id=case.account_id,
                        case_no=case.case_no,
                        kind="parked" if mark in _PARKED else "silent",
                        participant=name,
                        place=place,
                        op="confirm" if case.state is State.CONFIRMING else "cancel",
                    )
                )
        return found


class Why(StrEnum):
    """Why a case does not get on."""

    PARKED = "parked"  # a Confirm or Cancel was refused twice
    SILENT = "silent"  # a participant owes an answer
    UNREAD = "unread"  # facts could not be read
    UNDECIDED = "undecided"  # no worker takes it up: a recovery could not decide it
    UNHEARD = "unheard"  # due, but nobody takes it up, or it was put off again and again


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """A case that does not get on. `waits_for`: the participants that owe an answer. `heard_at`: its last save."""

    case: Case
    why: Why
    waits_for: tuple[str, ...]
    heard_at: datetime


async def stuck(
    pool: Pool,
    plan_of: Callable[[Case], Plan],
    limits: Watchfulness,
    timing: Timing,
    now: datetime,
    limit: int,
) -> list[Stuck]:
    """Return the cases that do not get on, the quietest first, at most `limit`."""
    due_by = now + timing.resend_limit + _SOON
    found = await tasks.stuck(pool, due_by, now - limits.silent, _RESENT, limit)
    return [
        Stuck(case=case, why=_why(case), waits_for=waiting_for(case, plan_of), heard_at=heard_at)
        for case, heard_at in found
    ]


def _why(case: Case) -> Why:
    if not _PARKED.isdisjoint(case.marks):
        return Why.PARKED
    if case.due_at is None:
        return Why.UNDECIDED
    if case.state is State.READY and case.reason == FACT_UNAVAILABLE:
        return Why.UNREAD
    return Why.SILENT if case.attempt or not _OWED.isdisjoint(case.marks) else Why.UNHEARD


def waiting_for(case: Case, plan_of: Callable[[Case], Plan]) -> tuple[str, ...]:
    """Return the participants that owe the case an answer; none where its plan is not known."""
    if case.state in ENDED:
        return ()
    try:
        names = plan_of(case).participants
    except (KeyError, JiebangError):
        return ()
    owed = _PARKED | _OWED | {Mark.TRY_SENT.value}
    return tuple(name for name, mark in zip(names, case.marks, strict=False) if mark in owed)


class Outcome(StrEnum):
    """What asking for a case to be tried again came to."""

    RETRIED = "retried"  # parked ops are sent again
    WOKEN = "woken"  # it is due now
    NOT_UNDER_WAY = "not_under_way"  # it waits for its person, or has ended
    UNDECIDED = "undecided"  # what was decided is not known: nothing to try again
    MOVED = "moved"  # it moved by itself in that moment
    UNKNOWN = "unknown"  # there is no such case


async def retry(
    pool: Pool,
    plan_of: Callable[[Case], Plan],
    keys: Collection[Key],
    by: str,
    now: datetime,
    timing: Timing,
) -> dict[Key, Outcome]:
    """Have the open ops of cases sent again now, parked ones too. What was decided stays decided.

    `by` looks after their tasks from now on. Raises what `plan_of` raises.
    """
    found = await store.load_many(pool, keys)
    outcomes = dict.fromkeys(keys, Outcome.UNKNOWN)
    saves, wake = list[Save](), list[Key]()
    for key, case in found.items():
        if case.state in ENDED or case.state in (State.OPEN, State.IN_REVIEW):
            outcomes[key] = Outcome.NOT_UNDER_WAY
            continue
        after = step(case, plan_of(case), Unparked(), now, timing).case
        if after is not case:
            after = msgspec.structs.replace(after, due_at=now)
            saves.append(Save(cases=[after], entries=entries(case, after, (), (), now)))
            outcomes[key] = Outcome.MOVED
        elif case.due_at is None:
            outcomes[key] = Outcome.UNDECIDED
        else:
            wake.append(key)
            outcomes[key] = Outcome.WOKEN
    if saves:
        outcomes |= dict.fromkeys((await store.save(pool, saves, now)).kept(), Outcome.RETRIED)
    if wake:
        await store.put_off(pool, wake, now)
    await tasks.acknowledge(pool, keys, by, now)
    return outcomes


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """One participant of a case: what the case knows of it, and what it holds of the account itself.

    `row`: None where it did not answer; `answers` says whether it did.
    """

    participant: str
    mark: str
    answers: bool
    row: FenceRow | None


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A case as an operator sees it. `timeline`: what each save did and had learnt, one entry after another."""

    case: Case
    parties: tuple[Party, ...]
    timeline: tuple[Mapping[str, Any], ...]
    tasks: tuple[Task, ...]


async def show(
    pool: Pool,
    participants: Mapping[str, Participant],
    plan_of: Callable[[Case], Plan],
    case: Case,
    limit: timedelta = timedelta(seconds=2),
) -> Shown:
    """Show one case with what everybody holds of its account now. Who does not answer in time is shown as silent."""

    async def ask(name: str, mark: str) -> Party:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                rows = await participants[name].look([case.account_id])
        except (KeyError, *UNANSWERED):
            return Party(participant=name, mark=mark, answers=False, row=None)
        return Party(participant=name, mark=mark, answers=True, row=rows.get(case.account_id))

    names: Sequence[str] = plan_of(case).participants
    parties = await asyncio.gather(*(ask(name, mark) for name, mark in zip(names, case.marks, strict=True)))
    lines = await store.events_after(pool, {case.key: 0})
    return Shown(
        case=case,
        parties=tuple(parties),
        timeline=tuple(entry for line in lines for entry in told(line.entries)),
        tasks=tuple(await tasks.of_cases(pool, [case.key])),
    )
