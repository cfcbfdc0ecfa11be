"""Memories of the end of the chain of seals that are neither the platform's database nor the anchor.

Whoever writes both of those could cut the chain and have a worker seal another history under the same numbers. So each
host that seals remembers the last seal it made, in a file beside its keys, and all of them do in the database of the
keys. A worker seals nothing while the chain does not hold what is remembered.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.files import write
from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.saga.chain import time_text
from jiebang.store.postgres.named_sql import load
from jiebang.store.timelines.anchor import AnchorLine

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.timelines", "witness.sql")


def read_host(path: Path) -> AnchorLine | None:
    """Return the last seal that this host made; None where it made none, or the file is unreadable. Raises OSError."""
    try:
        return decode(path.read_bytes(), AnchorLine)
    except (FileNotFoundError, InvalidInputError):
        return None


def write_host(path: Path, end: AnchorLine) -> None:
    """Remember the last seal that this host made. Raises OSError."""
    write(path, msgspec.json.encode(end), 0o644)


async def read_witness(keys: Database) -> AnchorLine | None:
    """Return the last seal that any host made, from the database of the keys; None where there is none."""
    row = await keys.fetchrow(_SQL["read_witness"])
    return None if row is None else AnchorLine(row["seal_no"], row["hash"].hex(), time_text(row["sealed_at"]))


async def write_witness(keys: Database, end: AnchorLine) -> None:
    """Remember the last seal in the database of the keys."""
    at = datetime.fromisoformat(end.at)
    await keys.execute(_SQL["write_witness"], end.seal, bytes.fromhex(end.hash), at)


class ChainMemory:
    """Where the end of the chain is remembered beside the anchor: a file of this host, and the database of the keys."""

    def __init__(self, host: Path | None, keys: Database | None) -> None:
        """`host`: the file; `keys`: the database. None: nothing is remembered there."""
        self._host, self._keys = host, keys

    async def read(self) -> dict[str, AnchorLine]:
        """Return what is remembered, by where. Raises OSError, and what the database raises if it does not answer."""
        host = None if self._host is None else await asyncio.to_thread(read_host, self._host)
        keys = None if self._keys is None else await read_witness(self._keys)
        return {name: end for name, end in (("host", host), ("witness", keys)) if end is not None}

    async def write(self, end: AnchorLine) -> None:
        """Remember a seal everywhere. Raises OSError, and what the database raises if it does not answer."""
        if self._host is not None:
            await asyncio.to_thread(write_host, self._host, end)
        if self._keys is not None:
            await write_witness(self._keys, end)
