"""What the judge remembers, as plain values: its tables, one case, one account, and what a backup would bring back.

It shares no code with the product (see sim/auditor.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Hashable

AFTER = {
    "open": {"open", "in_review", "ready", "withdrawn", "expired", "rejected"},
    "in_review": {"in_review", "ready", "rejected", "withdrawn"},
    "ready": {"ready", "trying", "withdrawn", "rejected"},
    "trying": {"trying", "confirming", "cancelling"},
    "confirming": {"confirming", "done"},
    "cancelling": {"cancelling", "aborted"},
}
LETTERS = {"trying": "tg", "confirming": "ceCd", "cancelling": "xyXz", "done": "d", "aborted": "z"}
"""The letters a case may carry; "." alone in the states that are not named."""
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
LOST = "lost"
"""A case that the platform no longer knows, since it was restored to a time before it."""
FREE = (0, "cancelled")
WALLET = "wallet"
PLATFORM = "platform"

Row = tuple[int, str]
"""A fence row as the judge sees it: (case number, last op)."""


class ViolationError(Exception):
    """A promise was broken. The text says which, where."""


class SeenCase:
    """What the judge remembers of one case. Every field is finite, so that a whole world can be compared."""

    __slots__ = (
        "cancel_saved", "committed", "confirmed", "granted", "marks", "names", "proof_moves", "reads", "refused",
        "refused_late", "state", "truth", "try_saved", "undone", "versions", "waves", "wished",
    )  # fmt: skip

    SAVED = ("state", "marks", "versions", "committed", "wished", "proof_moves")
    SETS = ("granted", "refused", "confirmed", "try_saved", "cancel_saved", "refused_late", "undone")

    def __init__(self, names: tuple[str, ...], waves: tuple[int, ...]) -> None:
        """A case just created for `names` in Try order."""
        self.names, self.waves = names, waves
        self.state, self.marks = "open", "." * len(names)
        self.versions: tuple[int, ...] = ()
        self.committed = self.wished = False
        self.proof_moves = -1
        self.reads: dict[int, int] = {}
        self.granted, self.refused, self.confirmed = set[str](), set[str](), set[str]()
        self.try_saved, self.cancel_saved, self.refused_late = set[str](), set[str](), set[str]()
        self.truth = False
        """Whether it ended done, as its person knows, whatever was restored since."""
        self.undone = set[str]()
        """Participants that were restored to a time before what they had done of this case."""

    def memory(self) -> Hashable:
        """What is remembered, as a value that can be compared."""
        if self.state in ENDED:
            return self.state
        return (
            self.names, self.waves, *(getattr(self, name) for name in self.SAVED),
            tuple(sorted(self.reads.items())), tuple(frozenset(getattr(self, name)) for name in self.SETS),
        )  # fmt: skip

    @classmethod
    def recall(cls, memory: Hashable) -> SeenCase:
        """The case that `memory` returned."""
        if isinstance(memory, str):
            case = cls((), ())
            case.state, case.committed = memory, memory == "done"
            return case
        assert isinstance(memory, tuple)  # noqa: S101 - narrows the type; the two shapes above and below are all there are
        case = cls(memory[0], memory[1])
        case.state, case.marks, case.versions, case.committed, case.wished, case.proof_moves = memory[2:8]
        case.reads = dict(memory[8])
        for name, members in zip(cls.SETS, memory[9], strict=True):
            setattr(case, name, set(members))
        return case


class SeenAccount:
    """What the judge remembers of one account: its cases, each participant's row, and its wallet's last movement."""

    __slots__ = ("cases", "last", "moves", "newest", "rows", "statuses")

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.cases: dict[int, SeenCase] = {}
        self.rows: dict[str, Row] = {}
        self.statuses: dict[str, str] = {}
        self.last = self.moves = self.newest = 0
        """The last case number; the wallet's last movement, and the newest there ever was (a restore parts them)."""


class Evidence:
    """Everything seen in one world."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self.accounts: dict[int, SeenAccount] = {}
        self.balances: dict[int, int] = {}
        self.transfers: dict[int, int] = {}

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
        known = self.accounts[account] = SeenAccount()
        known.last, known.moves, known.newest = memory[0], memory[1], memory[1]
        known.rows, known.statuses = dict(memory[2]), dict(memory[3])
        known.cases = {no: SeenCase.recall(case) for no, case in memory[4]}

    # Backups: what is brought back is forgotten by the judge too; what others did since is not.

    def backed_up(self, name: str) -> Any:
        """A backup of one database was taken; show what is returned again when it is brought back."""
        if name == PLATFORM:
            return {
                (account, no): (
                    *(getattr(case, field) for field in SeenCase.SAVED),
                    dict(case.reads),
                    set(case.try_saved),
                    set(case.cancel_saved),
                )
                for account, known in self.accounts.items()
                for no, case in known.cases.items()
            }
        return (
            {account: (known.rows.get(name), known.statuses.get(name)) for account, known in self.accounts.items()},
            {account: known.moves for account, known in self.accounts.items()},
            dict(self.balances),
            dict(self.transfers),
        )

    def restored(self, name: str, backup: Any) -> None:
        """A database was brought back to a backup."""
        if name == PLATFORM:
            self._platform_restored(backup)
            return
        rows, moves, balances, transfers = backup
        for account, known in self.accounts.items():
            row, status = rows.get(account, (None, None))
            before = known.rows.get(name)
            _put(known.rows, name, row)
            _put(known.statuses, name, status)
            no, op = row or FREE
            for number, case in known.cases.items():
                if number > no or (number == no and op == "tried" and before != row):
                    case.undone.add(name)
                    case.confirmed.discard(name)
                    case.refused.discard(name)
                    if number > no:
                        case.granted.discard(name)
            if name == WALLET:
                known.moves = moves.get(account, 0)
        if name == WALLET:
            self.balances, self.transfers = dict(balances), dict(transfers)

    def _platform_restored(self, backup: Any) -> None:
        for account, known in self.accounts.items():
            for no, case in known.cases.items():
                held = backup.get((account, no))
                if held is None:
                    case.state = LOST
                    case.committed = case.wished = False
                else:
                    for field, value in zip(SeenCase.SAVED, held, strict=False):
                        setattr(case, field, value)
                    case.reads, case.try_saved, case.cancel_saved = dict(held[-3]), set(held[-2]), set(held[-1])
                case.committed |= bool(case.confirmed)
            numbers = [no for no, case in known.cases.items() if case.state != LOST]
            known.last = max([*numbers, *(row[0] for row in known.rows.values())], default=0)

    @staticmethod
    def _broken(account: int, no: int, what: str) -> NoReturn:
        message = f"case {account}/{no}: {what}"
        raise ViolationError(message)


def _put(table: dict[str, Any], name: str, value: object | None) -> None:
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value
