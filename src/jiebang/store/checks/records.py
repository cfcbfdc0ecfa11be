"""The records of checks: which policy, which facts, which outcome a case rests on. Sealed; kept with the case."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jiebang.model.errors import RecordUnreadableError
from jiebang.policy.record import Evidence, recorded
from jiebang.store.encryption import NONCE_BYTES
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.checks", "records.sql")
PASSED: Final = "PASSED"
"""The outcome of a check with nothing in the way; any other outcome is the codes that were."""


class Step(StrEnum):
    """At which step of a case the check was made."""

    SUBMIT = "submit"
    TAKE = "take"


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One check that a case rests on. `content`: as `policy.record.recorded` wrote it."""

    account_id: int
    case_no: int
    step: Step
    at: datetime
    pack: str
    outcome: str
    content: bytes


def record_of(evidence: Evidence, case_no: int, step: Step, outcome: str) -> Record:
    """Return the record of one answer for a case; `outcome`: PASSED, or the codes that stood in the way."""
    return Record(
        account_id=evidence.answer.account_id,
        case_no=case_no,
        step=step,
        at=evidence.answer.checked_at,
        pack=evidence.answer.pack,
        outcome=outcome,
        content=recorded(evidence),
    )


class Records:
    """Seals and keeps records. Each account has a key of its own, derived from the records key."""

    def __init__(self, key: bytes, new_nonce: Callable[[], bytes]) -> None:
        """`key`: 32 bytes; `new_nonce`: at least 12 random bytes at each call."""
        self._key, self._new_nonce = key, new_nonce

    async def keep(self, db: Database, records: Sequence[Record]) -> None:
        """Keep the records of a batch, in the transaction of what was decided."""
        if not records:
            return
        await db.execute(
            _SQL["insert_records"],
            *columns(records, "account_id", "case_no", "step", "at", "pack", "outcome"),
            [self._sealed(record) for record in records],
        )

    async def of_cases(self, db: Database, keys: Iterable[Key]) -> dict[Key, list[Record]]:
        """Return the records of the cases `keys`, the check that opened each first.

        Raises RecordUnreadableError for one that another key sealed, or that was changed or moved.
        """
        rows = await db.fetch(_SQL["load_records"], *key_columns(keys))
        found: defaultdict[Key, list[Record]] = defaultdict(list)
        for row in rows:
            found[row["account_id"], row["case_no"]].append(self._opened(row))
        return dict(found)

    def _sealed(self, record: Record) -> bytes:
        nonce = self._new_nonce()[:NONCE_BYTES]
        return nonce + self._cipher(record.account_id).encrypt(nonce, record.content, _bound(record))

    def _opened(self, row: asyncpg.Record) -> Record:
        sealed: bytes = row["sealed"]
        record = Record(
            account_id=row["account_id"],
            case_no=row["case_no"],
            step=Step(row["step"]),
            at=row["at"],
            pack=row["pack"],
            outcome=row["outcome"],
            content=b"",
        )
        try:
            content = self._cipher(record.account_id).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(record)
            )
        except InvalidTag:
            raise RecordUnreadableError(step=record.step.value, at=record.at.isoformat()) from None
        return msgspec.structs.replace(record, content=content)

    def _cipher(self, account_id: int) -> AESGCM:
        """One key an account: random nonces of one key for everybody would meet after some billions of records."""
        return AESGCM(hmac.digest(self._key, b"record" + account_id.to_bytes(8, "big"), hashlib.sha256))


def _bound(record: Record) -> bytes:
    """What a seal vouches for beside its content: every column of the row."""
    return msgspec.json.encode([record.account_id, record.case_no, record.step, record.at, record.pack, record.outcome])
