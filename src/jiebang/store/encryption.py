"""Encryption: a person's identity under their own data key, that key under the master key; keyed hashes of secrets.

AES-256-GCM throughout; an encrypted value is nonce (12 bytes), ciphertext and tag (16), concatenated. Account and epoch
are authenticated as associated data: a value copied to another account or epoch does not decrypt. Nonces and keys are
arguments: the caller supplies the randomness.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import date
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SALT_BYTES: Final = 16
"""Bytes of a payment password's salt."""


class SealedIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `identity.account.sealed` holds. An identity sealed by an earlier version holds name and number alone.

    `birth_date` and `region` as on the document: beside the sealed bytes stands no more of them than rules need.
    """

    name: str
    number: str
    birth_date: date | None = None
    region: str | None = None


@lru_cache(maxsize=1)
def _master(master_key: bytes) -> AESGCM:
    """Return the master key's cipher. Setting it up takes longer than using it: once per process, not per person."""
    return AESGCM(master_key)


def wrap(master_key: bytes, data_key: bytes, account_id: int, epoch: int, nonce: bytes) -> bytes:
    """Wrap a data key for `keys.data_key.wrapped`: 60 bytes."""
    return nonce + _master(master_key).encrypt(nonce, data_key, _associated_data(b"key", account_id, epoch))


def unwrap(master_key: bytes, wrapped: bytes, account_id: int, epoch: int) -> bytes:
    """Return the data key. Raises cryptography.exceptions.InvalidTag for a wrong master key, account or epoch."""
    return AESGCM(master_key).decrypt(
        wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _associated_data(b"key", account_id, epoch)
    )


def seal(data_key: bytes, identity: SealedIdentity, account_id: int, epoch: int, nonce: bytes) -> bytes:
    """Seal an identity for `identity.account.sealed`. A nonce must never be used twice under one data key."""
    plain = msgspec.json.encode(identity)
    return nonce + AESGCM(data_key).encrypt(nonce, plain, _associated_data(b"identity", account_id, epoch))


def unseal(data_key: bytes, sealed: bytes, account_id: int, epoch: int) -> SealedIdentity:
    """Open a sealed identity. Raises cryptography.exceptions.InvalidTag for a wrong key, account or epoch."""
    bound = _associated_data(b"identity", account_id, epoch)
    plain = AESGCM(data_key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    return msgspec.json.decode(plain, type=SealedIdentity)


def document_index(index_key: bytes, document_type: str, document_key: str) -> bytes:
    """Return the blind index of a document: 32 bytes, equal for the same document, opaque without the key."""
    return hmac.digest(index_key, f"{document_type}\0{document_key}".encode(), hashlib.sha256)


def password_hash(pepper: bytes, salt: bytes, password: str) -> bytes:
    """Return the keyed hash of a payment password (32 bytes).

    Six digits can be searched exhaustively, however slow the hash; the pepper, which is in no database, protects them.
    """
    return hmac.digest(pepper, salt + password.encode(), hashlib.sha256)


def _associated_data(purpose: bytes, account_id: int, epoch: int) -> bytes:
    return purpose + account_id.to_bytes(8, "big") + epoch.to_bytes(8, "big")
