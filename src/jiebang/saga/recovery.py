"""What stands of an account's cases after a restore from backup, and what must be done about it. Pure.

Any database, the platform's or a participant's, may have been put back to an older state: it never knows more than was
true, only less. So no restored database can prove that something did not happen, and these rules hold:

1. Numbers are never reused: the next one is above every number seen anywhere. What nobody saw may still have been
   given by a platform that was restored; `gap` steps over it.
2. **Committed** is proven by one confirmed row, or by a platform that holds `confirming` or `done`. Then every
   participant of the plan is to confirm: the commit point said that all had granted.
3. **Broken off** is proven by a platform that holds `cancelling` or `aborted`, or by a cancelled row where nothing
   proves a commit. Where nothing proves either, and nobody has gone on to a later case, tried rows are cancelled:
   everyone who can still say anything then agrees. So a case in `trying` is always broken off.
4. A row above *n* has finished *n*, whichever way, and is left alone. A platform that holds *n* unfinished while a row
   is above it has lost how *n* ended: **undecided**, unless rule 2 or 3 still finds a proof.
5. The fence stays as it is. A participant put back to before *n* takes *n* again, in the order of numbers: Cancel for
   a case broken off; Try (at no version: what it was granted at is gone) and then Confirm for a committed one. A plain
   Confirm there would be answered by an error.
6. Of all cases of an account the highest may live: it is put into `confirming` or `cancelling`, and the workers end
   it. What lower and ended cases need, and every Try, recovery sends itself before, one op a participant at a time
   (`sends`); then it looks again and asks again. Each op raises a row, so this ends.
7. A case that the platform lost is made again with its number where the plans leave no choice of what it was.
8. Nothing is guessed. What stays open is an operator's: a platform and a row that contradict each other; an outcome or
   a plan that nobody holds any more; a committed case whose Try is now refused (parked there, as a refused Confirm
   is). Nothing is sent past an undecided case.
9. A version of the wallet from before its restore may come to be a second time and mean other money: a case in `ready`
   that was proven at one is rejected, as if funds had moved.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import ENDED, Case, Kind, Mark, State
from jiebang.model.errors import JiebangError
from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import FUNDS_MOVED, Send
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

RECOVERED: Final = "RECOVERED"
"""Reason of a case that was broken off because nothing was left to prove its commit."""
OUTCOME_LOST: Final = "OUTCOME-LOST"
"""Reason of a case whose end was lost: a later case shows that it ended, nothing shows how."""


class Why(StrEnum):
    """Why a case is an operator's."""

    CONTRADICTED = "contradicted"  # the platform's saved decision and a participant's row exclude each other
    OUTCOME_LOST = "outcome_lost"  # a later case shows that it ended, nothing shows how
    PLAN_LOST = "plan_lost"  # which kind of case it was, and what its Confirm applies
    CANNOT_CONFIRM = "cannot_confirm"  # committed, but a participant's row says cancelled
    WAITS_BELOW = "waits_below"  # decided, but a lower case of the account is not


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one account: the platform's record of it, and what every participant answered to `look`.

    `rows`: by participant, all of which answered; one without a row for the account is absent.
    """

    account_id: int
    last_case_no: int
    cases: tuple[Case, ...]
    rows: Mapping[str, FenceRow]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The installation that recovers.

    `plan_of` raises KeyError or an error of ours for a plan it does not know. `plans`: every plan that a lost case may
    have followed, the newest last. `databases`: what was restored, by participant or "platform". `gap`: how many
    numbers a restored platform may have given that nobody saw.
    """

    plan_of: Callable[[Case], Plan]
    plans: Sequence[tuple[Kind, Plan]]
    databases: Collection[str]
    gap: int = 0


class Undecided(msgspec.Struct, frozen=True, order=True):
    """A case that an operator must decide. `participants`: where it stands against the rest, as far as known."""

    account_id: int
    case_no: int
    why: Why
    participants: tuple[str, ...] = ()


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one account.

    `sends`: what recovery sends itself, at most one op a participant. While there are any, `changed` and `made` are
    empty: send, look again, ask again. `plans`: by case number, the plan whose effects a Confirm of `sends` applies.
    `changed`: cases to save, one revision on. `made`: lost cases to insert. `last_case_no`: the next number is above
    it.
    """

    account_id: int
    last_case_no: int
    sends: tuple[Send, ...] = ()
    plans: Mapping[int, Plan] = {}
    changed: tuple[Case, ...] = ()
    made: tuple[Case, ...] = ()
    undecided: tuple[Undecided, ...] = ()


class _Stand(StrEnum):
    """What is proven of a case."""

    COMMITTED = "committed"
    BROKEN_OFF = "broken off"
    UNTOUCHED = "untouched"
    OPEN = "open"


class _One(msgspec.Struct):
    """One number of the account: the platform's case, its plan, what it is or must have been, and what is proven."""

    number: int
    held: Case | None
    kind: Kind | None
    plan: Plan | None
    stand: _Stand
    parties: tuple[str, ...]
    """Who takes part: the plan's participants, or where no plan is known whoever holds a mark."""
    why: Why | None = None


def recovered(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    """Decide what to do about one account. Asked again of what it left behind, it has nothing more to do.

    `rows` must be read before the cases, and while no worker claims any.
    """
    numbers = {case.case_no for case in seen.cases} | {row.case_no for row in seen.rows.values()} - {0}
    last = max(seen.last_case_no, *numbers, 0)
    if restored.gap and "platform" in restored.databases:
        last += restored.gap
    ones = [_judged(seen, restored, number, above=number < max(numbers)) for number in sorted(numbers)]
    undecided = [
        Undecided(seen.account_id, one.number, one.why, tuple(name for name in one.parties if _at(seen, name, one)))
        for one in ones
        if one.why is not None
    ]
    top = ones[-1] if ones and ones[-1].plan and (ones[-1].held is None or ones[-1].held.state not in ENDED) else None
    sends = tuple(send for name in _everyone(ones, seen) if (send := _send(seen, ones, name, top)) is not None)
    changed, made = list[Case](), list[Case]()
    for one in ones if not sends else ():
        after, why = _after(seen, ones, one, restored, now, lives=one is top)
        if why is not None and one.why is None:
            parties = tuple(name for name in one.parties if not _finished(seen, name, one))
            undecided.append(Undecided(seen.account_id, one.number, why, parties))
        if after is not None and after is not one.held:
            (made if one.held is None else changed).append(after)
    blocked = _blocked(seen, changed, made)
    made = [case for case in made if case.case_no not in blocked]
    undecided += [Undecided(seen.account_id, number, Why.WAITS_BELOW) for number in sorted(blocked)]
    return Recovery(
        account_id=seen.account_id,
        last_case_no=last,
        sends=sends,
        plans={one.number: one.plan for one in ones if one.plan is not None} if sends else {},
        changed=tuple(changed),
        made=tuple(made),
        undecided=tuple(sorted(undecided)),
    )


def _judged(seen: Seen, restored: Restored, number: int, *, above: bool) -> _One:
    """Find what is proven of one number, and what it was. `above`: somebody holds a later case."""
    held = next((case for case in seen.cases if case.case_no == number), None)
    marks = {name: row.case_op for name, row in seen.rows.items() if row.case_no == number}
    stand, why = _proven(held.state if held else None, frozenset(marks.values()), above=above)
    kind, plan = _of(held, restored) if held else _must_be(seen, marks, number, stand, restored)
    parties = tuple(dict.fromkeys((*(plan.participants if plan else ()), *marks)))
    if stand is _Stand.UNTOUCHED:
        return _One(number, held, kind, plan, stand, ())
    if plan is None or len(parties) > len(plan.participants):
        why = why or (Why.PLAN_LOST if plan is None else Why.CONTRADICTED)
        # Cancelling a lost case needs no plan: what it reserved is let go, only its record stays open.
        stand = stand if held is None and stand is _Stand.BROKEN_OFF else _Stand.OPEN
    return _One(number, held, kind, plan, stand, parties, why)


def _proven(state: State | None, marks: frozenset[CaseOp], *, above: bool) -> tuple[_Stand, Why | None]:
    """Rules 2 to 4. `state`: the platform's, None where it lost the case; `marks`: the rows at its number."""
    if state in (State.CANCELLING, State.ABORTED):
        return (_Stand.OPEN, Why.CONTRADICTED) if CaseOp.CONFIRMED in marks else (_Stand.BROKEN_OFF, None)
    if state in (State.REJECTED, State.WITHDRAWN, State.EXPIRED):
        return (_Stand.OPEN, Why.CONTRADICTED) if marks else (_Stand.UNTOUCHED, None)
    if state in (State.CONFIRMING, State.DONE) or CaseOp.CONFIRMED in marks:
        return _Stand.COMMITTED, None
    if CaseOp.CANCELLED in marks:
        return _Stand.BROKEN_OFF, None
    if above:
        return _Stand.OPEN, Why.OUTCOME_LOST
    return (_Stand.BROKEN_OFF if marks or state is State.TRYING else _Stand.UNTOUCHED), None


def _of(held: Case, restored: Restored) -> tuple[Kind, Plan | None]:
    try:
        plan = restored.plan_of(held)
    except (KeyError, JiebangError):
        return held.kind, None
    return held.kind, plan if len(plan.participants) == len(held.marks) else None


def _must_be(
    seen: Seen, marks: Mapping[str, CaseOp], number: int, stand: _Stand, restored: Restored
) -> tuple[Kind | None, Plan | None]:
    """Rule 7: the kind and plan of a lost case, where everything it may have been comes to the same.

    A committed case was tried by its whole plan: whoever is below its number must have been restored.
    """
    possible, same = list[tuple[Kind, Plan]](), set[tuple[object, ...]]()
    for kind, plan in restored.plans:
        parties, before = set(plan.participants), [name for name in plan.participants if _below(seen, name, number)]
        if marks.keys() <= parties and (stand is not _Stand.COMMITTED or set(before) <= set(restored.databases)):
            possible.append((kind, plan))
            open_yet = [name for name in plan.participants if name in before or marks.get(name) is CaseOp.TRIED]
            applied = [(name, sorted(plan.effects.get(name, {}).items())) for name in open_yet]
            same.add((kind, plan.participants, str(applied) if stand is _Stand.COMMITTED else None))
    return possible[-1] if len(same) == 1 else (None, None)


def _below(seen: Seen, name: str, number: int) -> bool:
    return seen.rows.get(name, NO_ROW).case_no < number


def _everyone(ones: Sequence[_One], seen: Seen) -> list[str]:
    return list(dict.fromkeys((*(name for one in ones for name in one.parties), *seen.rows)))


def _at(seen: Seen, name: str, one: _One) -> bool:
    return seen.rows.get(name, NO_ROW).case_no == one.number


def _finished(seen: Seen, name: str, one: _One) -> bool:
    """Whether nothing is left to do for the case at this participant."""
    row = seen.rows.get(name, NO_ROW)
    if row.case_no != one.number:
        return row.case_no > one.number
    if one.stand is _Stand.OPEN:
        return row.case_op is not CaseOp.TRIED
    return row.case_op is (CaseOp.CONFIRMED if one.stand is _Stand.COMMITTED else CaseOp.CANCELLED)


def _held_up(seen: Seen, ones: Sequence[_One], name: str, one: _One) -> bool:
    """Whether a lower case that is not decided stands between the participant's row and this case."""
    return any(
        lower.stand is _Stand.OPEN and name in lower.parties and not _finished(seen, name, lower)
        for lower in ones
        if lower.number < one.number
    )


def _send(seen: Seen, ones: Sequence[_One], name: str, top: _One | None) -> Send | None:
    """Rules 5 and 6: the one op that recovery sends this participant next. None: none, or it must not go on."""
    row = seen.rows.get(name, NO_ROW)
    for one in ones:
        if name not in one.parties or row.case_no > one.number or one.stand is _Stand.UNTOUCHED:
            continue
        here = row.case_no == one.number
        if here and row.case_op is not CaseOp.TRIED:
            continue
        if one.stand is _Stand.OPEN:
            return None  # nothing may pass by what is not decided
        op = Op.CANCEL if one.stand is _Stand.BROKEN_OFF else Op.CONFIRM if here else Op.TRY
        return None if one is top and op is not Op.TRY else Send(seen.account_id, one.number, name, op)
    return None


def _after(
    seen: Seen, ones: Sequence[_One], one: _One, restored: Restored, now: datetime, *, lives: bool
) -> tuple[Case | None, Why | None]:
    """The case as it is to stand now (None: not made), and why it cannot be settled, if so."""
    held = one.held
    if one.stand is _Stand.UNTOUCHED:
        return _stale(held, restored) if held else None, None
    if one.stand is _Stand.OPEN or one.plan is None:
        return _left_open(seen, one), None
    if lives:
        return _living(seen, ones, one, now)
    if not all(_finished(seen, name, one) for name in one.parties):
        cancelled = one.stand is _Stand.COMMITTED and any(
            seen.rows.get(name) == FenceRow(one.number, CaseOp.CANCELLED) for name in one.parties
        )
        return held, Why.CANNOT_CONFIRM if cancelled else Why.WAITS_BELOW
    if held is not None and held.state in ENDED:
        return held, None
    state, mark = (State.DONE, Mark.CONFIRMED) if one.stand is _Stand.COMMITTED else (State.ABORTED, Mark.CANCELLED)
    return _put(seen, one, now, state=state, marks=mark * len(one.parties), due_at=None), None


def _living(seen: Seen, ones: Sequence[_One], one: _One, now: datetime) -> tuple[Case, Why | None]:
    """The highest case, as the workers are to go on with it. Marks that agree with the rows stay as they are."""
    committed = one.stand is _Stand.COMMITTED
    sent, ended = (Mark.CONFIRM_SENT, Mark.CONFIRMED) if committed else (Mark.CANCEL_SENT, Mark.CANCELLED)
    state = State.CONFIRMING if committed else State.CANCELLING
    before = one.held.marks if one.held and one.held.state is state else sent * len(one.parties)
    parked = Mark.CONFIRM_PARKED if committed else Mark.CANCEL_PARKED
    marks, why = list[str](), None
    for name, mark in zip(one.parties, before, strict=True):
        if committed and seen.rows.get(name) == FenceRow(one.number, CaseOp.CANCELLED):
            marks.append(parked)
            why = Why.CANNOT_CONFIRM
        elif _held_up(seen, ones, name, one):
            marks.append(parked)
            why = why or Why.WAITS_BELOW
        elif mark == ended and not _finished(seen, name, one):
            marks.append(sent)
        else:
            marks.append(mark)
    told = "".join(marks)
    if one.held and one.held.state is state and one.held.marks == told:
        return one.held, why
    open_ops = any(mark in (sent, Mark.CONFIRM_REFUSED, Mark.CANCEL_REFUSED) for mark in told)
    return _put(seen, one, now, state=state, marks=told, due_at=now if open_ops else None), why


def _left_open(seen: Seen, one: _One) -> Case | None:
    """A case that is an operator's. One whose end alone was lost, and that nobody holds open, is closed and says so."""
    held = one.held
    if held is None or held.state in ENDED or one.why is not Why.OUTCOME_LOST:
        return _asleep(held)
    if not all(seen.rows.get(name, NO_ROW).case_no > one.number for name in one.parties):
        return _asleep(held)
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
    """Rule 9."""
    if held.state is not State.READY or WALLET not in restored.databases:
        return held
    return msgspec.structs.replace(
        held, state=State.REJECTED, revision=held.revision + 1, due_at=None, reason=FUNDS_MOVED
    )


def _put(seen: Seen, one: _One, now: datetime, *, state: State, marks: str, due_at: datetime | None) -> Case:
    """The case in the state that was proven.

    Not along the table of moves: a restore took the case back behind moves that it has made, and these are not made
    again but found again. After a commit no wish to withdraw is left.
    """
    committed = one.stand is _Stand.COMMITTED
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
