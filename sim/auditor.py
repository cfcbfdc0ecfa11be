"""The judge. It sees only what happened (saves, sends, rows before and after, money) and knows only the promises.

It shares no code with the coordinator, the fence or the world: its tables are its own transcription of design.md
("A case", "The saga", "Fence"), in plain strings, so that a mistake in the product's tables is not a mistake here.

What it holds to be true, always:
- one decision: nothing is confirmed before `confirming` is saved, nothing cancelled after; a case is committed only
  when every participant has granted, in time, unwithdrawn, and with the wallet unmoved since the last proof;
- a case ends only when its participants agree: `done` is confirmed everywhere once, the others nowhere;
- a send was saved first; a later wave leaves only when all before it have granted; a Try writes only at the version
  re-checked, with nothing in the way, never after it was refused or cancelled, never after the case ended;
- a row's number never falls and every mark in it is explained by a case; a refused Try leaves its mark;
- no money moves at a wallet between its Try and its Confirm or Cancel, and none is made or lost;
- at most one live case an account, with growing numbers; a withdrawal that was promised is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.evidence import (
    AFTER,
    ENDED,
    FREE,
    LETTER_AFTER,
    LETTERS,
    LOST,
    WALLET,
    Evidence,
    Row,
    SeenAccount,
    SeenCase,
    ViolationError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FREE", "Auditor", "Row", "ViolationError"]


class Auditor(Evidence):
    """Judges one world. Every method takes one thing that happened; all raise ViolationError."""

    # What happens to a case.

    def submitted(self, account: int, no: int, names: tuple[str, ...], waves: tuple[int, ...]) -> None:
        """A case was created for `names` in Try order."""
        known = self.accounts.setdefault(account, SeenAccount())
        last = max([known.last, *(row[0] for row in known.rows.values())])
        if no <= last:
            self._broken(account, no, f"its number is not above {last}")
        for other, case in known.cases.items():
            if case.state not in ENDED and case.state != LOST:
                self._broken(account, no, f"case {other} of the account is still {case.state}")
        known.last = no
        known.cases[no] = SeenCase(names, waves)

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
        if not set(marks) <= set(LETTERS.get(state, ".")):
            self._broken(account, no, f"{state} with marks {marks}")
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
            case.truth = state == "done"
            self._judge_end(known, account, no)

    def _judge_marks(self, known: SeenAccount, account: int, no: int, marks: str) -> None:
        case = known.cases[no]
        if marks == case.marks:
            return
        for name, before, after in zip(case.names, case.marks, marks, strict=True):
            if after not in LETTER_AFTER[before]:
                self._broken(account, no, f"{name}'s mark went from {before} to {after}")
            if before == after:
                continue
            untrue = name not in case.undone and _untrue(
                case, name, after, known.rows.get(name, FREE) == (no, "cancelled")
            )
            if untrue:
                self._broken(account, no, f"{name} is marked {untrue}")
            if after == "t":
                case.try_saved.add(name)
            elif after == "x":
                case.cancel_saved.add(name)

    def _judge_commit(self, known: SeenAccount, account: int, no: int, late: bool) -> None:
        case = known.cases[no]
        missing = [name for name in case.names if name not in case.granted | case.undone]
        if missing:
            self._broken(account, no, f"committed without the grant of {missing}")
        held = {name for name in case.names if known.rows.get(name, FREE) == (no, "tried")}
        refused = [name for name in case.names if name not in held | case.undone]
        if refused:
            self._broken(account, no, f"committed while {refused} hold nothing for it")
        if case.wished:
            self._broken(account, no, "committed though its withdrawal was promised")
        if late:
            self._broken(account, no, "committed after its deadline")
        if WALLET in case.names and WALLET not in case.undone and known.moves != case.proof_moves:
            self._broken(account, no, "committed though money moved since the last proof")
        case.committed = True

    def _judge_end(self, known: SeenAccount, account: int, no: int) -> None:
        case = known.cases[no]
        if case.state == "done":
            missing = [name for name in case.names if name not in case.confirmed | case.undone]
            if missing or not case.committed:
                self._broken(account, no, f"done without the confirmation of {missing}")
        elif case.confirmed:
            self._broken(account, no, f"{case.state} though {sorted(case.confirmed)} confirmed it")
        for name, row in known.rows.items():
            if row == (no, "tried") and name not in case.undone:
                self._broken(account, no, f"{case.state} though {name} still holds its Try")
        open_tries = [name for name in sorted(case.try_saved - case.undone) if known.rows.get(name, FREE)[0] < no]
        if open_tries:
            self._broken(account, no, f"{case.state} though a late Try could still be granted by {open_tries}")

    # After a restore.

    def resent(self, account: int, no: int, name: str, op: str) -> None:
        """Recovery itself sends an op, with nothing saved: only what is proven may be done again."""
        known = self.accounts[account]
        if no not in known.cases:
            self._broken(account, no, f"recovery sends {op} to {name} for a case that never was")
        case = known.cases[no]
        if op == "cancel":
            if case.committed or case.confirmed:
                self._broken(account, no, f"recovery cancels at {name} what is committed")
            return
        if not case.committed:
            self._broken(account, no, f"recovery sends {op} to {name} and nothing proves the commit")
        case.try_saved.update(case.names)

    def found_out(self, account: int, no: int) -> bool:
        """People found out from evidence outside whether a case was done, of which no database can tell any more."""
        case = self.accounts[account].cases.get(no)
        if case is None:
            return False
        case.committed |= case.truth
        return case.truth

    def recovered(
        self, account: int, no: int, names: tuple[str, ...], state: str, marks: str, outcome_lost: bool
    ) -> None:
        """Recovery saved a case, or made a lost one again. `outcome_lost`: it says that it cannot know how it ended."""
        known = self.accounts[account]
        case = known.cases.get(no)
        if case is None or case.names != names:
            self._broken(account, no, f"recovery made up a case for {names}")
        if outcome_lost:
            case.state, case.marks = state, marks
            return
        if (state, marks) == (case.state, case.marks):
            return  # nothing is claimed: it was put to sleep, for people to decide
        committed = state in ("confirming", "done")
        if committed != case.committed and (committed or case.confirmed):
            self._broken(account, no, f"recovery made it {state}; {sorted(case.confirmed)} have confirmed it")
        for name, mark in zip(names, marks, strict=True):
            untrue = _untrue(case, name, mark, known.rows.get(name, FREE) == (no, "cancelled"))
            if mark not in "CX" and untrue and known.rows.get(name, FREE)[0] <= no:
                self._broken(account, no, f"recovery marks {name} {untrue}")
        case.state, case.marks, case.committed = state, marks, committed
        if state in ENDED:
            case.truth = committed
        case.try_saved.update(names if state in ("confirming", "cancelling") else ())
        case.cancel_saved.update(names if state == "cancelling" else ())

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
        if op == "try":
            self._judge_wave(case, account, no, name)
        if case.state in ENDED and (op == "confirm") != case.committed and op != "try":
            self._broken(account, no, f"{op} sent to {name} though the case ended {case.state}")

    def _judge_wave(self, case: SeenCase, account: int, no: int, name: str) -> None:
        """A wave leaves only when the one before it has granted, as a whole."""
        if case.state in ENDED or name not in case.names:
            return
        wave = case.waves[case.names.index(name)]
        for earlier, before in zip(case.names, case.waves, strict=True):
            if before < wave and earlier not in case.granted | case.undone:
                self._broken(account, no, f"{name} is tried before {earlier} has granted")

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
        known: SeenAccount,
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

    def _judge_reserve(self, case: SeenCase, account: int, no: int, name: str, facts: tuple[int, bool]) -> None:
        version, blocked = facts
        if case.committed and name in case.undone:
            return  # done again after a restore: what it was granted at is gone
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

    def _judge_answer(self, case: SeenCase, account: int, no: int, name: str, op: str, answer: str, row: Row) -> None:
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
        self.accounts.setdefault(account, SeenAccount())
        self.balances[account] = balance

    def moved(self, account: int, transfer: int, amount: int, balance: int, versions: tuple[int, int]) -> None:
        """A wallet wrote a part of `transfer` that changed its balance by `amount` to `balance`."""
        known = self.accounts[account]
        holder, op = known.rows.get(WALLET, FREE)
        if op == "tried":
            self._broken(account, holder, "money moved between the wallet's Try and its Confirm or Cancel")
        if versions[1] <= versions[0]:
            self._broken(account, holder, "money moved and the wallet's version did not rise")
        known.newest += 1
        known.moves = known.newest
        self.transfers[transfer] = self.transfers.get(transfer, 0) + amount
        self.balances[account] += amount
        if self.balances[account] != balance or balance < 0:
            self._broken(account, holder, f"its balance is {balance}, not {self.balances[account]}")

    # The end.

    def finished(self, rows: Sequence[tuple[int, str, Row, str]], balances: Sequence[tuple[int, int]]) -> None:
        """The world has healed and nothing more will happen. `rows`: account, participant, fence row, status."""
        for account, known in self.accounts.items():
            for no, case in known.cases.items():
                if case.state not in ENDED and case.state != LOST:
                    self._broken(account, no, f"never ended: still {case.state} with marks {case.marks}")
                self._judge_outcome(account, no, case)
        for account, name, row, status in rows:
            self._judge_last_row(account, name, row, status)
        for account, balance in balances:
            if balance != self.balances[account]:
                self._broken(account, 0, f"its balance is {balance}, not {self.balances[account]}")
        for transfer, left in self.transfers.items():
            if left:
                self._broken(0, 0, f"transfer {transfer} made or lost {left} fen")

    def _judge_outcome(self, account: int, no: int, case: SeenCase) -> None:
        """All or nothing, at the end: what was done is confirmed everywhere, whatever was restored in between."""
        missing = [name for name in case.names if name not in case.confirmed]
        if case.state == "done" and missing:
            self._broken(account, no, f"done and, in the end, not confirmed by {missing}")
        if case.state == LOST and case.confirmed and missing:
            self._broken(
                account, no, f"confirmed by {sorted(case.confirmed)} alone, and the platform knows nothing of it"
            )

    def _judge_last_row(self, account: int, name: str, row: Row, status: str) -> None:
        known, no = self.accounts[account], row[0]
        if row != known.rows.get(name, FREE):
            self._broken(account, no, f"{name}'s row {_told(row)} is explained by no op")
        if no and (no not in known.cases or row[1] == "tried" or status == "pending"):
            self._broken(account, no, f"{name} is left {status} with {_told(row)}")
        if row[1] == "confirmed" and known.cases[no].state != "done":
            self._broken(account, no, f"{name} confirmed a case that is {known.cases[no].state}")


def _untrue(case: SeenCase, name: str, mark: str, cancelled: bool) -> str:
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
