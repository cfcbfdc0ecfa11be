"""A worker of a simulated world: it leases buckets, drives their due cases in batches, and dies at any moment.

It paces itself as `jiebang.worker` does; batches are driven by `saga.driver`, run by `sim.driver`. Its clock is wrong,
so that two workers may hold one bucket at a time; only the guard of the save then keeps them apart.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jiebang.saga.batch import split_replies
from sim.driver import OpenCall, OpenRound, TornError, keys_of
from sim.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from jiebang.model.case import Case
    from jiebang.saga.coordinator import Reply
    from sim.process import Steps
    from sim.store import Key
    from sim.world import World

BATCH = 16
LANES = 2
MS = timedelta(milliseconds=1)


class Worker:
    """One worker. `life` counts its incarnations: what an earlier one had under way is dropped."""

    def __init__(self, world: World, name: str) -> None:
        """Start alive, knowing nothing, with a clock that is wrong by up to the world's skew."""
        self.world, self.name = world, name
        self.alive, self.life, self.stalled_until = True, 0, 0
        self.skew = (2 * world.up_to(world.options.skew) - world.options.skew) * MS
        self.driver = world.parts.driver(self)
        self._forget()
        world.after(world.up_to(50), self._keep_leases, self.life)

    def _forget(self) -> None:
        self.held: frozenset[int] = frozenset()
        self.until: datetime | None = None
        self.late: list[Reply] = []
        self.rounds: list[OpenRound] = []
        self.busy: set[Key] = set()
        self.lanes, self.looking, self.leaving = 0, False, False

    def clock(self) -> datetime:
        """What it takes for the time."""
        return self.world.time() + self.skew

    # Life and death.

    def crash(self) -> None:
        """Lose everything that is not saved."""
        self.world.seen["worker died"] += self.alive
        self.alive, self.life = False, self.life + 1
        self._forget()
        self.world.tell(self.name, "dies")

    def die(self, life: int) -> None:
        """Die between a save and its sends, and come back soon."""
        if life == self.life and self.alive:
            self.crash()
            self.world.after(self.world.up_to(600), self.restart)

    def leave(self) -> None:
        """Stop in good order: finish the batches at hand, then give the buckets back."""
        if self.alive and not self.world.healed:
            self.world.seen["worker left"] += 1
            self.leaving = True
            self._left(self.life)

    def give_back(self) -> None:
        """Leave no lease behind."""
        self.world.store.release(self._id())

    def _left(self, life: int) -> None:
        if life != self.life:
            return
        if self.lanes:
            self.world.after(20, self._left, life)
            return
        self.world.tell(self.name, "has finished and gives its buckets back")
        self.give_back()
        self.alive, self.life = False, self.life + 1
        self._forget()
        self.world.after(200 + self.world.up_to(1500), self.restart)

    def restart(self) -> None:
        """Come back, and go on from what was saved."""
        if not self.alive:
            self.alive = True
            self.world.tell(self.name, "is back")
            self._keep_leases(self.life)

    def stall(self, wait: int) -> None:
        """Stand still, then go on with what is in memory as if no time had passed."""
        if not self.world.healed:
            self.stalled_until = max(self.stalled_until, self.world.now + wait)
            self.world.seen["worker stalled"] += 1
            self.world.tell(self.name, f"stands still for {wait} ms")

    def stands_still(self, what: Callable[..., None], *args: object) -> bool:
        """Whether it stands still now; `what` then waits until it no longer does."""
        wait = self.stalled_until - self.world.now
        if wait > 0:
            self.world.after(wait, what, *args)
        return wait > 0

    # Leases.

    def _id(self) -> str:
        return f"{self.name}.{self.life}"

    def _keep_leases(self, life: int) -> None:
        world = self.world
        if life != self.life or not self.alive or world.over() or self.stands_still(self._keep_leases, life):
            return
        lease = world.options.lease * MS
        if world.store_up and not self.leaving and not world.chance(world.options.unrenewed):
            now = self.clock()
            self.held = world.store.hold(self._id(), now, lease)
            self.until = now + lease
            self.look_soon()
        else:
            world.seen["lease not renewed"] += 1
        world.after(world.options.lease // 3, self._keep_leases, life)

    def holds(self, bucket: int) -> bool:
        """Whether it takes the bucket for its own; another may do so too."""
        return self.alive and not self.leaving and self._lease_runs() and bucket in self.held

    def _lease_runs(self) -> bool:
        return self.until is not None and self.clock() < self.until

    # Lanes.

    def look_soon(self) -> None:
        """Something may be due, or has been heard: look for it in a moment."""
        if self.alive and not self.looking:
            self.looking = True
            self.world.after(self.world.up_to(8), self._look, self.life)

    def _look(self, life: int) -> None:
        """Start one batch, if there is anything to drive."""
        if life != self.life or self.stands_still(self._look, life):
            return
        self.looking = False
        world = self.world
        if self.lanes >= LANES or world.claims_stopped or not world.store_up:
            return
        heard = {key for key in keys_of(self.late) if key not in self.busy}
        late = self.take_late(heard)
        found = world.store.due(self.held, self.clock()) if self._lease_runs() and not self.leaving else []
        taken = [case for case in found if case.key not in self.busy][:BATCH]
        keys = heard | {case.key for case in taken}
        if keys:
            self.busy |= keys
            self.lanes += 1
            Process(world, self, self._lane(taken, late, keys))

    def _lane(self, taken: Sequence[Case], late: Sequence[Reply], keys: set[Key]) -> Steps:
        try:
            yield from self.driver.drive(taken, late)
        except TornError:
            # Nothing unsaved was sent; what is saved is due again.
            yield 10
        self.busy -= keys
        self.lanes -= 1
        self.look_soon()

    # Replies.

    def hear(self, one: OpenRound, call: OpenCall) -> None:
        """A call is answered: its round hears it while open; else its replies are late, which any batch may take."""
        if self.world.traced:
            for answers in call.answers:
                self._tell(answers.one_by_one())
        if one not in self.rounds:
            self.hear_late([reply for answers in call.answers for reply in answers.one_by_one()])
        elif all(not each.parts for each in one.calls):
            one.waiting.wake()

    def hear_late(self, replies: Sequence[Reply]) -> None:
        """Replies come that no open round waits for."""
        self.world.seen["late replies"] += len(replies)
        self.late.extend(replies)
        keys = set(keys_of(replies))
        for other in self.rounds:
            if not keys.isdisjoint(other.keys):
                other.waiting.wake()
        self.look_soon()

    def take_late(self, keys: Collection[Key]) -> list[Reply]:
        """Take the late replies to these cases."""
        taken, self.late = split_replies(self.late, keys)
        return taken

    def _tell(self, replies: Sequence[Reply]) -> None:
        told = ", ".join(f"{one.account_id}/{one.case_no} {one.participant} {one.op} {one.answer}" for one in replies)
        self.world.tell(self.name, f"hears {told}")
