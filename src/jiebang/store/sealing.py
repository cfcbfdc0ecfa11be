"""Sealing an identity that a case brings, under a data key of its own, wrapped and kept before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from jiebang.store.encryption import KEY_BYTES, NONCE_BYTES, document_index, seal, wrap
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.encryption import SealedIdentity
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.store", "sealing.sql")


class IdentitySealer:
    """Seals identities for the epoch in which they will be in force, and finds the blind index of a document."""

    def __init__(self, keys: Pool, master_key: bytes, index_key: bytes, chance: Callable[[int], bytes]) -> None:
        """`keys`: the database of data keys; `chance` returns so many random bytes."""
        self._keys, self._master, self._index_key, self._chance = keys, master_key, index_key, chance

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
        data_key = self._chance(KEY_BYTES)
        wrapped = wrap(self._master, data_key, account_id, epoch, self._chance(NONCE_BYTES))
        await self._keys.execute(_SQL["keep_keys"], [account_id], [epoch], [wrapped], now)
        return seal(data_key, identity, account_id, epoch, self._chance(NONCE_BYTES))
