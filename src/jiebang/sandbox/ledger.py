"""What a clearing network keeps: fence rows, card and account bindings, nonces and its faults, in one SQLite file.

A batch is one transaction on the disk (WAL, synchronous FULL): what was answered is there after `kill -9`.
Methods block; the network calls them from one thread of their own.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.remote import wire
from jiebang.remote.signing import LIFETIME, SKEW, RequestParameters
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op, fence
from jiebang.sandbox.faults import NetworkFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
CREATE TABLE IF NOT EXISTS account (
    account_id INTEGER PRIMARY KEY CHECK (account_id > 0),
    case_no INTEGER NOT NULL CHECK (case_no > 0),
    case_op TEXT NOT NULL CHECK (case_op IN ('tried', 'confirmed', 'cancelled'))
);
CREATE TABLE IF NOT EXISTS binding (
    account_id INTEGER NOT NULL CHECK (account_id > 0),
    binding TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('card', 'account')),
    title TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bound', 'releasing', 'released')),
    PRIMARY KEY (account_id, binding)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonce_expires ON nonce (expires);
CREATE TABLE IF NOT EXISTS fault (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), faults TEXT NOT NULL);
"""
_ROWS: Final = """
SELECT account_id, case_no, case_op FROM account WHERE account_id IN (SELECT value FROM json_each(?))
"""
_WRITE_ROW: Final = """
INSERT INTO account (account_id, case_no, case_op) VALUES (?, ?, ?)
ON CONFLICT (account_id) DO UPDATE SET case_no = excluded.case_no, case_op = excluded.case_op
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


class Ledger:
    """One network's durable state."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing. Raises sqlite3.Error."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "busy_timeout = 5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

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
        with self._transaction():
            rows = self.fence_rows([account for account, _ in cases])
            results, written = list[wire.Result](), dict[int, FenceRow]()
            for account, case_no in cases:
                row = rows.get(account, NO_ROW)
                verdict = fence(row, case_no, op, refusals.get(account))
                results.append(wire.build_result(account, case_no, verdict, row))
                if verdict.write is not None:
                    rows[account] = written[account] = verdict.write
            self._db.executemany(_WRITE_ROW, [(at, row.case_no, row.case_op) for at, row in written.items()])
            for case_op, (after, before) in _MOVES.items():
                moved = [account for account, row in written.items() if row.case_op is case_op]
                if moved:
                    self._db.execute(_MOVE, (after, before, _json(moved)))
            self._save_nonce(request)
            before_commit()
        return results

    def fence_rows(self, accounts: Sequence[int]) -> dict[int, FenceRow]:
        """Read the fence rows of accounts; an account without one is absent."""
        return {
            account: FenceRow(case_no, CaseOp(case_op))
            for account, case_no, case_op in self._db.execute(_ROWS, (_json(accounts),))
        }

    def look(self, accounts: Sequence[int]) -> list[wire.LookRow]:
        """Read fence rows; accounts without one are left out."""
        return [
            wire.LookRow(str(account), row.case_no, row.case_op) for account, row in self.fence_rows(accounts).items()
        ]

    def rows(self, after: int, upto: int, limit: int) -> list[wire.LookRow]:
        """Read the fence rows above account `after` up to `upto`, the first `limit`, in order."""
        query = """SELECT account_id, case_no, case_op FROM account
            WHERE account_id > ? AND account_id <= ? ORDER BY account_id LIMIT ?"""
        return [
            wire.LookRow(str(account), case_no, CaseOp(case_op))
            for account, case_no, case_op in self._db.execute(query, (after, upto, limit))
        ]

    def state(self, accounts: Sequence[int]) -> list[AccountState]:
        """Read all that is held of `accounts`, one answer each, in the order asked."""
        rows = self.fence_rows(accounts)
        bindings = dict[int, list[Binding]]()
        query = """SELECT account_id, binding, kind, title, state FROM binding
            WHERE account_id IN (SELECT value FROM json_each(?)) ORDER BY account_id, binding"""
        for account, binding, kind, title, state in self._db.execute(query, (_json(accounts),)):
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
        with self._transaction():
            accounts = list({int(one.account) for one in bindings})
            rows = self.fence_rows(accounts)
            busy = {account for account, row in rows.items() if row.case_op is CaseOp.TRIED}
            self._db.executemany(
                _BIND,
                [
                    (int(one.account), one.binding, one.kind, one.title)
                    for one in bindings
                    if int(one.account) not in busy
                ],
            )
            self._save_nonce(request)
        return [str(account) for account in sorted(busy)]

    def faults(self) -> tuple[NetworkFault, ...]:
        """Read the faults switched on."""
        row = self._db.execute("SELECT faults FROM fault").fetchone()
        return msgspec.json.decode(row[0], type=tuple[NetworkFault, ...]) if row else ()

    def save_faults(self, faults: Sequence[NetworkFault], request: RequestParameters | None = None) -> None:
        """Save the faults switched on, so that a counted one keeps its count when the process restarts."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO fault VALUES (1, ?) ON CONFLICT (only_row) DO UPDATE SET faults = excluded.faults",
                (msgspec.json.encode(faults).decode(),),
            )
            if request is not None:
                self._save_nonce(request)

    def nonces(self) -> dict[str, int]:
        """Read the nonces of the requests that changed something, with the time each expires."""
        return dict(self._db.execute("SELECT nonce, expires FROM nonce").fetchall())

    def _save_nonce(self, request: RequestParameters) -> None:
        """Save a request's nonce in the transaction of its change, and delete those too old to be replayed."""
        until = request.expires - (LIFETIME + 2 * SKEW).total_seconds()  # at the latest now, less the skew
        self._db.execute("DELETE FROM nonce WHERE expires < ?", (until,))
        self._db.execute("INSERT OR IGNORE INTO nonce VALUES (?, ?)", (request.nonce, request.expires))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _json(accounts: Sequence[int]) -> str:
    return msgspec.json.encode(accounts).decode()
