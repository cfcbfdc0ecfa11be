"""The installation's own keys: files of random bytes in one folder, read by `app` alone.

They are made for an empty installation, by `jiebang migrate` and `jiebang demo`, and never by a start.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from jiebang.files import write, write_once
from jiebang.model.check import Text
from jiebang.model.errors import HomeUnusableError


class InstallationKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The installation's keys, 32 random bytes each (16 for the cipher of case ids), each for one purpose."""

    bodies: bytes
    case_ids: bytes
    codes: bytes
    documents: bytes
    master: bytes
    passwords: bytes
    records: bytes
    retention: bytes
    seals: bytes

    @property
    def answers(self) -> bytes:
        """The key of answers kept for repeated requests, derived: an installation of before needs no new file."""
        return hmac.digest(self.bodies, b"jiebang kept answers", hashlib.sha256)

    def __repr__(self) -> str:
        """Show no key."""
        return "Secrets(…)"


_SIZES: Final = {"case_ids": 16}


def list_missing(folder: Path) -> tuple[str, ...]:
    """Return the names of the keys that are not in `folder`. Raises HomeUnusableError."""
    try:
        return tuple(name for name in InstallationKeys.__struct_fields__ if not (folder / f"{name}.key").exists())
    except OSError as error:
        raise _unusable(folder, error) from error


def make_keys(folder: Path, names: Collection[str] = InstallationKeys.__struct_fields__) -> None:
    """Make the keys of an empty installation in `folder`, those that are missing: one file each, `<name>.key`.

    Files appear whole or not at all, also when several processes make them at once. Raises HomeUnusableError for a
    folder that cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            write_once(folder / f"{name}.key", secrets.token_bytes(_SIZES.get(name, 32)))
    except OSError as error:
        raise _unusable(folder, error) from error


def replace_key(folder: Path, name: str) -> None:
    """Put a new key in the place of one. Raises HomeUnusableError for a folder that cannot be written."""
    try:
        write(folder / f"{name}.key", secrets.token_bytes(_SIZES.get(name, 32)))
    except OSError as error:
        raise _unusable(folder, error) from error


def read_keys(folder: Path) -> InstallationKeys:
    """Read the keys in `folder`. Raises HomeUnusableError for a file that is missing or cannot be used.

    All hosts of an installation need the same files: each must open what another has sealed.
    """
    try:
        return InstallationKeys(**{name: _read_key(folder, name) for name in InstallationKeys.__struct_fields__})
    except OSError as error:
        raise _unusable(folder, error) from error


def read_previous(folder: Path, name: str) -> tuple[bytes, ...]:
    """Return the key that a rotation is replacing, `<name>.previous.key`; empty where none is.

    Raises HomeUnusableError.
    """
    try:
        return (_read_key(folder, f"{name}.previous"),)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unusable(folder, error) from error


def begin_rotation(folder: Path, name: str) -> None:
    """Put a new key in the place of one, and keep the old one beside it as `<name>.previous.key`.

    Cut off anywhere, it goes on: a rotation that has begun makes no third key. Raises HomeUnusableError.
    """
    try:
        current = _read_key(folder, name)
        write_once(folder / f"{name}.previous.key", current)
        if _read_key(folder, f"{name}.previous") == current:
            write(folder / f"{name}.key", secrets.token_bytes(_SIZES.get(name, 32)))
    except OSError as error:
        raise _unusable(folder, error) from error


def end_rotation(folder: Path, name: str) -> None:
    """Delete the key that was replaced, if there is one. Raises HomeUnusableError."""
    try:
        (folder / f"{name}.previous.key").unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error


def compute_fingerprints(keys: InstallationKeys) -> Mapping[str, bytes]:
    """Return a fingerprint of each key, by name: it tells keys apart and nothing about them."""
    return {
        name: hmac.digest(getattr(keys, name), b"jiebang key fingerprint " + name.encode(), hashlib.sha256)
        for name in InstallationKeys.__struct_fields__
    }


def _unusable(folder: Path, error: OSError) -> HomeUnusableError:
    reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
    return HomeUnusableError(path=str(error.filename or folder), reason=reason)


def _read_key(folder: Path, name: str) -> bytes:
    path, size = folder / f"{name}.key", _SIZES.get(name, 32)
    secret = path.read_bytes()
    if len(secret) != size or path.stat().st_mode & 0o007:
        reason = Text(
            f"密钥文件须恰为 {size} 字节,且不对他人开放", f"a key file has exactly {size} bytes and is closed to others"
        )
        raise HomeUnusableError(path=str(path), reason=reason)
    return secret
