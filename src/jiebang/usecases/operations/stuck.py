"""Stuck cases: list them with the reason, show what every participant holds of them, have their ops sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from jiebang.model.case import ENDED, Case, Key, Mark, State
from jiebang.model.errors import JiebangError
from jiebang.participants.base import Participant
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import FACT_UNAVAILABLE, Timing, Unparked, step
from jiebang.saga.timeline import entries, expand_entries
from jiebang.store.cases import cases as store
from jiebang.store.operations import tasks
from jiebang.store.operations.tasks import Task
from jiebang.store.timelines import timeline_rows
from jiebang.usecases.operations.on_record import require_text
from jiebang.usecases.operations.tasks import OWED, PARKED, RESENT, SOON, TaskLimits

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.saga.fence import FenceRow
    from jiebang.store.postgres.pool import Pool

_log = structlog.get_logger(__name__)


class Plans(Protocol):
    """Finds the plan that a case follows: the registry of packs."""

    def plan_of(self, case: Case) -> Plan:
        """Return the plan of a case, after `know`. Raises UnknownPackError, KeyError."""

    async def know(self, cases: Iterable[Case]) -> None:
        """Load the plans of cases that are not loaded yet."""


class StuckReason(StrEnum):
    """Why a case is stuck."""

    PARKED = "parked"  # a Confirm or Cancel was refused twice
    SILENT = "silent"  # a participant owes an answer
    UNREAD = "unread"  # facts could not be read
    UNDECIDED = "undecided"  # a recovery could not decide it, and no worker takes it
    UNHEARD = "unheard"  # due, but no worker takes it, or it is postponed again and again


class StuckCase(msgspec.Struct, frozen=True, kw_only=True):
    """A stuck case. `waits_for`: the participants that owe an answer. `heard_at`: the time of its last save."""

    case: Case
    why: StuckReason
    waits_for: tuple[str, ...]
    heard_at: datetime


async def list_stuck(
    pool: Pool,
    plans: Plans,
    limits: TaskLimits,
    timing: Timing,
    now: datetime,
    limit: int,
) -> list[StuckCase]:
    """Return the stuck cases, the longest unsaved first, at most `limit`."""
    due_by = now + timing.resend_limit + SOON
    found = await tasks.load_stuck(pool, due_by, now - limits.silent, RESENT, limit)
    await plans.know(case for case, _ in found)
    return [
        StuckCase(case=case, why=_find_reason(case), waits_for=list_owing(case, plans.plan_of), heard_at=heard_at)
        for case, heard_at in found
    ]


def _find_reason(case: Case) -> StuckReason:
    if not PARKED.isdisjoint(case.marks):
        return StuckReason.PARKED
    if case.due_at is None:
        return StuckReason.UNDECIDED
    if case.state is State.READY and case.reason == FACT_UNAVAILABLE:
        return StuckReason.UNREAD
    return StuckReason.SILENT if case.attempt or not OWED.isdisjoint(case.marks) else StuckReason.UNHEARD


def list_owing(case: Case, plan_of: Callable[[Case], Plan]) -> tuple[str, ...]:
    """Return the participants that owe the case an answer; none if its plan is unknown."""
    if case.state in ENDED:
        return ()
    try:
        names = plan_of(case).participants
    except (KeyError, JiebangError):
        return ()
    owed = PARKED | OWED | {Mark.TRY_SENT.value}
    return tuple(name for name, mark in zip(names, case.marks, strict=False) if mark in owed)


class RetryOutcome(StrEnum):
    """The result of `retry` for one case."""

    RETRIED = "retried"  # parked ops are sent again
    WOKEN = "woken"  # it is due now
    NOT_UNDER_WAY = "not_under_way"  # it waits for the person, or has ended
    UNDECIDED = "undecided"  # its decision is unknown: there is nothing to send again
    MOVED = "moved"  # it moved by itself meanwhile
    UNKNOWN = "unknown"  # there is no such case


async def retry(
    pool: Pool,
    plans: Plans,
    keys: Collection[Key],
    by: str,
    now: datetime,
    timing: Timing,
) -> dict[Key, RetryOutcome]:
    """Have the open ops of cases sent again now, parked ones too. Decisions stay as they are.

    Their tasks are acknowledged by `by`. Raises what `plans.plan_of` raises, and InvalidInputError without a name.
    """
    require_text("by", by)
    found = await store.load_many(pool, keys)
    await plans.know(found.values())
    outcomes = dict.fromkeys(keys, RetryOutcome.UNKNOWN)
    saves, wake = list[Save](), list[Key]()
    for key, case in found.items():
        if case.state in ENDED or case.state in (State.OPEN, State.IN_REVIEW):
            outcomes[key] = RetryOutcome.NOT_UNDER_WAY
            continue
        after = step(case, plans.plan_of(case), Unparked(), now, timing).case
        if after is not case:
            after = msgspec.structs.replace(after, due_at=now)
            saves.append(Save(cases=[after], entries=entries(case, after, (), (), now)))
            outcomes[key] = RetryOutcome.MOVED
        elif case.due_at is None:
            outcomes[key] = RetryOutcome.UNDECIDED
        else:
            wake.append(key)
            outcomes[key] = RetryOutcome.WOKEN
    if saves:
        outcomes |= dict.fromkeys((await store.save(pool, saves, now)).kept(), RetryOutcome.RETRIED)
    if wake:
        await store.look_again_at(pool, wake, now)
    await tasks.acknowledge(pool, keys, by, now)
    return outcomes


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """One participant of a case: its mark in the case, and its own fence row of the account.

    `row`: None if it has none, or did not answer; `answers`: whether it did.
    """

    participant: str
    mark: str
    answers: bool
    row: FenceRow | None


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case as operators see it. `timeline`: the entries of all its saves, in order."""

    case: Case
    parties: tuple[Party, ...]
    timeline: tuple[Mapping[str, Any], ...]
    tasks: tuple[Task, ...]


async def show(
    pool: Pool,
    participants: Mapping[str, Participant],
    plans: Plans,
    keys: Collection[Key],
    limit: timedelta = timedelta(seconds=2),
) -> dict[Key, CaseView]:
    """Return cases with what all participants hold of their accounts now; unknown cases are absent.

    A participant that does not answer within `limit` is shown as silent. Raises what `plans.plan_of` raises.
    """
    found = await store.load_many(pool, keys)
    await plans.know(found.values())
    names = {key: plans.plan_of(case).participants for key, case in found.items()}
    accounts_by_participant = dict[str, set[int]]()
    for key, parties in names.items():
        for name in parties:
            accounts_by_participant.setdefault(name, set()).add(key[0])

    async def ask(name: str) -> Mapping[int, FenceRow] | None:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await participants[name].look(sorted(accounts_by_participant[name]))
        except KeyError:  # no participant of this installation
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others are shown
            _log.warning("unread", participant=name, error=type(error).__name__)
            return None

    rows_by_participant = dict(
        zip(accounts_by_participant, await asyncio.gather(*map(ask, accounts_by_participant)), strict=True)
    )
    timelines = dict[Key, list[Mapping[str, Any]]]()
    for line in await timeline_rows.read_after(pool, dict.fromkeys(found, 0)):
        timelines.setdefault((line.account_id, line.case_no), []).extend(expand_entries(line.entries))
    tasks_by_case = dict[Key, list[Task]]()
    for task in await tasks.load_of_cases(pool, found):
        tasks_by_case.setdefault((task.account_id, task.case_no), []).append(task)
    return {
        key: CaseView(
            case=case,
            parties=tuple(
                _make_party(name, mark, rows_by_participant[name], key[0])
                for name, mark in zip(names[key], case.marks, strict=True)
            ),
            timeline=tuple(timelines.get(key, ())),
            tasks=tuple(tasks_by_case.get(key, ())),
        )
        for key, case in found.items()
    }


def _make_party(name: str, mark: str, rows: Mapping[int, FenceRow] | None, account_id: int) -> Party:
    row = None if rows is None else rows.get(account_id)
    return Party(participant=name, mark=mark, answers=rows is not None, row=row)
