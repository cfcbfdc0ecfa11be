"""Who acts on a simulated world from outside: persons, reviewers and operators."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from jiebang.model.case import LIVE, Case, Kind, State, transition
from jiebang.saga.coordinator import Event, Proven, Unparked, Woken

if TYPE_CHECKING:
    from sim.store import Key
    from sim.world import World

ACCEPTED, TOO_LATE = 202, 409
CROWDED = 300
"""Milliseconds between the moments at which crowds come."""
AT_ONCE = frozenset({State.OPEN, State.IN_REVIEW, State.READY})
"""States in which nothing has been sent to anybody."""
PARKED = frozenset("CX")


class Person:
    """One account's owner: submits, proves, sometimes withdraws, and comes again after an end."""

    def __init__(self, world: World, account: int) -> None:
        """Take an account."""
        self.world, self.account, self.left = world, account, world.options.cases

    def first(self) -> int:
        """In how many milliseconds they come for the first time."""
        return self._wait(self.world.up_to(800))

    def submit(self) -> None:
        """Open a case, unless one still runs; then try again later."""
        world = self.world
        if world.healed or not self.left:
            return
        if not world.store_up:
            world.after(500, self.submit)
            return
        plan = world.pack
        lifetime = timedelta(milliseconds=1500 + world.up_to(2500))
        case = world.store.create(self.account, plan, Kind.REVOKE, world.time(), world.time() + lifetime)
        world.after(self._wait(150 + world.up_to(900)), self.submit)
        if case is None:
            return
        self.left -= 1
        world.expose(case)
        world.tell(
            "the person",
            f"submits {case.account_id}/{case.case_no} by {plan.name}: {plan.participants}, waves {plan.waves}",
        )
        world.judge.submitted(*case.key, plan.participants, plan.waves)
        world.remind(case.key)
        if world.chance(world.options.review):
            world.after(world.up_to(200), self._review, case.key)
        elif not world.chance(world.options.never_proven):
            self._prove(case.key, self._wait(20 + world.up_to(300)))
        if world.chance(world.options.withdraw):
            world.after(world.up_to(3000 if world.up_to(1) else 600), self._withdraw, case.key)

    def _wait(self, wait: int) -> int:
        """Whoever goes with a crowd waits for its moment."""
        world = self.world
        return wait + -(world.now + wait) % CROWDED if world.chance(world.options.crowd) else wait

    def come_again(self) -> None:
        """After a recovery, everybody has one more thing to ask for."""
        self.left += 1
        self.world.after(150 + self.world.up_to(1500), self.submit)

    def _prove(self, key: Key, wait: int) -> None:
        self.world.after(wait, self._read_wallet, key)
        if self.world.chance(self.world.options.repeat):
            self.world.after(wait + self.world.up_to(20), self._read_wallet, key)

    def _read_wallet(self, key: Key) -> None:
        """The last proof: read the wallet's version, then accept it. Time passes in between."""
        world = self.world
        if not world.store_up or world.money.stopped:
            world.after(500, self._read_wallet, key)
            return
        if key not in world.store.cases:
            return
        version = world.wallet.row(self.account).version
        world.judge.proof_read(*key, version)
        world.after(world.up_to(15), self._accept, world.store.cases[key], Proven(version))

    def _accept(self, case: Case, event: Event) -> None:
        world = self.world
        if not world.store_up:
            self._prove(case.key, 500)
            return
        decision = world.parts.step(case, world.plan_of(case), event, world.time(), world.options.timing)
        if decision.case is case:
            return
        if world.keep(decision.case, late=False, who="the API") is None:
            held = world.store.cases.get(case.key)
            if held is not None and held.state in (State.OPEN, State.IN_REVIEW):
                self._prove(case.key, 10)
        elif world.chance(world.options.withdraw):
            world.after(world.up_to(120), self._withdraw, case.key)

    def _withdraw(self, key: Key) -> None:
        """Record the wish; what nobody has been sent for yet is often ended at once, in the same transaction."""
        world = self.world
        if key not in world.store.cases or not world.store_up:
            return
        world.seen[f"wish to withdraw in {world.store.cases[key].state}"] += 1
        held = world.store.withdraw(key, world.time())
        status = TOO_LATE if held is None else ACCEPTED
        world.seen[f"withdrawal answered {status}"] += 1
        world.tell("the person", f"withdraws {key[0]}/{key[1]}: {status}")
        world.judge.withdrawal_answered(*key, status)
        if held is None:
            return
        if held.state in AT_ONCE and world.up_to(1):
            decision = world.parts.step(held, world.plan_of(held), Woken(), world.time(), world.options.timing)
            world.keep(decision.case, late=False, who="the API")
        else:
            world.remind(key)

    def _review(self, key: Key) -> None:
        """A desk takes the case: refuses it outright, or reviews it and then lets it prove itself or rejects it."""
        world, case = self.world, self.world.store.cases.get(key)
        if case is None or case.state is not State.OPEN or case.withdraw_at is not None or not world.store_up:
            return
        if world.chance(1 / 6):
            world.keep(transition(case, State.REJECTED, due_at=None, reason="REVIEW"), late=False, who="the desk")
        elif world.keep(transition(case, State.IN_REVIEW, due_at=None), late=False, who="the desk") is not None:
            world.after(100 + world.up_to(3000), self.reviewed, key)

    def reviewed(self, key: Key) -> None:
        """The desk has looked at it: it may prove itself, or is rejected."""
        world, case = self.world, self.world.store.cases.get(key)
        if case is None or case.state is not State.IN_REVIEW:
            return
        if not world.store_up:
            world.after(500, self.reviewed, key)
        elif world.up_to(3):
            self._prove(key, 5)
        else:
            world.keep(transition(case, State.REJECTED, due_at=None, reason="REVIEW"), late=False, who="the desk")


class Operator:
    """Unparks what is parked, some time after being asked. Its zeal is what lets a healed world end."""

    def __init__(self, world: World) -> None:
        """Start with nothing to do."""
        self.world = world
        self.waiting: set[Key] = set()

    def asked(self, key: Key) -> None:
        """Remember to look at a case once."""
        if key not in self.waiting:
            self.waiting.add(key)
            self.world.after(50 + self.world.up_to(1500), self._look, key)

    def meddle(self) -> None:
        """Ask for a case to be tried again that nobody has asked about, whatever it is doing."""
        live = [key for key, case in self.world.store.cases.items() if case.state in LIVE]
        if live and self.world.store_up:
            self.world.seen["retried though nothing was parked"] += 1
            self._retry(live[self.world.up_to(len(live) - 1)])

    def _look(self, key: Key) -> None:
        self.waiting.discard(key)
        world, case = self.world, self.world.store.cases.get(key)
        if case is None or case.state not in (State.CONFIRMING, State.CANCELLING) or PARKED.isdisjoint(case.marks):
            return
        if not world.store_up:
            self.asked(key)
            return
        world.seen["unparked"] += 1
        self._retry(key)

    def _retry(self, key: Key) -> None:
        world, case = self.world, self.world.store.cases[key]
        if key in world.restores.theirs:
            return  # it is recovered again instead
        world.tell("the operator", f"has {key[0]}/{key[1]} tried again")
        decision = world.parts.step(case, world.plan_of(case), Unparked(), world.time(), world.options.timing)
        # What is to be sent is saved as sent and due: a worker sends it.
        if decision.case is not case and world.keep(decision.case, late=False, who="the operator") is None:
            self.asked(key)
