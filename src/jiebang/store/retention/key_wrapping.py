"""Wrapping keys: each data key is wrapped by the master key and by the retention key.

A wrapping key is reached through a small interface, so that it may lie in a file or in a key management service (KMS)
that never gives it out. Both take a batch: a service across the network is asked once for a thousand keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidTag

from jiebang.store.encryption import NONCE_BYTES, SealCipher, unwrap, wrap

MASTER: Final = "master"
RETENTION: Final = "retention"
MARK_BYTES: Final = 8
"""Bytes of a wrapping key's mark, which says by which key a wrap was made."""
_PURPOSES: Final = {MASTER: b"key", RETENTION: b"retained key"}


class OwnedKey(NamedTuple):
    """A data key, or a wrap of one, with the account and the epoch of the identity that it seals."""

    account_id: int
    epoch: int
    value: bytes

    def __repr__(self) -> str:
        """Show no key."""
        return f"OwnedKey({self.account_id}, {self.epoch})"


class WrappingKey(Protocol):
    """The master key or the retention key, wherever it lies. Its calls may block: on an event loop, use a thread."""

    @property
    def mark(self) -> bytes:
        """What tells the key that wraps now from those before it: 8 bytes that tell nothing about it."""

    def wrap(self, data_keys: Sequence[OwnedKey]) -> list[bytes]:
        """Wrap data keys, in order."""

    def unwrap(self, wraps: Sequence[OwnedKey]) -> list[bytes | None]:
        """Return the data keys of wraps, in order; None for one that neither this key nor one before it opens."""


class FileWrappingKey:
    """A wrapping key from a file, with those that it replaced and that some wraps may still be made by."""

    def __init__(self, name: str, key: bytes, chance: Callable[[int], bytes], previous: Sequence[bytes] = ()) -> None:
        """`name`: MASTER or RETENTION. `chance` gives so many random bytes. Keys have 32 bytes."""
        self._purpose, self._key, self._chance, self._previous = _PURPOSES[name], key, chance, previous
        self.mark: bytes = compute_mark(name, key)

    def __repr__(self) -> str:
        """Show no key."""
        return f"FileWrappingKey({self.mark.hex()})"

    def wrap(self, data_keys: Sequence[OwnedKey]) -> list[bytes]:
        """Wrap data keys, in order."""
        nonces = self._chance(NONCE_BYTES * len(data_keys))
        return [
            wrap(
                self._key,
                each.value,
                each.account_id,
                each.epoch,
                nonces[at * NONCE_BYTES : (at + 1) * NONCE_BYTES],
                self._purpose,
            )
            for at, each in enumerate(data_keys)
        ]

    def unwrap(self, wraps: Sequence[OwnedKey]) -> list[bytes | None]:
        """Return the data keys of wraps, in order; None for one that no key of ours opens."""
        return [self._open(each) for each in wraps]

    def _open(self, each: OwnedKey) -> bytes | None:
        for key in (self._key, *self._previous):
            try:
                return unwrap(key, each.value, each.account_id, each.epoch, self._purpose)
            except InvalidTag:
                continue
        return None


def compute_mark(name: str, key: bytes) -> bytes:
    """Return the mark of a wrapping key."""
    return hmac.digest(key, b"jiebang wrapping key " + name.encode(), hashlib.sha256)[:MARK_BYTES]


class LockedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A data key under both locks, as `keys.data_key` holds it."""

    account_id: int
    epoch: int
    wrapped: bytes
    wrapped_by: bytes
    retained: bytes
    retained_by: bytes


class KeyLocks(msgspec.Struct, frozen=True, kw_only=True):
    """Both wrapping keys, and the cipher of new data keys."""

    master: WrappingKey
    retention: WrappingKey
    cipher: SealCipher = SealCipher.AES_256_GCM

    def __repr__(self) -> str:
        """Show no key."""
        return "KeyLocks(…)"

    def lock(self, data_keys: Sequence[OwnedKey]) -> list[LockedKey]:
        """Put both locks on new data keys."""
        wrapped, retained = self.master.wrap(data_keys), self.retention.wrap(data_keys)
        return [
            LockedKey(
                account_id=each.account_id,
                epoch=each.epoch,
                wrapped=ours,
                wrapped_by=self.master.mark,
                retained=laws,
                retained_by=self.retention.mark,
            )
            for each, ours, laws in zip(data_keys, wrapped, retained, strict=True)
        ]
