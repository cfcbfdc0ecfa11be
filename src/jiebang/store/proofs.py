"""The proofs that cases ask for. A code is never stored: only the nonce it is derived from under the platform's key."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.proof import Method
from jiebang.store.queries import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.store.cases import Database, Key

_SQL = load("jiebang.store", "requests.sql")


class Proof(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One proof of one case. `nonce` and `expires_at` only where a code was sent; `proven_at` once it was accepted."""

    account_id: int
    case_no: int
    method: Method
    tries_left: int
    nonce: bytes | None = None
    expires_at: datetime | None = None
    proven_at: datetime | None = None


def _proof(row: asyncpg.Record) -> Proof:
    return msgspec.convert({**row, "method": Method(row["method"])}, Proof)


async def insert(db: Database, proofs: Sequence[Proof]) -> None:
    """Insert the proofs of new cases."""
    await db.execute(
        _SQL["insert_proofs"],
        [proof.account_id for proof in proofs],
        [proof.case_no for proof in proofs],
        [proof.method.value for proof in proofs],
        [proof.nonce for proof in proofs],
        [proof.expires_at for proof in proofs],
        [proof.tries_left for proof in proofs],
    )


async def of_cases(db: Database, keys: Iterable[Key], *, lock: bool = False) -> dict[Key, dict[Method, Proof]]:
    """Return the proofs of the cases `keys`; with `lock`, held until the transaction ends."""
    ordered = sorted(keys)
    query = _SQL["lock_proofs" if lock else "load_proofs"]
    rows: list[asyncpg.Record] = await db.fetch(query, [key[0] for key in ordered], [key[1] for key in ordered])
    found: defaultdict[Key, dict[Method, Proof]] = defaultdict(dict)
    for proof in map(_proof, rows):
        found[proof.account_id, proof.case_no][proof.method] = proof
    return dict(found)


async def save(db: Database, proofs: Sequence[Proof]) -> None:
    """Write back proofs that were locked by `of_cases` in the same transaction."""
    await db.execute(
        _SQL["save_proofs"],
        [proof.account_id for proof in proofs],
        [proof.case_no for proof in proofs],
        [proof.method.value for proof in proofs],
        [proof.nonce for proof in proofs],
        [proof.expires_at for proof in proofs],
        [proof.tries_left for proof in proofs],
        [proof.proven_at for proof in proofs],
    )


async def wrong_tries(db: Database, account_id: int, method: Method, tries: int, since: datetime) -> int:
    """Count wrong tries by `method` in the account's cases opened after `since`, each of which began with `tries`."""
    wrong: int = await db.fetchval(_SQL["wrong_tries"], account_id, method.value, tries, since)
    return wrong
