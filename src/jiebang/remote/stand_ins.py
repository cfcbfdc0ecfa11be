"""Stand-ins for the remote parties that an installation does not configure: files in its home say where they answer.

The sandbox writes these files and the platform reads them; neither imports the other's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.remote.link_keys import read_our_end

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from jiebang.remote.signing import Link

ADDRESSES: Final = "sandbox.json"
"""The file of the stand-ins' addresses by name; it exists while they run."""
KEYS: Final = "keys"
"""The folder of their links' key files."""
JWKS: Final = "issuer-jwks.json"
"""The file of the stand-in issuer's public keys; it stays when the issuer ends."""
DEMO: Final = "demo"
"""A file in a home that only a demo uses: there the sandbox stands in without being asked for, and a new demo may clear
everything away."""
ISSUER: Final = "urn:jiebang:sandbox-issuer"
"""That issuer's name in its tokens."""
AUDIENCE: Final = "jiebang"
"""The audience of its tokens: the platform."""


def write_addresses(home: Path, addresses: Mapping[str, str]) -> None:
    """Write the stand-ins' addresses; a reader sees the whole old or the whole new file. Raises OSError."""
    path = home / ADDRESSES
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(addresses))
    draft.replace(path)


def read_links(home: Path, names: Collection[str]) -> dict[str, Link]:
    """Return our ends of the links to the stand-ins among `names`; none where no stand-in runs.

    Raises OSError where a key is missing. A file that cannot be read says that none runs.
    """
    try:
        addresses = decode((home / ADDRESSES).read_bytes(), dict[str, str])
    except (OSError, InvalidInputError):
        return {}
    return {name: read_our_end(home / KEYS, name, url) for name, url in addresses.items() if name in names}
