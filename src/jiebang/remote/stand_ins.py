"""Who stands in where an installation names no party of its own: files in its home say where they are.

Whoever plays them (the sandbox) writes these files and the platform reads them; neither knows the other's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.remote.link_keys import our_end

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from jiebang.remote.signing import Link

ADDRESSES: Final = "sandbox.json"
"""Where each stand-in answers, by name; there while they run."""
KEYS: Final = "keys"
"""The folder of the key files of their links."""
JWKS: Final = "issuer-jwks.json"
"""The public keys of the issuer that stands in; it stays when it ends."""
ISSUER: Final = "urn:jiebang:sandbox-issuer"
"""What that issuer calls itself in its tokens."""
AUDIENCE: Final = "jiebang"
"""Whom its tokens are meant for: the platform."""


def write_addresses(home: Path, addresses: Mapping[str, str]) -> None:
    """Say where the stand-ins answer; a reader sees the old file or the new one, whole. Raises OSError."""
    path = home / ADDRESSES
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(addresses))
    draft.replace(path)


def links(home: Path, names: Collection[str]) -> dict[str, Link]:
    """Return our ends of the links to those of `names` that stand in; none where nothing does.

    Raises OSError where a key is missing.
    """
    try:
        content = (home / ADDRESSES).read_bytes()
    except OSError:
        return {}
    addresses = msgspec.json.decode(content, type=dict[str, str])
    return {name: our_end(home / KEYS, name, url) for name, url in addresses.items() if name in names}
