"""The keys of the seals: made once, rotated without loss, and nothing but a seal of ours passes as one."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.jwk import OKPKey

from jiebang.keys import make_keys, read_keys, replace_key
from jiebang.model.errors import HomeUnusableError
from jiebang.saga.seals import decode_statement
from jiebang.settings import read_settings
from jiebang.store.timelines.seal_signing_keys import FOLDER, build_seal_keys, read_seal_keys

SEED = b"s" * 32


def test_the_key_is_made_at_the_first_start_and_stays(tmp_path: Path) -> None:
    """Another key at every start would turn every receipt into a forgery."""
    make_keys(tmp_path)
    first = read_seal_keys(tmp_path, read_keys(tmp_path).seals)
    again = read_seal_keys(tmp_path, read_keys(tmp_path).seals)
    assert (first.kid, first.public()) == (again.kid, again.public())
    assert stat.S_IMODE((tmp_path / "seals.key").stat().st_mode) == 0o600
    [public] = (tmp_path / FOLDER).iterdir()
    assert public.name == f"{first.kid}.json"
    assert b'"d"' not in public.read_bytes()


def test_a_replaced_key_signs_and_the_old_still_vouches(tmp_path: Path) -> None:
    """Rotation as the page describes it."""
    make_keys(tmp_path)
    old = read_seal_keys(tmp_path, read_keys(tmp_path).seals)
    signed = old.sign(b"{}")
    replace_key(tmp_path, "seals")
    new = read_seal_keys(tmp_path, read_keys(tmp_path).seals)
    assert new.kid != old.kid
    assert new.payload(signed) == b"{}"
    assert [key["kid"] for key in new.public()["keys"]] == [new.kid, old.kid]
    (tmp_path / FOLDER / f"{old.kid}.json").unlink()
    assert read_seal_keys(tmp_path, read_keys(tmp_path).seals).payload(signed) is None


def test_a_public_key_that_is_none_is_told(tmp_path: Path) -> None:
    """Whoever copied half a file must hear of it at the start, not when a receipt is doubted."""
    (tmp_path / FOLDER).mkdir()
    for content in (
        b"{",
        b"{}",
        b'{"kty":"OKP","crv":"Ed25519","x":"AA"}',
        b'{"kty":"EC","crv":"P-256","x":"AA"}',
        b"[]",
    ):
        (tmp_path / FOLDER / "one.json").write_bytes(content)
        with pytest.raises(HomeUnusableError) as caught:
            read_seal_keys(tmp_path, SEED)
        assert caught.value.fields["path"].endswith("one.json"), content


def test_only_a_seal_passes_as_one() -> None:
    """The same key might sign something else one day, and whoever forges tries every form."""
    keys = build_seal_keys(SEED)
    private = OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(SEED))
    other = jws.serialize_compact(
        {"alg": "Ed25519", "kid": keys.kid, "typ": "JWT"}, b"{}", private, algorithms=["Ed25519"]
    )
    unnamed = jws.serialize_compact({"alg": "Ed25519"}, b"{}", private, algorithms=["Ed25519"])
    good = keys.sign(b'{"seal":1}')
    header, payload, signature = good.split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiamllYmFuZy10aW1lbGluZS1zZWFsIn0"
    assert keys.payload(good) == b'{"seal":1}'
    for forged in (
        other,
        unnamed,
        f"{none}.{payload}.",
        f"{header}.{payload}.",
        f"{header}.e30.{signature}",
        f"{header}.{payload}",
        good + "A",
        "",
        "…",
        "a.b.c.d.e",
    ):
        assert keys.payload(forged) is None, forged
        assert decode_statement(forged) is None


def test_where_the_anchor_is_and_how_it_is_sealed_can_be_set(tmp_path: Path) -> None:
    """An anchor on the database's own disk proves little: whoever runs it must be able to put it elsewhere."""
    (tmp_path / "jiebang.toml").write_text('anchor = "once/anchor.jsonl"\n[seals]\ngrace = 90\nbatch = 512\n')
    found = read_settings({"JIEBANG_SEALS_EVERY": "2.5"}, tmp_path)
    assert found.anchor == tmp_path / "once" / "anchor.jsonl"
    assert (found.seals.grace.total_seconds(), found.seals.every.total_seconds(), found.seals.batch) == (90, 2.5, 512)
    assert read_settings({"JIEBANG_ANCHOR": "here"}, tmp_path).anchor == tmp_path / "here"
    assert msgspec.structs.asdict(read_settings({}, tmp_path / "x"))["anchor"] is None
