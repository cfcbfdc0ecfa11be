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

from jiebang.model.case import LIVE, Case, State, bucket_of
from jiebang.saga import coordinator, recovery
from jiebang.saga.fence import fence
from sim.auditor import Auditor, ViolationError
from sim.batch import WorldBatch
from sim.driver import Driver
from sim.money import Money
from sim.network import Network
from sim.options import PARTIES, WITHOUT_FACTS, Options, draw
from sim.parties import Party, Wallet
from sim.people import PARKED, Operator, Person
from sim.restores import Restores
from sim.store import Store
from sim.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiebang.model.plan import Plan
    from sim.process import Process
    from sim.store import Key

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MS = timedelta(milliseconds=1)
HEALING = 60_000
"""Simulated milliseconds after the last fault within which every case must have ended."""
MENDED = 25_000
"""Simulated milliseconds after the last fault when poisoned cases are mended; all others must have ended by then."""
AGAIN = 300
"""Simulated milliseconds until a due case is looked at again, by the worker that then holds its bucket."""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The replaceable parts of a world; each planted mistake replaces one."""

    step: Callable[..., coordinator.Decision] = coordinator.step
    fence: Callable[..., Any] = fence
    recovered: Callable[..., recovery.Recovery] = recovery.decide_recovery
    store: type[Store] = Store
    worker: type[Worker] = Worker
    driver: type[Driver] = Driver
    batch: type[WorldBatch] = WorldBatch
    party: type[Party] = Party
    wallet: type[Wallet] = Wallet
    restores: type[Restores] = Restores


class World:
    """One seed's world."""

    witnessed = True
    """Whether every batch has a witness (`sim.witness`) beside the auditor, who sees the world from outside."""

    def __init__(
        self, seed: int, parts: Parts | None = None, judge: Auditor | None = None, options: Options | None = None
    ) -> None:
        """Draw the world of `seed`, or of `options`. `judge` may be an auditor that also tells what it sees."""
        self.random = Random(seed)
        drawn = draw(self.random)
        self.options = options or drawn
        self.parts = parts or Parts()
        self.judge = judge or Auditor()
        self.now, self.events, self.healed = 0, 0, False
        self.store_up, self.claims_stopped = True, False
        self.running: Process | None = None
        self.queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.plans = {plan.name: plan for plan in self.options.plans}
        self.pack = self.options.plans[0]
        self.store = self.parts.store()
        self.wallet = self.parts.wallet(self.parts.fence)
        self.parties: dict[str, Party] = {
            name: self.parts.party(name, self.parts.fence, name not in WITHOUT_FACTS) for name in PARTIES
        }
        self.parties[self.wallet.name] = self.wallet
        self.network = Network(self)
        self.operator = Operator(self)
        self.wakes: dict[Key, int] = {}
        self.poison: dict[Key, str] = {}
        self.fenced: Counter[tuple[str, str, str]] = Counter()
        self.letters: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[str] = Counter()
        self.group_moves: Counter[str] = Counter()
        self.workers = [self.parts.worker(self, f"worker {number + 1}") for number in range(self.options.workers)]
        self._people()
        self._faults()
        self.restores = self.parts.restores(self)

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

    def over(self) -> bool:
        """Whether nothing is left to do: the world has healed and every case has ended."""
        return self.healed and not self.restores.under_way and not any(self.store.live(one) for one in self.accounts)

    def plan_of(self, case: Case) -> Plan:
        """The plan that a case follows: its own, whatever new cases follow by now."""
        return self.plans[case.plan]

    def _people(self) -> None:
        self.accounts = range(1, self.options.accounts + 1)
        self.people = {account: Person(self, account) for account in self.accounts}
        for account, person in self.people.items():
            self.wallet.balances[account] = 1000
            self.judge.opened(account, 1000)
            self.after(person.first(), person.submit)
        self.money = Money(self, self.accounts)
        for transfer in range(1, self.options.transfers + 1):
            self.after(self.up_to(self.options.faults_end), self.money.start, transfer)

    def _faults(self) -> None:
        options = self.options
        self._worker_faults()
        self._party_faults()
        for _ in range(options.pack_changes if len(options.plans) > 1 else 0):
            self.after(self.up_to(options.faults_end), self._change_pack)
        for _ in range(options.retries):
            self.after(self.up_to(options.faults_end), self.operator.meddle)
        self.after(options.faults_end, self._heal)

    def _worker_faults(self) -> None:
        options = self.options
        for worker in self.workers:
            for _ in range(options.crashes):
                when = self.up_to(options.faults_end)
                self.after(when, worker.crash)
                self.after(when + 1 + self.up_to(1500), worker.restart)
            for _ in range(options.leaves):
                self.after(self.up_to(options.faults_end), worker.leave)
            for _ in range(options.stalls):
                self.after(self.up_to(options.faults_end), worker.stall, self.up_to(2500))

    def _party_faults(self) -> None:
        options = self.options
        for party in self.parties.values():
            for _ in range(options.outages):
                when = self.up_to(options.faults_end)
                self.after(when, self._set_up, party, False)
                self.after(when + 1 + self.up_to(2500), self._set_up, party, True)
            for _ in range(options.restarts):
                self.after(self.up_to(options.faults_end), self._restart, party)
            for _ in range(options.fact_changes if party.has_facts and party is not self.wallet else 0):
                self.after(self.up_to(options.faults_end), self._change_fact, party)

    def _set_up(self, party: Party, up: bool) -> None:
        self.seen["participant silent"] += not up and party.up
        party.up = (up or self.healed) and party.name not in self.restores.down
        self.tell(party.name, "answers again" if party.up else "falls silent")

    def _restart(self, party: Party) -> None:
        self.seen["participant restarted"] += 1
        party.restart()
        self.tell(party.name, "restarts: what it had in memory is gone")

    def _change_fact(self, party: Party) -> None:
        account = 1 + self.up_to(self.options.accounts - 1)
        party.change(account, self.up_to(2) // 2)
        self.tell(party.name, f"has a fact of account {account} change: {party.row(account)}")

    def _change_pack(self) -> None:
        self.pack = self.options.plans[self.up_to(len(self.options.plans) - 1)]
        if any(case.state in LIVE and case.plan != self.pack.name for case in self.store.cases.values()):
            self.seen["pack changed under live cases"] += 1
        self.tell("compliance", f"has new cases follow {self.pack.name}")

    def _heal(self) -> None:
        self.healed = True
        self.after(MENDED, self._mend)
        self.tell("the world", "heals: no more faults from here")
        for party in self.parties.values():
            party.up = party.name not in self.restores.down
        for worker in self.workers:
            worker.restart()
        self.rescan()

    def expose(self, case: Case) -> None:
        """A case is new: perhaps it is one that makes its whole batch fail, at some place."""
        if self.chance(self.options.poison):
            places = ("save", "step", *self.plan_of(case).participants)
            self.poison[case.key] = places[self.up_to(len(places) - 1)]
            self.tell("the world", f"{named(case)} is poison at {self.poison[case.key]}")

    def poisoned(self, key: Key, place: str) -> bool:
        """Whether the case makes its batch fail at this place."""
        return self.poison.get(key) == place

    def _mend(self) -> None:
        """Check that poisoned cases delayed no others; then end the poisoning, so that they must end too."""
        for key, case in self.store.cases.items():
            if case.state in LIVE and not any(key[0] == other[0] for other in self.poison):
                message = (
                    f"case {key[0]}/{key[1]}: still {case.state} {case.marks}, held up though nothing is wrong with it"
                )
                raise ViolationError(message)
        self.poison.clear()

    # Saving, and being reminded of what is due.

    def keep(self, case: Case, late: bool, who: str) -> Case | None:
        """Save a decision under the guard, tell the judge, and be reminded when it is due."""
        stored = self.store.save(case) if self.store_up else None
        if stored is None:
            held = self.store.cases.get(case.key)
            wished = held is not None and held.withdraw_at is not None and case.state is State.CONFIRMING
            self.seen["commit lost to a withdrawal" if wished else "save lost to another's"] += 1
            self.tell(
                who, f"may not save {named(case)} as {case.state}: {'withdrawn' if wished else 'it has moved on'}"
            )
            self.remind(case.key)
            return None
        if self.traced:
            self.tell(
                who, f"saves {named(case)} {case.state} {case.marks} revision {case.revision} {case.reason or ''}"
            )
        for mark in case.marks:
            self.letters[case.state, mark] += 1
        self.judge.saved(*case.key, case.state, case.marks, case.versions, case.wallet_version, late)
        self.remind(case.key)
        if not PARKED.isdisjoint(stored.marks):
            self.call_operator(case.key)
        return stored

    def remind(self, key: Key) -> None:
        """Have a worker look at the case when it is due, if it ever is."""
        held = self.store.cases.get(key)
        if held is None or held.due_at is None:
            self.wakes.pop(key, None)
        else:
            self._wake_at(key, max(self.now + 5, (held.due_at - EPOCH) // MS))

    def rescan(self) -> None:
        """Whatever is live is looked at again when it is due."""
        self.wakes.clear()
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
        held = self.store.cases.get(key)
        if self.wakes.get(key) != when or held is None or held.due_at is None:
            return
        bucket, holders = bucket_of(key[0]), 0
        for worker in self.workers:
            if worker.holds(bucket):
                holders += 1
                worker.look_soon()
        self.seen["bucket held twice"] += holders > 1
        self._wake_at(key, when + AGAIN)

    def call_operator(self, key: Key) -> None:
        """Something is parked: an operator will look, in their time."""
        self.seen["parked"] += 1
        self.operator.asked(key)


def named(one: Case) -> str:
    """The case, as the story names it."""
    return f"{one.account_id}/{one.case_no}"
