"""One account of a small world: its states as numbers, and every step from one state to another.

A state is a head (what the store holds) and a column for each participant (its row, and the messages to and from it).
Steps that concern one column are computed once per column, and workers' turns once per what they can see, so that the
real functions are called once for equal values.

What is abstracted here, and why that loses nothing:
- A message once sent stays: it may arrive now, later, repeatedly or never, and so may its reply. That covers every
  loss, delay, repetition and reordering without costing a fault. Only an error, which parks an op, is heard once per
  answer.
- When a case leaves `trying`, every Try counts as under way, and when it ends every Confirm or Cancel, whether it was
  really sent or not: all were saved as sent, and the saved state does not tell. That is more than can happen: it covers
  a stalled worker that sends its Trys late, even those of a later wave; none may do harm.
- An ended case's facts versions are dropped, and its Trys count as asking for the present version: a late Try is
  refused for being late. Of cases before the last only the outcome is kept: done, aborted, or never left `ready`.
- Answers that no step reads are not kept: `pending`, and those to another phase or to an ended case (tests/unit).
- Facts change at a participant only while a case of the account is `ready` or `trying`: before, they have not been
  read; after, no op depends on them. Elsewhere a change would only rename versions, so a movement of money then keeps
  them.
- Participants of the same wave and sort may change places (`Shape.alike`): the columns of such a group are sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from jiebang.model.case import ENDED, LIVE, State
from jiebang.saga.fence import Answer, Op
from sim.options import WITHOUT_FACTS
from sim.parties import Applied, PartyRow
from sim.properties import broken, during, judge_answer, judge_column
from sim.states import ACCOUNT, Column, Head, Kept, Message, Said, Words
from sim.turns import Facts, Habits, Turn, Turns, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.states import Shape
    from sim.world import Parts

Account = tuple[int, ...]
"""The number of a head, then of one column a participant."""
READ_FACTS: Final = frozenset({State.OPEN, State.IN_REVIEW, State.READY})
TWO_PHASES: Final = {"done": "confirm", "aborted": "cancel"}
AWAITED: Final = {"trying": "try", "confirming": "confirm", "cancelling": "cancel"}
LAST_OP: Final = frozenset({"confirming", "cancelling"})
LEAVING: Final = LAST_OP | ENDED


class Step(NamedTuple):
    """Something that may happen to an account: its description, its cost in faults, and the state after it."""

    told: tuple[str, ...]
    cost: int
    due_course: bool
    after: Account


class _Arrival(NamedTuple):
    """The result of an op that arrived at one participant."""

    told: tuple[str, ...]
    cost: int
    after: int


class _Change(NamedTuple):
    """What a turn does to a column. `left`: the state that the case enters on leaving `trying`, or its final state."""

    mark: str
    version: int
    sends: tuple[tuple[str, int | None], ...]
    heard: int
    left: str


class _TurnEffect(NamedTuple):
    """A turn, whatever the number of its case: the head after it, and a change a column (0: none)."""

    told: tuple[str, ...]
    cost: int
    due_course: bool
    head: Head
    changes: tuple[int, ...]


class _CaseTurn(NamedTuple):
    """A turn of a case with a number: the number of the head after it."""

    told: tuple[str, ...]
    cost: int
    due_course: bool
    after: int
    changes: tuple[int, ...]


_SAME: Final = _Change("", 0, (), 0, "")


class Accounts:
    """All states of one account under one shape. Raises ViolationError where a promise is broken."""

    def __init__(self, shape: Shape, parts: Parts, habits: Habits | None = None) -> None:
        """Take the bounds and the parts, which planted mistakes change."""
        self.shape, self.parts, self.habits = shape, parts, habits or Habits()
        self.words = Words()
        self.turns = Turns(shape, parts, self.habits, self.words)
        self.wallet = self.turns.wallet
        self.heads, self.columns = Kept(Head()), Kept(Column())
        self.alike = shape.alike()
        self._apply = [(parts.wallet if at == self.wallet else parts.party).apply for at in range(len(shape.parties))]
        self._views: list[View] = []
        self._turns: dict[tuple[Head, tuple[View, ...], Facts | None], tuple[_TurnEffect, ...]] = {}
        self._prepared: dict[tuple[int, tuple[View, ...], Facts | None], tuple[_CaseTurn, ...]] = {}
        self._submissions: dict[tuple[int, tuple[View, ...]], Turn | None] = {}
        self._changes = Kept(_SAME)
        self._arrivals: dict[tuple[int, int, int, str], tuple[_Arrival, ...]] = {}
        self._changed: dict[tuple[int, int, int], int] = {}
        self._judged = set[tuple[int, int, bool]]()
        self.cells: set[tuple[str, str, str]] = set()

    def start(self) -> Account:
        """Nobody has asked for anything."""
        return (0,) * (1 + len(self.shape.parties))

    # Reading a state.

    def head(self, account: Account) -> Head:
        """What the store has."""
        head: Head = self.heads.values[account[0]]
        return head

    def column(self, account: Account, at: int) -> Column:
        """One participant."""
        column: Column = self.columns.values[account[1 + at]]
        return column

    def live(self, account: Account) -> bool:
        """Whether a case of it has not ended."""
        return self.head(account).state in LIVE

    def outcome(self, account: Account) -> tuple[str, ...]:
        """How its cases ended."""
        head = self.head(account)
        return (*head.earlier, head.state)

    def entries(self, account: Account) -> int:
        """How many entries of transfers are open at its wallet."""
        return self.column(account, self.wallet).row.open_items

    def sorted(self, account: Account) -> Account:
        """The one of all states that differ only in the names of like participants."""
        if not self.alike:
            return account
        places = list(account)
        for group in self.alike:
            ordered = sorted(places[1 + at] for at in group)
            for at, column in zip(group, ordered, strict=True):
                places[1 + at] = column
        return tuple(places)

    def judge(self, account: Account) -> None:
        """Check what must hold in every state."""
        head = account[0]
        for at, column in enumerate(account[1:]):
            key = (head, column, at == self.wallet)
            if key not in self._judged:
                judge_column(self.heads.values[head], self.columns.values[column], at == self.wallet, self.words)
                self._judged.add(key)

    def say(self, account: Account) -> str:
        """A state in words."""
        head = self.head(account)
        columns = [self.column(account, at) for at in range(len(self.shape.parties))]
        rows = ", ".join(
            f"{name} {one.mark} ({one.row.fence.case_no}, {one.row.fence.case_op})"
            for name, one in zip(self.shape.parties, columns, strict=True)
        )
        return f"case {head.case_no} {head.state or 'none'}; {rows}"

    def name(self, told: tuple[str, ...]) -> str:
        """What happened, with the participants' names."""
        return " → ".join(told).format(*self.shape.parties)

    # What may happen.

    def steps(self, account: Account, faults: int) -> Iterator[Step]:
        """Everything that may happen next but movements of money, with at most `faults` faults."""
        yield from self._take_turns(account, faults)
        yield from self._deliver_ops(account, faults)
        if faults and self.head(account).state in ("ready", "trying"):
            yield from self._facts_change(account)

    def _take_turns(self, account: Account, faults: int) -> Iterator[Step]:
        columns = account[1:]
        views = tuple([self._view(column) for column in columns])
        head: Head = self.heads.values[account[0]]
        if head.case_no < self.shape.cases:
            opened = self._submitted(account[0], views)
            if opened is not None:
                yield Step(opened.told, 0, False, (self.heads.number(opened.head), *columns))
        key = (account[0], views, self._facts(columns) if head.state in READ_FACTS else None)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = self._prepare(*key)
        number = head.case_no
        for told, cost, due_course, after, changes in prepared:
            if cost <= faults:
                yield Step(
                    told,
                    cost,
                    due_course,
                    (
                        after,
                        *[self._after(column, change, number) for column, change in zip(columns, changes, strict=True)],
                    ),
                )

    def _submitted(self, head: int, views: tuple[View, ...]) -> Turn | None:
        key = (head, views)
        if key not in self._submissions:
            self._submissions[key] = self.turns.submitted(self.heads.values[head], views)
        return self._submissions[key]

    def _prepare(self, number: int, views: tuple[View, ...], facts: Facts | None) -> tuple[_CaseTurn, ...]:
        """The turns of a case: what they do is worked out once for all numbers of a case."""
        head: Head = self.heads.values[number]
        if not head.state:
            return ()
        key = (head._replace(earlier=()), views, facts)
        worked = self._turns.get(key)
        if worked is None:
            worked = tuple(self._compute_effect(key[0], views, turn) for turn in self.turns.of(*key))
            self._turns[key] = worked
        return tuple(
            _CaseTurn(
                one.told,
                one.cost,
                one.due_course,
                self.heads.number(one.head._replace(earlier=head.earlier)),
                one.changes,
            )
            for one in worked
        )

    def _compute_effect(self, head: Head, views: tuple[View, ...], turn: Turn) -> _TurnEffect:
        changes = []
        left = turn.head.state if turn.head.state != head.state and turn.head.state in LEAVING else ""
        for at, view in enumerate(views):
            mark = view.mark if turn.marks is None else turn.marks[at]
            version = turn.versions[at] if turn.versions else view.version
            sends = tuple([(op, asked) for place, op, asked in turn.sends if place == at])
            heard = turn.heard[at] if turn.heard else 0
            same = mark == view.mark and version == view.version and not (sends or heard or left)
            changes.append(0 if same else self._changes.number(_Change(mark, version, sends, heard, left)))
        after = Head(state=turn.head.state) if left in ENDED else turn.head
        return _TurnEffect(turn.told, turn.cost, turn.due_course, after, tuple(changes))

    def _view(self, column: int) -> View:
        views = self._views
        while len(views) <= column:
            one: Column = self.columns.values[len(views)]
            views.append(View(one.mark, one.version, one.replies))
        return views[column]

    def _facts(self, columns: tuple[int, ...]) -> Facts:
        rows = [self.columns.values[column].row for column in columns]
        return Facts(tuple(row.version for row in rows), rows[self.wallet].open_items > 0)

    def _after(self, column: int, change: int, case_no: int) -> int:
        if not change:
            return column
        key = (column, change, case_no)
        after = self._changed.get(key)
        if after is None:
            after = self._changed[key] = self.columns.number(self._change(self.columns.values[column], change, case_no))
        return after

    def _change(self, before: Column, number: int, case_no: int) -> Column:
        change: _Change = self._changes.values[number]
        net = before.net
        for op, asked in change.sends:
            net |= self.words.message(Message(case_no, op, asked))
        if change.left in ENDED:
            return self._rest(before.row, net, change.left, case_no)
        replies = before.replies & ~change.heard
        if change.left in LAST_OP:
            net |= self.words.message(Message(case_no, "try", change.version or None))
            replies = 0
        return Column(change.mark, change.version, before.row, net, replies)

    def _rest(self, row: PartyRow, net: int, ended: str, case_no: int) -> Column:
        """What is left of a case that has ended: what it did, and all its ops under way for ever."""
        sent = {message._replace(version=None) for message in self.words.messages(net)}
        if ended in TWO_PHASES:
            sent.add(Message(case_no, TWO_PHASES[ended], None))
        bits = sum({self.words.message(message) for message in sent})
        return Column(row=row._replace(version=1), net=bits)

    # What the network and the participants do.

    def _deliver_ops(self, account: Account, faults: int) -> Iterator[Step]:
        head: Head = self.heads.values[account[0]]
        awaited = AWAITED.get(head.state, "")
        live = head.case_no if awaited else 0
        for at, column in enumerate(account[1:]):
            arrivals = self._arrivals.get((at, column, live, awaited))
            if arrivals is None:
                arrivals = tuple(self._arrivals_of(at, column, live, awaited))
                self._arrivals[at, column, live, awaited] = arrivals
            for told, cost, after in arrivals:
                if cost <= faults:
                    yield Step(told, cost, cost == 0, (*account[: 1 + at], after, *account[2 + at :]))

    def _arrivals_of(self, at: int, number: int, live: int, awaited: str) -> Iterator[_Arrival]:
        """Any op ever sent to a participant arrives; for a fault it is refused, or goes wrong."""
        column: Column = self.columns.values[number]
        for message in self.words.messages(column.net):
            for cost in (0, 1):
                applied = self._take(at, column.row, message, fault=cost > 0)
                if not cost or applied.answer is Answer.ERROR:
                    self._require_fence(column.row, message)
                code = f" ({applied.code})" if applied.code else ""
                told = f"{message.op} of case {message.case_no} arrives at {{{at}}}; it answers {applied.answer}{code}"
                if cost == 0 or message.op == "try":
                    has_facts = self.shape.parties[at] not in WITHOUT_FACTS
                    with during(self.name((told,))):
                        judge_answer(message, applied.answer.value, (column.row, applied.row), has_facts)
                replies = column.replies
                if message.op == awaited and (message.case_no == live or not self.habits.tells_cases_apart):
                    replies |= self._reply(message, applied)
                after = self.columns.number(column._replace(row=applied.row, replies=replies))
                if after != number:
                    yield _Arrival((told,), cost, after)

    def _take(self, at: int, row: PartyRow, message: Message, *, fault: bool) -> Applied:
        if fault and message.op != "try":
            return Applied(Answer.ERROR, "BROKEN", row)
        whim = "BUSINESS" if fault else None
        return self._apply[at](self.parts.fence, row, message.case_no, Op(message.op), message.version, whim)

    def _reply(self, message: Message, applied: Applied) -> int:
        if applied.answer is Answer.PENDING:
            return 0
        return self.words.answer(Said(message.op, applied.answer.value))

    def _require_fence(self, row: PartyRow, message: Message) -> None:
        number = row.fence.case_no
        place = "above" if number > message.case_no else "below" if number < message.case_no else "same"
        self.cells.add((message.op, place, row.fence.case_op.value))

    # What changes at participants without a case.

    def _facts_change(self, account: Account) -> Iterator[Step]:
        for at, name in enumerate(self.shape.parties):
            if at != self.wallet and name not in WITHOUT_FACTS:
                column = self.column(account, at)
                row = column.row._replace(version=column.row.version + 1)
                yield Step((f"a fact changes at {{{at}}}",), 1, False, self._with(account, at, row))

    def moved(self, account: Account, entries: int) -> Account | None:
        """An entry of a transfer is written at the wallet (+1) or ended (-1); None where it is busy or closed."""
        head, row = self.head(account), self.column(account, self.wallet).row
        wallet = self.parts.wallet(self.parts.fence)
        wallet.rows[ACCOUNT], wallet.balances[ACCOUNT] = row, 0
        if entries > 0 and (wallet.busy(ACCOUNT) or wallet.closed(ACCOUNT)):
            return None
        wallet.write(ACCOUNT, 0, entries)
        if row.fence.case_op == "tried" or wallet.closed(ACCOUNT):
            broken("P3: money moves between the wallet's Try and its Confirm or Cancel, or at a closed account")
        confirmed = row.fence.case_no == head.case_no and row.fence.case_op == "confirmed"
        after = head._replace(moved=True) if head.state in ("ready", "trying", "confirming") and not confirmed else head
        written = wallet.rows[ACCOUNT]
        if head.state not in ("ready", "trying", "cancelling"):
            written = written._replace(version=row.version)
        changed = self._with(account, self.wallet, written)
        return (self.heads.number(after), *changed[1:])

    def closed(self, account: Account) -> bool:
        """Whether the account is closed, so that a credit returns to its sender."""
        wallet = self.parts.wallet(self.parts.fence)
        wallet.rows[ACCOUNT] = self.column(account, self.wallet).row
        return wallet.closed(ACCOUNT)

    def _with(self, account: Account, at: int, row: PartyRow) -> Account:
        after = self.columns.number(self.column(account, at)._replace(row=row))
        return (*account[: 1 + at], after, *account[2 + at :])

    def ended(self, account: Account) -> bool:
        """Whether its last case has ended."""
        return self.head(account).state in ENDED
