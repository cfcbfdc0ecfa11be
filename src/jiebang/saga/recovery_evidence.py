"""What the databases prove about an account's cases after a restore from backup. Pure.

For each case number: was it committed or broken off, and of which kind and plan was it? The rules are listed at the
head of `saga/recovery.py`, which decides what to do with the result.
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
"""Reason of a case whose outcome was lost: a later case shows that it ended, nothing shows how."""
PLATFORM: Final = "platform"
"""The name of the platform's own database in `databases`."""


class UndecidedReason(StrEnum):
    """Why a case is left to an operator."""

    CONTRADICTED = "contradicted"  # the platform's saved decision and a participant's row exclude each other
    OUTCOME_LOST = "outcome_lost"  # a later case shows that it ended, nothing shows how
    PLAN_LOST = "plan_lost"  # its kind, and so the effects of its Confirm, are unknown
    CANNOT_CONFIRM = "cannot_confirm"  # committed, but a participant's row says cancelled
    CANNOT_TRY = "cannot_try"  # committed, but a participant that lost its Try would refuse it; nothing was sent there
    WAITS_BELOW = "waits_below"  # decided, but a lower case of the account is not


class AccountEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What all databases hold of one account: the platform's cases, and each participant's answer to `look`.

    `rows`: the fence row by participant; every participant answered, one without a row for the account is absent.
    `refusals`: by participant, the code with which it would refuse a Try of this account now; a participant that would
    grant it, or cannot tell, is absent. `waited`: how long this recovery has waited for such refusals to clear.
    `theirs`: case numbers that an earlier recovery left to operators and that are still open.
    """

    account_id: int
    last_case_no: int
    cases: tuple[Case, ...]
    rows: Mapping[str, FenceRow]
    refusals: Mapping[str, str] = {}
    waited: timedelta = timedelta(0)
    theirs: Collection[int] = ()


class RestoredInstallation(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored, and what a recovery knows of the installation.

    `plan_of` raises KeyError or a JiebangError for a plan it does not know. `plans`: every plan that a lost case may
    have followed, the newest last. `databases`: those that were restored, each a participant's name or "platform".
    `gap`: how many case numbers a restored platform may have assigned after its backup. `passing`: refusal codes that
    clear by themselves; `patience`: how long to wait for them. `outcomes`: by (account_id, case_no), whether the case
    was committed, as operators established from evidence outside; used only where no database proves the outcome.
    `papers`: by the same key, what a lost case was according to its papers, as "kind@plan", e.g. "revoke@wechat/2".
    """

    plan_of: Callable[[Case], Plan]
    plans: Sequence[tuple[Kind, Plan]]
    databases: Collection[str]
    gap: int = 0
    passing: Collection[str] = ()
    patience: timedelta = timedelta(0)
    outcomes: Mapping[tuple[int, int], bool] = {}
    papers: Mapping[tuple[int, int], str] = {}

    def list_possible_plans(self, account_id: int, case_no: int) -> list[tuple[Kind, Plan]]:
        """Return the kinds and plans that a lost case may have had: those that its papers name, or all."""
        paper = self.papers.get((account_id, case_no))
        return [(kind, plan) for kind, plan in self.plans if paper in (None, f"{kind}@{plan.name}")]


class ProvenOutcome(StrEnum):
    """What is proven about how a case was decided."""

    COMMITTED = "committed"
    BROKEN_OFF = "broken off"
    UNTOUCHED = "untouched"  # no Try of it is left anywhere
    OPEN = "open"  # nothing is proven, or the proofs contradict each other


class CaseAssessment(msgspec.Struct):
    """What is known about one case number of the account.

    `case`: the platform's record (None: it lost the case); `kind` and `plan`: the record's, or inferred, None where
    unknown; `reason`: why it is left to an operator, if it is.
    """

    case_no: int
    case: Case | None
    kind: Kind | None
    plan: Plan | None
    outcome: ProvenOutcome
    participants: tuple[str, ...]
    """The plan's participants; where it is unknown, those at this number and, if undecided, those that may owe it."""
    reason: UndecidedReason | None = None


def assess_case(seen: AccountEvidence, restored: RestoredInstallation, case_no: int, *, above: bool) -> CaseAssessment:
    """Find out what is proven about one case number. `above`: some database holds a later case of the account."""
    case = next((case for case in seen.cases if case.case_no == case_no), None)
    ops = {name: row.case_op for name, row in seen.rows.items() if row.case_no == case_no}
    if case is None and not ops:
        return _assess_forgotten(seen, restored, case_no)
    state = case.state if case and not _was_closed_unproven(seen, case, restored) else None
    outcome, reason = _prove_outcome(state, frozenset(ops.values()), above=above)
    reported = restored.outcomes.get((seen.account_id, case_no))
    if reason is UndecidedReason.OUTCOME_LOST and reported is not None:
        outcome, reason = ProvenOutcome.COMMITTED if reported else ProvenOutcome.BROKEN_OFF, None
    kind, plan = _look_up_plan(case, restored) if case else _infer_plan(seen, ops, case_no, outcome, restored)
    if reason is UndecidedReason.OUTCOME_LOST and plan is not None and _lacks_try(seen, plan, case_no, restored):
        outcome, reason = ProvenOutcome.BROKEN_OFF, None
    participants = tuple(dict.fromkeys((*(plan.participants if plan else ()), *ops)))
    if outcome is ProvenOutcome.UNTOUCHED:
        return CaseAssessment(case_no, case, kind, plan, outcome, ())
    if plan is None or len(participants) > len(plan.participants):
        reason = reason or (UndecidedReason.PLAN_LOST if plan is None else UndecidedReason.CONTRADICTED)
        # Cancelling a lost case needs no plan: its reservations are released, only its record stays open.
        cancellable = case is None and outcome is ProvenOutcome.BROKEN_OFF
        outcome = outcome if cancellable else ProvenOutcome.OPEN
        if plan is None and not cancellable:  # whoever may still owe it an op takes no later one before
            participants = tuple(dict.fromkeys((*participants, *_list_put_back(seen, restored, case_no))))
    return CaseAssessment(case_no, case, kind, plan, outcome, participants, reason)


def numbers_to_assess(seen: AccountEvidence, restored: RestoredInstallation) -> list[int]:
    """Return the case numbers of the account that must be assessed, in ascending order.

    These are the numbers that some database holds and, below the highest of them: numbers that a restored platform may
    have assigned and forgotten, those left to operators, and those whose outcome operators reported.
    """
    held = {case.case_no for case in seen.cases} | {row.case_no for row in seen.rows.values()} - {0}
    highest = max(held, default=0)
    first = seen.last_case_no + 1
    forgotten = range(first, min(highest, first + restored.gap)) if PLATFORM in restored.databases else ()
    reported = (case_no for account_id, case_no in restored.outcomes if account_id == seen.account_id)
    return sorted(held.union(case_no for case_no in (*forgotten, *seen.theirs, *reported) if case_no < highest))


def _assess_forgotten(seen: AccountEvidence, restored: RestoredInstallation, case_no: int) -> CaseAssessment:
    """Assess a number that no database holds any more, though one holds a later number (rule 8)."""
    participants = _list_put_back(seen, restored, case_no)
    committed = restored.outcomes.get((seen.account_id, case_no))
    if not participants or committed is False:
        return CaseAssessment(case_no, None, None, None, ProvenOutcome.UNTOUCHED, ())
    if committed is None:
        return CaseAssessment(case_no, None, None, None, ProvenOutcome.OPEN, participants, UndecidedReason.OUTCOME_LOST)
    kind, plan = _infer_plan(seen, {}, case_no, ProvenOutcome.COMMITTED, restored)
    if plan is None:
        return CaseAssessment(case_no, None, None, None, ProvenOutcome.OPEN, participants, UndecidedReason.PLAN_LOST)
    return CaseAssessment(case_no, None, kind, plan, ProvenOutcome.COMMITTED, plan.participants)


def _list_put_back(seen: AccountEvidence, restored: RestoredInstallation, case_no: int) -> tuple[str, ...]:
    """Return the participants restored to before a case of unknown plan that it may have had, and committed at."""
    return tuple(
        dict.fromkeys(
            name
            for _, plan in restored.list_possible_plans(seen.account_id, case_no)
            if not _lacks_try(seen, plan, case_no, restored)
            for name in plan.participants
            if is_below(seen, name, case_no)
        )
    )


def _prove_outcome(
    state: State | None, ops: frozenset[CaseOp], *, above: bool
) -> tuple[ProvenOutcome, UndecidedReason | None]:
    """Rules 2 to 4. `state`: the platform's, None where it lost the case; `ops`: of the rows at its number."""
    if state in (State.CANCELLING, State.ABORTED):
        return (
            (ProvenOutcome.OPEN, UndecidedReason.CONTRADICTED)
            if CaseOp.CONFIRMED in ops
            else (ProvenOutcome.BROKEN_OFF, None)
        )
    if state in (State.REJECTED, State.WITHDRAWN, State.EXPIRED):
        return (ProvenOutcome.OPEN, UndecidedReason.CONTRADICTED) if ops else (ProvenOutcome.UNTOUCHED, None)
    if state in (State.CONFIRMING, State.DONE) or CaseOp.CONFIRMED in ops:
        return ProvenOutcome.COMMITTED, None
    if CaseOp.CANCELLED in ops:
        return ProvenOutcome.BROKEN_OFF, None
    if above:
        return ProvenOutcome.OPEN, UndecidedReason.OUTCOME_LOST
    return (ProvenOutcome.BROKEN_OFF if ops or state is State.TRYING else ProvenOutcome.UNTOUCHED), None


def _was_closed_unproven(seen: AccountEvidence, case: Case, restored: RestoredInstallation) -> bool:
    """Whether an earlier recovery closed the case with its outcome lost, and some participant is not past it yet."""
    if case.state is not State.REJECTED or case.reason != OUTCOME_LOST:
        return False
    _, plan = _look_up_plan(case, restored)
    return plan is not None and any(seen.rows.get(name, NO_ROW).case_no <= case.case_no for name in plan.participants)


def _lacks_try(seen: AccountEvidence, plan: Plan, case_no: int, restored: RestoredInstallation) -> bool:
    """Whether a participant that was not restored never got a Try: then the case never reached its commit point."""
    return any(is_below(seen, name, case_no) for name in plan.participants if name not in restored.databases)


def _look_up_plan(case: Case, restored: RestoredInstallation) -> tuple[Kind, Plan | None]:
    """Return a recorded case's kind and plan; no plan where it is unknown or does not fit the marks."""
    try:
        plan = restored.plan_of(case)
    except (KeyError, JiebangError):
        return case.kind, None
    return case.kind, plan if len(plan.participants) == len(case.marks) else None


def _infer_plan(
    seen: AccountEvidence,
    ops: Mapping[str, CaseOp],
    case_no: int,
    outcome: ProvenOutcome,
    restored: RestoredInstallation,
) -> tuple[Kind | None, Plan | None]:
    """Rule 7: infer a lost case's kind and plan, where every possible plan leaves the same work to do.

    A committed case was tried by its whole plan: a participant below its number must have been restored.
    """
    possible, work = list[tuple[Kind, Plan]](), set[tuple[object, ...]]()
    for kind, plan in restored.list_possible_plans(seen.account_id, case_no):
        before = [name for name in plan.participants if is_below(seen, name, case_no)]
        may_commit = set(before) <= set(restored.databases)
        if ops.keys() <= set(plan.participants) and (outcome is not ProvenOutcome.COMMITTED or may_commit):
            possible.append((kind, plan))
            work.add((kind, plan.participants, str(_list_remaining_ops(plan, before, ops, outcome))))
    return possible[-1] if len(work) == 1 else (None, None)


def _list_remaining_ops(
    plan: Plan, before: Sequence[str], ops: Mapping[str, CaseOp], outcome: ProvenOutcome
) -> list[tuple[str, str, list[tuple[str, object]]]]:
    """Return what is still to be sent: Confirms with their effects, or Cancels of what was tried."""
    tried = [name for name in plan.participants if ops.get(name) is CaseOp.TRIED]
    if outcome is not ProvenOutcome.COMMITTED:
        return [(name, plan.operations[name].operation, []) for name in tried]
    return [
        (name, plan.operations[name].operation, sorted(plan.operations[name].effects.items()))
        for name in plan.participants
        if name in tried or name in before
    ]


def is_below(seen: AccountEvidence, name: str, case_no: int) -> bool:
    """Whether the participant's row is at a lower number: it has not taken an op of this case."""
    return seen.rows.get(name, NO_ROW).case_no < case_no


def is_at(seen: AccountEvidence, name: str, assessed: CaseAssessment) -> bool:
    """Whether the participant's row is at this case's number."""
    return seen.rows.get(name, NO_ROW).case_no == assessed.case_no


def is_finished(seen: AccountEvidence, name: str, assessed: CaseAssessment) -> bool:
    """Whether nothing is left to do for the case at this participant."""
    row = seen.rows.get(name, NO_ROW)
    if row.case_no != assessed.case_no:
        return row.case_no > assessed.case_no
    if assessed.outcome is ProvenOutcome.OPEN:
        return row.case_op is not CaseOp.TRIED
    return row.case_op is (CaseOp.CONFIRMED if assessed.outcome is ProvenOutcome.COMMITTED else CaseOp.CANCELLED)
