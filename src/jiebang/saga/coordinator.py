"""The coordinator: `step(case, event) -> Decision` decides all that a case does next.

The driver (the worker, or the simulator) loads cases, steps them, **saves, then sends** only what the guarded
save returned, gathers the replies and steps again. Rules this file holds (design.md, "The saga"):

1. Try reserves, Confirm applies, Cancel releases. Trys go out in waves; a wave waits for the grants of the one before.
   All Trys are saved as sent at once, before the first is sent, so a later wave needs no save of its own.
2. A Try may be refused; a Confirm or Cancel may not. Silence is unknown: a Try's is retried until the deadline,
   then everything is cancelled; a Confirm's or Cancel's is retried for ever, with growing back-off.
3. All Trys granted is the commit point: saved as `confirming` before the first Confirm is sent.
4. Cancel is sent to every participant whose Try was saved as sent, whatever it answered.
5. A Confirm or Cancel refused twice is parked for an operator; the other participants' ops go on.
6. A wish to withdraw takes effect at the next step; after the commit point it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any, Final, cast

import msgspec

from jiebang.model.case import ENDED, Case, Mark, State, transition
from jiebang.model.plan import WALLET, Plan
from jiebang.saga.backoff import exponential_wait
from jiebang.saga.fence import Answer, FenceRow, Op


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long things may take. Technical limits of this installation, not policy."""

    try_limit: timedelta = timedelta(seconds=3)
    """From the first Try to the commit point; past it the case is rolled back."""
    resend: timedelta = timedelta(milliseconds=500)
    """First wait before an unanswered op is sent again; doubles with each attempt."""
    resend_limit: timedelta = timedelta(seconds=10)
    """Longest wait between two sends of an op; a worker's lease, because by then a wallet that is back is not busy."""


class Proven(msgspec.Struct, frozen=True, gc=False):
    """The last proof was accepted. `wallet_version`: the wallet's facts_version, read before that."""

    wallet_version: int


class Rechecked(msgspec.Struct, frozen=True, gc=False):
    """A case in `ready` was checked on fresh facts.

    `versions`: facts_version by participant, None where facts could not be read; participants without facts are absent.
    `blockers`: codes of the raised rules, unread facts apart. `evidence`: the answer with its facts, for the decision
    record; no decision reads it.
    """

    versions: Mapping[str, int | None]
    blockers: tuple[str, ...] = ()
    evidence: object | None = None


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One participant's answer to one op of one case.

    `row`: its fence row, where the answer says it; `at`: when the answer arrived.
    """

    account_id: int
    case_no: int
    participant: str
    op: Op
    answer: Answer
    code: str | None = None
    row: FenceRow | None = None
    at: datetime | None = None


class Replied(msgspec.Struct, frozen=True, gc=False):
    """Replies to one case, in any order; they may be repeated or late."""

    replies: tuple[Reply, ...]


class Woken(msgspec.Struct, frozen=True, gc=False):
    """The case is due, or its person wishes to withdraw it."""


class Unparked(msgspec.Struct, frozen=True, gc=False):
    """An operator wants parked ops to be sent again. Never changes a decision."""


Event = Proven | Rechecked | Replied | Woken | Unparked


class Send(msgspec.Struct, frozen=True, gc=False):
    """One op to send to one participant. `version`: the facts_version a Try is to be granted at (None: any)."""

    account_id: int
    case_no: int
    participant: str
    op: Op
    version: int | None = None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What became of the case, and what to send.

    A case one revision on is saved before anything is sent. One of the same revision only learnt grants: it needs no
    save, because what is sent now was saved as sent before, and whoever forgets a grant asks for it again.
    """

    case: Case
    sends: tuple[Send, ...] = ()


TIMED_OUT: Final = "TRY-TIMED-OUT"
FUNDS_MOVED: Final = "FUNDS-MOVED"
WITHDRAWN: Final = "WITHDRAWN"
EXPIRED: Final = "EXPIRED"
FACT_UNAVAILABLE: Final = "FACT-UNAVAILABLE"

# Local names for what every step compares with: looking up a member of an enumeration is a Python call each time.
_TRY, _GRANTED, _REFUSED, _DONE = Op.TRY, Answer.GRANTED, Answer.REFUSED, Answer.DONE
_TRYING, _CONFIRMING, _CANCELLING = State.TRYING, State.CONFIRMING, State.CANCELLING
_TRY_SENT, _TRY_GRANTED = Mark.TRY_SENT.value, Mark.GRANTED.value
_CONFIRM_SENT, _CANCEL_SENT = Mark.CONFIRM_SENT.value, Mark.CANCEL_SENT.value
_FINISHED: Final = frozenset({Mark.CANCELLED.value, Mark.CONFIRMED.value})

_AWAITING: Final = {
    State.TRYING: Mark.TRY_SENT.value,
    State.CONFIRMING: Mark.CONFIRM_SENT + Mark.CONFIRM_REFUSED,
    State.CANCELLING: Mark.CANCEL_SENT + Mark.CANCEL_REFUSED,
}
_OP_OF: Final = {State.TRYING: Op.TRY, State.CONFIRMING: Op.CONFIRM, State.CANCELLING: Op.CANCEL}
_MARK_AFTER: Final[Mapping[tuple[str, bool], str]] = {
    (Mark.CONFIRM_SENT, True): Mark.CONFIRMED,
    (Mark.CONFIRM_REFUSED, True): Mark.CONFIRMED,
    (Mark.CONFIRM_PARKED, True): Mark.CONFIRMED,
    (Mark.CONFIRM_SENT, False): Mark.CONFIRM_REFUSED,
    (Mark.CONFIRM_REFUSED, False): Mark.CONFIRM_PARKED,
    (Mark.CANCEL_SENT, True): Mark.CANCELLED,
    (Mark.CANCEL_REFUSED, True): Mark.CANCELLED,
    (Mark.CANCEL_PARKED, True): Mark.CANCELLED,
    (Mark.CANCEL_SENT, False): Mark.CANCEL_REFUSED,
    (Mark.CANCEL_REFUSED, False): Mark.CANCEL_PARKED,
}
"""(mark, was it done?) -> mark after a reply to Confirm or Cancel. A late "done" counts for a parked op too."""


def backoff(attempt: int, timing: Timing) -> timedelta:
    """How long to wait after the `attempt`-th unanswered send (0 first): doubling, capped at `resend_limit`."""
    return exponential_wait(timing.resend, attempt, timing.resend_limit)


def step(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    """Decide what `case` does on `event` at `now`. Pure. Events for an ended case and misplaced replies are ignored."""
    state = case.state
    if state is _TRYING:
        return _step_trying(case, plan, event, now, timing)
    if state is _CONFIRMING or state is _CANCELLING:
        return _step_second_phase(case, plan, event, now, timing)
    if state is State.READY:
        return _step_ready(case, plan, event, now, timing)
    return Decision(case) if state in ENDED else _step_unproven(case, event, now)


def condition_key(case: Case) -> Hashable:
    """Return all that a step reads of a case except what a re-check compares: cases with equal keys step equally."""
    return (
        case.state,
        case.marks,
        case.plan,
        case.kind,
        case.revision,
        case.attempt,
        case.due_at,
        case.deadline,
        case.withdraw_at,
        case.reason,
    )


def condition(case: Case) -> dict[str, Any]:
    """Return what a step may change of a case, its versions apart.

    Cases with equal `condition_key`s have equal conditions after a step, so one of them is stepped for all.
    """
    return {name: getattr(case, name) for name in _STEPPED}


def start_together(
    cases: Sequence[Case],
    plan: Plan,
    versions: Sequence[tuple[int, ...]],
    event: Rechecked,
    now: datetime,
    timing: Timing,
    decide: Callable[[Case, Plan, Event, datetime, Timing], Decision] = step,
) -> tuple[list[Case], Decision]:
    """Step cases in `ready` of one kind, plan and revision that may start: the same as `step` for each of them.

    `versions`: the result of `versions_to_start` for each; `event`: the first one's re-check. Returns the cases after
    the step, and the first one's decision, whose sends stand for all. The step sets whatever else they differed in
    (`due_at`, `attempt`). `decide`: `step`, or a simulator's replacement.
    """
    decision = decide(cases[0], plan, event, now, timing)
    started = condition(decision.case)
    return [
        msgspec.structs.replace(case, versions=own, **started) for case, own in zip(cases, versions, strict=True)
    ], decision


def versions_to_start(case: Case, plan: Plan, event: Rechecked) -> tuple[int, ...] | None:
    """Return the versions at which a case in `ready` is tried after this re-check; None where it may not start."""
    if case.withdraw_at is not None or event.blockers or _has_funds_moved(case, plan, event):
        return None
    versions = _list_versions(plan, event)
    return None if None in versions else cast("tuple[int, ...]", versions)


_STEPPED: Final = ("state", "marks", "revision", "attempt", "due_at", "deadline", "reason")
"""What a step may change, `versions` apart."""
_ABSENT: Final = repeat(0)
"""The version of a participant without facts."""


def _list_versions(plan: Plan, event: Rechecked) -> tuple[int | None, ...]:
    return tuple(map(event.versions.get, plan.participants, _ABSENT))


def _has_funds_moved(case: Case, plan: Plan, event: Rechecked) -> bool:
    return WALLET in plan.participants and event.versions.get(WALLET) != case.wallet_version


def _end(case: Case, state: State, reason: str | None) -> Decision:
    return Decision(transition(case, state, due_at=None, reason=reason))


def _step_unproven(case: Case, event: Event, now: datetime) -> Decision:
    if case.withdraw_at is not None:
        return _end(case, State.WITHDRAWN, WITHDRAWN)
    if isinstance(event, Proven):
        return Decision(transition(case, State.READY, wallet_version=event.wallet_version, due_at=now, attempt=0))
    expired = case.state is State.OPEN and case.due_at is not None and now >= case.due_at
    return _end(case, State.EXPIRED, EXPIRED) if isinstance(event, Woken) and expired else Decision(case)


def _step_ready(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if case.withdraw_at is not None:
        return _end(case, State.WITHDRAWN, WITHDRAWN)
    if not isinstance(event, Rechecked):
        return Decision(case)
    if event.blockers:
        return _end(case, State.REJECTED, ",".join(event.blockers))
    versions = _list_versions(plan, event)
    if None in versions:
        due = now + backoff(case.attempt, timing)
        return Decision(transition(case, State.READY, due_at=due, attempt=case.attempt + 1, reason=FACT_UNAVAILABLE))
    if _has_funds_moved(case, plan, event):
        return _end(case, State.REJECTED, FUNDS_MOVED)
    deadline = now + timing.try_limit
    tried = transition(
        case,
        _TRYING,
        marks=_TRY_SENT * len(plan.participants),
        versions=versions,
        deadline=deadline,
        due_at=min(deadline, now + backoff(0, timing)),
        attempt=0,
        reason=None,
    )
    return Decision(tried, _list_sends(tried, plan))


def _step_trying(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    marks, refusal = case.marks, None
    if isinstance(event, Replied):
        marks, refusal = _take_try_replies(case, plan, event)
    if case.withdraw_at is not None:
        refusal = WITHDRAWN
    elif refusal is None and case.deadline is not None and now >= case.deadline:
        refusal = TIMED_OUT
    if refusal is not None:
        return _enter_phase(case, plan, _CANCELLING, _CANCEL_SENT * len(marks), now, timing, reason=refusal)
    if _TRY_SENT not in marks:
        return _enter_phase(case, plan, _CONFIRMING, _CONFIRM_SENT * len(marks), now, timing)
    if isinstance(event, Woken):
        return _wait_or_resend(case, plan, marks, event, now, timing)
    learnt = case if marks == case.marks else msgspec.structs.replace(case, marks=marks)
    following = _current_wave(marks, plan) != _current_wave(case.marks, plan)
    return Decision(learnt, _list_sends(learnt, plan) if following else ())


def _take_try_replies(case: Case, plan: Plan, event: Replied) -> tuple[str, str | None]:
    """Return the marks after replies to the current wave's Trys, and the first refusal's code."""
    marks, refusal, wave = list(case.marks), None, _current_wave(case.marks, plan)
    for reply in event.replies:
        at = _index_of(case, plan, reply, _TRY)
        if at is None or marks[at] != _TRY_SENT or plan.waves[at] != wave:
            continue
        if reply.answer is _GRANTED:
            marks[at] = _TRY_GRANTED
        elif reply.answer is _REFUSED:
            refusal = refusal or reply.code or _REFUSED.value
    return "".join(marks), refusal


def _step_second_phase(case: Case, plan: Plan, event: Event, now: datetime, timing: Timing) -> Decision:
    if isinstance(event, Unparked):
        unparked = case.marks.replace(Mark.CONFIRM_PARKED, Mark.CONFIRM_SENT).replace(
            Mark.CANCEL_PARKED, Mark.CANCEL_SENT
        )
        return Decision(case) if unparked == case.marks else _enter_phase(case, plan, case.state, unparked, now, timing)
    marks = case.marks
    if isinstance(event, Replied):
        marks = _take_second_phase_replies(case, plan, event)
    if _FINISHED.issuperset(marks):
        end = State.DONE if case.state is _CONFIRMING else State.ABORTED
        return Decision(transition(case, end, marks=marks, due_at=None))
    if not any(mark in _AWAITING[case.state] for mark in marks):
        parked = marks == case.marks and case.due_at is None
        return Decision(case if parked else transition(case, case.state, marks=marks, due_at=None))
    return _wait_or_resend(case, plan, marks, event, now, timing)


def _take_second_phase_replies(case: Case, plan: Plan, event: Replied) -> str:
    """Return the marks after replies to Confirm or Cancel. A participant's refusals count once in a round."""
    marks, refused, op = list(case.marks), set[int](), _OP_OF[case.state]
    for reply in event.replies:
        at = _index_of(case, plan, reply, op)
        if at is None or reply.answer is _GRANTED or reply.answer is Answer.PENDING:
            continue
        if reply.answer is _DONE:
            marks[at] = _MARK_AFTER.get((marks[at], True), marks[at])
        elif at not in refused:
            refused.add(at)
            marks[at] = _MARK_AFTER.get((marks[at], False), marks[at])
    return "".join(marks)


def _wait_or_resend(case: Case, plan: Plan, marks: str, event: Event, now: datetime, timing: Timing) -> Decision:
    """Some ops are still open: send them again if the case is due, else only record the new marks."""
    if isinstance(event, Woken) and case.due_at is not None and now >= case.due_at:
        due = now + backoff(case.attempt + 1, timing)
        if case.state is _TRYING and case.deadline is not None:
            due = min(due, case.deadline)
        again = transition(case, case.state, marks=marks, attempt=case.attempt + 1, due_at=due)
        return Decision(again, _list_sends(again, plan))
    return Decision(case if marks == case.marks else transition(case, case.state, marks=marks))


def _enter_phase(
    case: Case, plan: Plan, state: State, marks: str, now: datetime, timing: Timing, reason: str | None = None
) -> Decision:
    """Enter a phase and send its ops. A future `due_at` is kept: an unchanged index entry makes a cheaper save."""
    due = case.due_at if case.due_at is not None and case.due_at > now else now + backoff(0, timing)
    after = transition(case, state, marks=marks, due_at=due, attempt=0, reason=reason or case.reason)
    return Decision(after, _list_sends(after, plan, only_new=case.marks))


def _current_wave(marks: str, plan: Plan) -> int | None:
    """Return the first wave that is not wholly granted. None: all are."""
    at = marks.find(_TRY_SENT)
    return None if at < 0 else plan.waves[at]


def _list_sends(case: Case, plan: Plan, only_new: str | None = None) -> tuple[Send, ...]:
    """Return the ops that `case` awaits (of Trys, the current wave's); with `only_new`, where the mark differs."""
    op, awaited, marks, waves = _OP_OF[case.state], _AWAITING[case.state], case.marks, plan.waves
    account_id, case_no, names = case.account_id, case.case_no, plan.participants
    if op is _TRY:
        wave, versions = _current_wave(marks, plan), case.versions
        return tuple(
            [
                Send(account_id, case_no, names[at], op, versions[at] or None)
                for at, mark in enumerate(marks)
                if mark in awaited and waves[at] == wave
            ]
        )
    return tuple(
        [
            Send(account_id, case_no, names[at], op)
            for at, mark in enumerate(marks)
            if mark in awaited and (only_new is None or mark != only_new[at])
        ]
    )


def _index_of(case: Case, plan: Plan, reply: Reply, op: Op) -> int | None:
    """Return the index in the plan of a reply's participant; None for another case, op or an unknown participant."""
    if reply.op is not op or reply.account_id != case.account_id or reply.case_no != case.case_no:
        return None
    return plan.participants.index(reply.participant) if reply.participant in plan.participants else None
