"""Databases for tests: one pair of embedded servers a session, migrated once, copied fresh for every module that asks.

- `databases` (module): name -> DSN of a fresh, migrated, empty set of all databases; the module owns it.
- `pools` (module): name -> asyncpg pool on `databases`.
- `servers` (session): server name -> base DSN, for tests that make their own databases.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import structlog

from jiebang.api.logs import place_of_error, withhold
from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import database_dsn, embedded, ensure_databases, placement, wait_until_stopped
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools
from tests import examples  # noqa: F401 - registers its profile before pytest looks for it
from tests.secrecy import SecretWatch

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

# As the product logs: structlog's own pretty tracebacks hold up the event loop for a third of a second each.
structlog.configure(
    processors=[structlog.processors.add_log_level, place_of_error, withhold, structlog.processors.JSONRenderer()]
)

_AS_TESTS_LOG = structlog.get_config()
_configure = structlog.configure


def _configure_anew(**how: Any) -> None:
    """Configure without caching: a logger that a command cached in this process would never be captured again."""
    _configure(**{**how, "cache_logger_on_first_use": False})


structlog.configure = _configure_anew  # type: ignore[assignment]

_copies = itertools.count(1)


def pytest_collection_finish() -> None:
    """Tell the garbage collector to leave what is there for good: modules, packs, and thousands of tests."""
    gc.freeze()


_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made there
_ROOM = 2 << 30


def _new_folder(mark: str = "") -> Path:
    """Make a folder for databases of tests; the caller deletes it.

    In memory where there is room: copying databases is ten times as fast there as on a busy disk. Open to the database
    user, which pytest's own folders are not (they are 0700, and root's servers run as nobody).
    """
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM
    base = _MEMORY if roomy else Path(tempfile.gettempdir())
    for left in base.glob("jiebang-test-*"):  # by a session that was killed
        if not Path(f"/proc/{left.name.split('-')[2]}").exists() and Path("/proc/self").exists():
            remove(left)
    folder = Path(tempfile.mkdtemp(prefix=f"jiebang-test-{os.getpid()}-{mark}", dir=base))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def secret_watch() -> Iterator[SecretWatch]:
    """Learns every secret that is read in this session, and looks for it in every error and log line."""
    watch = SecretWatch()
    with pytest.MonkeyPatch.context() as patch:
        watch.install(patch)
        yield watch


@pytest.fixture(autouse=True)
def _no_secret_is_told(secret_watch: SecretWatch) -> Iterator[None]:
    """Fails a test during which an error or a log line held a secret: logs are read by more people than keys."""
    yield
    leaks, secret_watch.leaks = secret_watch.leaks, []
    assert not leaks, sorted(set(leaks))


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Puts logging back after a test that ran a command here: the next one looks for what was logged."""
    yield
    if structlog.get_config()["processors"] is not _AS_TESTS_LOG["processors"]:
        _configure(**_AS_TESTS_LOG)


@pytest.fixture(scope="session")
def new_folder() -> Callable[[str], Path]:
    """Makes folders for databases; the argument becomes part of the name."""
    return _new_folder


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Mapping[str, str]]:
    """The session's two servers, each with migrated template databases named as in placement(PARTICIPANTS)."""
    folder = _new_folder()
    home = folder / "home"
    async with embedded(home, durable=False) as running:
        await migrate_all(await ensure_databases(running, placement(PARTICIPANTS)), PARTICIPANTS)
        yield running
    await wait_until_stopped(home)
    remove(home)
    remove(folder)


async def _copy(server: str, base: str, suffix: str) -> None:
    connection = await asyncpg.connect(base)
    try:
        for name in (name for name, at in placement(PARTICIPANTS).items() if at == server):
            await connection.execute(f'CREATE DATABASE "{name}{suffix}" TEMPLATE "{name}"')
    finally:
        await connection.close()


async def _drop(server: str, base: str, suffix: str) -> None:
    connection = await asyncpg.connect(base)
    try:
        for name in (name for name, at in placement(PARTICIPANTS).items() if at == server):
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}{suffix}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def databases(servers: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """A fresh, migrated, empty set of all databases: name -> DSN."""
    suffix = f"_{os.getpid()}_{next(_copies)}"
    await asyncio.gather(*(_copy(server, base, suffix) for server, base in servers.items()))
    yield {name: database_dsn(servers[server], f"{name}{suffix}") for name, server in placement(PARTICIPANTS).items()}
    await asyncio.gather(*(_drop(server, base, suffix) for server, base in servers.items()))


@pytest.fixture(scope="module")
async def pools(databases: Mapping[str, str]) -> AsyncIterator[Mapping[str, Pool]]:
    """Pools on the module's databases, by name, as the product opens them."""
    async with open_pools(databases, size=4) as opened:
        yield opened
