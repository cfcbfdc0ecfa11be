"""The installation's keys, told from others by their fingerprints, and made where there is nothing to open yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.errors import KeysDifferError, KeysMissingError, KeysUnrecordedError
from jiebang.store.operations import key_fingerprints as store

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database

_SINCE_EVER: Final = frozenset(
    {"bodies", "case_ids", "codes", "documents", "master", "passwords", "records", "seals"},
)
"""The keys that every installation has, also one of before fingerprints were recorded: they are never made for one that
holds people. A key that a later version brings is in no installation that has not recorded it."""
SEALS: Final = "seals"
"""The key of the seals, which is changed in a living installation: what it signed stays good under its old public key.
The two that wrap data keys are changed by wrapping those anew; no other can be."""


class HeldKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of this host: the folder they are in, and the fingerprint of each by name."""

    folder: str
    fingerprints: Mapping[str, bytes]

    def __repr__(self) -> str:
        """Show the folder alone."""
        return f"HeldKeys({self.folder!r})"


async def require_same_keys(db: Database, held: HeldKeys) -> None:
    """Make sure that this host has the installation's keys. Raises KeysDifferError, KeysUnrecordedError."""
    recorded = await store.load_fingerprints(db)
    _require_same(recorded, held)
    if unrecorded := sorted(held.fingerprints.keys() - recorded.keys()):
        raise KeysUnrecordedError(keys=unrecorded)


def _require_same(recorded: Mapping[str, bytes], held: HeldKeys) -> None:
    differing = [
        f"{name}.key" for name, print_ in sorted(held.fingerprints.items()) if recorded.get(name, print_) != print_
    ]
    if differing:
        raise KeysDifferError(path=held.folder, keys=differing)


async def establish_keys(
    db: Database,
    folder: str,
    missing: Collection[str],
    make: Callable[[Collection[str]], None],
    hold: Callable[[], HeldKeys],
    now: datetime,
) -> None:
    """Record this host's keys as the installation's, those of them that are not recorded yet; the first host wins.

    `missing`: the names of the keys that are not in `folder`; `make` makes them, where nothing can be sealed under
    others; `hold` reads all. Call it in a transaction. Raises KeysMissingError, KeysDifferError.
    """
    await store.lock(db)
    recorded = await store.load_fingerprints(db)
    old = bool(recorded) or await store.holds_people(db)
    lost = sorted(name for name in missing if name in recorded or (old and name in _SINCE_EVER))
    if lost:
        raise KeysMissingError(path=folder, keys=[f"{name}.key" for name in lost])
    if missing:
        make(missing)
    held = hold()
    _require_same(recorded, held)
    new = {name: print_ for name, print_ in held.fingerprints.items() if name not in recorded}
    if new:
        await store.record(db, new, now)


async def require_recorded(db: Database) -> None:
    """Make sure that the installation's keys are recorded, and let nobody else record any until the transaction ends.

    Raises KeysUnrecordedError.
    """
    await store.lock(db)
    if not await store.load_fingerprints(db):
        raise KeysUnrecordedError(keys=sorted(_SINCE_EVER))


async def record_new_key(db: Database, name: str, fingerprint: bytes, now: datetime) -> None:
    """Record the fingerprint of a key that was rotated: hosts with the old one refuse to start from now on.

    One that is recorded already is not recorded again.
    """
    if (await store.load_fingerprints(db)).get(name) != fingerprint:
        await store.record(db, {name: fingerprint}, now)
