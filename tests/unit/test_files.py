"""Files that are whole or not there: half a key locks everybody out, and two keys lose what the first has sealed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from jiebang.files import write, write_once

WRITERS, SIZE = 16, 1 << 16


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_private_unless_it_is_said_to_be_public(tmp_path: Path, mode: int) -> None:
    """A private key that others can read is none; a public one that nobody can read is of no use."""
    write_once(tmp_path / "once", b"a", mode)
    write(tmp_path / "again", b"b", mode)
    write(tmp_path / "again", b"c", mode)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"once": b"a", "again": b"c"}
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode & ~umask}


def test_of_many_writers_one_holds_and_its_file_is_whole(tmp_path: Path) -> None:
    """Several hosts start at once on one folder of keys: what one seals under its own key, the others never open."""
    path = tmp_path / "a.key"

    def take(number: int) -> bytes:
        write_once(path, bytes([number]) * SIZE)
        return path.read_bytes()

    with ThreadPoolExecutor(WRITERS) as pool:
        read = set(pool.map(take, range(WRITERS)))
    assert len(read) == 1
    assert {len(each) for each in read} == {SIZE}
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"], "no draft is left"


def test_readers_never_meet_half_a_file(tmp_path: Path) -> None:
    """A state that is read while it is written must be the old or the new one."""
    path = tmp_path / "state"
    write(path, bytes(SIZE))

    def turn(number: int) -> bytes:
        write(path, bytes([number]) * SIZE)
        return path.read_bytes()

    with ThreadPoolExecutor(WRITERS) as pool:
        read = list(pool.map(turn, range(256)))
    assert {(len(each), len(set(each))) for each in read} == {(SIZE, 1)}


@pytest.mark.parametrize("put", [write, write_once])
def test_what_fails_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, bytes], None]
) -> None:
    """A full disk must not take away what was there, nor fill up with drafts at each attempt."""

    def full(_descriptor: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    write(tmp_path / "kept", b"old")
    monkeypatch.setattr(os, "fsync", full)
    for name in ("kept", "new") if put is write else ("new",):
        with pytest.raises(OSError, match="No space"):
            put(tmp_path / name, b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept": b"old"}
