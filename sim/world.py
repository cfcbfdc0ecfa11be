"""A random world: one queue of events in simulated time, one source of chance, and everything that can go wrong.

Phase one: faults, and only safety is judged. Phase two, from `faults_end`: no more faults, no new requests, parked
ops are unparked, late messages still arrive, and every case must end within `HEALING` of simulated time.
"""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import LIVE, Case, State
from jiebang.saga import coordinator
from jiebang.saga.coordinator import Reply, Send
from jiebang.saga.fence import Answer, FenceRow, Op, fence
from sim.auditor import Auditor, ViolationError
from sim.options import PARTIES, WITHOUT_FACTS, draw
from sim.parties import Applied, Party, PartyRow, Wallet
from sim.people import Money, Operator, Person
from sim.store import Store
from sim.worker import PARKED, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.store import Key

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
HEALING = 30_000
"""Simulated milliseconds after the last fault within which every case must have ended."""
SLOWEST = 4_000
LEASE = 300
"""Simulated milliseconds until somebody else looks after a dead worker's case."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a world is built of; planted mistakes put another part in its place."""

    step: Callable[..., coordinator.Decision] = coordinator.step
    fence: Callable[..., Any] = fence
    store: type[Store] = Store
    worker: type[Worker] = Worker
    party: type[Party] = Party
    wallet: type[Wallet] = Wallet


class World:
    """One seed's world."""

    def __init__(self, seed: int, parts: Parts | None = None, judge: Auditor | None = None) -> None:
        """Draw the world of `seed`. `judge` may be an auditor that also tells what it sees."""
        self.random = Random(seed)
        self.options = draw(self.random)
        self.parts = parts or Parts()
        self.judge = judge or Auditor()
        self.now, self.events, self.healed = 0, 0, False
        self.queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.plans = {plan.name: plan for plan in self.options.plans}
        self.store = self.parts.store()
        self.wallet = self.parts.wallet(self.parts.fence)
        self.parties: dict[str, Party] = {
            name: self.parts.party(name, self.parts.fence, name not in WITHOUT_FACTS) for name in PARTIES
        }
        self.parties[self.wallet.name] = self.wallet
        self.workers = [self.parts.worker(self, f"worker {number + 1}") for number in range(self.options.workers)]
        self.operator = Operator(self)
        self.wakes: dict[Key, int] = {}
        self.fenced: Counter[tuple[str, str, str]] = Counter()
        self.seen: Counter[str] = Counter()
        self._people()
        self._faults()

    # Time and chance.

    def time(self) -> datetime:
        """The moment it is."""
        return EPOCH + self.now * MS

    def after(self, wait: int, what: Callable[..., None], *args: Any) -> None:
        """Do `what` in `wait` milliseconds."""
        self.events += 1
        heapq.heappush(self.queue, (self.now + wait, self.events, what, args))

    def chance(self, rate: float) -> bool:
        """Whether a fault of this rate strikes now; never once the world has healed."""
        return not self.healed and self.random.random() < rate

    def up_to(self, most: int) -> int:
        """A whole number of milliseconds from 0 to `most`."""
        return int(self.random.random() * (most + 1))

    traced = False
    """Whether somebody listens to `tell`; where it happens often, ask before making the sentence."""

    def tell(self, who: str, what: str) -> None:
        """Nobody listens; `sim.trace` does."""

    # The run.

    def run(self) -> None:
        """Play the world to its end. Raises ViolationError."""
        limit = self.options.faults_end + HEALING
        queue, pop = self.queue, heapq.heappop
        while queue:
            self.now, _, what, args = pop(queue)
            if self.now > limit:
                late = [case for case in self.store.cases.values() if case.state in LIVE]
                message = f"not ended {HEALING} ms after the last fault: {[(case.key, case.state) for case in late]}"
                raise ViolationError(message)
            what(*args)
        rows = [
            (account, name, (row.fence.case_no, str(row.fence.case_op)), row.status)
            for name, party in self.parties.items()
            for account, row in party.rows.items()
        ]
        self.judge.finished(rows, list(self.wallet.balances.items()))

    def _people(self) -> None:
        accounts = range(1, self.options.accounts + 1)
        for account in accounts:
            self.wallet.balances[account] = 1000
            self.judge.opened(account, 1000)
            self.after(self.up_to(800), Person(self, account).submit)
        money = Money(self, accounts)
        for transfer in range(1, self.options.transfers + 1):
            self.after(self.up_to(self.options.faults_end), money.start, transfer)

    def _faults(self) -> None:
        options = self.options
        for worker in self.workers:
            for _ in range(options.crashes):
                when = self.up_to(options.faults_end)
                self.after(when, worker.crash)
                self.after(when + 1 + self.up_to(1500), worker.restart)
            for _ in range(options.stalls):
                self.after(self.up_to(options.faults_end), worker.stall, self.up_to(2500))
        for party in self.parties.values():
            for _ in range(options.outages):
                when = self.up_to(options.faults_end)
                self.after(when, self._set_up, party, False)
                self.after(when + 1 + self.up_to(2500), self._set_up, party, True)
            for _ in range(options.fact_changes if party.has_facts and party is not self.wallet else 0):
                self.after(self.up_to(options.faults_end), self._change_fact, party)
        self.after(options.faults_end, self._heal)

    def _set_up(self, party: Party, up: bool) -> None:
        party.up = up or self.healed
        self.tell(party.name, "answers again" if party.up else "falls silent")

    def _change_fact(self, party: Party) -> None:
        account = 1 + self.up_to(self.options.accounts - 1)
        party.change(account, self.up_to(2) // 2)
        self.tell(party.name, f"has a fact of account {account} change: {party.row(account)}")

    def _heal(self) -> None:
        self.healed = True
        self.tell("the world", "heals: no more faults from here")
        for party in self.parties.values():
            party.up = True
        for worker in self.workers:
            worker.restart()
        self.rescan()

    # Saving, and being reminded of what is due.

    def is_late(self, case: Case) -> bool:
        """Whether a decision taken now comes at or after the case's deadline."""
        return case.deadline is not None and self.time() >= case.deadline

    def keep(self, case: Case, late: bool, who: str) -> Case | None:
        """Save a decision under the guard, tell the judge, and be reminded when it is due."""
        stored = self.store.save(case)
        if stored is None:
            wished = self.store.cases[case.key].withdraw_at is not None and case.state is State.CONFIRMING
            self.seen["commit lost to a withdrawal" if wished else "save lost to another's"] += 1
            self.tell(
                who, f"may not save {named(case)} as {case.state}: {'withdrawn' if wished else 'it has moved on'}"
            )
            return None
        if self.traced:
            self.tell(
                who, f"saves {named(case)} {case.state} {case.marks} revision {case.revision} {case.reason or ''}"
            )
        self.judge.saved(*case.key, case.state, case.marks, case.versions, case.wallet_version, late)
        self.remind(case.key)
        return stored

    def remind(self, key: Key) -> None:
        """Have a worker look at the case when it is due, if it ever is."""
        due = self.store.cases[key].due_at
        if due is not None:
            self._wake_at(key, max(self.now + 5, (due - EPOCH) // MS))
        else:
            self.wakes.pop(key, None)

    def rescan(self) -> None:
        """A lease ran out: whatever is live is looked at again when it is due."""
        for key, case in self.store.cases.items():
            if case.state in LIVE:
                self.remind(key)
                if not PARKED.isdisjoint(case.marks):
                    self.call_operator(key)

    def _wake_at(self, key: Key, when: int) -> None:
        if self.wakes.get(key) != when:
            self.wakes[key] = when
            self.after(when - self.now, self._due, key, when)

    def _due(self, key: Key, when: int) -> None:
        due = self.store.cases[key].due_at
        if self.wakes.get(key) != when or due is None:
            return
        alive = [worker for worker in self.workers if worker.alive]
        if alive:
            alive[self.up_to(len(alive) - 1)].wake(key)
        if self.wakes.get(key) == when:
            self._wake_at(key, when + LEASE)

    def call_operator(self, key: Key) -> None:
        """Something is parked: an operator will look, in their time."""
        self.seen["parked"] += 1
        self.operator.asked(key)

    # The network: loses, repeats, delays and so reorders.

    def ship(self, what: Callable[..., None], *args: Any) -> None:
        """Carry a Send or a Reply, the first of `args`: perhaps never, perhaps twice, perhaps seconds late."""
        options = self.options
        if self.chance(options.loss):
            self.seen["message lost"] += 1
            self.tell("the network", f"loses the {_kind(args[0])} of {named(args[0])}, {args[0].participant}")
            return
        self.after(self._delay(), what, *args)
        if self.chance(options.repeat):
            self.seen["message repeated"] += 1
            self.after(self._delay(), what, *args)

    def _delay(self) -> int:
        return self.up_to(SLOWEST) if self.chance(self.options.slow) else 1 + self.up_to(14)

    def dispatch(self, send: Send, worker: Worker) -> None:
        """An op leaves a worker."""
        if self.traced:
            self.tell(worker.name, f"sends {send.op} {named(send)} to {send.participant}")
        self.judge.sent(send.account_id, send.case_no, send.participant, send.op)
        self.ship(self._arrive, send, worker, worker.life)

    def _arrive(self, send: Send, worker: Worker, life: int) -> None:
        party, account = self.parties[send.participant], send.account_id
        if not party.up:
            return
        row = party.row(account)
        if send.op is not Op.TRY and self.chance(self.options.broken):
            applied = Applied(Answer.ERROR, "BROKEN", row)
        elif self.chance(self.options.pending):
            applied = Applied(Answer.PENDING, None, row)
        else:
            whim = "BUSINESS" if self.chance(self.options.whim) else None
            applied = party.take(account, send.case_no, send.op, send.version, whim)
            self.fenced[_place(row.fence, send.case_no), row.fence.case_op, send.op] += 1
        self.seen[f"answered {applied.answer}"] += 1
        after = applied.row
        if self.traced:
            self.tell(party.name, _told(send, applied, row))
        self.judge.answered(
            account,
            send.case_no,
            send.participant,
            send.op,
            applied.answer,
            ((row.fence.case_no, row.fence.case_op), (after.fence.case_no, after.fence.case_op)),
            (row.status, after.status),
            (row.version, bool(row.open_items)),
        )
        reply = Reply(account, send.case_no, party.name, send.op, applied.answer, applied.code, after.fence)
        self.ship(worker.hear, reply, life)


def _place(row: FenceRow, case_no: int) -> str:
    return "above" if row.case_no > case_no else "below" if row.case_no < case_no else "same"


def named(one: Case | Send | Reply) -> str:
    """The case that something is about, as the story names it."""
    return f"{one.account_id}/{one.case_no}"


def _kind(message: Send | Reply) -> str:
    return f"{message.op} {type(message).__name__.lower()}"


def _told(send: Send, applied: Applied, before: PartyRow) -> str:
    mark = applied.row.fence
    change = f", row {before.fence.case_no} {before.fence.case_op} → {mark.case_no} {mark.case_op}"
    return (
        f"answers {send.op} {named(send)}: {applied.answer}{' ' * bool(applied.code)}{applied.code or ''}"
        f"{change if before.fence != mark else ''}, {applied.row.status}, version {applied.row.version}"
    )
