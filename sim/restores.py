"""Restores from backup of one database of a simulated world, and the `jiebang recover` that follows each.

What the operator does is what docs/operations.md asks for: no worker claims cases, nobody writes to the restored
database, what is under way has come in or is given up; then every participant is asked with `look`, account by account,
until recovery has nothing more to do. Recovery's decision is the product's (`saga/recovery.py`).

What recovery may not decide, people do, by evidence from outside: which plan a lost case followed (its papers say), and
that a case whose end was lost before anything was sent to anybody came to nothing. A Try that is done again for a
committed case finds nothing in its way: whatever is, they clear first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import ENDED, Case, Kind, State
from jiebang.saga.coordinator import Send
from jiebang.saga.fence import Op
from jiebang.saga.recovery import OUTCOME_LOST, Recovery, Restored, Seen, Why
from sim.network import LATEST_FINISH, SLOW_DISK, SLOWEST, Call
from sim.parties import Party
from sim.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.saga.coordinator import Reply
    from jiebang.saga.fence import FenceRow
    from sim.process import Steps
    from sim.worker import Worker
    from sim.world import World

PLATFORM = "platform"
GAP = 8
"""Numbers that a restored platform may have given and nobody saw."""
QUIET = SLOWEST + SLOW_DISK + LATEST_FINISH + 100
"""Milliseconds until nothing sent before the restore can still do anything."""


class Restores:
    """Takes the backups of a world, goes back to them, and recovers. One recovery at a time."""

    quiet = QUIET

    def __init__(self, world: World) -> None:
        """Plan the world's restores."""
        self.world = world
        self.life, self.stalled_until = 0, 0
        self.under_way, self.down = False, ""
        self.lost: dict[tuple[int, int], Case] = {}
        end = world.options.faults_end
        for _ in range(world.options.restores):
            names = (PLATFORM, *world.parties)
            name, taken = names[world.up_to(2 * len(names)) % len(names)], world.up_to(end - 1000)
            world.after(taken, self._backup, name, taken + 50 + world.up_to(end - taken - 100))

    def _backup(self, name: str, until: int) -> None:
        world = self.world
        if self.under_way:
            return
        backup = world.store.backup() if name == PLATFORM else world.parties[name].backup()
        shown = world.judge.backed_up(name)
        world.tell(name, "is backed up")
        world.after(until - world.now, self._fail, name, (backup, shown), world.seen["restored"])

    def _fail(self, name: str, backups: tuple[Any, Any], restores: int) -> None:
        """A database is lost and is brought back, unless one was since the backup: what recovery did stays done."""
        world = self.world
        if self.under_way or world.seen["restored"] != restores:
            return
        self.under_way = world.claims_stopped = True
        world.seen["restored"] += 1
        world.seen[f"restored {'the platform' if name == PLATFORM else 'a participant'}"] += 1
        world.tell(name, "is lost and will be brought back to its backup; no more cases are claimed")
        if name == PLATFORM:
            self.lost = dict(world.store.cases)
            world.store_up = False
        else:
            self.down = name
            world.parties[name].up = False
            if name == world.wallet.name:
                world.money.stopped = True
        Process(world, self, self._recover(name, backups))

    def _recover(self, name: str, backups: tuple[Any, Any]) -> Steps:
        """Stop, wait until nothing is under way, bring back, look everywhere and settle, then go on."""
        world = self.world
        yield self.quiet
        self._bring_back(name, *backups)
        left = list(world.accounts)
        while left:
            account = left.pop(0)
            if not (yield from self._settled(account, name)):
                left.append(account)  # it may wait for another: money between the two, whose wallet rows both went back
                yield 60 // len(left)
            elif world.chance(world.options.die):
                world.seen["recovery broken off and begun anew"] += 1
                left = list(world.accounts)
        self._go_on()

    def _bring_back(self, name: str, backup: Any, shown: Any) -> None:
        world = self.world
        for worker in world.workers:
            self.stop(worker)
        self.down = ""
        if name == PLATFORM:
            world.store.restore(backup)
        else:
            party = world.parties[name]
            party.restore(backup)
            party.up = True
            if party is world.wallet:
                world.money.resume()
        world.judge.restored(name, shown)
        world.tell(name, "is brought back")

    def _go_on(self) -> None:
        world = self.world
        world.tell("the operator", "has recovered; cases are claimed again")
        world.claims_stopped = self.under_way = False
        world.store_up = True
        for worker in world.workers:
            worker.restart()
            worker.look_soon()
        world.rescan()
        for person in world.people.values():
            person.come_again()
        for key, case in world.store.cases.items():
            if case.state is State.IN_REVIEW:
                world.after(100 + world.up_to(1000), world.people[key[0]].reviewed, key)

    def stop(self, worker: Worker) -> None:
        """Workers begin anew: an answer of before the restore may be about what the restore has undone."""
        worker.crash()

    def _settled(self, account: int, name: str) -> Steps:
        """Recover one account as far as it goes now; return whether nothing is left to do."""
        world = self.world
        cases = tuple(case for key, case in world.store.cases.items() if key[0] == account)
        yield world.up_to(3)
        if not all(party.up for party in world.parties.values()):
            return False
        rows = self.rows(account)
        seen = Seen(account_id=account, last_case_no=world.store.numbers.get(account, 0), cases=cases, rows=rows)
        decided = world.parts.recovered(seen, self._restored(account, name, ()), world.time())
        if any(one.why is Why.PLAN_LOST for one in decided.undecided):
            world.seen["plan of a lost case found in its papers"] += 1
            lost = [one.case_no for one in decided.undecided if one.why is Why.PLAN_LOST]
            plans = [
                world.plan_of(self.lost[account, number]).name for number in lost if (account, number) in self.lost
            ]
            decided = world.parts.recovered(seen, self._restored(account, name, plans), world.time())
        yield world.up_to(3)
        if decided.sends:
            yield from self._send(decided.sends)
            return False
        settled = self._save(decided)
        return self._decided_by_people(decided) and settled

    def rows(self, account: int) -> Mapping[str, FenceRow]:
        """What every participant answers to `look`."""
        return {name: party.row(account).fence for name, party in self.world.parties.items() if account in party.rows}

    def _restored(self, account: int, name: str, papers: Sequence[str]) -> Restored:
        del account
        plans = [plan for plan in self.world.plans.values() if not papers or plan.name in papers]
        return Restored(
            plan_of=self.world.plan_of,
            plans=[(Kind.REVOKE, plan) for plan in plans],
            databases=(name,),
            gap=GAP if name == PLATFORM else 0,
        )

    def _send(self, sends: Sequence[Send]) -> Steps:
        """Send what recovery sends itself, and wait for it to have come in, or to be lost."""
        world = self.world

        def heard(replies: tuple[Reply, ...] | None) -> None:
            del replies  # it looks again instead

        for send in sends:
            party = world.parties[send.participant]
            if send.op is Op.TRY and party.row(send.account_id).open_items:
                self._clear(party, send.account_id)
                continue
            world.seen[f"recovery sent {send.op}"] += 1
            if world.traced:
                told = f"recovers: {send.op} {send.account_id}/{send.case_no} to {send.participant}"
                world.tell("the operator", told)
            world.judge.resent(send.account_id, send.case_no, send.participant, send.op)
            world.network.carry(Call(send.participant, send.op, (send,), heard, recovering=True))
        yield 40

    def _clear(self, party: Party, account: int) -> None:
        """People clear what stands in the way of a Try that is done again; transfers complete by themselves."""
        if party is not self.world.wallet:
            party.change(account, 0)

    def _save(self, decided: Recovery) -> bool:
        """Save what was decided under the revision, and raise the number; return whether every save succeeded."""
        world, store = self.world, self.world.store
        store.numbers[decided.account_id] = max(store.numbers.get(decided.account_id, 0), decided.last_case_no)
        every = True
        for case in (*decided.changed, *decided.made):
            held = store.cases.get(case.key)
            if (held is None) != (case.revision == 1) or (held is not None and not store.admits(held, case)):
                every = False
                continue
            wished = case.withdraw_at if held is None else held.withdraw_at
            store.cases[case.key] = msgspec.structs.replace(case, withdraw_at=wished)
            world.seen["recovery saved a case" if held else "recovery made a lost case again"] += 1
            world.tell("the operator", f"recovers: {case.account_id}/{case.case_no} is {case.state} {case.marks}")
            names, lost = world.plan_of(case).participants, case.reason == OUTCOME_LOST
            world.judge.recovered(*case.key, names, case.state, case.marks, outcome_lost=lost)
        return every

    def _decided_by_people(self, decided: Recovery) -> bool:
        """Close by hand what came to nothing and whose end was lost; return whether nothing is left open."""
        world, left = self.world, True
        for one in decided.undecided:
            key = (one.account_id, one.case_no)
            held = world.store.cases.get(key)
            if one.why is Why.OUTCOME_LOST and held is not None and held.state not in ENDED:
                world.seen["people closed a case whose end was lost"] += 1
                closed = msgspec.structs.replace(
                    held, state=State.REJECTED, revision=held.revision + 1, due_at=None, reason=OUTCOME_LOST
                )
                world.store.cases[key] = closed
                world.judge.recovered(
                    *key, world.plan_of(held).participants, closed.state, closed.marks, outcome_lost=True
                )
            world.seen[f"undecided: {one.why}"] += 1
            left = False
        return left
