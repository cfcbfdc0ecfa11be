"""Restores from backup of a simulated world, of several databases at once too, and the `jiebang recover` after each.

Databases that are lost together go back to different moments. What the operator does is what docs/operations.md asks
for: no worker claims cases, nobody writes to the restored databases, what is under way has come in or is given up; then
every participant is asked with `look`, account by account, until recovery has nothing more to do. Recovery's decision
is the product's (`saga/recovery.py`).

What recovery may not decide, people do, by evidence from outside: which plan a lost case followed (its papers say), and
how a case ended whose end was lost (the person knows; the judge remembers). What stands in a Try's way for good they
clear, and recover again; transfers complete by themselves, and recovery waits for them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import Case, Kind, State
from jiebang.saga.coordinator import Send
from jiebang.saga.fence import Answer, Op
from jiebang.saga.recovery import OUTCOME_LOST, Recovery, Restored, Seen, Why
from sim.network import LATEST_FINISH, SLOW_DISK, SLOWEST, Call
from sim.parties import MOVING
from sim.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.saga.coordinator import Reply
    from jiebang.saga.fence import FenceRow
    from sim.process import Steps
    from sim.worker import Worker
    from sim.world import World

PLATFORM = "platform"
MOST = 3
"""So many databases are lost at once, at most."""
PATIENCE = timedelta(milliseconds=1_500)
MS = timedelta(milliseconds=1)
REST = 2_500
"""Milliseconds that people let the workers end cases before they recover again, while money moves at the wallet."""
ENOUGH = 5
"""After so many failures people look at who fails."""
GAP = 8
"""Numbers that a restored platform may have given and nobody saw."""
QUIET = SLOWEST + SLOW_DISK + LATEST_FINISH + 100
"""Milliseconds until nothing sent before the restore can still do anything."""


Loss = dict[str, tuple[Any, Any, int]]
"""What is lost at once: by database its backup, what the judge remembers of it, and how many restores there were."""


class Restores:
    """Takes the backups of a world, goes back to them, and recovers. One recovery at a time."""

    quiet = QUIET

    def __init__(self, world: World) -> None:
        """Plan the world's restores."""
        self.world = world
        self.in_vain, self.transfers = 0, world.options.transfers
        self.life, self.stalled_until = 0, 0
        self.under_way, self.once_more, self.down = False, False, frozenset[str]()
        self.lost: dict[tuple[int, int], Case] = {}
        self.theirs = set[tuple[int, int]]()
        """Cases left to people, whom recovering again helps, and retrying does not."""
        self.before = frozenset[tuple[int, int]]()
        self.outcomes = dict[tuple[int, int], bool]()
        """How cases ended whose end was lost, as people found out and tell each recovery from then on."""
        self.papers = dict[tuple[int, int], str]()
        """What lost cases were, the same way."""
        self.refusals: dict[int, dict[str, str]] = {}
        end = world.options.faults_end
        for _ in range(world.options.restores):
            fails, loss = 1050 + world.up_to(end - 1150), Loss()
            for name in self._names():
                world.after(world.up_to(fails - 50), self._backup, name, loss)
            world.after(fails, self._fail, loss)

    def _names(self) -> list[str]:
        """What is lost at once: often one database, half of the time the platform's or the wallet's, or with others."""
        world = self.world
        names = [PLATFORM, *world.parties]
        lost = [[*names, *(PLATFORM, world.wallet.name) * 3][world.up_to(len(names) + 5)]]
        while len(lost) < MOST and not world.up_to(1):
            left = [name for name in names if name not in lost]
            lost.append(left[world.up_to(len(left) - 1)])
        return lost

    def _backup(self, name: str, loss: Loss) -> None:
        """Take a backup; of the wallet while money moves, which is the moment that is hard to come back to."""
        world = self.world
        if self.under_way:
            return
        if name == world.wallet.name and world.options.transfers:
            for _ in world.accounts:
                self.transfers += 1
                world.money.start(self.transfers)
        backup = world.store.backup() if name == PLATFORM else world.parties[name].backup()
        loss[name] = (backup, world.judge.backed_up(name), world.seen["restored"])
        world.tell(name, "is backed up")

    def _fail(self, loss: Loss) -> None:
        """Databases are lost and brought back, unless restored since the backup: what recovery did stays done."""
        world = self.world
        loss = {name: backup for name, backup in loss.items() if backup[2] == world.seen["restored"]}
        if self.under_way or not loss:
            return
        self.under_way = world.claims_stopped = True
        world.seen["restored"] += 1
        world.seen[f"restored {len(loss)} at once"] += len(loss) > 1
        world.tell(", ".join(loss), "lost and to be brought back to a backup; no more cases are claimed")
        self.down = frozenset(loss) - {PLATFORM}
        for name in loss:
            world.seen[f"restored {'the platform' if name == PLATFORM else 'a participant'}"] += 1
            if name == PLATFORM:
                self.lost |= world.store.cases
                world.store_up = False
            else:
                world.parties[name].up = False
            if name == world.wallet.name:
                world.money.stopped = True
        Process(world, self, self._recover(loss))

    def _recover(self, loss: Loss) -> Steps:
        """Stop, wait until nothing is under way, bring back, look everywhere and settle, then go on."""
        yield self.quiet
        self._bring_back(loss)
        yield from self._settle(tuple(loss))

    def _again(self, names: tuple[str, ...], rest: int = REST) -> None:
        """People have cleared what stood in the way, and recover once more.

        Money that moves they cannot clear: a transfer may wait for a case at its other account, which only workers end.
        """
        world = self.world
        if self.under_way:
            world.after(500, self._again, names)
            return
        if rest > 0 and any(world.wallet.refusal(account) for account, _ in self.theirs):
            world.after(500, self._again, names, rest - 500)
            return
        self.under_way = world.claims_stopped = self.once_more = True
        world.seen["recovered once more"] += 1
        world.tell("the operator", "has cleared what was in the way, and recovers once more")
        for account, _ in self.theirs:
            for party in world.parties.values():
                if party.refusal(account) and party is not world.wallet:
                    party.change(account, 0)
        Process(world, self, self._once_more(names))

    def _once_more(self, names: tuple[str, ...]) -> Steps:
        yield self.quiet
        for worker in self.world.workers:
            self.stop(worker)
        yield from self._settle(names)

    def _settle(self, names: tuple[str, ...]) -> Steps:
        world = self.world
        left, since = list(world.accounts), world.now
        self.before, self.theirs = frozenset(self.theirs), set()
        while left:
            account = left.pop(0)
            if not (yield from self._settled(account, names, world.now - since)):
                left.append(account)
                yield 60 // len(left)
            elif world.chance(world.options.die):
                world.seen["recovery broken off and begun anew"] += 1
                left = list(world.accounts)
        self._go_on()
        self.once_more = False
        if self.theirs:
            world.after(100 + world.up_to(1000), self._again, names)

    def _bring_back(self, loss: Loss) -> None:
        world = self.world
        for worker in world.workers:
            self.stop(worker)
        self.down = frozenset()
        for name, (backup, _, _) in loss.items():
            if name == PLATFORM:
                world.store.restore(backup)
                continue
            party = world.parties[name]
            party.restore(backup)
            party.up = True
            if party is world.wallet:
                world.money.resume()
            world.tell(name, "is brought back")
        # The judge forgets what participants forgot first: what proves a commit to the platform is what is left then.
        for name in sorted(loss, key=lambda name: name == PLATFORM):
            world.judge.restored(name, loss[name][1])

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
        """Workers begin anew: an answer of before the restore may be about what the restore has undone.

        They are stopped in good order and leave no lease behind, which would keep the next ones waiting.
        """
        worker.give_back()
        worker.crash()

    def _settled(self, account: int, names: tuple[str, ...], waited: int) -> Steps:
        """Recover one account as far as it goes now; return whether nothing is left to do."""
        world = self.world
        cases = tuple(case for key, case in world.store.cases.items() if key[0] == account)
        yield world.up_to(3)
        if not all(party.up for party in world.parties.values()):
            return False
        seen = Seen(
            account_id=account,
            last_case_no=world.store.numbers.get(account, 0),
            cases=cases,
            rows=self.rows(account),
            refusals=self.refusals.pop(account, {}),
            waited=waited * MS,
            theirs=tuple(number for one, number in self.before | self.theirs if one == account),
        )
        find_out = self.once_more or not world.up_to(1)
        outcomes, papers = self.outcomes, self.papers
        while True:
            decided = world.parts.recovered(seen, self._restored(names), world.time())
            asked = [(account, one.case_no) for one in decided.undecided if one.why is Why.OUTCOME_LOST]
            nobodys = [(account, one.case_no) for one in decided.undecided if one.why is Why.PLAN_LOST]
            if find_out and (new := {key: world.judge.found_out(*key) for key in asked if key not in outcomes}):
                world.seen["people found out how a case ended"] += len(new)
                outcomes |= new
            elif found := {key: self.lost[key] for key in nobodys if key in self.lost and key not in papers}:
                world.seen["plan of a lost case found in its papers"] += len(found)
                papers |= {key: f"{case.kind}@{case.plan}" for key, case in found.items()}
            else:
                break
        yield world.up_to(3)
        if decided.sends:
            yield from self._send(decided.sends)
            return False
        if decided.waits:
            world.seen["recovery waited"] += 1
            return False
        settled = self._save(decided) and not decided.again
        return self._decided_by_people(decided) and settled

    def rows(self, account: int) -> Mapping[str, FenceRow]:
        """What every participant answers to `look`."""
        return {name: party.row(account).fence for name, party in self.world.parties.items() if account in party.rows}

    def _restored(self, names: tuple[str, ...]) -> Restored:
        return Restored(
            plan_of=self.world.plan_of,
            plans=[(Kind.REVOKE, plan) for plan in self.world.plans.values()],
            databases=names,
            gap=GAP if PLATFORM in names else 0,
            passing=(MOVING,),
            patience=PATIENCE,
            outcomes=self.outcomes,
            papers=self.papers,
        )

    def _send(self, sends: Sequence[Send]) -> Steps:
        """Send what recovery sends itself, and wait for it to have come in, or to be lost."""
        world = self.world

        def heard(replies: tuple[Reply, ...] | None) -> None:
            """Note who would refuse; have people mend what fails as a whole. It looks again for the rest."""
            if replies is None:
                self.in_vain += 1
                if self.in_vain % ENOUGH == 0:
                    world.seen["people mended what held a recovery up"] += 1
                    for send in sends:
                        world.poison.pop((send.account_id, send.case_no), None)
            for reply in replies or ():
                if reply.op is Op.TRY and reply.answer is Answer.PENDING and reply.code:
                    self.refusals.setdefault(reply.account_id, {})[reply.participant] = reply.code

        for send in sends:
            world.seen[f"recovery sent {send.op}"] += 1
            if world.traced:
                told = f"recovers: {send.op} {send.account_id}/{send.case_no} to {send.participant}"
                world.tell("the operator", told)
            world.judge.resent(send.account_id, send.case_no, send.participant, send.op)
            world.network.carry(Call(send.participant, send.op, (send,), heard, recovering=True))
        yield 40

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
        """Take note of what is left to people; return whether nothing is left that they are to do at once."""
        world, left = self.world, True
        for one in decided.undecided:
            world.seen[f"undecided: {one.why}"] += 1
            if one.why in (Why.CANNOT_TRY, Why.WAITS_BELOW, Why.OUTCOME_LOST):
                self.theirs.add((one.account_id, one.case_no))
            else:
                left = False
        return left
