"""What a clearing network keeps: fence rows, card and account bindings, nonces and its faults, in one SQLite file.

A batch is one transaction on the disk (WAL, synchronous FULL): what was answered is there after `kill -9`.
Methods block; the network calls them from one thread of their own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.participants.serving.fence_file import FenceFile, to_json
from jiebang.remote import wire
from jiebang.remote.signing import RequestParameters
from jiebang.saga.fence import CaseOp, Op
from jiebang.sandbox.faults import NetworkFault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


MAX_BINDINGS: Final = 2_000
"""Bindings in one request; even the longest then stay below the body limit."""


class BindingState(StrEnum):
    """A binding at the network: in force, reserved by a Try, or given up."""

    BOUND = "bound"
    RELEASING = "releasing"
    RELEASED = "released"


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A bank card or a payment account that the network has bound to an account. `title` is for people, masked."""

    account: wire.AccountText
    binding: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,64}\Z")]
    kind: Annotated[str, Meta(pattern=r"\A(card|account)\Z")]
    title: Annotated[str, Meta(max_length=64)] = ""
    state: BindingState = BindingState.BOUND


class AccountState(msgspec.Struct, frozen=True):
    """All that a network holds of one account. `row`: None where it has none."""

    account: str
    row: wire.ResultRow | None
    bindings: list[Binding]


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS binding (
    account_id INTEGER NOT NULL CHECK (account_id > 0),
    binding TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('card', 'account')),
    title TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bound', 'releasing', 'released')),
    PRIMARY KEY (account_id, binding)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fault (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), faults TEXT NOT NULL);
"""
_MOVE: Final = """
UPDATE binding SET state = ? WHERE state = ? AND account_id IN (SELECT value FROM json_each(?))
"""
_MOVES: Final[Mapping[CaseOp, tuple[BindingState, BindingState]]] = {
    CaseOp.TRIED: (BindingState.RELEASING, BindingState.BOUND),
    CaseOp.CONFIRMED: (BindingState.RELEASED, BindingState.RELEASING),
    CaseOp.CANCELLED: (BindingState.BOUND, BindingState.RELEASING),
}
"""Row written -> the state that bindings take, and the one they had."""
_BIND: Final = """
INSERT INTO binding (account_id, binding, kind, title, state) VALUES (?, ?, ?, ?, 'bound')
ON CONFLICT (account_id, binding) DO UPDATE SET kind = excluded.kind, title = excluded.title, state = 'bound'
"""


class Ledger(FenceFile):
    """One network's durable state."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing. Raises sqlite3.Error."""
        super().__init__(path, _SCHEMA)

    def apply(
        self,
        op: Op,
        cases: Sequence[tuple[int, int]],
        refusals: Mapping[int, str],
        request: RequestParameters,
        before_commit: Callable[[], None],
    ) -> list[wire.Result]:
        """Carry out `op` for a batch of (account, case number), in order, all in one transaction.

        `refusals`: the business reason to refuse a Try, by account. `before_commit` runs with everything written.
        """

        def write(written: Mapping[CaseOp, Sequence[int]]) -> None:
            for case_op, (after, before) in _MOVES.items():
                if written[case_op]:
                    self.db.execute(_MOVE, (after, before, to_json(written[case_op])))
            before_commit()

        return self.carry_out(op, cases, request, lambda _: refusals, write)

    def state(self, accounts: Sequence[int]) -> list[AccountState]:
        """Read all that is held of `accounts`, one answer each, in the order asked."""
        rows = self.fence_rows(accounts)
        bindings = dict[int, list[Binding]]()
        query = """SELECT account_id, binding, kind, title, state FROM binding
            WHERE account_id IN (SELECT value FROM json_each(?)) ORDER BY account_id, binding"""
        for account, binding, kind, title, state in self.db.execute(query, (to_json(accounts),)):
            bindings.setdefault(account, []).append(Binding(str(account), binding, kind, title, BindingState(state)))
        return [
            AccountState(
                str(account),
                wire.ResultRow(rows[account].case_no, rows[account].case_op) if account in rows else None,
                bindings.get(account, []),
            )
            for account in accounts
        ]

    def bind(self, bindings: Sequence[Binding], request: RequestParameters) -> list[str]:
        """Bring bindings into force. Returns accounts left unchanged: between Try and Confirm or Cancel."""
        with self.transaction():
            accounts = list({int(one.account) for one in bindings})
            rows = self.fence_rows(accounts)
            busy = {account for account, row in rows.items() if row.case_op is CaseOp.TRIED}
            self.db.executemany(
                _BIND,
                [
                    (int(one.account), one.binding, one.kind, one.title)
                    for one in bindings
                    if int(one.account) not in busy
                ],
            )
            self.save_nonce(request)
        return [str(account) for account in sorted(busy)]

    def faults(self) -> tuple[NetworkFault, ...]:
        """Read the faults switched on."""
        row = self.db.execute("SELECT faults FROM fault").fetchone()
        return msgspec.json.decode(row[0], type=tuple[NetworkFault, ...]) if row else ()

    def save_faults(self, faults: Sequence[NetworkFault], request: RequestParameters | None = None) -> None:
        """Save the faults switched on, so that a counted one keeps its count when the process restarts."""
        with self.transaction():
            self.db.execute(
                "INSERT INTO fault VALUES (1, ?) ON CONFLICT (only_row) DO UPDATE SET faults = excluded.faults",
                (msgspec.json.encode(faults).decode(),),
            )
            if request is not None:
                self.save_nonce(request)
