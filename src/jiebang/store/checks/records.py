"""The records of checks: the policy, facts and outcome that a case rests on. Encrypted; kept with the case."""

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
from jiebang.policy.record import Evidence, encode_record
from jiebang.store.encryption import NONCE_BYTES
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.checks", "records.sql")
PASSED: Final = "PASSED"
"""The outcome of a check that found no blocker; any other outcome is the codes of the blockers."""


class CheckStep(StrEnum):
    """The step of a case at which a check was made."""

    SUBMIT = "submit"
    TAKE = "take"


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One check that a case rests on. `content`: as `policy.record.recorded` wrote it."""

    account_id: int
    case_no: int
    step: CheckStep
    at: datetime
    pack: str
    outcome: str
    content: bytes


def build_record(evidence: Evidence, case_no: int, step: CheckStep, outcome: str) -> CheckRecord:
    """Return the record of one check for a case; `outcome`: PASSED, or the codes of the blockers."""
    return CheckRecord(
        account_id=evidence.answer.account_id,
        case_no=case_no,
        step=step,
        at=evidence.answer.checked_at,
        pack=evidence.answer.pack,
        outcome=outcome,
        content=encode_record(evidence),
    )


class CheckRecordStore:
    """Encrypts and stores records. Each account has a key of its own, derived from the records key."""

    def __init__(self, key: bytes, new_nonce: Callable[[], bytes]) -> None:
        """`key`: 32 bytes; `new_nonce`: at least 12 random bytes at each call."""
        self._key, self._new_nonce = key, new_nonce

    async def keep(self, db: Database, records: Sequence[CheckRecord]) -> None:
        """Store the records of a batch, in the transaction of the decision that rests on them."""
        if not records:
            return
        await db.execute(
            _SQL["insert_records"],
            *columns(records, "account_id", "case_no", "step", "at", "pack", "outcome"),
            [self._encrypt(record) for record in records],
        )

    async def of_cases(self, db: Database, keys: Iterable[Key]) -> dict[Key, list[CheckRecord]]:
        """Return the records of the cases `keys`, the check that opened each first.

        Raises RecordUnreadableError for one that another key encrypted, or that was changed or moved to another row.
        """
        rows = await db.fetch(_SQL["load_records"], *key_columns(keys))
        records: defaultdict[Key, list[CheckRecord]] = defaultdict(list)
        for row in rows:
            records[row["account_id"], row["case_no"]].append(self._decrypt(row))
        return dict(records)

    def _encrypt(self, record: CheckRecord) -> bytes:
        nonce = self._new_nonce()[:NONCE_BYTES]
        return nonce + self._cipher(record.account_id).encrypt(nonce, record.content, _associated_data(record))

    def _decrypt(self, row: asyncpg.Record) -> CheckRecord:
        sealed: bytes = row["sealed"]
        record = CheckRecord(
            account_id=row["account_id"],
            case_no=row["case_no"],
            step=CheckStep(row["step"]),
            at=row["at"],
            pack=row["pack"],
            outcome=row["outcome"],
            content=b"",
        )
        try:
            content = self._cipher(record.account_id).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated_data(record)
            )
        except InvalidTag:
            raise RecordUnreadableError(step=record.step.value, at=record.at.isoformat()) from None
        return msgspec.structs.replace(record, content=content)

    def _cipher(self, account_id: int) -> AESGCM:
        """Return the account's own cipher: under one common key, random nonces collide after billions of records."""
        return AESGCM(hmac.digest(self._key, b"record" + account_id.to_bytes(8, "big"), hashlib.sha256))


def _associated_data(record: CheckRecord) -> bytes:
    """Return what is authenticated beside the content: every other column of the row."""
    return msgspec.json.encode([record.account_id, record.case_no, record.step, record.at, record.pack, record.outcome])
