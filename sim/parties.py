"""The participants of a simulated world: a row an account behind the real fence.

`apply` is the whole of what a participant does with an op, pure, so that the random worlds and the walk over every
interleaving share it. A participant toggles: Try takes a status to `pending`, Confirm to the other one (a revoke
reclaims what was bound, a restore binds it again), Cancel back to where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jiebang.model.plan import WALLET
from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    Fence = Callable[[FenceRow, int, Op, str | None], Verdict]

OTHER = {"bound": "reclaimed", "reclaimed": "bound"}
VERSION_CHANGED = "VERSION-CHANGED"
IN_THE_WAY = "IN-THE-WAY"
MOVING = "MOVING"


class PartyRow(NamedTuple):
    """One account at one participant.

    `version` is its facts_version, `kept` the status that a Cancel goes back to, `open_items` what stands in the way
    (at the wallet: entries of unfinished transfers). Balances stand beside it, in the wallet.
    """

    version: int = 1
    fence: FenceRow = NO_ROW
    status: str = "bound"
    kept: str = "bound"
    open_items: int = 0


class Applied(NamedTuple):
    """What an op did: the answer, its code, and the row after it (the same object where nothing was written)."""

    answer: Answer
    code: str | None
    row: PartyRow


def apply(fence: Fence, row: PartyRow, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
    """Carry out one op on one row. `asked`: the version a Try wants; `whim`: a business reason to refuse it."""
    refusal = whim
    if op is Op.TRY and refusal is None:
        if asked is not None and asked != row.version:
            refusal = VERSION_CHANGED
        elif row.open_items:
            refusal = IN_THE_WAY
    verdict = fence(row.fence, case_no, op, refusal)
    if verdict.write is None:
        return Applied(verdict.answer, verdict.code, row)
    return Applied(verdict.answer, verdict.code, _written(row, verdict.write))


def _written(row: PartyRow, mark: FenceRow) -> PartyRow:
    if mark.case_op is CaseOp.TRIED:
        return row._replace(fence=mark, status="pending", kept=row.status)
    if row.fence.case_op is not CaseOp.TRIED:
        return row._replace(fence=mark)
    return row._replace(fence=mark, status=OTHER[row.kept] if mark.case_op is CaseOp.CONFIRMED else row.kept)


class Transfer(NamedTuple):
    """An unfinished transfer as the wallet keeps it. `step`: what has been written so far."""

    sender: int
    receiver: int
    amount: int
    step: str = "opened"


class Party:
    """One participant of a random world: its rows, and whether it can be reached."""

    apply = staticmethod(apply)

    def __init__(self, name: str, fence: Fence, has_facts: bool) -> None:
        """Start without rows; a participant without facts is asked for no version."""
        self.name, self.fence, self.has_facts = name, fence, has_facts
        self.rows: dict[int, PartyRow] = {}
        self.up, self.life = True, 0

    def row(self, account: int) -> PartyRow:
        """The account's row, or the one it would start from."""
        return self.rows.get(account) or PartyRow()

    def take(self, account: int, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
        """Carry out one op and keep the row."""
        applied = self.apply(self.fence, self.row(account), case_no, op, asked, whim)
        self.rows[account] = applied.row
        return applied

    def backup(self) -> Any:
        """What a backup taken now would bring back."""
        return dict(self.rows)

    def restore(self, backup: Any) -> None:
        """Go back to a backup; what was under way is gone too."""
        self.rows = dict(backup)
        self.restart()

    def restart(self) -> None:
        """Forget what was under way; rows are durable."""
        self.life += 1

    def refusal(self, account: int) -> str | None:
        """With which code a recovery's Try would be refused now."""
        return IN_THE_WAY if self.row(account).open_items else None

    def change(self, account: int, open_items: int) -> None:
        """A fact changes: the version rises in the same write."""
        row = self.row(account)
        self.rows[account] = row._replace(version=row.version + 1, open_items=open_items)


class Wallet(Party):
    """The wallet: it also holds money, and lets none move while a case holds the row."""

    def __init__(self, fence: Fence) -> None:
        """Start without accounts."""
        super().__init__(WALLET, fence, has_facts=True)
        self.balances: dict[int, int] = {}
        self.transfers: dict[int, Transfer] = {}

    def backup(self) -> Any:
        """What a backup taken now would bring back: the money and the transfers with the rows."""
        return dict(self.rows), dict(self.balances), dict(self.transfers)

    def restore(self, backup: Any) -> None:
        """Go back to a backup, in all of it."""
        rows, balances, transfers = backup
        super().restore(rows)
        self.balances, self.transfers = dict(balances), dict(transfers)

    def refusal(self, account: int) -> str | None:
        """With which code a recovery's Try would be refused now: money that moves comes to rest by itself."""
        return MOVING if self.row(account).open_items else None

    def busy(self, account: int) -> bool:
        """Whether a case's Try holds the account, so that a new movement must come back later."""
        return self.row(account).fence.case_op is CaseOp.TRIED

    def closed(self, account: int) -> bool:
        """Whether the account has been reclaimed: credits go back to their sender."""
        return self.row(account).status == "reclaimed"

    def write(self, account: int, amount: int, entries: int) -> tuple[int, int]:
        """Change the balance and the number of open entries; return the version before and after."""
        row = self.row(account)
        self.rows[account] = row._replace(version=row.version + 1, open_items=row.open_items + entries)
        self.balances[account] += amount
        return row.version, row.version + 1
