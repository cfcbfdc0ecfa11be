"""The installation's own keys: files of random bytes in one folder, made when they are missing; read by `app` alone."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import msgspec

from jiebang.files import write_once
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
    seals: bytes

    def __repr__(self) -> str:
        """Show no key."""
        return "Secrets(…)"


_SIZES: Final = {"case_ids": 16}


def read_keys(folder: Path) -> InstallationKeys:
    """Read the keys in `folder`, one file each, `<name>.key`; create those that are missing.

    All hosts of an installation need the same files: each must open what another has sealed. Files appear whole or not
    at all, also when several processes create them at once. Raises HomeUnusableError for a folder or file that cannot
    be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return InstallationKeys(**{name: _secret(folder, name) for name in InstallationKeys.__struct_fields__})
    except OSError as error:
        reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
        raise HomeUnusableError(path=str(error.filename or folder), reason=reason) from error


def _secret(folder: Path, name: str) -> bytes:
    path, size = folder / f"{name}.key", _SIZES.get(name, 32)
    write_once(path, secrets.token_bytes(size))
    secret = path.read_bytes()
    if len(secret) != size or path.stat().st_mode & 0o007:
        reason = Text(
            f"密钥文件须恰为 {size} 字节,且不对他人开放", f"a key file has exactly {size} bytes and is closed to others"
        )
        raise HomeUnusableError(path=str(path), reason=reason)
    return secret
