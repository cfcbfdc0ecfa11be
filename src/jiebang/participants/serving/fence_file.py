"""The fence rows of a participant, its own tables and the nonces it has seen, in one SQLite file.

A batch is one transaction on the disk (WAL, synchronous FULL): what was answered is there after `kill -9`. Methods
block; a service calls them from one thread of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.remote import wire
from jiebang.remote.signing import LIFETIME, SKEW, RequestParameters
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op, fence

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS account (
    account_id INTEGER PRIMARY KEY CHECK (account_id > 0),
    case_no INTEGER NOT NULL CHECK (case_no > 0),
    case_op TEXT NOT NULL CHECK (case_op IN ('tried', 'confirmed', 'cancelled'))
);
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonce_expires ON nonce (expires);
"""
_ROWS: Final = """
SELECT account_id, case_no, case_op FROM account WHERE account_id IN (SELECT value FROM json_each(?))
"""
_WRITE_ROW: Final = """
INSERT INTO account (account_id, case_no, case_op) VALUES (?, ?, ?)
ON CONFLICT (account_id) DO UPDATE SET case_no = excluded.case_no, case_op = excluded.case_op
"""


class FenceFile:
    """One participant's durable state."""

    def __init__(self, path: Path, schema: str = "") -> None:
        """Open the file, making it where it is missing. `schema`: further tables. Raises sqlite3.Error."""
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON", "busy_timeout = 5000"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(_SCHEMA + schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what is inside whole or not at all."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    def carry_out(
        self,
        op: Op,
        cases: Sequence[tuple[int, int]],
        request: RequestParameters,
        refuse: Callable[[Sequence[int]], Mapping[int, str]],
        write: Callable[[Mapping[CaseOp, Sequence[int]]], None],
    ) -> list[wire.Result]:
        """Carry out `op` for a batch of (account, case number), in order, all in one transaction.

        `refuse`: the accounts whose Try is refused, with the code. `write`: does what goes with the fence rows that
        are written, by what they become; it is called with the rows written and not committed.
        """
        with self.transaction():
            accounts = [account for account, _ in cases]
            rows = self.fence_rows(accounts)
            refusals = refuse(accounts) if op is Op.TRY else {}
            results, written = list[wire.Result](), dict[int, FenceRow]()
            for account, case_no in cases:
                row = rows.get(account, NO_ROW)
                verdict = fence(row, case_no, op, refusals.get(account))
                results.append(wire.build_result(account, case_no, verdict, row))
                if verdict.write is not None:
                    rows[account] = written[account] = verdict.write
            self.db.executemany(_WRITE_ROW, [(at, row.case_no, row.case_op) for at, row in written.items()])
            self.save_nonce(request)
            write(
                {case_op: [account for account, row in written.items() if row.case_op is case_op] for case_op in CaseOp}
            )
        return results

    def fence_rows(self, accounts: Sequence[int]) -> dict[int, FenceRow]:
        """Read the fence rows of accounts; an account without one is absent."""
        return {
            account: FenceRow(case_no, CaseOp(case_op))
            for account, case_no, case_op in self.db.execute(_ROWS, (to_json(accounts),))
        }

    def look(self, accounts: Sequence[int]) -> list[wire.LookRow]:
        """Read fence rows; accounts without one are left out."""
        return [
            wire.LookRow(str(account), row.case_no, row.case_op) for account, row in self.fence_rows(accounts).items()
        ]

    def marks(self, after: int, upto: int, limit: int) -> list[wire.LookRow]:
        """Read the fence rows above account `after` up to `upto`, the first `limit`, in order."""
        query = """SELECT account_id, case_no, case_op FROM account
            WHERE account_id > ? AND account_id <= ? ORDER BY account_id LIMIT ?"""
        return [
            wire.LookRow(str(account), case_no, CaseOp(case_op))
            for account, case_no, case_op in self.db.execute(query, (after, upto, limit))
        ]

    def nonces(self) -> dict[str, int]:
        """Read the nonces of the requests that changed something, with the time each expires."""
        return dict(self.db.execute("SELECT nonce, expires FROM nonce").fetchall())

    def save_nonce(self, request: RequestParameters) -> None:
        """Save a request's nonce in the transaction of its change, and delete those too old to be replayed."""
        until = request.expires - (LIFETIME + 2 * SKEW).total_seconds()  # at the latest now, less the skew
        self.db.execute("DELETE FROM nonce WHERE expires < ?", (until,))
        self.db.execute("INSERT OR IGNORE INTO nonce VALUES (?, ?)", (request.nonce, request.expires))

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def to_json(accounts: Sequence[int]) -> str:
    """Return accounts as SQLite's json_each reads them."""
    return msgspec.json.encode(accounts).decode()
