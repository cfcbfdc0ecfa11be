"""Everything that may happen to an account's stored case: workers' turns, and what people do.

In a turn a worker loads the case, receives some replies, decides with the real `step`, saves through the real guard,
and sends. Workers interleave only between turns, which loses nothing:
- Which worker takes a turn makes no difference: a worker knows only the copy it loaded and the replies it received.
- What is known only in memory (a grant that needs no save) need not be kept between turns: the replies stay under way,
  so a later turn receives them again. Receiving is invisible to others, so it may be put off to the next visible
  action: a save, or a Try that is sent. The tests compare receiving replies one by one with receiving them at once.
- A stalled worker holds an old copy. Its decision meets the guard (P5), which only distinguishes "older", so one old
  copy stands for all: the case in its previous state. The only old copy that can act without a save is one in `trying`:
  it receives grants and sends the later waves' Trys, which `sim.account` counts as under way anyway.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jiebang.model.case import LIVE, Case, Kind, State, transition
from jiebang.model.plan import WALLET
from jiebang.saga.coordinator import Proven, Rechecked, Replied, Reply, Unparked, Woken
from jiebang.saga.fence import Answer, Op
from sim.options import WITHOUT_FACTS
from sim.properties import broken, during, judge_save, judge_sent
from sim.states import ACCOUNT, DEADLINE, DUE, REVISION, START, TIMING, Head, Said, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from jiebang.saga.coordinator import Decision, Event, Send
    from sim.states import Shape
    from sim.world import Parts

ASKED_AGAIN: Final = 6
"""How often in a row an unanswered op is seen to be sent again."""


class Habits(msgspec.Struct, frozen=True):
    """What a worker does around `step`; planted mistakes change it."""

    saves_first: bool = True
    heeds_guard: bool = True
    tells_cases_apart: bool = True


SLIPS: Final[Mapping[str, Habits]] = {
    "send-before-save": Habits(saves_first=False),
    "send-after-lost-save": Habits(heeds_guard=False),
    "mixes-cases": Habits(tells_cases_apart=False),
}
"""Planted mistakes of a worker, by the names that `sim.mistakes` gives them."""


class View(NamedTuple):
    """What a turn needs to know of one column."""

    mark: str
    version: int
    replies: int


class Facts(NamedTuple):
    """What a turn reads at participants: their versions, and whether an entry of a transfer is open at the wallet."""

    versions: tuple[int, ...]
    open_entry: bool


class Turn(NamedTuple):
    """One thing that may happen. `marks` and `versions` None: as before; `heard`: answers that are used up, by column.

    `sends`: (position, op, version) of what leaves. `due_course`: it happens by itself in time.
    """

    told: tuple[str, ...]
    cost: int
    due_course: bool
    head: Head
    marks: str | None = None
    versions: tuple[int, ...] | None = None
    sends: tuple[tuple[int, str, int | None], ...] = ()
    heard: tuple[int, ...] | None = None


class _EventOption(NamedTuple):
    """How a worker is woken: by what, when, at which cost."""

    told: str
    event: Event
    when: datetime = START
    cost: int = 0
    due_course: bool = False
    heard: tuple[int, ...] | None = None


class Turns:
    """All turns of a case, by what the store has of it and what is under way."""

    def __init__(self, shape: Shape, parts: Parts, habits: Habits, words: Words) -> None:
        """Take the bounds, the parts (which planted mistakes change) and the worker's habits."""
        self.shape, self.parts, self.habits, self.words = shape, parts, habits, words
        self.plan, self.store = shape.plan(), parts.store()
        self.wallet = shape.parties.index(WALLET)
        self.moves: set[tuple[str, str]] = set()
        self._asked: set[tuple[State, str, bool, bool]] = set()

    def of(self, head: Head, views: tuple[View, ...], facts: Facts | None) -> Iterator[Turn]:
        """Yield everything that may happen to the last case. What was before it does not count: `earlier` is empty."""
        if head.state in LIVE:
            if self.shape.withdrawals and not head.wished:
                yield from self._withdraw(head, views)
            if self.shape.reviews:
                yield from self._desk(head, views)
            case = self.case(head, views)
            self._demand_asked_again(case)
            yield from self._turns_of(head, views, case, list(self._events(case, views, facts)))
        yield from self._resume_stalled(head, views, facts)

    # The stored case.

    def case(self, head: Head, views: tuple[View, ...]) -> Case:
        """The case as stored, times put in an abstract order."""
        tried = head.state not in (State.OPEN, State.IN_REVIEW, State.READY)
        return Case(
            account_id=ACCOUNT, case_no=1, kind=Kind.REVOKE, state=State(head.state), plan=self.plan.name,
            marks="".join(view.mark for view in views), revision=REVISION, created_at=START,
            due_at=DUE if head.due else None, deadline=DEADLINE if tried else None,
            versions=tuple(view.version for view in views) if tried else (), wallet_version=head.wallet_version,
            withdraw_at=START if head.wished else None,
        )  # fmt: skip

    def _head(self, head: Head, case: Case) -> Head:
        return head._replace(
            state=case.state.value, wallet_version=case.wallet_version, wished=case.withdraw_at is not None,
            due=case.due_at is not None,
        )  # fmt: skip

    # What people do.

    def submitted(self, head: Head, views: tuple[View, ...]) -> Turn | None:
        """Let the person ask for the next case, if the store allows it. `earlier` tells of ended cases what lasts."""
        self.store.cases.clear()
        self.store.numbers[ACCOUNT] = head.case_no
        if head.state:
            case = msgspec.structs.replace(self.case(head, views), case_no=head.case_no)
            self.store.cases[case.key] = case
        opened = self.store.create(ACCOUNT, self.plan, Kind.REVOKE, START, DUE)
        if opened is None:
            return None
        if head.state in LIVE:
            broken(f"P7: case {opened.case_no} is opened while the one before it is {head.state}")
        if opened.case_no != head.case_no + 1:
            broken(f"P7: after case {head.case_no} comes case {opened.case_no}")
        outcome = head.state if head.state in ("done", "aborted") else "untouched"
        earlier = (*head.earlier, outcome) if head.state else ()
        after = Head(earlier=earlier, state=State.OPEN.value, due=True)
        return Turn((f"the person submits case {after.case_no}",), 0, False, after)

    def _withdraw(self, head: Head, views: tuple[View, ...]) -> Iterator[Turn]:
        case = self.case(head, views)
        self.store.cases[case.key] = case
        held = self.store.withdraw(case.key, START)
        if (held is None) != (head.state == State.CONFIRMING):
            broken(f"P6: a wish to withdraw was answered {'409' if held is None else '202'} in {head.state}")
        if held is not None:
            yield Turn(("the person withdraws",), 0, False, self._head(head, held)._replace(promised=True))

    def _desk(self, head: Head, views: tuple[View, ...]) -> Iterator[Turn]:
        """A desk takes an open case for review, and decides it in its own time."""
        case = self.case(head, views)
        if head.wished or head.state not in (State.OPEN, State.IN_REVIEW):
            return
        ways = [("the desk rejects the case", transition(case, State.REJECTED, due_at=None))]
        if head.state == State.OPEN:
            ways.append(("the desk takes the case for review", transition(case, State.IN_REVIEW, due_at=None)))
        for told, after in ways:
            yield from self._save(head, views, case, _EventOption(told, Woken(), due_course=True), after, ())

    # What wakes a worker.

    def _events(self, case: Case, views: tuple[View, ...], facts: Facts | None) -> Iterator[_EventOption]:
        match case.state:
            case State.OPEN | State.IN_REVIEW:
                assert facts is not None  # noqa: S101 - the caller reads them for these states; narrows the type
                version = facts.versions[self.wallet]
                yield _EventOption(f"the last proof comes in, the wallet at version {version}", Proven(version))
                yield _EventOption("the case is due", Woken(), DUE, due_course=True)
            case State.READY:
                assert facts is not None  # noqa: S101 - as above
                yield _EventOption("the case is due", Woken(), DUE, due_course=True)
                yield from self._rechecks(facts)
            case State.TRYING:
                yield _EventOption("the case is due", Woken(), DUE, due_course=True)
                yield _EventOption("the deadline passes", Woken(), DEADLINE, cost=1)
                yield from self._receive(views, trying=True)
            case _:
                yield _EventOption("the case is due", Woken(), DUE, due_course=True)
                yield _EventOption("the case is due, after the deadline", Woken(), DEADLINE)
                yield _EventOption("the operator unparks it", Unparked(), due_course=True)
                yield from self._receive(views, trying=False)

    def _rechecks(self, facts: Facts) -> Iterator[_EventOption]:
        versions = {
            name: version
            for name, version in zip(self.shape.parties, facts.versions, strict=True)
            if name not in WITHOUT_FACTS
        }
        blockers = ("PAY-PENDING",) if facts.open_entry else ()
        yield _EventOption("the re-check reads all facts", Rechecked(versions, blockers), due_course=True)
        yield _EventOption("the re-check finds a blocker", Rechecked(versions, ("BLOCKER",)), cost=1)

    def _receive(self, views: tuple[View, ...], *, trying: bool) -> Iterator[_EventOption]:
        """Replies under way are heard: each alone; in `trying` all grants, everything, and everything too late.

        Any other set comes to the same: one refusal in it decides, grants count once their wave is complete, and what
        is learnt of the second phase is saved one by one as well as together (`Shape.every_subset` tries all the same).
        """
        under_way = [(at, said) for at, view in enumerate(views) for said in self.words.answers(view.replies)]
        if not under_way:
            return
        sets: list[list[tuple[int, Said]]] = [[one] for one in under_way]
        if self.shape.every_subset:
            sizes = range(2, len(under_way) + 1)
            sets += [list(some) for size in sizes for some in combinations(under_way, size)]
        elif trying:
            sets += [under_way, [one for one in under_way if one[1].answer == Answer.GRANTED]]
        for some in sets:
            told = "the worker hears " + ", ".join(f"{{{at}}} {said.op} {said.answer}" for at, said in some)
            event = Replied(tuple(self._reply(at, said) for at, said in some))
            used = tuple(
                sum(self.words.answer(said) for place, said in some if place == at and said.answer == Answer.ERROR)
                for at in range(len(views))
            )
            yield _EventOption(told, event, START, 0, due_course=len(some) == len(under_way) or not trying, heard=used)
        if trying:
            late = Replied(tuple(self._reply(at, said) for at, said in under_way))
            yield _EventOption("the worker hears everybody, after the deadline", late, DEADLINE, cost=1)

    def _reply(self, at: int, said: Said) -> Reply:
        return Reply(ACCOUNT, 1, self.shape.parties[at], Op(said.op), Answer(said.answer))

    # Deciding, saving, sending.

    def _turns_of(
        self, head: Head, views: tuple[View, ...], held: Case, woken: list[_EventOption], copy: Case | None = None
    ) -> Iterator[Turn]:
        """Let a worker that loaded `held` (or still has `copy`) be woken in each way."""
        seen = set[Any]()
        for one in woken:
            copies = [copy or held]
            if copy is None and held.withdraw_at is not None:
                copies.append(msgspec.structs.replace(held, withdraw_at=None))
            for loaded in copies:
                with during(one.told.format(*self.shape.parties)):
                    turns = list(self._decide(head, views, held, loaded, one))
                for turn in turns:
                    if turn[1:] not in seen:
                        seen.add(turn[1:])
                        yield turn

    def _decide(
        self, head: Head, views: tuple[View, ...], held: Case, loaded: Case, woken: _EventOption
    ) -> Iterator[Turn]:
        decision: Decision = self.parts.step(loaded, self.plan, woken.event, woken.when, TIMING)
        if decision.case is loaded:
            if woken.heard is not None and any(woken.heard):
                yield Turn((woken.told,), woken.cost, woken.due_course, head, heard=woken.heard)
            return
        if decision.case.revision != loaded.revision:
            yield from self._save(head, views, held, woken, decision.case, decision.sends)
            return
        if decision.sends:
            yield from self._send(Turn((woken.told,), woken.cost, woken.due_course, head), views, decision.sends)
        silent = self.parts.step(decision.case, self.plan, Woken(), DUE, TIMING)
        told = f"{woken.told}, and silence follows"
        yield from self._save(head, views, held, woken._replace(told=told), silent.case, silent.sends)

    def _save(
        self, head: Head, views: tuple[View, ...], held: Case, woken: _EventOption, case: Case, sends: tuple[Send, ...]
    ) -> Iterator[Turn]:
        """Save under the real guard, then send what it let through."""
        before = Turn((woken.told,), woken.cost, woken.due_course, head)
        if not self.habits.saves_first:
            yield from self._send(before._replace(told=(woken.told, "before the save")), views, sends)
        self.store.cases[held.key] = held
        stored = self.store.save(case)
        if stored is None:
            if not self.habits.heeds_guard:
                yield from self._send(before._replace(told=(woken.told, "the save is refused")), views, sends)
            return
        after = self._head(head, stored)
        if isinstance(woken.event, Proven):
            after = after._replace(moved=False)
        judge_save(head, after, (held.marks, stored.marks), late=woken.when >= DEADLINE)
        self.moves.add((head.state, after.state))
        turn = before._replace(
            told=(woken.told, f"saved as {after.state} {stored.marks}"),
            head=after, marks=stored.marks, versions=stored.versions, heard=woken.heard,
        )  # fmt: skip
        yield from self._send(turn, views, sends)

    def _send(self, turn: Turn, views: tuple[View, ...], sends: tuple[Send, ...]) -> Iterator[Turn]:
        """All sends leave, or for a fault fewer: the worker died between the save and these."""
        marks = turn.marks or "".join(view.mark for view in views)
        leaving = []
        for send in sends:
            at = self.shape.parties.index(send.participant)
            judge_sent(turn.head.state, send.op.value, marks[at], self._waves_before_granted(views, at))
            leaving.append((at, send.op.value, send.version))
        yield turn._replace(sends=tuple(leaving))
        if turn.marks is not None:
            for some in chain.from_iterable(combinations(leaving, size) for size in range(len(leaving))):
                yield turn._replace(
                    told=(*turn.told, "and the worker dies"), sends=some, cost=turn.cost + 1, due_course=False
                )

    def _waves_before_granted(self, views: tuple[View, ...], at: int) -> bool:
        granted = self.words.answer(Said("try", "granted"))
        waves = self.shape.waves
        return all(
            view.replies & granted or view.mark == "g"
            for view, wave in zip(views, waves, strict=True)
            if wave < waves[at]
        )

    # Workers that hold old copies, and workers that must ask again.

    def _resume_stalled(self, head: Head, views: tuple[View, ...], facts: Facts | None) -> Iterator[Turn]:
        """A worker that loaded the case before the last save acts on that copy: only Trys in memory can come of it."""
        if not head.state or head.state == State.OPEN:
            return
        held = self.case(head, views)
        for state in State:
            if state in LIVE and State(head.state) in _NEXT[state]:
                copy = self._older(held, state)
                if facts is None and state in (State.OPEN, State.IN_REVIEW, State.READY):
                    events = [_EventOption("the case is due", Woken(), DUE)]
                else:
                    events = list(self._events(copy, views, facts))
                late = [one._replace(told=f"a worker that stood still: {one.told}", due_course=False) for one in events]
                yield from self._turns_of(head, views, held, late, copy)

    def _older(self, held: Case, state: State) -> Case:
        awaited = {State.TRYING: "t", State.CONFIRMING: "c", State.CANCELLING: "x"}.get(state, ".")
        tried = awaited != "."
        return msgspec.structs.replace(
            held, state=state, marks=awaited * len(held.marks), revision=REVISION - 1, withdraw_at=None, due_at=DUE,
            deadline=DEADLINE if tried else None,
            versions=(held.versions or (0,) * len(held.marks)) if tried else (),
        )  # fmt: skip

    def _demand_asked_again(self, case: Case) -> None:
        """P9: whatever is awaited is asked for again and again, as long as it takes."""
        key = (case.state, case.marks, case.due_at is None, case.withdraw_at is None)
        awaited = {State.TRYING: "t", State.CONFIRMING: "ce", State.CANCELLING: "xy"}.get(case.state, "")
        if key in self._asked or (case.withdraw_at is not None and case.state is State.TRYING):
            return
        self._asked.add(key)
        for _ in range(ASKED_AGAIN if any(mark in awaited for mark in case.marks) else 0):
            if case.due_at is None:
                broken(f"P9: case {case.case_no} awaits {case.marks} in {case.state} and nobody will look at it again")
                return
            decision = self.parts.step(case, self.plan, Woken(), case.due_at, TIMING)
            if decision.case.state is not case.state:
                return
            if not decision.sends:
                broken(f"P9: case {case.case_no} awaits {case.marks} in {case.state} and is not asked again")
            case = decision.case


_NEXT: Final = {
    State.OPEN: {State.IN_REVIEW, State.READY, State.WITHDRAWN, State.EXPIRED, State.REJECTED},
    State.IN_REVIEW: {State.READY, State.WITHDRAWN, State.REJECTED},
    State.READY: {State.TRYING, State.WITHDRAWN, State.REJECTED},
    State.TRYING: {State.CONFIRMING, State.CANCELLING},
    State.CONFIRMING: {State.DONE},
    State.CANCELLING: {State.ABORTED},
}
