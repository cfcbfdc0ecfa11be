"""A worker of a simulated world: it steps, saves, then sends; it dies at any moment and remembers nothing after.

What it does is what the real worker's contract says: a decision is saved under the guard, its sends leave only if
the save returned, replies of a round are taken in together, and a failed save drops the sends and reloads. Between
deciding, saving and each single send time passes, in which other workers act and this one may die.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jiebang.model.case import Case, State
from jiebang.model.plan import WALLET
from jiebang.saga.coordinator import Decision, Event, Rechecked, Replied, Reply, Send, Unparked, Woken

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.store import Key
    from sim.world import World

PARKED = frozenset("CX")
SLOW_SAVE = 80
"""Milliseconds that a save takes when the store is slow, long enough for others to act in between."""


class Worker:
    """One worker. `life` counts its incarnations: what an earlier one had under way is dropped."""

    def __init__(self, world: World, name: str) -> None:
        """Start alive and knowing nothing."""
        self.world, self.name = world, name
        self.alive, self.life, self.stalled_until = True, 0, 0
        self.view: dict[Key, Case] = {}
        self.inbox: dict[Key, list[Reply]] = {}
        self.busy: set[Key] = set()

    def crash(self) -> None:
        """Lose everything that is not saved."""
        self.world.seen["worker died"] += self.alive
        self.alive, self.life = False, self.life + 1
        self.view.clear()
        self.inbox.clear()
        self.busy.clear()
        self.world.tell(self.name, "dies")

    def restart(self) -> None:
        """Come back, and go on from what was saved."""
        if not self.alive:
            self.alive = True
            self.world.tell(self.name, "is back")
            self.world.rescan()

    def stall(self, wait: int) -> None:
        """Stand still, then go on with what is in memory as if no time had passed."""
        if not self.world.healed:
            self.stalled_until = max(self.stalled_until, self.world.now + wait)
            self.world.seen["worker stalled"] += 1
            self.world.tell(self.name, f"stands still for {wait} ms")

    def _stands_still(self, what: Callable[..., None], *args: Any) -> bool:
        """Whether it stands still now; `what` then waits until it no longer does."""
        wait = self.stalled_until - self.world.now
        if wait > 0:
            self.world.after(wait, what, *args)
        return wait > 0

    def wake(self, key: Key) -> None:
        """A case of its buckets is due."""
        if key in self.busy or self.stalled_until > self.world.now:
            return
        case = self._load(key, may_be_stale=True)
        if case.state is State.READY and case.withdraw_at is None:
            self._recheck(case)
        else:
            self._decide(case, Woken())

    def unpark(self, key: Key) -> bool:
        """An operator asks for the parked ops of a case; False when it must ask again later."""
        if key in self.busy or self.stalled_until > self.world.now:
            return False
        self._decide(self._load(key, may_be_stale=False), Unparked())
        return True

    def hear(self, reply: Reply, life: int) -> None:
        """A reply comes in; the round that takes it closes a moment later."""
        if life != self.life or not self.alive:
            return
        key = (reply.account_id, reply.case_no)
        if not self.inbox:
            self.world.after(self.world.up_to(8), self._round, self.life)
        self.inbox.setdefault(key, []).append(reply)

    def _round(self, life: int) -> None:
        if life != self.life or self._stands_still(self._round, life):
            return
        heard, self.inbox = self.inbox, {}
        for key, replies in heard.items():
            if self.world.traced:
                told = ", ".join(f"{reply.participant} {reply.op} {reply.answer}" for reply in replies)
                self.world.tell(self.name, f"hears about {key[0]}/{key[1]}: {told}")
            if key in self.busy:
                self.world.after(self.world.up_to(5), self._again, tuple(replies), life)
            else:
                self._decide(self._load(key, may_be_stale=True), Replied(tuple(replies)))

    def _again(self, replies: tuple[Reply, ...], life: int) -> None:
        for reply in replies:
            self.hear(reply, life)

    def _load(self, key: Key, *, may_be_stale: bool) -> Case:
        world = self.world
        if may_be_stale and key in self.view and world.chance(world.options.stale):
            return self.view[key]
        case = self.view[key] = world.store.cases[key]
        return case

    def _recheck(self, case: Case) -> None:
        """Read all facts, each participant at its own moment, then decide."""
        self.busy.add(case.key)
        world, versions, blockers = self.world, dict[str, int | None](), list[str]()
        names = [name for name in world.plans[case.plan].participants if world.parties[name].has_facts]
        for name in names:
            world.after(world.up_to(6), self._read, case, name, versions, blockers)
        world.after(7, self._checked, case, versions, blockers, self.life)

    def _read(self, case: Case, name: str, versions: dict[str, int | None], blockers: list[str]) -> None:
        world = self.world
        party = world.parties[name]
        if not party.up or world.chance(world.options.unread):
            versions[name] = None
            return
        row = party.row(case.account_id)
        versions[name] = row.version
        if row.open_items:
            blockers.append("PAY-PENDING" if name == WALLET else "IN-THE-WAY")

    def _checked(self, case: Case, versions: dict[str, int | None], blockers: list[str], life: int) -> None:
        if life == self.life and not self._stands_still(self._checked, case, versions, blockers, life):
            self.busy.discard(case.key)
            self._decide(case, Rechecked(versions, tuple(blockers)))

    def _decide(self, case: Case, event: Event) -> None:
        world = self.world
        decision = world.parts.step(case, world.plans[case.plan], event, world.time(), world.options.timing)
        if decision.case is case:
            self.view.pop(case.key, None)
            world.remind(case.key)
            return
        self.busy.add(case.key)
        self.carry_out(decision, world.is_late(case))

    def carry_out(self, decision: Decision, late: bool) -> None:
        """Save, then send: the order that a planted mistake turns round."""
        slow = self.world.chance(self.world.options.slow)
        self.world.after(self.world.up_to(SLOW_SAVE if slow else 6), self.save, decision, late, self.life)

    def save(self, decision: Decision, late: bool, life: int) -> None:
        """Save under the guard; only what the guarded save returned is sent."""
        if life != self.life or self._stands_still(self.save, decision, late, life):
            return
        world, case = self.world, decision.case
        self.busy.discard(case.key)
        stored = world.keep(case, late, self.name)
        if stored is None:
            self.view.pop(case.key, None)
            world.remind(case.key)
            return
        self.view[case.key] = stored
        if decision.sends and world.chance(world.options.tear):
            world.after(world.up_to(3), self._die, life)
        for send in decision.sends:
            world.after(world.up_to(4), self.send, send, life)
        if not PARKED.isdisjoint(stored.marks):
            world.call_operator(case.key)

    def _die(self, life: int) -> None:
        if life == self.life:
            self.crash()
            self.world.after(self.world.up_to(600), self.restart)

    def send(self, send: Send, life: int) -> None:
        """Hand one op to the network, unless this incarnation is gone."""
        if life == self.life and not self._stands_still(self.send, send, life):
            self.world.dispatch(send, self)
