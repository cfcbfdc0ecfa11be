"""Databases for tests: one pair of embedded servers a session, migrated once, copied fresh for every module that asks.

- `databases` (module): name -> DSN of a fresh, migrated, empty set of all databases; the module owns it.
- `pools` (module): name -> asyncpg pool on `databases`.
- `servers` (session): server name -> base DSN, for tests that make their own databases.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from jiebang.store.embedded import PLACEMENT, database_dsn, dsns, embedded, stopped
from jiebang.store.home import remove
from jiebang.store.migrate import migrate_all
from jiebang.store.pool import open_pools

if TYPE_CHECKING:
    from jiebang.store.pool import Pool

_copies = itertools.count(1)


@pytest.fixture(scope="session")
def short_home() -> Iterator[Path]:
    """A new folder that the database user can reach (pytest's own are 0700, and root's servers run as nobody)."""
    folder = Path(tempfile.mkdtemp(prefix="jiebang-test-"))
    folder.chmod(0o711)
    yield folder
    remove(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def servers(short_home: Path) -> AsyncIterator[Mapping[str, str]]:
    """The session's two servers, each with migrated template databases named as in PLACEMENT."""
    home = short_home / "home"
    async with embedded(home, durable=False) as running:
        await migrate_all(await dsns(running))
        yield running
    await stopped(home)


async def _copy(server: str, base: str, suffix: str) -> None:
    connection = await asyncpg.connect(base)
    try:
        for name in (name for name, at in PLACEMENT.items() if at == server):
            await connection.execute(f'CREATE DATABASE "{name}{suffix}" TEMPLATE "{name}"')
    finally:
        await connection.close()


async def _drop(server: str, base: str, suffix: str) -> None:
    connection = await asyncpg.connect(base)
    try:
        for name in (name for name, at in PLACEMENT.items() if at == server):
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}{suffix}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def databases(servers: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """A fresh, migrated, empty set of all databases: name -> DSN."""
    suffix = f"_{os.getpid()}_{next(_copies)}"
    await asyncio.gather(*(_copy(server, base, suffix) for server, base in servers.items()))
    yield {name: database_dsn(servers[server], f"{name}{suffix}") for name, server in PLACEMENT.items()}
    await asyncio.gather(*(_drop(server, base, suffix) for server, base in servers.items()))


@pytest.fixture(scope="module")
async def pools(databases: Mapping[str, str]) -> AsyncIterator[Mapping[str, Pool]]:
    """Pools on the module's databases, by name, as the product opens them."""
    async with open_pools(databases, size=4) as opened:
        yield opened
