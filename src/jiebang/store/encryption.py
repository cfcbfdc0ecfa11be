"""Encryption: a person's identity under their own data key, that key under two others; keyed hashes of secrets.

AES-256-GCM or SM4-GCM; an encrypted value is nonce (12 bytes), ciphertext and tag (16), concatenated. The length of a
data key says which: 32 bytes are AES's, 16 are SM4's, and what wraps it is the same cipher. Account and epoch are
authenticated as associated data: a value copied to another account or epoch does not decrypt. Nonces and keys are
arguments: the caller supplies the randomness.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
"""Bytes of a wrapping key, and of a data key of AES-256-GCM."""
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


class SealCipher(StrEnum):
    """The cipher of a new data key. Both stand side by side: changing the setting rewrites nothing."""

    AES_256_GCM = "aes-256-gcm"
    SM4_GCM = "sm4-gcm"

    @property
    def key_bytes(self) -> int:
        """Bytes of a data key."""
        return KEY_BYTES if self is SealCipher.AES_256_GCM else _SM4_KEY_BYTES


_SM4_KEY_BYTES: Final = 16
_TAG_BYTES: Final = 16


@lru_cache(maxsize=8)
def _build_aes(wrapping_key: bytes) -> AESGCM:
    """Return a wrapping key's cipher. Setting it up takes longer than using it: once per process, not per person."""
    return AESGCM(wrapping_key)


@lru_cache(maxsize=8)
def _derive_sm4(wrapping_key: bytes) -> bytes:
    """Return the SM4 key that a wrapping key of 32 bytes stands for."""
    return HKDF(hashes.SM3(), _SM4_KEY_BYTES, None, b"jiebang SM4 wrapping key").derive(wrapping_key)


def _encrypt_sm4(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(bound)
    return encryptor.update(plain) + encryptor.finalize() + encryptor.tag


def _decrypt_sm4(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    nonce, text, tag = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    decryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(bound)
    return decryptor.update(text) + decryptor.finalize()


def wrap(
    wrapping_key: bytes, data_key: bytes, account_id: int, epoch: int, nonce: bytes, purpose: bytes = b"key"
) -> bytes:
    """Wrap a data key: 60 bytes for one of AES, 44 for one of SM4. `purpose` keeps the two wraps of a key apart."""
    bound = _associated_data(purpose, account_id, epoch)
    if len(data_key) == _SM4_KEY_BYTES:
        return nonce + _encrypt_sm4(_derive_sm4(wrapping_key), nonce, data_key, bound)
    return nonce + _build_aes(wrapping_key).encrypt(nonce, data_key, bound)


def unwrap(wrapping_key: bytes, wrapped: bytes, account_id: int, epoch: int, purpose: bytes = b"key") -> bytes:
    """Return the data key. Raises cryptography.exceptions.InvalidTag for another key, account, epoch or purpose."""
    bound = _associated_data(purpose, account_id, epoch)
    if len(wrapped) == NONCE_BYTES + _SM4_KEY_BYTES + _TAG_BYTES:
        return _decrypt_sm4(_derive_sm4(wrapping_key), wrapped, bound)
    return _build_aes(wrapping_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)


def seal(data_key: bytes, identity: SealedIdentity, account_id: int, epoch: int, nonce: bytes) -> bytes:
    """Seal an identity for `identity.account.sealed`. A nonce must never be used twice under one data key."""
    plain = msgspec.json.encode(identity)
    bound = _associated_data(b"identity", account_id, epoch)
    if len(data_key) == _SM4_KEY_BYTES:
        return nonce + _encrypt_sm4(data_key, nonce, plain, bound)
    return nonce + AESGCM(data_key).encrypt(nonce, plain, bound)


def unseal(data_key: bytes, sealed: bytes, account_id: int, epoch: int) -> SealedIdentity:
    """Open a sealed identity. Raises cryptography.exceptions.InvalidTag for a wrong key, account or epoch."""
    bound = _associated_data(b"identity", account_id, epoch)
    if len(data_key) == _SM4_KEY_BYTES:
        plain = _decrypt_sm4(data_key, sealed, bound)
    else:
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
