"""Sealing an identity that a case brings, under a data key of its own, kept under both locks before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from jiebang.store.encryption import NONCE_BYTES, document_index, seal
from jiebang.store.postgres.named_sql import columns, load
from jiebang.store.retention.key_wrapping import KeyLocks, OwnedKey

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.encryption import SealedIdentity
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.store", "sealing.sql")


class IdentitySealer:
    """Seals identities for the epoch in which they will be in force, and finds the blind index of a document."""

    def __init__(self, keys: Pool, locks: KeyLocks, index_key: bytes, chance: Callable[[int], bytes]) -> None:
        """`keys`: the database of data keys; `chance` returns so many random bytes."""
        self._keys, self._locks, self._index_key, self._chance = keys, locks, index_key, chance

    def __repr__(self) -> str:
        """Show no key."""
        return "IdentitySealer(…)"

    def find_index(self, document_type: str, document_key: str) -> bytes:
        """Return the blind index of a document."""
        return document_index(self._index_key, document_type, document_key)

    async def seal(self, account_id: int, epoch: int, identity: SealedIdentity, now: datetime) -> bytes:
        """Return the identity sealed under a new data key, which is kept first.

        A key that an earlier attempt left for this epoch is replaced: nothing that stays is sealed under it, as long as
        the account's identity is of an earlier epoch. The caller sees to that: one live case an account, under a lock.
        Raises what the database raises.
        """
        data_key = self._chance(self._locks.cipher.key_bytes)
        locked = await asyncio.to_thread(self._locks.lock, [OwnedKey(account_id, epoch, data_key)])
        fields = ("account_id", "epoch", "wrapped", "wrapped_by", "retained", "retained_by")
        await self._keys.execute(_SQL["keep_keys"], *columns(locked, *fields), now)
        return seal(data_key, identity, account_id, epoch, self._chance(NONCE_BYTES))
