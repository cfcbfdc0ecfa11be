"""Who acts on a simulated world from outside: persons, reviewers, operators, and the money that moves meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from jiebang.model.case import Case, Kind, State, moved
from jiebang.saga.coordinator import Event, Proven

if TYPE_CHECKING:
    from sim.store import Key
    from sim.world import World

ACCEPTED, TOO_LATE = 202, 409


class Person:
    """One account's owner: submits, proves, sometimes withdraws, and comes again after an end."""

    def __init__(self, world: World, account: int) -> None:
        """Take an account."""
        self.world, self.account, self.left = world, account, world.options.cases

    def submit(self) -> None:
        """Open a case, unless one still runs; then try again later."""
        world = self.world
        if world.healed or not self.left:
            return
        plan = world.options.plans[world.up_to(len(world.options.plans) - 1)]
        lifetime = timedelta(milliseconds=1500 + world.up_to(2500))
        case = world.store.create(self.account, plan, Kind.REVOKE, world.time(), world.time() + lifetime)
        world.after(150 + world.up_to(900), self.submit)
        if case is None:
            return
        self.left -= 1
        world.tell(
            "the person",
            f"submits {case.account_id}/{case.case_no} by {plan.name}: {plan.participants}, waves {plan.waves}",
        )
        world.judge.submitted(*case.key, plan.participants, plan.waves)
        world.remind(case.key)
        if world.chance(world.options.review):
            world.after(world.up_to(200), self._review, case.key)
        elif not world.chance(world.options.never_proven):
            self._prove(case.key, 20 + world.up_to(300))
        if world.chance(world.options.withdraw):
            world.after(world.up_to(1200), self._withdraw, case.key)

    def _prove(self, key: Key, wait: int) -> None:
        self.world.after(wait, self._read_wallet, key)
        if self.world.chance(self.world.options.repeat):
            self.world.after(wait + self.world.up_to(20), self._read_wallet, key)

    def _read_wallet(self, key: Key) -> None:
        """The last proof: read the wallet's version, then accept it. Time passes in between."""
        world = self.world
        version = world.wallet.row(self.account).version
        world.judge.proof_read(*key, version)
        world.after(world.up_to(15), self._accept, world.store.cases[key], Proven(version))

    def _accept(self, case: Case, event: Event) -> None:
        world = self.world
        decision = world.parts.step(case, world.plans[case.plan], event, world.time(), world.options.timing)
        if decision.case is case:
            return
        if world.keep(decision.case, late=False, who="the API") is None:
            if world.store.cases[case.key].state in (State.OPEN, State.IN_REVIEW):
                self._prove(case.key, 10)
        elif world.chance(world.options.withdraw):
            world.after(world.up_to(120), self._withdraw, case.key)

    def _withdraw(self, key: Key) -> None:
        world = self.world
        status = TOO_LATE if world.store.withdraw(key, world.time()) is None else ACCEPTED
        world.tell("the person", f"withdraws {key[0]}/{key[1]}: {status}")
        world.judge.withdrawal_answered(*key, status)
        if status == ACCEPTED:
            world.remind(key)

    def _review(self, key: Key) -> None:
        """A desk takes the case: refuses it outright, or reviews it and then lets it prove itself or rejects it."""
        world, case = self.world, self.world.store.cases[key]
        if case.state is not State.OPEN or case.withdraw_at is not None:
            return
        if world.chance(1 / 6):
            world.keep(moved(case, State.REJECTED, due_at=None, reason="REVIEW"), late=False, who="the desk")
        elif world.keep(moved(case, State.IN_REVIEW, due_at=None), late=False, who="the desk") is not None:
            world.after(100 + world.up_to(3000), self._reviewed, key)

    def _reviewed(self, key: Key) -> None:
        world, case = self.world, self.world.store.cases[key]
        if case.state is not State.IN_REVIEW:
            return
        if world.up_to(3):
            self._prove(key, 5)
        else:
            world.keep(moved(case, State.REJECTED, due_at=None, reason="REVIEW"), late=False, who="the desk")


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

    def _look(self, key: Key) -> None:
        self.waiting.discard(key)
        world, case = self.world, self.world.store.cases[key]
        if case.state not in (State.CONFIRMING, State.CANCELLING) or not {"C", "X"} & set(case.marks):
            return
        alive = [worker for worker in world.workers if worker.alive]
        world.tell("the operator", f"unparks {key[0]}/{key[1]}")
        if not alive or not alive[0].unpark(key) or {"C", "X"} & set(world.store.cases[key].marks):
            self.asked(key)


class Money:
    """Transfers between the accounts, as the design has them: a pending entry at both, then completion.

    Every write is one wallet row at its own moment. An account that a case holds answers "busy" and is asked again;
    credits to a closed account go back to their sender; a transfer that began always completes.
    """

    def __init__(self, world: World, accounts: range) -> None:
        """Move money among `accounts`."""
        self.world, self.accounts = world, accounts

    def start(self, transfer: int) -> None:
        """Begin a transfer, or with one account a movement within it: an entry opened and closed again."""
        world = self.world
        sender = self.accounts[world.up_to(len(self.accounts) - 1)]
        others = [account for account in self.accounts if account != sender] or [sender]
        receiver = others[world.up_to(len(others) - 1)]
        self._open(transfer, sender, receiver, min(1 + world.up_to(400), world.wallet.balances[sender]), 3)

    def _open(self, transfer: int, sender: int, receiver: int, amount: int, tries: int) -> None:
        world = self.world
        if world.wallet.busy(sender):
            world.seen["movement answered busy"] += 1
            world.tell("the wallet", f"answers transfer {transfer} of account {sender}: busy")
            if tries:
                world.after(1 + world.up_to(60), self._open, transfer, sender, receiver, amount, tries - 1)
        elif amount <= world.wallet.balances[sender] and not world.wallet.closed(sender):
            self._write(transfer, sender, -amount, 1)
            world.after(world.up_to(40), self._reserve, transfer, sender, receiver, amount)

    def _reserve(self, transfer: int, sender: int, receiver: int, amount: int) -> None:
        world = self.world
        if receiver == sender or world.wallet.closed(receiver):
            world.after(world.up_to(40), self._write, transfer, sender, amount, -1)
        elif world.wallet.busy(receiver):
            world.seen["movement answered busy"] += 1
            world.after(1 + world.up_to(60), self._reserve, transfer, sender, receiver, amount)
        else:
            self._write(transfer, receiver, 0, 1)
            world.after(world.up_to(40), self._write, transfer, receiver, amount, -1)
            world.after(world.up_to(60), self._write, transfer, sender, 0, -1)

    def _write(self, transfer: int, account: int, amount: int, entries: int) -> None:
        world = self.world
        versions = world.wallet.write(account, amount, entries)
        world.tell("the wallet", f"writes transfer {transfer} at account {account}: {amount} fen, {entries:+d} entry")
        world.judge.moved(account, transfer, amount, world.wallet.balances[account], versions)
