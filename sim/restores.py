"""Restores from backup in a simulated world, also of several databases at once, each followed by `jiebang recover`.

Databases that are lost together go back to different moments. The operator does what docs/operations.md asks for: no
worker claims cases, nothing writes to the restored databases, and messages under way have arrived or are given up; then
every participant is asked with `look`, account by account, until recovery has nothing more to do. Recovery's decisions
and their order are the product's (`saga/recovery.py`, `saga/recovery_driver.py`).

What recovery may not decide, operators decide by evidence from outside: which plan a lost case followed (from its
papers), and how a case ended whose outcome was lost (the person knows; here, the judge remembers). They also clear what
would refuse a Try permanently, and recover again; transfers complete by themselves, and recovery waits for them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import Case, Kind, State
from jiebang.saga.coordinator import Send, Timing
from jiebang.saga.fence import Answer, Op
from jiebang.saga.recovery import OUTCOME_LOST, Recovery, RestoredInstallation, UndecidedReason
from jiebang.saga.recovery_driver import (
    AccountCases,
    AccountRange,
    AccountRows,
    CallOutcome,
    CasesRead,
    RangeRead,
    RecoveryDriver,
    RecoveryPause,
    RecoverySave,
    RecoverySaveOutcome,
    RecoverySend,
    RecoveryTally,
    RecoveryWait,
    RowsRead,
    UndecidedReport,
)
from sim.network import LATEST_FINISH, SLOW_DISK, SLOWEST, Call
from sim.parties import MOVING
from sim.process import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.saga.coordinator import Reply
    from jiebang.saga.recovery import UndecidedCase
    from jiebang.saga.recovery_driver import RecoveryCall, RecoveryNeed
    from sim.process import Steps
    from sim.worker import Worker
    from sim.world import World

PLATFORM = "platform"
MOST = 3
"""The most databases lost at once."""
PATIENCE = timedelta(milliseconds=1_500)
MS = timedelta(milliseconds=1)
PAGE = 5
"""Accounts recovered at a time."""
PACE = Timing(resend=timedelta(milliseconds=20), resend_limit=timedelta(milliseconds=200))
THEIRS = frozenset({UndecidedReason.CANNOT_TRY, UndecidedReason.WAITS_BELOW, UndecidedReason.OUTCOME_LOST})
"""Reasons that operators clear, or find out about, before they recover again."""
REST = 2_500
"""Most milliseconds for which workers may end cases before the next recovery, while money moves at the wallet."""
ENOUGH = 5
"""Failures after which operators repair what fails."""
GAP = 8
"""Case numbers that a restored platform may have assigned after its backup."""
QUIET = SLOWEST + SLOW_DISK + LATEST_FINISH + 100
"""Milliseconds until nothing sent before the restore can still do anything."""


Loss = dict[str, tuple[Any, Any, int]]
"""Databases lost at once: by name the backup, the judge's memory of it, and the number of restores before it."""


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
        self.tasks = set[tuple[int, int]]()
        """All that was left to people, as the platform's tasks keep it over a recovery that breaks off."""
        self.theirs = set[tuple[int, int]]()
        """Cases left to operators for which recovering again helps, and retrying does not."""
        self.before = frozenset[tuple[int, int]]()
        self.outcomes = dict[tuple[int, int], bool]()
        """Outcomes of cases as operators found out, passed to each recovery from then on."""
        self.papers = dict[tuple[int, int], str]()
        """Kinds and plans of lost cases, in the same way."""
        self.told: list[UndecidedCase] = []
        self.find_out = False
        end = world.options.faults_end
        for _ in range(world.options.restores):
            fails, loss = 1050 + world.up_to(end - 1150), Loss()
            for name in self._draw_lost():
                world.after(world.up_to(fails - 50), self._backup, name, loss)
            world.after(fails, self._fail, loss)

    def _draw_lost(self) -> list[str]:
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

    def _recover_again(self, names: tuple[str, ...], rest: int = REST) -> None:
        """People have cleared what stood in the way, and recover once more.

        Money that moves they cannot clear: a transfer may wait for a case at its other account, which only workers end.
        """
        world = self.world
        if self.under_way:
            world.after(500, self._recover_again, names)
            return
        if rest > 0 and any(world.wallet.refusal(account) for account, _ in self.theirs):
            world.after(500, self._recover_again, names, rest - 500)
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
        """Recover until nothing is left that people can decide at once; what is broken off is begun anew."""
        world = self.world
        self.before, self.theirs = frozenset(self.theirs), set()
        self.find_out = self.once_more or not world.up_to(1)
        while not (yield from self._run(names)):
            yield 60
        self._go_on()
        self.once_more = False
        if self.theirs:
            world.after(100 + world.up_to(1000), self._recover_again, names)

    def _run(self, names: tuple[str, ...]) -> Steps:
        """Run one recovery; return whether it came to its end and left nothing that people could tell at once."""
        world, found = self.world, RecoveryTally()
        self.told = []
        course = RecoveryDriver(
            self._describe_installation(names),
            found,
            now=world.time(),
            page=PAGE,
            pace=PACE,
            decide=world.parts.recovered,
        ).run()
        try:
            need = next(course)
            while True:
                if not all(party.up for party in world.parties.values()):
                    return False  # a row unread could be a proof: broken off, to be begun anew
                if world.chance(world.options.die / 4):
                    world.seen["recovery broken off and begun anew"] += 1
                    return False
                result = yield from self._do(need)
                need = course.send((world.time(), result))
        except StopIteration:
            more = self._ask_people()
            return found.complete and not more
        finally:
            course.close()

    def _do(self, need: RecoveryNeed) -> Steps:
        """Do what the recovery asks for, in simulated time."""
        world = self.world
        match need:
            case RangeRead():
                accounts = [account for account in world.accounts if account > need.after][:PAGE]
                yield world.up_to(3)
                last = not accounts or accounts[-1] == world.accounts[-1]
                return AccountRange(accounts, self._rows(accounts), accounts[-1] if accounts else 0, last)
            case RowsRead():
                yield world.up_to(3)
                return self._rows(need.accounts)
            case CasesRead():
                yield world.up_to(3)
                return self._cases(need.accounts)
            case RecoverySave():
                yield world.up_to(3)
                return self._save(need.recoveries)
            case RecoverySend():
                return (yield from self._send(need.calls))
            case RecoveryPause():
                yield need.wait // MS
            case RecoveryWait():
                world.seen["recovery waited"] += 1
                yield need.wait // MS
            case UndecidedReport():
                self.told += need.undecided
                keys = {(one.account_id, one.case_no) for one in need.undecided}
                self.tasks = {key for key in self.tasks if key[0] not in need.settled} | keys
        return None

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
        self._spoil()

    def _spoil(self) -> None:
        """Have some accounts' rows break the batches that recovery sends: a restored database may hold such rows."""
        world = self.world
        names = list(world.parties)
        for account in world.accounts:
            number = max(party.row(account).fence.case_no for party in world.parties.values())
            if number and world.chance(2 * world.options.poison):
                world.poison[account, number] = names[world.up_to(len(names) - 1)]

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

    def _rows(self, accounts: Sequence[int]) -> AccountRows:
        """What every participant answers to `look`, and the numbers that the platform has given."""
        world = self.world
        rows = {
            name: {account: party.row(account).fence for account in accounts if account in party.rows}
            for name, party in world.parties.items()
        }
        numbers = {account: world.store.numbers[account] for account in accounts if account in world.store.numbers}
        return AccountRows(rows, numbers)

    def _cases(self, accounts: Sequence[int]) -> AccountCases:
        """What the platform holds of accounts, and what is left to people."""
        cases: dict[int, list[Case]] = {account: [] for account in accounts}
        for (account, _), case in self.world.store.cases.items():
            if account in cases:
                cases[account].append(case)
        theirs = {
            account: [number for one, number in sorted(self.before | self.theirs | self.tasks) if one == account]
            for account in accounts
        }
        return AccountCases(cases, theirs)

    def _describe_installation(self, names: tuple[str, ...]) -> RestoredInstallation:
        return RestoredInstallation(
            plan_of=self.world.plan_of,
            plans=[(Kind.REVOKE, plan) for plan in self.world.plans.values()],
            databases=names,
            gap=GAP if PLATFORM in names else 0,
            passing=(MOVING,),
            patience=PATIENCE,
            outcomes=self.outcomes,
            papers=self.papers,
        )

    def _send(self, calls: Sequence[RecoveryCall]) -> Steps:
        """Make calls, and wait for them to have come in, or to be lost."""
        world, outcomes = self.world, [_CallResult() for _ in calls]
        for call, outcome in zip(calls, outcomes, strict=True):
            sends = tuple(
                Send(order.account_id, order.case_no, call.participant, call.op, order.version) for order in call.orders
            )
            for send in sends:
                world.seen[f"recovery sent {send.op}"] += 1
                if world.traced:
                    told = f"recovers: {send.op} {send.account_id}/{send.case_no} to {send.participant}"
                    world.tell("the operator", told)
                world.judge.resent(send.account_id, send.case_no, send.participant, send.op)
            world.network.carry(Call(call.participant, call.op, sends, outcome.hear, recovering=True))
        yield 40
        for call, outcome in zip(calls, outcomes, strict=True):
            if outcome.failed and len(call.orders) == 1:
                self._mend(call)
            world.seen["recovery's call halved"] += outcome.failed and len(call.orders) > 1
        return [CallOutcome(refused=dict(one.refused), failed=one.failed) for one in outcomes]

    def _mend(self, call: RecoveryCall) -> None:
        """Have operators repair a case whose calls fail again and again."""
        self.in_vain += 1
        if self.in_vain % ENOUGH == 0:
            self.world.seen["people mended what held a recovery up"] += 1
            for order in call.orders:
                self.world.poison.pop((order.account_id, order.case_no), None)

    def _save(self, recoveries: Sequence[Recovery]) -> RecoverySaveOutcome:
        """Save what was decided under the revision, and raise the numbers."""
        store = self.world.store
        moved, changed, made, raised = set[int](), list[Case](), list[Case](), 0
        for decided in recoveries:
            self.tasks |= {(one.account_id, one.case_no) for one in decided.undecided}
            self.theirs |= {(one.account_id, one.case_no) for one in decided.undecided if one.why in THEIRS}
            before = store.numbers.get(decided.account_id, 0)
            raised += decided.last_case_no > before
            store.numbers[decided.account_id] = max(before, decided.last_case_no)
            for case in (*decided.changed, *decided.made):
                held = store.cases.get(case.key)
                if (held is None) != (case.revision == 1) or (held is not None and not store.admits(held, case)):
                    moved.add(case.account_id)
                    continue
                (made if held is None else changed).append(self._keep(case, held))
        return RecoverySaveOutcome(moved=moved, changed=changed, made=made, numbers_raised=raised)

    def _keep(self, case: Case, held: Case | None) -> Case:
        world = self.world
        wished = case.withdraw_at if held is None else held.withdraw_at
        stored = world.store.cases[case.key] = msgspec.structs.replace(case, withdraw_at=wished)
        world.seen["recovery saved a case" if held else "recovery made a lost case again"] += 1
        world.tell("the operator", f"recovers: {case.account_id}/{case.case_no} is {case.state} {case.marks}")
        names, lost = world.plan_of(case).participants, case.reason == OUTCOME_LOST
        world.judge.recovered(*case.key, names, case.state, case.marks, outcome_lost=lost)
        return stored

    def _ask_people(self) -> bool:
        """Note what is left to people, and have them find out; return whether they can tell something new at once."""
        world, new = self.world, False
        for one in self.told:
            key = (one.account_id, one.case_no)
            world.seen[f"undecided: {one.why}"] += 1
            if one.why is UndecidedReason.PLAN_LOST and key in self.lost and key not in self.papers:
                case = self.lost[key]
                world.seen["plan of a lost case found in its papers"] += 1
                self.papers[key], new = f"{case.kind}@{case.plan}", True
            elif one.why is UndecidedReason.OUTCOME_LOST and self.find_out and key not in self.outcomes:
                world.seen["people found out how a case ended"] += 1
                self.outcomes[key], new = world.judge.found_out(*key), True
            elif one.why in THEIRS:
                self.theirs.add(key)
        return new


class _CallResult:
    """The outcome of one call: which Trys would be refused, and whether it failed as a whole."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self.refused, self.failed = dict[int, str](), False

    def hear(self, replies: tuple[Reply, ...] | None) -> None:
        """Take an answer."""
        self.failed = self.failed or replies is None
        for reply in replies or ():
            if reply.op is Op.TRY and reply.answer is Answer.PENDING and reply.code:
                self.refused[reply.account_id] = reply.code
