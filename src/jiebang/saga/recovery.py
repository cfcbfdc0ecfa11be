"""What stands of an account's cases after a restore from backup, and what must be done about it. Pure.

Any database, the platform's or a participant's, may have been put back to an older state: it never knows more than was
true, only less. So no restored database can prove that something did not happen, and these rules hold:

1. Numbers are never reused: the next one is above every number seen anywhere. What nobody saw may still have been
   given by a platform that was restored; `gap` steps over it.
2. **Committed** is proven by one confirmed row, or by a platform that holds `confirming` or `done`. Then every
   participant of the plan is to confirm: the commit point said that all had granted.
3. **Broken off** is proven by a platform that holds `cancelling` or `aborted`, or by a cancelled row where nothing
   proves a commit, or by a participant that was not restored and never came to *n*: it cannot have granted. Where
   nothing proves either, and nobody has gone on to a later case, tried rows are cancelled: everyone who can still say
   anything then agrees. So a case in `trying` is always broken off.
4. A row above *n* has finished *n*, whichever way, and is left alone. A platform that holds *n* unfinished while a row
   is above it has lost how *n* ended: **undecided**, unless rule 2 or 3 still finds a proof.
5. The fence stays as it is. A participant put back to before *n* takes *n* again, in the order of numbers: Cancel for
   a case broken off; Try (at no version: what it was granted at is gone) and then Confirm for a committed one. A plain
   Confirm there would be answered by an error.
6. Of all cases of an account the highest may live: it is put into `confirming` or `cancelling`, and the workers end
   it. What lower and ended cases need, and every Try, recovery sends itself before, one op a participant at a time
   (`sends`), the lowest case first; then it looks again and asks again. Each op raises a row, so this ends. What is
   settled of a case is saved before a row goes on that may be all that proves it (`again`).
7. A case that the platform lost is made again with its number where the plans leave no choice of what it was.
8. Nothing is guessed. What stays open is an operator's: a platform and a row that contradict each other; an outcome or
   a plan that nobody holds any more; a committed case whose Try was refused (parked there, as a refused Confirm is). A
   number that a restored platform may have given, that nobody holds and that somebody else who was restored has not
   come to, may be a case that the others did: its outcome is lost. Nothing is sent past an undecided case. What people
   find out about a lost outcome they tell (`outcomes`), and it counts where nothing is proven.
9. A refused Try leaves its mark for ever. So a Try that would be refused is not sent: what clears by itself is waited
   for (`waits`), up to a limit; what does not, or not in time, is an operator's, and the row stays free to take the
   Try when it has been cleared.
10. A version of the wallet from before its restore may come to be a second time and mean other money: a case in `ready`
   that was proven at one is rejected, as if funds had moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import ENDED, Case, Mark, State
from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import FUNDS_MOVED, Send
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op
from jiebang.saga.recovery_evidence import (
    OUTCOME_LOST,
    PLATFORM,
    Judged,
    Restored,
    Seen,
    Stand,
    Why,
    at,
    finished,
    judged,
    numbers_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = ["OUTCOME_LOST", "Recovery", "Restored", "Seen", "Undecided", "Wait", "Why", "recovered"]

RECOVERED: Final = "RECOVERED"
"""Reason of a case that was broken off because nothing was left to prove its commit."""


class Undecided(msgspec.Struct, frozen=True, order=True):
    """A case that an operator must decide. `participants`: where it stands against the rest, as far as known.

    `codes`: what those that would refuse its Try would refuse it with.
    """

    account_id: int
    case_no: int
    why: Why
    participants: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()


class Wait(msgspec.Struct, frozen=True, order=True):
    """A committed case whose Try this participant would refuse now, with a code that clears by itself."""

    account_id: int
    case_no: int
    participant: str
    code: str


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one account.

    `sends`: what recovery sends itself, at most one op a participant; `waits`: what it waits for. While there are any
    of either, `changed` and `made` are empty: send or wait, look again, ask again. `plans`: by case number, the plan
    whose operations `sends` carry out. `changed`: cases to save, one revision on. `made`: lost cases to insert.
    `again`: more is to be decided once these are saved. `refusals`: what was known of those, for the next time it is
    asked. `last_case_no`: the next number is above it.
    """

    account_id: int
    last_case_no: int
    sends: tuple[Send, ...] = ()
    waits: tuple[Wait, ...] = ()
    again: bool = False
    refusals: Mapping[str, str] = {}
    plans: Mapping[int, Plan] = {}
    changed: tuple[Case, ...] = ()
    made: tuple[Case, ...] = ()
    undecided: tuple[Undecided, ...] = ()


def recovered(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    """Decide what to do about one account. Asked again of what it left behind, it has nothing more to do.

    `rows` must be read before the cases, and while no worker claims any.
    """
    numbers = numbers_of(seen, restored)
    last = max(seen.last_case_no, *numbers, 0)
    if PLATFORM in restored.databases:
        last += restored.gap
    ones = [judged(seen, restored, number, above=number < numbers[-1]) for number in numbers]
    undecided = [
        Undecided(seen.account_id, one.number, one.why, _where(seen, one)) for one in ones if one.why is not None
    ]
    top = ones[-1] if ones and ones[-1].plan and (ones[-1].held is None or ones[-1].held.state not in ENDED) else None
    wanted = [send for name in _everyone(ones, seen) if (send := _send(seen, ones, name, top)) is not None]
    sends = tuple(send for send in wanted if not _refused(seen, send))
    waits = _waits(seen, restored, wanted)
    lowest = min((send.case_no for send in sends), default=0)
    sends = tuple(send for send in sends if send.case_no == lowest)
    first = [one for one in ones if one.number < lowest and all(finished(seen, name, one) for name in one.parties)]
    records = [
        (one, after)
        for one in first
        if (after := _after(seen, ones, one, restored, now, lives=False)[0]) is not None and after is not one.held
    ]
    if records:  # before a row goes on that is all that proves them
        return Recovery(
            account_id=seen.account_id,
            last_case_no=seen.last_case_no,  # what was given and forgotten is looked for above it, until all is decided
            again=True,
            changed=tuple(after for one, after in records if one.held is not None),
            made=tuple(after for one, after in records if one.held is None),
        )
    changed, made = list[Case](), list[Case]()
    for one in ones if not sends and not waits else ():
        after, why = _after(seen, ones, one, restored, now, lives=one is top)
        if why is not None and one.why is None:
            undecided.append(_left(seen, one, why))
        if after is not None and after is not one.held:
            (made if one.held is None else changed).append(after)
    blocked = _blocked(seen, changed, made)
    made = [case for case in made if case.case_no not in blocked]
    undecided += [Undecided(seen.account_id, number, Why.WAITS_BELOW) for number in sorted(blocked)]
    return Recovery(
        account_id=seen.account_id,
        last_case_no=last,
        sends=sends,
        waits=waits,
        refusals=seen.refusals,
        plans={one.number: one.plan for one in ones if one.plan is not None} if sends else {},
        changed=tuple(changed),
        made=tuple(made),
        undecided=tuple(sorted(undecided)),
    )


def _where(seen: Seen, one: Judged) -> tuple[str, ...]:
    """Who stands at an undecided case; where nobody does and the platform forgot it, those restored to before it."""
    holding = tuple(name for name in one.parties if at(seen, name, one))
    return holding or (one.parties if one.held is None else ())


def _everyone(ones: Sequence[Judged], seen: Seen) -> list[str]:
    return list(dict.fromkeys((*(name for one in ones for name in one.parties), *seen.rows)))


def _held_up(seen: Seen, ones: Sequence[Judged], name: str, one: Judged) -> bool:
    """Whether a lower case that cannot be brought to its end now stands between the participant's row and this one."""
    row = seen.rows.get(name, NO_ROW)
    passed = row.case_no if row.case_op is not CaseOp.TRIED else row.case_no - 1
    return any(passed < lower.number < one.number and name in lower.parties for lower in ones)


def _send(seen: Seen, ones: Sequence[Judged], name: str, top: Judged | None) -> Send | None:
    """Rules 5 and 6: the one op that this participant needs of recovery next. None: none, or it must not go on."""
    row = seen.rows.get(name, NO_ROW)
    for one in ones:
        if name not in one.parties or row.case_no > one.number or one.stand is Stand.UNTOUCHED:
            continue
        here = row.case_no == one.number
        if here and row.case_op is not CaseOp.TRIED:
            continue
        if one.stand is Stand.OPEN:
            return None  # nothing may pass by what is not decided
        op = Op.CANCEL if one.stand is Stand.BROKEN_OFF else Op.CONFIRM if here else Op.TRY
        return None if one is top and op is not Op.TRY else Send(seen.account_id, one.number, name, op)
    return None


def _refused(seen: Seen, send: Send) -> bool:
    return send.op is Op.TRY and send.participant in seen.refusals


def _waits(seen: Seen, restored: Restored, wanted: Sequence[Send]) -> tuple[Wait, ...]:
    """Rule 9: the Trys that would be refused, with what clears by itself, while there is patience left."""
    if seen.waited >= restored.patience:
        return ()
    refused = [(send, seen.refusals[send.participant]) for send in wanted if _refused(seen, send)]
    return tuple(
        Wait(send.account_id, send.case_no, send.participant, code)
        for send, code in refused
        if code in restored.passing
    )


def _cannot_try(seen: Seen, name: str, one: Judged) -> bool:
    """Whether a committed case lacks its Try here, and it would be refused."""
    lacks = one.stand is Stand.COMMITTED and seen.rows.get(name, NO_ROW).case_no < one.number
    return lacks and name in seen.refusals


def _left(seen: Seen, one: Judged, why: Why) -> Undecided:
    """What is left to people of a case that is decided."""
    of = one.parties
    if why is Why.CANNOT_TRY:
        of = tuple(name for name in of if _cannot_try(seen, name, one))
        return Undecided(seen.account_id, one.number, why, of, tuple(seen.refusals[name] for name in of))
    return Undecided(seen.account_id, one.number, why, tuple(name for name in of if not finished(seen, name, one)))


def _after(
    seen: Seen, ones: Sequence[Judged], one: Judged, restored: Restored, now: datetime, *, lives: bool
) -> tuple[Case | None, Why | None]:
    """The case as it is to stand now (None: not made), and why it cannot be settled, if so."""
    held = one.held
    if one.stand is Stand.UNTOUCHED:
        return _stale(held, restored) if held else None, None
    if one.stand is Stand.OPEN or one.plan is None:
        return _left_open(seen, one), None
    if lives:
        return _living(seen, ones, one, restored, now)
    if not all(finished(seen, name, one) for name in one.parties):
        return held, min((_in_the_way(seen, ones, name, one) or Why.WAITS_BELOW for name in one.parties), key=_GRAVEST)
    closed_unknown = held is not None and held.state is State.REJECTED and held.reason == OUTCOME_LOST
    if held is not None and held.state in ENDED and not closed_unknown:
        return held, None
    state, mark = (State.DONE, Mark.CONFIRMED) if one.stand is Stand.COMMITTED else (State.ABORTED, Mark.CANCELLED)
    return _put(seen, one, now, state=state, marks=mark * len(one.parties), due_at=None), None


_GRAVEST: Final = (Why.CANNOT_CONFIRM, Why.CANNOT_TRY, Why.WAITS_BELOW).index
"""Of several things in a decided case's way, an operator is told the one that does not go away with the others."""


def _in_the_way(seen: Seen, ones: Sequence[Judged], name: str, one: Judged) -> Why | None:
    """What keeps this participant from ending a decided case, if anything does."""
    if one.stand is Stand.COMMITTED and seen.rows.get(name) == FenceRow(one.number, CaseOp.CANCELLED):
        return Why.CANNOT_CONFIRM
    if _held_up(seen, ones, name, one):
        return Why.WAITS_BELOW
    return Why.CANNOT_TRY if _cannot_try(seen, name, one) else None


def _living(
    seen: Seen, ones: Sequence[Judged], one: Judged, restored: Restored, now: datetime
) -> tuple[Case, Why | None]:
    """The highest case, as the workers are to go on with it. Marks that agree with the rows stay as they are.

    What was refused before the restore is asked again: the refusal went with what was restored.
    """
    committed = one.stand is Stand.COMMITTED
    sent, ended = (Mark.CONFIRM_SENT, Mark.CONFIRMED) if committed else (Mark.CANCEL_SENT, Mark.CANCELLED)
    state = State.CONFIRMING if committed else State.CANCELLING
    before = one.held.marks if one.held and one.held.state is state else sent * len(one.parties)
    parked = Mark.CONFIRM_PARKED if committed else Mark.CANCEL_PARKED
    reasons = [_in_the_way(seen, ones, name, one) for name in one.parties]
    marks = list[str]()
    for name, mark, reason in zip(one.parties, before, reasons, strict=True):
        undone = mark == ended and not finished(seen, name, one)
        again = undone or (mark == parked and name in restored.databases)
        marks.append(parked if reason else sent if again else mark)
    why = min((reason for reason in reasons if reason), key=_GRAVEST, default=None)
    told = "".join(marks)
    if one.held and one.held.state is state and one.held.marks == told:
        return one.held, why
    open_ops = any(mark in (sent, Mark.CONFIRM_REFUSED, Mark.CANCEL_REFUSED) for mark in told)
    return _put(seen, one, now, state=state, marks=told, due_at=now if open_ops else None), why


def _left_open(seen: Seen, one: Judged) -> Case | None:
    """A case that is an operator's. One whose end alone was lost, and that nobody holds open, is closed and says so."""
    held = one.held
    if held is None or held.state in ENDED or one.why is not Why.OUTCOME_LOST:
        return _asleep(held)
    passed = all(seen.rows.get(name, NO_ROW).case_no > one.number for name in one.parties)
    if not passed and held.state not in (State.OPEN, State.IN_REVIEW, State.READY):
        return _asleep(held)  # one that is not under way its person could prove and set going again
    if held.state is State.TRYING:
        closed: tuple[State, str] = (State.ABORTED, Mark.CANCELLED * len(held.marks))
    else:
        closed = (State.REJECTED, held.marks)
    return msgspec.structs.replace(
        held, state=closed[0], marks=closed[1], revision=held.revision + 1, due_at=None, reason=OUTCOME_LOST
    )


def _asleep(held: Case | None) -> Case | None:
    """No worker is to take up what is not decided."""
    if held is None or held.due_at is None:
        return held
    return msgspec.structs.replace(held, due_at=None, revision=held.revision + 1)


def _stale(held: Case, restored: Restored) -> Case:
    """Rule 10."""
    if held.state is not State.READY or WALLET not in restored.databases:
        return held
    return msgspec.structs.replace(
        held, state=State.REJECTED, revision=held.revision + 1, due_at=None, reason=FUNDS_MOVED
    )


def _put(seen: Seen, one: Judged, now: datetime, *, state: State, marks: str, due_at: datetime | None) -> Case:
    """The case in the state that was proven.

    Not along the table of moves: a restore took the case back behind moves that it has made, and these are not made
    again but found again. After a commit no wish to withdraw is left.
    """
    committed = one.stand is Stand.COMMITTED
    if one.held is None:
        if one.kind is None or one.plan is None:
            raise ValueError("a case without a plan is not made")
        reason = None if committed else RECOVERED
        return Case(
            account_id=seen.account_id,
            case_no=one.number,
            kind=one.kind,
            state=state,
            plan=one.plan.name,
            marks=marks,
            revision=1,
            created_at=now,
            due_at=due_at,
            versions=(0,) * len(marks),
            reason=reason,
        )
    held = one.held
    return msgspec.structs.replace(
        held,
        state=state,
        marks=marks,
        revision=held.revision + 1,
        due_at=due_at,
        deadline=None,
        attempt=0,
        versions=held.versions or (0,) * len(marks),
        withdraw_at=None if committed else held.withdraw_at,
        reason=(None if committed else held.reason or RECOVERED),
    )


def _blocked(seen: Seen, changed: Sequence[Case], made: Sequence[Case]) -> set[int]:
    """The lost cases that cannot be made yet, because a lower case of the account still lives: one lives at a time."""
    after = {case.case_no: case for case in (*seen.cases, *changed)}
    alive = any(case.state not in ENDED for case in after.values())
    return {case.case_no for case in made if alive and case.state not in ENDED}
