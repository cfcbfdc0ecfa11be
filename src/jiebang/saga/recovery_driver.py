"""Drive a recovery over all accounts: decide, save, send, read again, and wait for refusals that clear by themselves.

Run by `jiebang recover` and by the simulator. Like `saga.driver` it is a generator without I/O or clock: it yields a
request and is sent `(now, result)`. `saga.recovery` decides about one account; this module carries the decisions out,
for one page of accounts at a time:

1. Decide by rows read before the cases. Save what is settled, send one op to each participant that needs one, and read
   the rows again. Each op raises a row, so this terminates; accounts whose rows have not changed for some passes are
   left to another run.
2. A call that fails as a whole is halved until the bad case is alone; that counts as silence.
3. Accounts that wait for a refusal to clear by itself are waited for at the end, all together, with growing pauses up
   to the given patience.
4. Undecided cases are reported once a page is settled. Everything may be repeated: another run continues.
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
from jiebang.saga.recovery import (
    AccountEvidence,
    Recovery,
    RefusalWait,
    RestoredInstallation,
    UndecidedCase,
    decide_recovery,
)

PASSES: Final = 200
"""Most passes over one range of accounts. Each pass brings every row that needs it one op further."""
IN_VAIN: Final = 3
"""Passes without any change after which the rest of a range is left to another run."""

Refusals = Mapping[int, Mapping[str, str]]
"""Codes of Trys that would be refused now, by account and participant."""


class RangeRead(msgspec.Struct, frozen=True):
    """Read the next range of accounts above `after` that any database knows. Result: an AccountRange."""

    after: int


class RowsRead(msgspec.Struct, frozen=True):
    """Read all participants' rows of these accounts, and their last case numbers. Result: AccountRows."""

    accounts: Sequence[int]


class CasesRead(msgspec.Struct, frozen=True):
    """Read the platform's cases of these accounts, and what was left to operators. Result: AccountCases."""

    accounts: Sequence[int]


class RecoverySave(msgspec.Struct, frozen=True):
    """Save decisions in one transaction. Result: a RecoverySaveOutcome."""

    recoveries: Sequence[Recovery]


class RecoveryCall(msgspec.Struct, frozen=True):
    """One op for a batch at one participant; `plan`: the one its cases follow, None where it is unknown."""

    participant: str
    op: Op
    orders: Sequence[Order]
    plan: Plan | None


class RecoverySend(msgspec.Struct, frozen=True):
    """Make calls, all at once; a refused Try must leave no mark. Result: one CallOutcome for each, in order."""

    calls: Sequence[RecoveryCall]


class RecoveryPause(msgspec.Struct, frozen=True):
    """Wait before reading again; `wait` may be zero. Result: None."""

    wait: timedelta


class UndecidedReport(msgspec.Struct, frozen=True):
    """Report cases left to operators, and withdraw outdated reports about the `settled` accounts. Result: None."""

    settled: Collection[int]
    undecided: Sequence[UndecidedCase]


class RecoveryWait(msgspec.Struct, frozen=True):
    """Wait for refusals to clear. `waits`: counts by participant and code; `left`: patience left. Result: None."""

    waits: Mapping[str, int]
    wait: timedelta
    left: timedelta


class AccountRows(msgspec.Struct, frozen=True):
    """Fence rows by participant and account, and the platform's last case number by account."""

    rows: Mapping[str, Mapping[int, FenceRow]]
    numbers: Mapping[int, int]


class AccountRange(msgspec.Struct, frozen=True):
    """A range of accounts up to and including `upto`, with their rows. `last`: there are no accounts above."""

    accounts: Sequence[int]
    held: AccountRows
    upto: int
    last: bool


class AccountCases(msgspec.Struct, frozen=True):
    """The platform's cases by account, and the case numbers that an earlier recovery left to operators."""

    cases: Mapping[int, Sequence[Case]]
    theirs: Mapping[int, Sequence[int]]


class RecoverySaveOutcome(msgspec.Struct, frozen=True):
    """What a save did. `moved`: accounts that had changed since they were read; nothing of them was saved."""

    moved: Collection[int] = ()
    changed: Sequence[Case] = ()
    made: Sequence[Case] = ()
    numbers_raised: int = 0


class CallOutcome(msgspec.Struct, frozen=True):
    """What a call did. `refused`: by account, the code with which a Try was refused; `failed`: it failed as a whole."""

    refused: Mapping[int, str] = {}
    failed: bool = False


RecoveryNeed = (
    RangeRead | RowsRead | CasesRead | RecoverySave | RecoverySend | RecoveryPause | UndecidedReport | RecoveryWait
)
T = TypeVar("T")
Course = Generator[RecoveryNeed, tuple[datetime, Any], T]
"""A generator that yields requests and is sent (now, result) for each."""


class RecoveryTally(msgspec.Struct, kw_only=True):
    """The counts of a recovery. `unfinished`: accounts that some participant did not answer for; left to another run.

    `states`: cases saved, by their new state. `sent`: ops that recovery sent itself, by op. `waited`: cases that had to
    wait for a refusal to clear, by participant and code. `undecided`: cases left to operators, by reason.
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
        """Whether the workers can go on with every account."""
        return not self.unfinished


class RecoveryDriver:
    """Drives one recovery. `pace`: gives the first and the longest pause; `decide`: only a simulator passes another."""

    def __init__(
        self,
        restored: RestoredInstallation,
        found: RecoveryTally,
        *,
        now: datetime,
        page: int,
        pace: Timing,
        decide: Callable[[AccountEvidence, RestoredInstallation, datetime], Recovery] = decide_recovery,
    ) -> None:
        """Begin at `now`, counting into `found`. `page`: how many accounts are read at a time while waiting."""
        self.restored, self.found, self.now = restored, found, now
        self.page, self.pace, self.decide = page, pace, decide

    def run(self) -> Course[None]:
        """Recover all accounts. A dry run counts what the first pass would do, and saves and sends nothing."""
        after, waits, last = 0, list[RefusalWait](), False
        while not last:
            each: AccountRange = yield from self._request(RangeRead(after))
            after, last = each.upto, each.last
            self.found.accounts += len(each.accounts)
            if self.found.dry_run:
                decided = yield from self._decide_all(each.accounts, each.held, {}, timedelta(0))
                self._count_foreseen(decided, each.held.numbers)
                continue
            more = yield from self._recover(each.accounts, each.held, timedelta(0))
            _count(self.found.waited, more)
            waits += more
        yield from self._wait(waits)

    def _request(self, need: RecoveryNeed) -> Course[Any]:
        self.now, result = yield need
        return result

    def _wait(self, waits: Sequence[RefusalWait]) -> Course[None]:
        """Wait for refusals to clear, with growing pauses; `saga.recovery` decides when to stop, by `waited`."""
        since, turn = self.now, 0
        while waits:
            left = max(self.restored.patience - (self.now - since), timedelta(0))
            yield from self._request(RecoveryWait(_count({}, waits), min(backoff(turn, self.pace), left), left))
            turn += 1
            waited, accounts, waits = self.now - since, sorted({wait.account_id for wait in waits}), []
            for start in range(0, len(accounts), self.page):
                page = accounts[start : start + self.page]
                held: AccountRows = yield from self._request(RowsRead(page))
                waits += yield from self._recover(page, held, waited)

    def _recover(self, accounts: Sequence[int], held: AccountRows, waited: timedelta) -> Course[list[RefusalWait]]:
        """Decide, save and send for these accounts until no row changes any more; return the refusals to wait for."""
        left, in_vain, undecided, waits = sorted(accounts), 0, list[UndecidedCase](), list[RefusalWait]()
        refusals: Refusals = {}
        for _ in range(PASSES):
            decided = yield from self._decide_all(left, held, refusals, waited)
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
            held = yield from self._request(RowsRead(left))
            moved = any(
                before.rows[name].get(account) != of.get(account) for account in left for name, of in held.rows.items()
            )
            in_vain = 0 if moved else in_vain + 1
            yield from self._request(RecoveryPause(self.pace.resend * in_vain))
        self.found.unfinished += left
        for each in undecided:
            self.found.undecided[each.why.value] = self.found.undecided.get(each.why.value, 0) + 1
        settled = {*accounts}.difference(left, (wait.account_id for wait in waits))
        yield from self._request(UndecidedReport(settled, undecided))
        return waits

    def _decide_all(
        self, accounts: Sequence[int], held: AccountRows, refusals: Refusals, waited: timedelta
    ) -> Course[list[Recovery]]:
        """Decide about each account, by the rows already read and the cases read now."""
        known: AccountCases = yield from self._request(CasesRead(accounts))
        return [
            self.decide(
                AccountEvidence(
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
        """Save decisions; return the accounts that had changed since they were read, to be decided again."""
        if not recoveries:
            return set()
        saved: RecoverySaveOutcome = yield from self._request(RecoverySave(recoveries))
        found = self.found
        for case in (*saved.changed, *saved.made):
            found.states[case.state.value] = found.states.get(case.state.value, 0) + 1
        found.changed += len(saved.changed)
        found.made_again += len(saved.made)
        found.numbers_raised += saved.numbers_raised
        return set(saved.moved)

    def _send(self, recoveries: Iterable[Recovery]) -> Course[Refusals]:
        """Send each participant the one op that it needs; return the Trys that were refused without a mark.

        All other outcomes show in the rows.
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
            outcomes: Sequence[CallOutcome] = yield from self._request(RecoverySend(calls))
            halves: list[RecoveryCall] = []
            for call, outcome in zip(calls, outcomes, strict=True):
                for account, code in outcome.refused.items():
                    refusals[account][call.participant] = code
                    self.found.sent[call.op.value] -= 1
                if outcome.failed:
                    halves += _halves(call)
            calls = halves
        return refusals

    def _count_foreseen(self, decided: Iterable[Recovery], numbers: Mapping[int, int]) -> None:
        """Count what the first pass would do. Later passes may find more, once its ops have been carried out."""
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


def _count(counted: dict[str, int], waits: Iterable[RefusalWait]) -> dict[str, int]:
    """Add waits to `counted`, by participant and code, and return it."""
    for name, cases in Counter(f"{wait.participant} {wait.code}" for wait in waits).items():
        counted[name] = counted.get(name, 0) + cases
    return counted
