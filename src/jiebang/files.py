"""Atomic file writes: under a temporary name, renamed once the content is on the disk."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write(path: Path, content: bytes, mode: int = 0o600, *, as_folder: bool = False) -> None:
    """Write or replace a file; readers see the whole old or the whole new content.

    `mode`: its permissions, less the umask. `as_folder`: if root writes it, it belongs to the owner of its folder.
    Raises OSError.
    """
    with _draft(path, content, mode, as_folder=as_folder) as draft:
        draft.replace(path)


def write_once(path: Path, content: bytes, mode: int = 0o600, *, as_folder: bool = False) -> None:
    """Write a file as `write` does, unless it exists. Of several concurrent processes the first one wins."""
    if path.exists():
        return
    with _draft(path, content, mode, as_folder=as_folder) as draft, suppress(FileExistsError):
        path.hardlink_to(draft)


@contextmanager
def _draft(path: Path, content: bytes, mode: int, *, as_folder: bool) -> Iterator[Path]:
    """Write `content` to a draft beside `path` and yield it, to be moved into place; leave no draft behind."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, _FLAGS, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if as_folder and os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    with suppress(OSError):  # where a folder cannot be synced, the file is in place all the same
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Sync a folder's entries to the disk: otherwise a file's name may be lost in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
