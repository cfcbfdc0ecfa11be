"""A small disk under one database server, which can be filled up and emptied: a tmpfs mounted on its data directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import find
from jiebang.store.postgres.embedded import embedded, ensure_databases, placement, wait_until_stopped

_SIZE: Final = 512 << 20
_BALLAST: Final = "ballast"
_CHUNK: Final = bytes(1 << 20)


class SmallDisk:
    """The disk, by the folder it is mounted on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte."""
        size = len(_CHUNK)
        with (self.folder / _BALLAST).open("ab", buffering=0) as file:
            while size:
                try:
                    file.write(_CHUNK[:size])
                except OSError:
                    size //= 2

    def empty(self) -> None:
        """Give the space back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


def _mount(folder: Path, like: os.stat_result) -> str | None:
    """Mount a tmpfs owned as `like`; return why it cannot be."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        return "mounting needs root"
    options = f"size={_SIZE},mode=0700,uid={like.st_uid},gid={like.st_gid}"
    done = subprocess.run(  # noqa: S603 - the system's own program, our own path
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False, text=True
    )
    return None if done.returncode == 0 else f"mounting is not permitted here: {done.stderr.partition(chr(10))[0]}"


@asynccontextmanager
async def small_disk(home: Path, server: str) -> AsyncIterator[SmallDisk | str]:
    """Make the servers of `home`, and put the data of one on a disk of its own; or say why that cannot be done."""
    async with embedded(home) as servers:
        await ensure_databases(servers, placement(PARTICIPANTS))
    await wait_until_stopped(home)
    place = find(home)
    assert place is not None
    data, was = place.data(server), place.folder / f"{server}.was"
    like = data.stat()
    data.rename(was)
    data.mkdir(mode=0o700)
    os.chown(data, like.st_uid, like.st_gid)
    refused = await asyncio.to_thread(_mount, data, like)
    if refused is not None:
        data.rmdir()
        was.rename(data)
        yield refused
        return
    try:
        copying = await asyncio.create_subprocess_exec("cp", "-a", f"{was}/.", str(data))
        assert await copying.wait() == 0
        yield SmallDisk(data)
        await wait_until_stopped(home)
    finally:
        with suppress(OSError):
            subprocess.run(["umount", "-l", str(data)], check=False)  # noqa: ASYNC221, S603, S607 - on the way out
