"""The key files of signed links: four per link in one folder, two for each direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from jiebang.files import write, write_once
from jiebang.remote.signing import Link

if TYPE_CHECKING:
    from pathlib import Path


def create_keys(folder: Path, name: str) -> None:
    """Create the two key pairs of one link in `folder`, where missing; only the owner may read the private keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for direction in ("request", "reply"):
        private = folder / f"{name}-{direction}.pem"
        if not private.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_once(private, pem)
        key = load_pem_private_key(private.read_bytes(), password=None)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write(folder / f"{name}-{direction}.pub.pem", public, 0o644)


def read_our_end(folder: Path, name: str, base_url: str) -> Link:
    """Read the platform's end of the link to `name` from `folder`. Raises OSError where a key is missing."""
    return Link(
        name=name,
        base_url=base_url,
        private_key=(folder / f"{name}-request.pem").read_bytes(),
        peer_key=(folder / f"{name}-reply.pub.pem").read_bytes(),
    )


def read_other_end(folder: Path, name: str, base_url: str) -> Link:
    """Read the other party's end of the link from `folder`. Raises OSError where a key is missing."""
    return Link(
        name=name,
        base_url=base_url,
        private_key=(folder / f"{name}-reply.pem").read_bytes(),
        peer_key=(folder / f"{name}-request.pub.pem").read_bytes(),
    )
