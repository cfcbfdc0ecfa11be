"""The keys that sign timeline seals: Ed25519, in files, never in the database that the seals vouch for.

The private key is one of the installation's secrets (`seals.key`). Beside it, the folder `timeline-seals` holds the
public key of every pair that was ever in use, one JWK per file, named after the key's id (its RFC 7638 thumbprint).
`jiebang seals rotate` makes a new key; earlier signatures are verified with the earlier public keys. A public key that
is not in this folder is not trusted, whatever a database says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from jiebang.files import write_once
from jiebang.model.check import Text
from jiebang.model.decoding import decode
from jiebang.model.errors import HomeUnusableError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER: Final = "timeline-seals"
LAST_SEAL: Final = "last-seal-of-this-host"
"""The file in that folder in which a host remembers the last seal it made (`store.timelines.witness`)."""
_ALGORITHM: Final = "Ed25519"
_TYPE: Final = "jiebang-timeline-seal"


class SealKeys:
    """Signs as JWS (RFC 7515, algorithm Ed25519 of RFC 9864) and verifies what any known key has signed."""

    def __init__(self, current: OKPKey, known: Mapping[str, OKPKey]) -> None:
        """`current`: the private key; `known`: public keys by their ids."""
        self._current = current
        self.kid = current.thumbprint()
        self._known = {**known, self.kid: current}

    def sign(self, payload: bytes) -> str:
        """Return a payload signed with the current key, in the compact serialization."""
        header = {"alg": _ALGORITHM, "kid": self.kid, "typ": _TYPE}
        return jws.serialize_compact(header, payload, self._current, algorithms=[_ALGORITHM])

    def payload(self, signed: str) -> bytes | None:
        """Return the payload of a signed seal; None unless a known key signed it as a seal."""
        try:
            kid = jws.extract_compact(signed.encode()).headers().get("kid")
            key = self._known.get(kid) if isinstance(kid, str) else None
            if key is None:
                return None
            verified = jws.deserialize_compact(signed, key, algorithms=[_ALGORITHM])
        except (JoseError, ValueError):
            return None
        return verified.payload if verified.headers().get("typ") == _TYPE else None

    def public(self) -> dict[str, list[dict[str, Any]]]:
        """Return all public keys as a JWK Set (RFC 7517), the current one first."""
        order = sorted(self._known, key=lambda kid: (kid != self.kid, kid))
        return {"keys": [_export_public(self._known[kid], kid) for kid in order]}


def _export_public(key: OKPKey, kid: str) -> dict[str, Any]:
    jwk = key.as_dict(private=False)
    return {name: jwk[name] for name in ("kty", "crv", "x")} | {"kid": kid, "use": "sig", "alg": _ALGORITHM}


def build_seal_keys(seed: bytes, known: Mapping[str, OKPKey] | None = None) -> SealKeys:
    """Return the seal keys with the private key of `seed` (32 bytes) as the current one, beside `known` public keys."""
    return SealKeys(OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(seed)), known or {})


def read_seal_keys(folder: Path, seed: bytes) -> SealKeys:
    """Return the keys of an installation; write the public key of the current pair beside the earlier ones.

    `folder`: the folder of the installation's keys. Raises HomeUnusableError.
    """
    try:
        ours = build_seal_keys(seed)
        place = folder / FOLDER
        place.mkdir(mode=0o755, exist_ok=True)
        write_once(place / f"{ours.kid}.json", msgspec.json.encode(ours.public()["keys"][0]), 0o644)
        return build_seal_keys(seed, dict(_read_public(path) for path in sorted(place.glob("*.json"))))
    except OSError as error:
        reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
        raise HomeUnusableError(path=str(error.filename or folder), reason=reason) from error


def _read_public(path: Path) -> tuple[str, OKPKey]:
    try:
        jwk = decode(path.read_bytes(), dict[str, Any])
        key = OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")})
    except (InvalidInputError, KeyError, JoseError, TypeError, ValueError) as error:
        reason = Text("不是有效的 Ed25519 公钥(JWK)", "is not an Ed25519 public key (JWK)")
        raise HomeUnusableError(path=str(path), reason=reason) from error
    return key.thumbprint(), key
