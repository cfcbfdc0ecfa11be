"""The whole course of a recovery: every range of accounts, send, look again, save, wait for what clears by itself.

Written once and run by `jiebang recover` and by the simulator. Like `saga.driver` it is a generator without I/O or
clock: it yields what it needs done and is sent `(now, result)`. What is decided about an account is
`saga.recovery.recovered`'s; here is in which order it is carried out, for a page of accounts at a time:

1. Decide by rows read before the cases. Save what is settled; send one op to each participant that lacks one; look
   again. Each op raises a row, so this ends; a range that does not move for some passes is left for another run.
2. A call that fails as a whole is halved until the bad case stands alone, which counts as silence.
3. Accounts that something stands in the way of which clears by itself are waited for at the end, all together, with
   growing pauses up to the patience that was given.
4. What is undecided is told once all of a page is settled. Every part may be repeated: another run goes on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.case import Case
from jiebang.model.plan import Plan
from jiebang.saga.coordinator import Timing, backoff
from jiebang.saga.fence import FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.saga.recovery import Recovery, Restored, Seen, Undecided, Wait, recovered

PASSES: Final = 200
"""How often one range is looked at again: each pass brings every row that needs it one op further."""
IN_VAIN: Final = 3
"""How many passes may bring nothing before the rest of a range is left for another run."""

Refusals = Mapping[int, Mapping[str, str]]
"""Codes of Trys that would be refused now, by account and participant."""


class RangeRead(msgspec.Struct, frozen=True):
    """Read the next range of accounts above `after`, whoever knows them. Result: an AccountRange."""

    after: int


class RowsRead(msgspec.Struct, frozen=True):
    """Read what all participants hold of these accounts, and their last numbers. Result: AccountRows."""

    accounts: Sequence[int]


class CasesRead(msgspec.Struct, frozen=True):
    """Read the platform's cases of these accounts, and what was left to people. Result: AccountCases."""

    accounts: Sequence[int]


class RecoverySave(msgspec.Struct, frozen=True):
    """Save what was decided, all in one transaction. Result: a RecoverySaved."""

    recoveries: Sequence[Recovery]


class RecoveryCall(msgspec.Struct, frozen=True):
    """One op for a batch at one participant; `plan`: the one its cases follow, None where nobody knows it."""

    participant: str
    op: Op
    orders: Sequence[Order]
    plan: Plan | None


class RecoverySend(msgspec.Struct, frozen=True):
    """Make calls, all at once; a Try leaves no mark where it is refused. Result: one CallOutcome for each."""

    calls: Sequence[RecoveryCall]


class Pause(msgspec.Struct, frozen=True):
    """Let a moment pass before looking again; none at all where `wait` is zero. Result: None."""

    wait: timedelta


class Tell(msgspec.Struct, frozen=True):
    """Tell operators what is theirs, and take back what no longer is of accounts that are settled. Result: None."""

    settled: Collection[int]
    undecided: Sequence[Undecided]


class Waiting(msgspec.Struct, frozen=True):
    """Let `wait` pass while what is waited for clears, by participant and code; `left`: patience. Result: None."""

    waits: Mapping[str, int]
    wait: timedelta
    left: timedelta


class AccountRows(msgspec.Struct, frozen=True):
    """Fence rows by participant and account, and the last case number of each account that the platform knows."""

    rows: Mapping[str, Mapping[int, FenceRow]]
    numbers: Mapping[int, int]


class AccountRange(msgspec.Struct, frozen=True):
    """A range of accounts up to and with `upto`, and what is held of them. `last`: there are none above."""

    accounts: Sequence[int]
    held: AccountRows
    upto: int
    last: bool


class AccountCases(msgspec.Struct, frozen=True):
    """The platform's cases by account, and the numbers that an earlier recovery left to people."""

    cases: Mapping[int, Sequence[Case]]
    theirs: Mapping[int, Sequence[int]]


class RecoverySaved(msgspec.Struct, frozen=True):
    """What became of a save. `moved`: accounts of which something had moved meanwhile, and nothing was saved."""

    moved: Collection[int] = ()
    changed: Sequence[Case] = ()
    made: Sequence[Case] = ()
    numbers_raised: int = 0


class CallOutcome(msgspec.Struct, frozen=True):
    """What is known of a call. `refused`: codes of Trys that would be refused; `failed`: it did as a whole."""

    refused: Mapping[int, str] = {}
    failed: bool = False


Need = RangeRead | RowsRead | CasesRead | RecoverySave | RecoverySend | Pause | Tell | Waiting
T = TypeVar("T")
Course = Generator[Need, tuple[datetime, Any], T]
"""Yields needs, is sent (now, result) for each."""


class Found(msgspec.Struct, kw_only=True):
    """What a recovery counted. `unfinished`: accounts of which somebody did not answer; another run goes on there.

    `states`: what was saved, by the state it was put into. `sent`: ops that recovery sent itself. `waited`: cases that
    had to wait for a refusal to clear, by participant and code.
    """

    accounts: int = 0
    changed: int = 0
    made_again: int = 0
    numbers_raised: int = 0
    states: dict[str, int] = msgspec.field(default_factory=dict)
    sent: dict[str, int] = msgspec.field(default_factory=dict)
    undecided: dict[str, int] = msgspec.field(default_factory=dict)
    waited: dict[str, int] = msgspec.field(default_factory=dict)
    unfinished: list[int] = msgspec.field(default_factory=list)
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether every account was brought to where the workers can go on."""
        return not self.unfinished


class RecoveryDriver:
    """One recovery on its way. `pace`: the first and the longest pause; `decide`: only a simulator names another."""

    def __init__(
        self,
        restored: Restored,
        found: Found,
        *,
        now: datetime,
        page: int,
        pace: Timing,
        decide: Callable[[Seen, Restored, datetime], Recovery] = recovered,
    ) -> None:
        """Begin at `now`; `found` is counted into, `page` accounts are waited for at a time."""
        self.restored, self.found, self.now = restored, found, now
        self.page, self.pace, self.decide = page, pace, decide

    def run(self) -> Course[None]:
        """Recover everything. A dry run counts what the first pass would do, and saves and sends nothing."""
        after, waits, last = 0, list[Wait](), False
        while not last:
            each: AccountRange = yield from self._do(RangeRead(after))
            after, last = each.upto, each.last
            self.found.accounts += len(each.accounts)
            if self.found.dry_run:
                self._foresee((yield from self._decided(each.accounts, each.held, {}, timedelta(0))), each.held.numbers)
                continue
            more = yield from self._recover(each.accounts, each.held, timedelta(0))
            _count(self.found.waited, more)
            waits += more
        yield from self._wait(waits)

    def _do(self, need: Need) -> Course[Any]:
        self.now, result = yield need
        return result

    def _wait(self, waits: Sequence[Wait]) -> Course[None]:
        """Wait, with growing pauses, for what clears by itself; the decision when to wait no longer is recovery's."""
        since, turn = self.now, 0
        while waits:
            left = max(self.restored.patience - (self.now - since), timedelta(0))
            yield from self._do(Waiting(_count({}, waits), min(backoff(turn, self.pace), left), left))
            turn += 1
            waited, accounts, waits = self.now - since, sorted({wait.account_id for wait in waits}), []
            for start in range(0, len(accounts), self.page):
                page = accounts[start : start + self.page]
                held: AccountRows = yield from self._do(RowsRead(page))
                waits += yield from self._recover(page, held, waited)

    def _recover(self, accounts: Sequence[int], held: AccountRows, waited: timedelta) -> Course[list[Wait]]:
        """Decide, save and send for these accounts until nothing moves any more; return what is to be waited for."""
        left, in_vain, undecided, waits = sorted(accounts), 0, list[Undecided](), list[Wait]()
        refusals: Refusals = {}
        for _ in range(PASSES):
            decided = yield from self._decided(left, held, refusals, waited)
            undone = yield from self._save([one for one in decided if not one.sends and not one.waits])
            for one in decided:
                if one.again:
                    undone.add(one.account_id)
                elif not one.sends and one.account_id not in undone:
                    undecided += one.undecided if not one.waits else ()
                    waits += one.waits
            sending = [one for one in decided if one.sends]
            left = sorted({one.account_id for one in sending} | undone)
            if not left or in_vain == IN_VAIN:
                break
            refusals = yield from self._send(sending)
            before = held
            held = yield from self._do(RowsRead(left))
            moved = any(
                before.rows[name].get(account) != of.get(account) for account in left for name, of in held.rows.items()
            )
            in_vain = 0 if moved else in_vain + 1
            yield from self._do(Pause(self.pace.resend * in_vain))
        self.found.unfinished += left
        for each in undecided:
            self.found.undecided[each.why.value] = self.found.undecided.get(each.why.value, 0) + 1
        settled = {*accounts}.difference(left, (wait.account_id for wait in waits))
        yield from self._do(Tell(settled, undecided))
        return waits

    def _decided(
        self, accounts: Sequence[int], held: AccountRows, refusals: Refusals, waited: timedelta
    ) -> Course[list[Recovery]]:
        """Decide about each account, by the rows read before and the cases read now."""
        known: AccountCases = yield from self._do(CasesRead(accounts))
        return [
            self.decide(
                Seen(
                    account_id=account,
                    last_case_no=held.numbers.get(account, 0),
                    cases=tuple(known.cases.get(account, ())),
                    rows={name: of[account] for name, of in held.rows.items() if account in of},
                    refusals=refusals.get(account, {}),
                    waited=waited,
                    theirs=tuple(known.theirs.get(account, ())),
                ),
                self.restored,
                self.now,
            )
            for account in accounts
        ]

    def _save(self, recoveries: Sequence[Recovery]) -> Course[set[int]]:
        """Save what was decided; return the accounts of which something moved meanwhile, to be decided anew."""
        if not recoveries:
            return set()
        saved: RecoverySaved = yield from self._do(RecoverySave(recoveries))
        found = self.found
        for case in (*saved.changed, *saved.made):
            found.states[case.state.value] = found.states.get(case.state.value, 0) + 1
        found.changed += len(saved.changed)
        found.made_again += len(saved.made)
        found.numbers_raised += saved.numbers_raised
        return set(saved.moved)

    def _send(self, recoveries: Iterable[Recovery]) -> Course[Refusals]:
        """Send one op to each participant that lacks one; return the Trys that were refused without a mark.

        What comes of the rest is seen in the rows.
        """
        refusals: defaultdict[int, dict[str, str]] = defaultdict(dict)
        grouped: defaultdict[tuple[str, Op, int], list[Order]] = defaultdict(list)
        plans: dict[int, Plan | None] = {}
        for one in recoveries:
            refusals[one.account_id] |= one.refusals
            for send in one.sends:
                plan = one.plans.get(send.case_no)
                plans[id(plan)] = plan
                grouped[send.participant, send.op, id(plan)].append(Order(send.account_id, send.case_no, send.version))
                self.found.sent[send.op.value] = self.found.sent.get(send.op.value, 0) + 1
        calls = [RecoveryCall(name, op, orders, plans[plan]) for (name, op, plan), orders in grouped.items()]
        while calls:
            outcomes: Sequence[CallOutcome] = yield from self._do(RecoverySend(calls))
            halves: list[RecoveryCall] = []
            for call, outcome in zip(calls, outcomes, strict=True):
                for account, code in outcome.refused.items():
                    refusals[account][call.participant] = code
                    self.found.sent[call.op.value] -= 1
                if outcome.failed:
                    halves += _halves(call)
            calls = halves
        return refusals

    def _foresee(self, decided: Iterable[Recovery], numbers: Mapping[int, int]) -> None:
        """Count what the first pass would do; what it sends may bring more to light."""
        found = self.found
        for one in decided:
            found.numbers_raised += one.last_case_no != numbers.get(one.account_id)
            found.changed += len(one.changed)
            found.made_again += len(one.made)
            for send in one.sends:
                found.sent[send.op.value] = found.sent.get(send.op.value, 0) + 1
            for case in (*one.changed, *one.made):
                found.states[case.state.value] = found.states.get(case.state.value, 0) + 1
            for each in one.undecided:
                found.undecided[each.why.value] = found.undecided.get(each.why.value, 0) + 1


def _halves(call: RecoveryCall) -> list[RecoveryCall]:
    half = len(call.orders) // 2
    if not half:
        return []
    return [msgspec.structs.replace(call, orders=part) for part in (call.orders[:half], call.orders[half:])]


def _count(counted: dict[str, int], waits: Iterable[Wait]) -> dict[str, int]:
    """Count waits by participant and code."""
    for name, cases in Counter(f"{wait.participant} {wait.code}" for wait in waits).items():
        counted[name] = counted.get(name, 0) + cases
    return counted
