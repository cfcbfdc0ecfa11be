"""Mutations that are never repeated: those of the command line, each under a key of its own."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from jiebang.store.cases.idempotency import Claim, KeptAnswer

_LIFETIME: Final = timedelta(hours=1)


def make_claim(caller: str, route: str, now: datetime, new_id: UUID, answers_key: bytes) -> Claim:
    """Return a claim that meets no other. `new_id`: unique; it is both key and holder.

    `answers_key`: 32 random bytes, which nobody has afterwards: no repeat will ask for the answer.
    """
    key = str(new_id)
    return Claim(
        caller=caller,
        route=route,
        key=key,
        body_hash=hashlib.sha256(key.encode()).digest(),
        answers_key=answers_key,
        expires_at=now + _LIFETIME,
        holder=new_id,
    )


def make_answer(body: bytes, *, refused: bool = False) -> KeptAnswer:
    """Return the kept answer of a mutation: status 0, or 1 if it was refused."""
    return KeptAnswer(int(refused), body)
