"""The proofs that cases ask for. A code is never stored: only the nonce it is derived from under the platform's key."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.proof import Method
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "proofs.sql")


class Proof(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One proof of one case. `nonce` and `expires_at` only where a code was sent; `proven_at` once it was accepted."""

    account_id: int
    case_no: int
    method: Method
    tries_left: int
    nonce: bytes | None = None
    expires_at: datetime | None = None
    proven_at: datetime | None = None


def _build_proof(row: asyncpg.Record) -> Proof:
    return msgspec.convert({**row, "method": Method(row["method"])}, Proof)


async def insert(db: Database, proofs: Sequence[Proof]) -> None:
    """Insert the proofs of new cases."""
    await db.execute(
        _SQL["insert_proofs"],
        *columns(proofs, "account_id", "case_no", "method", "nonce", "expires_at", "tries_left"),
    )


async def load_of_cases(db: Database, keys: Iterable[Key], *, lock: bool = False) -> dict[Key, dict[Method, Proof]]:
    """Return the proofs of the cases `keys`; with `lock`, locked until the transaction ends."""
    query = _SQL["lock_proofs" if lock else "load_proofs"]
    rows: list[asyncpg.Record] = await db.fetch(query, *key_columns(keys))
    proofs: defaultdict[Key, dict[Method, Proof]] = defaultdict(dict)
    for proof in map(_build_proof, rows):
        proofs[proof.account_id, proof.case_no][proof.method] = proof
    return dict(proofs)


async def save(db: Database, proofs: Sequence[Proof]) -> None:
    """Write back proofs that were locked by `load_of_cases` in the same transaction."""
    await db.execute(
        _SQL["save_proofs"],
        *columns(proofs, "account_id", "case_no", "method", "nonce", "expires_at", "tries_left", "proven_at"),
    )
