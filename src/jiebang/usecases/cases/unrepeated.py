"""Mutations that nobody repeats by themselves: those of the command line, each under a key of its own."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from jiebang.store.cases.idempotency import Claim, Kept

_LIFETIME: Final = timedelta(hours=1)


def make_claim(caller: str, route: str, now: datetime, new_id: UUID) -> Claim:
    """Return a claim that no other meets. `new_id`: unlike every other; it is the key and the holder."""
    key = str(new_id)
    body_hash = hashlib.sha256(key.encode()).digest()
    return Claim(caller=caller, route=route, key=key, body_hash=body_hash, expires_at=now + _LIFETIME, holder=new_id)


def make_answer(body: bytes, *, refused: bool = False) -> Kept:
    """Return what a mutation came to, as it is kept: status 0, or 1 for one that was refused."""
    return Kept(int(refused), body)
