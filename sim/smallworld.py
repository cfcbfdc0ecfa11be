"""The small world that `explore` walks: what can happen next in a state, with the real step, fence and guard.

A state is a tuple of small numbers; each stands for a value kept once (a case, a row, a message, the judge's memory).
Since the real functions are pure, what they return for the same values is computed once and remembered.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jiebang.model.case import ENDED, LIVE, Case, Kind, State
from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import Proven, Rechecked, Replied, Reply, Send, Timing, Unparked, Woken
from jiebang.saga.fence import Answer, FenceRow, Op
from sim.auditor import Auditor
from sim.options import WITHOUT_FACTS
from sim.parties import Applied, PartyRow
from sim.world import Parts

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from jiebang.saga.coordinator import Event

ACCOUNT = 1
START = datetime(2026, 1, 1, tzinfo=UTC)
DUE = START + timedelta(seconds=1)
DEADLINE = START + timedelta(seconds=10)
TIMING = Timing(try_limit=DEADLINE - START)
ACCEPTED, TOO_LATE = 202, 409
DUE_NOW: Final = ("the case is due",)
ALL_ARE_PAIRS: Final = 2
ARRIVES, STEPS = "arrives", "steps"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large the small world is."""

    names: tuple[str, ...]
    waves: tuple[int, ...]
    cases: int
    faults: int


class Place(NamedTuple):
    """One state. `cases`, `rows`, `judge` are numbers of kept values; `net` and `replies` sets of messages, as bits."""

    cases: tuple[int, ...]
    rows: tuple[int, ...]
    net: int
    replies: int
    faults: int
    judge: int


class Kept:
    """Values kept once each, by number."""

    def __init__(self, *first: Hashable) -> None:
        """Start with `first` as number 0 and on."""
        self.values: list[Any] = list(first)
        self.numbers: dict[Hashable, int] = {value: number for number, value in enumerate(first)}

    def number(self, value: Hashable) -> int:
        """The number of `value`, a new one if it has none yet."""
        number = self.numbers.get(value)
        if number is None:
            number = self.numbers[value] = len(self.values)
            self.values.append(value)
        return number


Said = tuple[Any, ...]
"""What happens, in pieces; `say` makes a sentence of them. Most are never asked for, so they are never made."""
Next = tuple[Said, Place]
"""What happens, and where it leads. A step that costs a fault has one fault less."""


class Stepped(NamedTuple):
    """What one step came to: the case as stored, what is sent, what the judge is shown; and how to call the save."""

    case: int
    sends: tuple[int, ...]
    shown: int
    proven: int
    ended: bool


class Taken(NamedTuple):
    """What one op came to at a participant: its row, the reply, what the judge is shown."""

    row: int
    reply: int
    shown: int


class SmallWorld:
    """Everything that can happen next in each state of one small world. Raises ViolationError where it may not."""

    def __init__(self, shape: Shape, parts: Parts) -> None:
        """Take the shape and the parts, which planted mistakes change."""
        self.shape, self.parts = shape, parts
        self.plan = Plan(name="small", participants=shape.names, waves=shape.waves)
        self.store = parts.store()
        self.apply = [(parts.wallet if name == WALLET else parts.party).apply for name in shape.names]
        self.wallet = shape.names.index(WALLET)
        self.auditor = Auditor()
        self.auditor.opened(ACCOUNT, 0)
        self.cases, self.rows, self.records = Kept(), Kept(PartyRow()), Kept(None)
        self.sends, self.replies = Kept(), Kept()
        self.judges = Kept(self.auditor.memory(ACCOUNT))
        self._judged: dict[tuple[int, int], int] = {}
        self._stepped: dict[tuple[Any, ...], Stepped | None] = {}
        self._taken: dict[tuple[int, int, bool], Taken] = {}
        self._sets: dict[int, tuple[int, ...]] = {}
        self.shown_last: tuple[Any, ...] = ()

    def start(self) -> Place:
        """Where everything begins: nobody has asked for anything."""
        return Place((), (0,) * len(self.shape.names), 0, 0, self.shape.faults, 0)

    def at_rest(self, place: Place) -> bool:
        """Whether every case has been asked for and has ended, and no money is under way."""
        settled = not self.rows.values[place.rows[self.wallet]].open_items
        return settled and len(place.cases) == self.shape.cases and self._last(place).state in ENDED

    def ending(self, place: Place) -> str:
        """How the cases ended, for the count."""
        return ", ".join(str(self.cases.values[number].state) for number in place.cases)

    def told(self, place: Place) -> str:
        """A state in words."""
        cases = [self.cases.values[number] for number in place.cases]
        rows = [self.rows.values[number].fence for number in place.rows]
        return (
            ", ".join(f"case {case.case_no} {case.state} {case.marks}" for case in cases)
            + "; rows "
            + ", ".join(f"{name} {row.case_no} {row.case_op}" for name, row in zip(self.shape.names, rows, strict=True))
        )

    def after(self, place: Place) -> Iterator[Next]:
        """Everything that can happen next."""
        if place.cases and self._last(place).state in LIVE:
            yield from self._worked(place)
            yield from self._withdrawn(place)
        elif len(place.cases) < self.shape.cases:
            yield self._submitted(place)
        yield from self._arrivals(place)
        yield from self._money(place)
        if place.faults:
            yield from self._facts(place)

    def _last(self, place: Place) -> Case:
        case: Case = self.cases.values[place.cases[-1]]
        return case

    # What people do.

    def _submitted(self, place: Place) -> Next:
        number = len(place.cases) + 1
        case = Case(
            account_id=ACCOUNT, case_no=number, kind=Kind.REVOKE, state=State.OPEN, plan=self.plan.name,
            marks="." * len(self.shape.names), revision=1, created_at=START, due_at=DUE,
        )  # fmt: skip
        judge = self._show(place.judge, "submitted", number, self.shape.names, self.shape.waves)
        cases = (*place.cases, self.cases.number(case))
        return ("case", number, "is submitted"), place._replace(cases=cases, judge=judge)

    def _withdrawn(self, place: Place) -> Iterator[Next]:
        case = self._last(place)
        if not place.faults or case.withdraw_at is not None:
            return
        self.store.cases[case.key] = case
        held = self.store.withdraw(case.key, START)
        judge = self._show(place.judge, "withdrawal_answered", case.case_no, TOO_LATE if held is None else ACCEPTED)
        if held is not None:
            cases = (*place.cases[:-1], self.cases.number(_canonical(held)))
            after = place._replace(cases=cases, judge=judge, faults=place.faults - 1)
            yield ("the person withdraws case", case.case_no), after

    def _money(self, place: Place) -> Iterator[Next]:
        """A transfer opens an entry at the wallet (a fault), and completes it later; a tried wallet answers busy."""
        row = self.rows.values[place.rows[self.wallet]]
        wallet = self.parts.wallet(self.parts.fence)
        wallet.rows[ACCOUNT], wallet.balances[ACCOUNT] = row, 0
        if row.open_items:
            what, entries, cost = "the transfer completes", -1, 0
        elif place.faults and not wallet.busy(ACCOUNT):
            what, entries, cost = "a transfer begins at the wallet", 1, 1
        else:
            return
        versions = wallet.write(ACCOUNT, 0, entries)
        judge = self._show(place.judge, "moved", 1, 0, 0, versions)
        rows = _with(place.rows, self.wallet, self.rows.number(wallet.rows[ACCOUNT]))
        yield (what,), place._replace(rows=rows, judge=judge, faults=place.faults - cost)

    def _facts(self, place: Place) -> Iterator[Next]:
        """A fact changes at a participant other than the wallet: only its version tells."""
        for at, name in enumerate(self.shape.names):
            if at != self.wallet and name not in WITHOUT_FACTS:
                row = self.rows.values[place.rows[at]]
                rows = _with(place.rows, at, self.rows.number(row._replace(version=row.version + 1)))
                yield ("a fact changes at", name), place._replace(rows=rows, faults=place.faults - 1)

    # What the worker does.

    def _worked(self, place: Place) -> Iterator[Next]:
        """The live case is stepped by everything that can wake a worker, now or at the deadline."""
        case = self._last(place)
        if case.state is State.OPEN:
            version = self.rows.values[place.rows[self.wallet]].version
            yield from self._saved(place, ("the last proof", version), START, 0)
            yield from self._saved(place, DUE_NOW, DUE, case.withdraw_at is None)
            return
        yield from self._saved(place, DUE_NOW, DUE, 0)
        if case.state is State.READY:
            yield from self._saved(place, ("the re-check", place.rows), START, 0)
            return
        trying = case.state is State.TRYING
        if trying:
            yield from self._saved(place, ("the deadline",), DEADLINE, 1)
        else:
            yield from self._saved(place, DUE_NOW, DEADLINE, 0)
            if "C" in case.marks or "X" in case.marks:
                yield from self._saved(place, ("the operator unparks",), START, 0)
        heard = [1 << number for number in self._bits(place.replies)]
        pairs = [one | other for one, other in combinations(heard, 2)]
        for some in (*heard, *pairs, place.replies) if len(heard) > ALL_ARE_PAIRS else (*heard, *pairs):
            yield from self._saved(place, ("hearing", some), START, 0)
            if trying:
                yield from self._saved(place, ("hearing", some), DEADLINE, 1)

    def _event(self, woken_by: Said) -> Event:
        """The event that a worker is woken by."""
        if woken_by[0] == "the last proof":
            return Proven(woken_by[1])
        if woken_by[0] == "hearing":
            return Replied(tuple(self.replies.values[number] for number in self._bits(woken_by[1])))
        if woken_by[0] == "the operator unparks":
            return Unparked()
        if woken_by[0] == "the re-check":
            rows = [self.rows.values[row] for row in woken_by[1]]
            versions = {
                name: row.version for name, row in zip(self.shape.names, rows, strict=True) if name not in WITHOUT_FACTS
            }
            return Rechecked(versions, ("PAY-PENDING",) if rows[self.wallet].open_items else ())
        return Woken()

    def _saved(self, place: Place, woken_by: Said, when: datetime, cost: int) -> Iterator[Next]:
        """Step, save under the guard, send: all of the sends, or for a fault any fewer (loss, or death in between)."""
        if cost > place.faults:
            return
        number = place.cases[-1]
        for aged in (False, True) if self.cases.values[number].withdraw_at is not None else (False,):
            key = (number, aged, woken_by, when)
            stepped = self._stepped[key] if key in self._stepped else self._step(key)
            if stepped is None:
                continue
            judge = self._judge(self._judge(place.judge, stepped.proven), stepped.shown)
            replies = 0 if stepped.ended else place.replies
            after = Place((*place.cases[:-1], stepped.case), place.rows, place.net, replies, place.faults - cost, judge)
            yield (STEPS, *key, stepped.case, stepped.sends), self._sent(after, stepped.sends)
            if after.faults:
                fewer = after._replace(faults=after.faults - 1)
                for some in range(len(stepped.sends)):
                    for chosen in combinations(stepped.sends, some):
                        yield (STEPS, *key, stepped.case, chosen, stepped.sends), self._sent(fewer, chosen)

    def _step(self, key: tuple[Any, ...]) -> Stepped | None:
        """The real step and the real guard: the case as stored and what is sent; None where nothing is saved."""
        number, aged, woken_by, when = key
        held: Case = self.cases.values[number]
        copy = msgspec.structs.replace(held, withdraw_at=None) if aged else held
        event = self._event(woken_by)
        decision = self.parts.step(copy, self.plan, event, when, TIMING)
        stepped = None
        if decision.case is not copy and self.store.admits(held, decision.case):
            case = _canonical(msgspec.structs.replace(decision.case, withdraw_at=held.withdraw_at))
            late = held.deadline is not None and when >= DEADLINE
            shown = ("saved", case.case_no, str(case.state), case.marks, case.versions, case.wallet_version, late)
            proof = ("proof_read", case.case_no, event.wallet_version) if isinstance(event, Proven) else None
            stepped = Stepped(
                self.cases.number(case),
                tuple(self.sends.number(send) for send in decision.sends),
                self.records.number(shown),
                self.records.number(proof),
                case.state in ENDED,
            )
        self._stepped[key] = stepped
        return stepped

    def _sent(self, place: Place, sends: tuple[int, ...]) -> Place:
        if not sends:
            return place
        net, judge = place.net, place.judge
        for number in sends:
            send: Send = self.sends.values[number]
            judge = self._show(judge, "sent", send.case_no, send.participant, str(send.op))
            net |= 1 << number
        return Place(place.cases, place.rows, net, place.replies, place.faults, judge)

    # What the network and the participants do.

    def _arrivals(self, place: Place) -> Iterator[Next]:
        """Any message ever sent arrives: now or later, once or many times."""
        live = len(place.cases) if place.cases and self._last(place).state in LIVE else 0
        for number in self._bits(place.net):
            yield self._arrived(place, number, live, 0)
            if place.faults:
                yield self._arrived(place, number, live, 1)

    def _arrived(self, place: Place, number: int, live: int, fault: int) -> Next:
        send: Send = self.sends.values[number]
        at = self.shape.names.index(send.participant)
        key = (place.rows[at], number, fault > 0)
        taken = self._taken.get(key)
        if taken is None:
            taken = self._taken[key] = self._take(send, at, self.rows.values[place.rows[at]], fault > 0)
        judge = self._judge(place.judge, taken.shown)
        replies = place.replies | 1 << taken.reply if send.case_no == live else place.replies
        rows = place.rows if taken.row == place.rows[at] else _with(place.rows, at, taken.row)
        return (ARRIVES, number, taken), Place(place.cases, rows, place.net, replies, place.faults - fault, judge)

    def _take(self, send: Send, at: int, row: PartyRow, fault: bool) -> Taken:
        if fault and send.op is not Op.TRY:
            applied = Applied(Answer.ERROR, "BROKEN", row)
        else:
            whim = "BUSINESS" if fault else None
            applied = self.apply[at](self.parts.fence, row, send.case_no, send.op, send.version, whim)
        reply = Reply(ACCOUNT, send.case_no, send.participant, send.op, applied.answer, applied.code)
        shown = (
            "answered", send.case_no, send.participant, str(send.op), str(applied.answer),
            (_plain(row.fence), _plain(applied.row.fence)), (row.status, applied.row.status),
            (row.version, bool(row.open_items)),
        )  # fmt: skip
        return Taken(self.rows.number(applied.row), self.replies.number(reply), self.records.number(shown))

    # The judge.

    def _show(self, memory: int, *record: Any) -> int:
        return self._judge(memory, self.records.number(record))

    def _judge(self, memory: int, shown: int) -> int:
        """Show the judge one thing; return the number of its memory afterwards."""
        if not shown:
            return memory
        after = self._judged.get((memory, shown))
        if after is None:
            self.shown_last = self.records.values[shown]
            what, *args = self.shown_last
            self.auditor.recall(ACCOUNT, self.judges.values[memory])
            getattr(self.auditor, what)(ACCOUNT, *args)
            after = self._judged[memory, shown] = self.judges.number(self.auditor.memory(ACCOUNT))
        return after

    # In words, and in sets.

    def say(self, said: Said) -> str:
        """Make a sentence of what happened."""
        if said[0] == ARRIVES:
            send, reply = self.sends.values[said[1]], self.replies.values[said[2].reply]
            code = f" ({reply.code})" if reply.code else ""
            return f"{self._called(said[1])} of case {send.case_no} arrives; it answers {reply.answer}{code}"
        if said[0] != STEPS:
            return " ".join(str(piece) for piece in said)
        _, _, aged, woken_by, when, number, left, *meant = said
        case = self.cases.values[number]
        return (
            f"{self._woken_by(woken_by)}{', after the deadline' if when is DEADLINE else ''}"
            f"{', to a worker that has not seen the wish' if aged else ''}"
            f" → saved as {case.state} {case.marks}{' (withdrawn)' if case.withdraw_at else ''}"
            f"{', sends ' + ', '.join(map(self._called, left)) if left else ''}"
            f"{f', loses the other {len(meant[0]) - len(left)} sends' if meant else ''}"
        )

    def _woken_by(self, woken_by: Said) -> str:
        if woken_by[0] != "hearing":
            return str(woken_by[0])
        heard = [self.replies.values[number] for number in self._bits(woken_by[1])]
        return "the worker hears " + ", ".join(f"{one.participant} {one.op} {one.answer}" for one in heard)

    def _called(self, number: int) -> str:
        send: Send = self.sends.values[number]
        return f"{send.op} to {send.participant}"

    def _bits(self, members: int) -> tuple[int, ...]:
        """The numbers in a set."""
        known = self._sets.get(members)
        if known is None:
            known = tuple(at for at in range(members.bit_length()) if members >> at & 1)
            self._sets[members] = known
        return known


def _canonical(case: Case) -> Case:
    """The case with time, attempts and revision put in an abstract order (see sim/explore.py)."""
    return msgspec.structs.replace(
        case,
        revision=1,
        attempt=0,
        due_at=None if case.due_at is None else DUE,
        deadline=None if case.deadline is None else DEADLINE,
        withdraw_at=None if case.withdraw_at is None else START,
    )


def _plain(row: FenceRow) -> tuple[int, str]:
    return (row.case_no, str(row.case_op))


def _with(rows: tuple[int, ...], at: int, row: int) -> tuple[int, ...]:
    return (*rows[:at], row, *rows[at + 1 :])
