"""Sealing: what is sealed opens for its own account, epoch and key alone."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from jiebang.store.encryption import (
    KEY_BYTES,
    NONCE_BYTES,
    SealedIdentity,
    _encrypt_sm4,
    document_index,
    password_hash,
    seal,
    unseal,
    unwrap,
    wrap,
)

keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
owners = st.tuples(st.integers(1, (1 << 53) - 1), st.integers(1, 1 << 40))
identities = st.builds(SealedIdentity, st.text(), st.text())


@given(keys, keys, nonces, owners, identities)
def test_what_was_sealed_opens_again(
    master: bytes, data_key: bytes, nonce: bytes, owner: tuple[int, int], identity: SealedIdentity
) -> None:
    """A name that cannot be read back is lost to its owner and to the law."""
    wrapped = wrap(master, data_key, *owner, nonce)
    assert len(wrapped) == 60
    sealed = seal(unwrap(master, wrapped, *owner), identity, *owner, nonce)
    assert unseal(data_key, sealed, *owner) == identity


@given(keys, nonces, owners, owners, identities)
def test_nothing_opens_for_another_account_epoch_or_key(
    key: bytes, nonce: bytes, owner: tuple[int, int], other: tuple[int, int], identity: SealedIdentity
) -> None:
    """A row copied under another account, or an old backup beside a new key, must not show a name."""
    sealed = seal(key, identity, *owner, nonce)
    changed = bytes([key[0] ^ 1]) + key[1:]
    with pytest.raises(InvalidTag):
        unseal(changed, sealed, *owner)
    with pytest.raises(InvalidTag):
        unwrap(changed, wrap(key, key, *owner, nonce), *owner)
    if other != owner:
        with pytest.raises(InvalidTag):
            unseal(key, sealed, *other)
        with pytest.raises(InvalidTag):
            unwrap(key, wrap(key, key, *owner, nonce), *other)
    with pytest.raises(InvalidTag):
        unseal(key, sealed[:-1] + bytes([sealed[-1] ^ 1]), *owner)


@given(keys, st.binary(min_size=16, max_size=16), nonces, owners, owners, identities)
def test_sm4_seals_as_aes_does(
    master: bytes,
    data_key: bytes,
    nonce: bytes,
    owner: tuple[int, int],
    other: tuple[int, int],
    identity: SealedIdentity,
) -> None:
    """Whoever must use the national cipher gets the same promises from it."""
    wrapped = wrap(master, data_key, *owner, nonce)
    assert len(wrapped) == 44
    sealed = seal(unwrap(master, wrapped, *owner), identity, *owner, nonce)
    assert unseal(data_key, sealed, *owner) == identity
    changed = bytes([master[0] ^ 1]) + master[1:]
    with pytest.raises(InvalidTag):
        unwrap(changed, wrapped, *owner)
    with pytest.raises(InvalidTag):
        unwrap(master, wrapped, *owner, b"retained key")
    with pytest.raises(InvalidTag):
        unseal(data_key, sealed[:-1] + bytes([sealed[-1] ^ 1]), *owner)
    if other != owner:
        with pytest.raises(InvalidTag):
            unwrap(master, wrapped, *other)
        with pytest.raises(InvalidTag):
            unseal(data_key, sealed, *other)


def test_sm4_is_the_cipher_of_the_standard() -> None:
    """RFC 8998, appendix A.1: another SM4-GCM than everybody else's could be opened by nobody else's hardware."""
    key, nonce = bytes.fromhex("0123456789abcdeffedcba9876543210"), bytes.fromhex("00001234567800000000abcd")
    plain = b"".join(bytes([each]) * 8 for each in (0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0xEE, 0xAA))
    bound = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    found = _encrypt_sm4(key, nonce, plain, bound)
    assert found.hex() == (
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15"
        "a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec"
    )


def test_marks_tell_apart_what_differs() -> None:
    """A type and a number that run together would make two documents one."""
    key = bytes(KEY_BYTES)
    assert document_index(key, "passport", "E1") == document_index(key, "passport", "E1")
    assert (
        len({document_index(key, *pair) for pair in (("passport", "E1"), ("passportE", "1"), ("passport", "e1"))}) == 3
    )
    assert len({password_hash(p, s, "246813") for p in (b"a", b"b") for s in (b"1" * 16, b"2" * 16)}) == 4
