"""Answers by idempotency key, in one SQLite file: a repeat gets the same answer, also after a crash."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import msgspec

from jiebang.model.errors import IdempotencyReusedError

if TYPE_CHECKING:
    from pathlib import Path

LIFETIME: Final = timedelta(hours=24)
"""How long an answer is kept for its key."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answer (
    caller TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    action_id TEXT NOT NULL,
    expires_at REAL NOT NULL,
    status INTEGER,
    body BLOB,
    PRIMARY KEY (caller, route, key),
    CHECK ((status IS NULL) = (body IS NULL))
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_expiry ON answer (expires_at);
"""


class RequestKey(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's key for one mutation of one route, and a hash of what the body that came with it says.

    `sent_hash`: of the body's bytes as sent, which earlier versions kept instead.
    """

    caller: str
    route: str
    key: str
    body_hash: bytes
    sent_hash: bytes = b""

    @property
    def name(self) -> tuple[str, str, str]:
        """What a repeat shares with the first request."""
        return self.caller, self.route, self.key


class StoredAnswer(msgspec.Struct, frozen=True):
    """An answer as it was given."""

    status: int
    body: bytes


class AnswerStore:
    """All keys and answers. One process at a time has the file."""

    def __init__(self, path: Path, *, patience: float = 5.0) -> None:
        """Open the file, making it where it is missing; wait up to `patience` seconds for a process that has it.

        Raises sqlite3.Error.
        """
        self._db = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        for pragma in (
            "locking_mode = EXCLUSIVE",  # a key without an answer is therefore this process's
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._thread = ThreadPoolExecutor(1, "answers")

    async def take(self, asked: RequestKey, now: datetime) -> UUID | StoredAnswer:
        """Return the answer under a key, else the id to act under, which stays the same until there is one.

        Raises IdempotencyReusedError where the key came with another body, sqlite3.Error.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._take_now, asked, now)

    def _take_now(self, asked: RequestKey, now: datetime) -> UUID | StoredAnswer:
        at = now.timestamp()
        self._db.execute("DELETE FROM answer WHERE expires_at <= ?", (at,))
        self._db.execute(
            "INSERT INTO answer (caller, route, key, body_hash, action_id, expires_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (caller, route, key) DO NOTHING",
            (*asked.name, asked.body_hash, str(uuid4()), at + LIFETIME.total_seconds()),
        )
        body_hash, action_id, status, body = self._db.execute(
            "SELECT body_hash, action_id, status, body FROM answer WHERE caller = ? AND route = ? AND key = ?",
            asked.name,
        ).fetchone()
        if body_hash not in (asked.body_hash, asked.sent_hash):
            raise IdempotencyReusedError
        return UUID(action_id) if status is None else StoredAnswer(status, body)

    async def keep(self, asked: RequestKey, answer: StoredAnswer) -> None:
        """Keep the answer of a key that was taken. Raises sqlite3.Error."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._keep_now, asked, answer)

    def close(self) -> None:
        """Close the file, after pending writes."""
        self._thread.shutdown()
        self._db.close()

    def _keep_now(self, asked: RequestKey, answer: StoredAnswer) -> None:
        self._db.execute(
            "UPDATE answer SET status = ?, body = ? WHERE caller = ? AND route = ? AND key = ? AND status IS NULL",
            (answer.status, answer.body, *asked.name),
        )
