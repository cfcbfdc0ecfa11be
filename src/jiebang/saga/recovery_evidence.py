"""What is proven of an account's cases after a restore from backup, and what each of them must have been. Pure.

The rules stand at the head of `saga/recovery.py`, which decides what is to be done about it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Kind, State
from jiebang.model.errors import JiebangError
from jiebang.model.plan import Plan
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

OUTCOME_LOST: Final = "OUTCOME-LOST"
"""Reason of a case whose end was lost: a later case shows that it ended, nothing shows how."""
PLATFORM: Final = "platform"
"""The platform's database among those that were restored."""


class Why(StrEnum):
    """Why a case is an operator's."""

    CONTRADICTED = "contradicted"  # the platform's saved decision and a participant's row exclude each other
    OUTCOME_LOST = "outcome_lost"  # a later case shows that it ended, nothing shows how
    PLAN_LOST = "plan_lost"  # which kind of case it was, and what its Confirm applies
    CANNOT_CONFIRM = "cannot_confirm"  # committed, but a participant's row says cancelled
    CANNOT_TRY = "cannot_try"  # committed, and a participant that lost its Try would refuse it: nothing was sent to it
    WAITS_BELOW = "waits_below"  # decided, but a lower case of the account is not


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one account: the platform's record of it, and what every participant answered to `look`.

    `rows`: by participant, all of which answered; one without a row for the account is absent. `refusals`: by
    participant, the code with which it would refuse a Try of this account now; who would grant it, or cannot say, is
    absent. `waited`: for how long this recovery has waited for such refusals to clear. `theirs`: numbers that an
    earlier recovery left to people, and that are still theirs.
    """

    account_id: int
    last_case_no: int
    cases: tuple[Case, ...]
    rows: Mapping[str, FenceRow]
    refusals: Mapping[str, str] = {}
    waited: timedelta = timedelta(0)
    theirs: Collection[int] = ()


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The installation that recovers.

    `plan_of` raises KeyError or an error of ours for a plan it does not know. `plans`: every plan that a lost case may
    have followed, the newest last. `databases`: what was restored, by participant or "platform". `gap`: how many
    numbers a restored platform may have given that nobody saw. `passing`: codes of refusals that clear by themselves;
    `patience`: how long such are waited for. `outcomes`: by (account, number), whether a case was committed, as people
    found out from evidence outside; heard only where no database can prove how it ended. `papers`: by the same, what a
    lost case was, as its papers say: the kind and the plan's name, such as "revoke@wechat/1".
    """

    plan_of: Callable[[Case], Plan]
    plans: Sequence[tuple[Kind, Plan]]
    databases: Collection[str]
    gap: int = 0
    passing: Collection[str] = ()
    patience: timedelta = timedelta(0)
    outcomes: Mapping[tuple[int, int], bool] = {}
    papers: Mapping[tuple[int, int], str] = {}

    def may_be(self, account_id: int, number: int) -> list[tuple[Kind, Plan]]:
        """Return what a lost case may have been before anything is looked at: any plan, or what its papers say."""
        paper = self.papers.get((account_id, number))
        return [(kind, plan) for kind, plan in self.plans if paper in (None, f"{kind}@{plan.name}")]


class Stand(StrEnum):
    """What is proven of a case."""

    COMMITTED = "committed"
    BROKEN_OFF = "broken off"
    UNTOUCHED = "untouched"
    OPEN = "open"


class Judged(msgspec.Struct):
    """One number of the account: the platform's case, its plan, what it is or must have been, and what is proven."""

    number: int
    held: Case | None
    kind: Kind | None
    plan: Plan | None
    stand: Stand
    parties: tuple[str, ...]
    """Who takes part: the plan's participants, or where no plan is known whoever holds a mark."""
    why: Why | None = None


def judged(seen: Seen, restored: Restored, number: int, *, above: bool) -> Judged:
    """Find what is proven of one number, and what it was. `above`: somebody holds a later case."""
    held = next((case for case in seen.cases if case.case_no == number), None)
    marks = {name: row.case_op for name, row in seen.rows.items() if row.case_no == number}
    if held is None and not marks:
        return _forgotten(seen, restored, number)
    state = held.state if held and not _closed_unknown(seen, held, restored) else None
    stand, why = _proven(state, frozenset(marks.values()), above=above)
    outcome = restored.outcomes.get((seen.account_id, number))
    if why is Why.OUTCOME_LOST and outcome is not None:
        stand, why = Stand.COMMITTED if outcome else Stand.BROKEN_OFF, None
    kind, plan = _of(held, restored) if held else _must_be(seen, marks, number, stand, restored)
    if why is Why.OUTCOME_LOST and plan is not None and _never_tried(seen, plan, number, restored):
        stand, why = Stand.BROKEN_OFF, None
    parties = tuple(dict.fromkeys((*(plan.participants if plan else ()), *marks)))
    if stand is Stand.UNTOUCHED:
        return Judged(number, held, kind, plan, stand, ())
    if plan is None or len(parties) > len(plan.participants):
        why = why or (Why.PLAN_LOST if plan is None else Why.CONTRADICTED)
        # Cancelling a lost case needs no plan: what it reserved is let go, only its record stays open.
        stand = stand if held is None and stand is Stand.BROKEN_OFF else Stand.OPEN
    return Judged(number, held, kind, plan, stand, parties, why)


def numbers_of(seen: Seen, restored: Restored) -> list[int]:
    """Return every number of the account that something is to be found out about, in order.

    Those that somebody holds; those below that a restored platform has given and forgotten; those that people have.
    """
    held = {case.case_no for case in seen.cases} | {row.case_no for row in seen.rows.values()} - {0}
    last = max(held, default=0)
    given = seen.last_case_no + 1
    forgotten = range(given, min(last, given + restored.gap)) if PLATFORM in restored.databases else ()
    told = (number for account, number in restored.outcomes if account == seen.account_id)
    return sorted(held.union(number for number in (*forgotten, *seen.theirs, *told) if number < last))


def _forgotten(seen: Seen, restored: Restored, number: int) -> Judged:
    """Judge a number that nobody holds any more, though somebody holds a later one (rule 8)."""
    restored_to_before = dict.fromkeys(
        name
        for _, plan in restored.may_be(seen.account_id, number)
        if not _never_tried(seen, plan, number, restored)
        for name in plan.participants
        if below(seen, name, number)
    )
    outcome = restored.outcomes.get((seen.account_id, number))
    if not restored_to_before or outcome is False:
        return Judged(number, None, None, None, Stand.UNTOUCHED, ())
    parties = tuple(restored_to_before)
    if outcome is None:
        return Judged(number, None, None, None, Stand.OPEN, parties, Why.OUTCOME_LOST)
    kind, plan = _must_be(seen, {}, number, Stand.COMMITTED, restored)
    if plan is None:
        return Judged(number, None, None, None, Stand.OPEN, parties, Why.PLAN_LOST)
    return Judged(number, None, kind, plan, Stand.COMMITTED, plan.participants)


def _proven(state: State | None, marks: frozenset[CaseOp], *, above: bool) -> tuple[Stand, Why | None]:
    """Rules 2 to 4. `state`: the platform's, None where it lost the case; `marks`: the rows at its number."""
    if state in (State.CANCELLING, State.ABORTED):
        return (Stand.OPEN, Why.CONTRADICTED) if CaseOp.CONFIRMED in marks else (Stand.BROKEN_OFF, None)
    if state in (State.REJECTED, State.WITHDRAWN, State.EXPIRED):
        return (Stand.OPEN, Why.CONTRADICTED) if marks else (Stand.UNTOUCHED, None)
    if state in (State.CONFIRMING, State.DONE) or CaseOp.CONFIRMED in marks:
        return Stand.COMMITTED, None
    if CaseOp.CANCELLED in marks:
        return Stand.BROKEN_OFF, None
    if above:
        return Stand.OPEN, Why.OUTCOME_LOST
    return (Stand.BROKEN_OFF if marks or state is State.TRYING else Stand.UNTOUCHED), None


def _closed_unknown(seen: Seen, held: Case, restored: Restored) -> bool:
    """Whether a recovery closed the case without knowing how it ended, and somebody still has not come to its end."""
    if held.state is not State.REJECTED or held.reason != OUTCOME_LOST:
        return False
    _, plan = _of(held, restored)
    return plan is not None and any(seen.rows.get(name, NO_ROW).case_no <= held.case_no for name in plan.participants)


def _never_tried(seen: Seen, plan: Plan, number: int, restored: Restored) -> bool:
    """Whether somebody who forgot nothing never took the case: then its commit point was never reached."""
    return any(below(seen, name, number) for name in plan.participants if name not in restored.databases)


def _of(held: Case, restored: Restored) -> tuple[Kind, Plan | None]:
    try:
        plan = restored.plan_of(held)
    except (KeyError, JiebangError):
        return held.kind, None
    return held.kind, plan if len(plan.participants) == len(held.marks) else None


def _must_be(
    seen: Seen, marks: Mapping[str, CaseOp], number: int, stand: Stand, restored: Restored
) -> tuple[Kind | None, Plan | None]:
    """Rule 7: the kind and plan of a lost case, where everything it may have been comes to the same.

    A committed case was tried by its whole plan: whoever is below its number must have been restored.
    """
    possible, same = list[tuple[Kind, Plan]](), set[tuple[object, ...]]()
    for kind, plan in restored.may_be(seen.account_id, number):
        parties, before = set(plan.participants), [name for name in plan.participants if below(seen, name, number)]
        if marks.keys() <= parties and (stand is not Stand.COMMITTED or set(before) <= set(restored.databases)):
            possible.append((kind, plan))
            same.add((kind, plan.participants, str(_asked(plan, before, marks, stand))))
    return possible[-1] if len(same) == 1 else (None, None)


def _asked(
    plan: Plan, before: Sequence[str], marks: Mapping[str, CaseOp], stand: Stand
) -> list[tuple[str, str, list[tuple[str, object]]]]:
    """What participants are still asked for: a Confirm with its effects, or a Cancel of what was tried."""
    tried = [name for name in plan.participants if marks.get(name) is CaseOp.TRIED]
    if stand is not Stand.COMMITTED:
        return [(name, plan.operations[name].operation, []) for name in tried]
    return [
        (name, plan.operations[name].operation, sorted(plan.operations[name].effects.items()))
        for name in plan.participants
        if name in tried or name in before
    ]


def below(seen: Seen, name: str, number: int) -> bool:
    """Whether the participant has not come to this number."""
    return seen.rows.get(name, NO_ROW).case_no < number


def at(seen: Seen, name: str, one: Judged) -> bool:
    """Whether the participant's row is about this case."""
    return seen.rows.get(name, NO_ROW).case_no == one.number


def finished(seen: Seen, name: str, one: Judged) -> bool:
    """Whether nothing is left to do for the case at this participant."""
    row = seen.rows.get(name, NO_ROW)
    if row.case_no != one.number:
        return row.case_no > one.number
    if one.stand is Stand.OPEN:
        return row.case_op is not CaseOp.TRIED
    return row.case_op is (CaseOp.CONFIRMED if one.stand is Stand.COMMITTED else CaseOp.CANCELLED)
