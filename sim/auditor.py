"""The judge. It sees only what happened (saves, sends, rows before and after, money) and knows only the promises.

It shares no code with the coordinator, the fence or the world: its tables are its own transcription of design.md
("A case", "The saga", "Fence"), in plain strings, so that a mistake in the product's tables is not a mistake here.

What it holds to be true, always:
- one decision: nothing is confirmed before `confirming` is saved, nothing cancelled after; a case is committed only
  when every participant has granted, in time, unwithdrawn, and with the wallet unmoved since the last proof;
- a case ends only when its participants agree: `done` is confirmed everywhere once, the others nowhere;
- a send was saved first; waves go in order; a Try writes only at the version re-checked, with nothing in the way,
  never after it was refused or cancelled, never after the case ended;
- a row's number never falls and every mark in it is explained by a case; a refused Try leaves its mark;
- no money moves at a wallet between its Try and its Confirm or Cancel, and none is made or lost;
- at most one live case an account, with growing numbers; a withdrawal that was promised is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

AFTER = {
    "open": {"open", "in_review", "ready", "withdrawn", "expired", "rejected"},
    "in_review": {"in_review", "ready", "rejected", "withdrawn"},
    "ready": {"ready", "trying", "withdrawn", "rejected"},
    "trying": {"trying", "confirming", "cancelling"},
    "confirming": {"confirming", "done"},
    "cancelling": {"cancelling", "aborted"},
}
LETTER_AFTER = {
    ".": ".t",
    "t": "tgcx",
    "g": "gcx",
    "c": "ced",
    "e": "eCd",
    "C": "Ccd",
    "d": "d",
    "x": "xyz",
    "y": "yXz",
    "X": "Xxz",
    "z": "z",
}
ENDED = frozenset({"done", "aborted", "rejected", "withdrawn", "expired"})
FREE = (0, "cancelled")
WALLET = "wallet"

Row = tuple[int, str]
"""A fence row as the judge sees it: (case number, last op)."""


class ViolationError(Exception):
    """A promise was broken. The text says which, where."""


class _Case:
    """What the judge remembers of one case. Every field is finite, so that a whole world can be compared."""

    __slots__ = (
        "cancel_saved", "committed", "confirmed", "granted", "marks", "names", "proof_moves", "reads", "refused",
        "refused_late", "state", "try_saved", "versions", "waves", "wished",
    )  # fmt: skip

    def __init__(self, names: tuple[str, ...], waves: tuple[int, ...]) -> None:
        self.names, self.waves = names, waves
        self.state, self.marks = "open", "." * len(names)
        self.versions: tuple[int, ...] = ()
        self.committed = self.wished = False
        self.proof_moves = -1
        self.reads: dict[int, int] = {}
        self.granted, self.refused, self.confirmed = set[str](), set[str](), set[str]()
        self.try_saved, self.cancel_saved, self.refused_late = set[str](), set[str](), set[str]()

    def memory(self) -> Hashable:
        if self.state in ENDED:
            return self.state
        sets = (self.granted, self.refused, self.confirmed, self.try_saved, self.cancel_saved, self.refused_late)
        return (
            self.names, self.waves, self.state, self.marks, self.versions, self.committed, self.wished,
            self.proof_moves, tuple(sorted(self.reads.items())), tuple(frozenset(one) for one in sets),
        )  # fmt: skip

    @classmethod
    def recall(cls, memory: Hashable) -> _Case:
        if isinstance(memory, str):
            case = cls((), ())
            case.state, case.committed = memory, memory == "done"
            return case
        assert isinstance(memory, tuple)  # noqa: S101 - narrows the type; the two shapes above and below are all there are
        case = cls(memory[0], memory[1])
        case.state, case.marks, case.versions, case.committed, case.wished, case.proof_moves = memory[2:8]
        case.reads = dict(memory[8])
        case.granted, case.refused, case.confirmed, case.try_saved, case.cancel_saved, case.refused_late = (
            set(one) for one in memory[9]
        )
        return case


class _Account:
    """What the judge remembers of one account: its cases, each participant's row, and how often its money moved."""

    __slots__ = ("cases", "last", "moves", "rows", "statuses")

    def __init__(self) -> None:
        self.cases: dict[int, _Case] = {}
        self.rows: dict[str, Row] = {}
        self.statuses: dict[str, str] = {}
        self.last = self.moves = 0


class Auditor:
    """Judges one world. Every method takes one thing that happened; all raise ViolationError."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self.accounts: dict[int, _Account] = {}
        self.balances: dict[int, int] = {}
        self.transfers: dict[int, int] = {}

    # What happens to a case.

    def submitted(self, account: int, no: int, names: tuple[str, ...], waves: tuple[int, ...]) -> None:
        """A case was created for `names` in Try order."""
        known = self.accounts.setdefault(account, _Account())
        if no <= known.last:
            self._broken(account, no, f"its number is not above {known.last}")
        for other, case in known.cases.items():
            if case.state not in ENDED:
                self._broken(account, no, f"case {other} of the account is still {case.state}")
        known.last = no
        known.cases[no] = _Case(names, waves)

    def proof_read(self, account: int, no: int, version: int) -> None:
        """The wallet's facts_version was read for a proof of the case."""
        known = self.accounts[account]
        known.cases[no].reads[version] = known.moves

    def withdrawal_answered(self, account: int, no: int, status: int) -> None:
        """The person asked to withdraw and was answered 202 (will be) or 409 (too late)."""
        case = self.accounts[account].cases[no]
        too_late = case.committed or case.state in ENDED
        if (status == 202) == too_late:  # noqa: PLR2004 - HTTP statuses
            self._broken(account, no, f"a wish to withdraw was answered {status} in {case.state}")
        case.wished |= status == 202  # noqa: PLR2004

    def saved(
        self, account: int, no: int, state: str, marks: str, versions: tuple[int, ...], wallet: int | None, late: bool
    ) -> None:
        """A save of the case succeeded. `late`: it was decided at or after the case's deadline."""
        known = self.accounts[account]
        case = known.cases[no]
        if state not in AFTER.get(case.state, ()):
            self._broken(account, no, f"{case.state} became {state}")
        self._judge_marks(known, account, no, marks)
        if state == "ready" and case.state != "ready":
            if wallet not in case.reads:
                self._broken(account, no, f"the wallet's version {wallet} was never read for its proof")
            else:
                case.proof_moves = case.reads[wallet]
        if state == "confirming" and not case.committed:
            self._judge_commit(known, account, no, late)
        case.state, case.marks, case.versions = state, marks, versions
        if state in ENDED:
            self._judge_end(known, account, no)

    def _judge_marks(self, known: _Account, account: int, no: int, marks: str) -> None:
        case = known.cases[no]
        if marks == case.marks:
            return
        for at, (name, before, after) in enumerate(zip(case.names, case.marks, marks, strict=True)):
            if after not in LETTER_AFTER[before]:
                self._broken(account, no, f"{name}'s mark went from {before} to {after}")
            if before == after:
                continue
            untrue = _untrue(case, name, after, known.rows.get(name, FREE) == (no, "cancelled"))
            if untrue:
                self._broken(account, no, f"{name} is marked {untrue}")
            if after == "t":
                self._judge_wave(account, no, at, marks)
                case.try_saved.add(name)
            elif after == "x":
                case.cancel_saved.add(name)

    def _judge_wave(self, account: int, no: int, at: int, marks: str) -> None:
        case = self.accounts[account].cases[no]
        for earlier, mark, name in zip(case.waves[:at], marks, case.names, strict=False):
            if earlier < case.waves[at] and (mark != "g" or name not in case.granted):
                self._broken(account, no, f"{case.names[at]} is tried before {name} has granted")

    def _judge_commit(self, known: _Account, account: int, no: int, late: bool) -> None:
        case = known.cases[no]
        missing = [name for name in case.names if name not in case.granted]
        if missing:
            self._broken(account, no, f"committed without the grant of {missing}")
        refused = [name for name in case.names if known.rows.get(name, FREE) != (no, "tried")]
        if refused:
            self._broken(account, no, f"committed while {refused} hold nothing for it")
        if case.wished:
            self._broken(account, no, "committed though its withdrawal was promised")
        if late:
            self._broken(account, no, "committed after its deadline")
        if WALLET in case.names and known.moves != case.proof_moves:
            self._broken(account, no, "committed though money moved since the last proof")
        case.committed = True

    def _judge_end(self, known: _Account, account: int, no: int) -> None:
        case = known.cases[no]
        if case.state == "done":
            missing = [name for name in case.names if name not in case.confirmed]
            if missing or not case.committed:
                self._broken(account, no, f"done without the confirmation of {missing}")
        elif case.confirmed:
            self._broken(account, no, f"{case.state} though {sorted(case.confirmed)} confirmed it")
        for name, row in known.rows.items():
            if row == (no, "tried"):
                self._broken(account, no, f"{case.state} though {name} still holds its Try")
        open_tries = [name for name in sorted(case.try_saved) if known.rows.get(name, FREE)[0] < no]
        if open_tries:
            self._broken(account, no, f"{case.state} though a late Try could still be granted by {open_tries}")

    # What goes out, and what it does.

    def sent(self, account: int, no: int, name: str, op: str) -> None:
        """An op left for a participant."""
        case = self.accounts[account].cases[no]
        allowed = {
            "try": name in case.try_saved,
            "confirm": case.committed,
            "cancel": name in case.cancel_saved,
        }
        if not allowed[op] and case.state not in ENDED:
            self._broken(account, no, f"{op} sent to {name} before it was saved")
        if case.state in ENDED and (op == "confirm") != case.committed and op != "try":
            self._broken(account, no, f"{op} sent to {name} though the case ended {case.state}")

    def answered(
        self,
        account: int,
        no: int,
        name: str,
        op: str,
        answer: str,
        rows: tuple[Row, Row],
        statuses: tuple[str, str],
        facts: tuple[int, bool],
    ) -> None:
        """A participant took an op. `rows`, `statuses`: before and after; `facts`: version, anything in the way."""
        known = self.accounts[account]
        before, after = rows
        if before != known.rows.get(name, FREE) or statuses[0] != known.statuses.get(name, statuses[0]):
            self._broken(account, no, f"{name}'s row changed with no op")
        if no not in known.cases:
            self._broken(account, no, f"{name} was asked for a case that does not exist")
        if before != after:
            self._judge_write(known, account, no, name, op, rows, statuses, facts)
            known.rows[name] = after
        elif statuses[0] != statuses[1]:
            self._broken(account, no, f"{name} went from {statuses[0]} to {statuses[1]} without a mark")
        known.statuses[name] = statuses[1]
        self._judge_answer(known.cases[no], account, no, name, op, answer, after)

    def _judge_write(
        self,
        known: _Account,
        account: int,
        no: int,
        name: str,
        op: str,
        rows: tuple[Row, Row],
        statuses: tuple[str, str],
        facts: tuple[int, bool],
    ) -> None:
        case, (before, after) = known.cases[no], rows
        if after[0] != no or after[0] < before[0]:
            self._broken(account, no, f"{op} took {name}'s row from {_told(before)} to {_told(after)}")
        if before[0] == no and before[1] != "tried":
            self._broken(account, no, f"{op} overwrote {name}'s finished row, {_told(before)}")
        if before[0] < no and before[1] == "tried":
            self._broken(account, no, f"{op} overwrote {name}'s unfinished case {before[0]}")
        if after[1] == "tried":
            self._judge_reserve(case, account, no, name, facts)
        elif after[1] == "confirmed":
            if not case.committed:
                self._broken(account, no, f"{name} confirmed before the commit point was saved")
            if before != (no, "tried") or statuses[0] != "pending":
                self._broken(account, no, f"{name} confirmed from {_told(before)}, {statuses[0]}")
            case.confirmed.add(name)
        elif case.committed:
            self._broken(account, no, f"{name} cancelled after the commit point")
        if (statuses[1] == "pending") != (after[1] == "tried"):
            self._broken(account, no, f"{name}'s row is {_told(after)} and it is {statuses[1]}")

    def _judge_reserve(self, case: _Case, account: int, no: int, name: str, facts: tuple[int, bool]) -> None:
        version, blocked = facts
        if case.state in ENDED:
            self._broken(account, no, f"{name} granted a late Try after the case was {case.state}")
        if name in case.refused:
            self._broken(account, no, f"{name} granted a Try it had refused")
        if name not in case.try_saved:
            self._broken(account, no, f"{name} granted a Try that nobody saved")
        if blocked:
            self._broken(account, no, f"{name} granted while something stood in the way")
        expected = case.versions[case.names.index(name)]
        if expected not in (0, version):
            self._broken(account, no, f"{name} granted at version {version}; re-checked was {expected}")
        if name == WALLET and self.accounts[account].moves != case.proof_moves:
            self._broken(account, no, "the wallet granted though money moved since the last proof")

    def _judge_answer(self, case: _Case, account: int, no: int, name: str, op: str, answer: str, row: Row) -> None:
        if answer == "granted":
            if row not in ((no, "tried"), (no, "confirmed")):
                self._broken(account, no, f"{name} answered granted with its row at {_told(row)}")
            case.granted.add(name)
        elif answer == "refused":
            if row[0] < no or row == (no, "tried"):
                self._broken(account, no, f"{name} refused and left no mark: its row is {_told(row)}")
            case.refused.add(name)
        elif answer == "done":
            if row != (no, "confirmed" if op == "confirm" else "cancelled"):
                self._broken(account, no, f"{name} answered {op} done with its row at {_told(row)}")
        elif op != "try" and answer in ("error", "stale"):
            case.refused_late.add(name)

    # Money.

    def opened(self, account: int, balance: int) -> None:
        """A wallet exists, with this balance."""
        self.accounts.setdefault(account, _Account())
        self.balances[account] = balance

    def moved(self, account: int, transfer: int, amount: int, balance: int, versions: tuple[int, int]) -> None:
        """A wallet wrote a part of `transfer` that changed its balance by `amount` to `balance`."""
        known = self.accounts[account]
        holder, op = known.rows.get(WALLET, FREE)
        if op == "tried":
            self._broken(account, holder, "money moved between the wallet's Try and its Confirm or Cancel")
        if versions[1] <= versions[0]:
            self._broken(account, holder, "money moved and the wallet's version did not rise")
        known.moves += 1
        self.transfers[transfer] = self.transfers.get(transfer, 0) + amount
        self.balances[account] += amount
        if self.balances[account] != balance or balance < 0:
            self._broken(account, holder, f"its balance is {balance}, not {self.balances[account]}")

    # The end.

    def finished(self, rows: Sequence[tuple[int, str, Row, str]], balances: Sequence[tuple[int, int]]) -> None:
        """The world has healed and nothing more will happen. `rows`: account, participant, fence row, status."""
        for account, known in self.accounts.items():
            for no, case in known.cases.items():
                if case.state not in ENDED:
                    self._broken(account, no, f"never ended: still {case.state} with marks {case.marks}")
        for account, name, row, status in rows:
            self._judge_last_row(account, name, row, status)
        for account, balance in balances:
            if balance != self.balances[account]:
                self._broken(account, 0, f"its balance is {balance}, not {self.balances[account]}")
        for transfer, left in self.transfers.items():
            if left:
                self._broken(0, 0, f"transfer {transfer} made or lost {left} fen")

    def _judge_last_row(self, account: int, name: str, row: Row, status: str) -> None:
        known, no = self.accounts[account], row[0]
        if row != known.rows.get(name, FREE):
            self._broken(account, no, f"{name}'s row {_told(row)} is explained by no op")
        if no and (no not in known.cases or row[1] == "tried" or status == "pending"):
            self._broken(account, no, f"{name} is left {status} with {_told(row)}")
        if row[1] == "confirmed" and known.cases[no].state != "done":
            self._broken(account, no, f"{name} confirmed a case that is {known.cases[no].state}")

    # For the walk over every interleaving: the judge's memory as a value.

    def memory(self, account: int) -> Hashable:
        """What the judge remembers of one account, as a value that can be compared."""
        known = self.accounts[account]
        return (
            known.last,
            known.moves,
            tuple(sorted(known.rows.items())),
            tuple(sorted(known.statuses.items())),
            tuple((no, case.memory()) for no, case in known.cases.items()),
        )

    def recall(self, account: int, memory: Hashable) -> None:
        """Take up what `memory` returned."""
        assert isinstance(memory, tuple)  # noqa: S101 - it is ours; narrows the type
        known = self.accounts[account] = _Account()
        known.last, known.moves = memory[0], memory[1]
        known.rows, known.statuses = dict(memory[2]), dict(memory[3])
        known.cases = {no: _Case.recall(case) for no, case in memory[4]}

    def _broken(self, account: int, no: int, what: str) -> None:
        message = f"case {account}/{no}: {what}"
        raise ViolationError(message)


def _untrue(case: _Case, name: str, mark: str, cancelled: bool) -> str:
    """What a newly set mark claims that did not happen; empty where it is true."""
    if mark == "g" and name not in case.granted:
        return "granted and has not granted"
    if mark == "d" and name not in case.confirmed:
        return "confirmed and has not confirmed"
    if mark == "z" and not cancelled:
        return "cancelled and is not"
    if mark in "CX" and name not in case.refused_late:
        return "parked and never refused"
    return ""


def _told(row: Row) -> str:
    return f"({row[0]}, {row[1]})"
