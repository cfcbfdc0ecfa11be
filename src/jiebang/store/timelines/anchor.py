"""The anchor: the number and hash of the last seal, kept in a file outside the database that holds the seals.

A chain of seals shows a change in its middle; that its end was cut off shows only against something outside. One JSON
object per line, append-only: the last line counts. The same goes to the log.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

_TAIL: Final = 4096


class AnchorLine(msgspec.Struct, frozen=True):
    """One line: seal number, its hash (hexadecimal), and the time it was sealed."""

    seal: int
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    at: str


def read_last(path: Path) -> AnchorLine | None:
    """Return the last complete line; None where there is no file or no complete line. Raises OSError."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return decode(line, AnchorLine)
        except InvalidInputError:
            continue  # a line cut off by a full disk
    return None


def append(path: Path, anchored: AnchorLine) -> None:
    """Append a line and sync it to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # Starts on a line of its own: half a line left by a full disk must not spoil this one.
        os.write(descriptor, b"\n" + msgspec.json.encode(anchored) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
