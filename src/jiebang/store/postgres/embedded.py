"""Embedded PostgreSQL: two real servers, data centres `shenzhen` and `guiyang`, started and stopped by jiebang itself.

    async with embedded(Path(".jiebang")) as servers:
        databases = await dsns(servers, placement(registry))

Any number of processes may use the same home at the same time; the servers run while at least one of them lives, and
stop when the last one has ended, however it ended (`supervisor.py` says how). Data are kept between runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import structlog

from jiebang.model.check import Text
from jiebang.model.errors import DatabaseStartError, JiebangError
from jiebang.store.postgres.data_directory import ROLE, SERVERS, Home, find, prepare
from jiebang.store.postgres.server import explain_no_space, find_postmaster
from jiebang.store.postgres.supervisor import parse_error, read_state

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry

_OWN: Final[Mapping[str, str]] = {"platform": "shenzhen", "keys": "shenzhen"}
"""Which server holds the databases that belong to no participant."""

_EVERY_PARAMETER: Final = (
    "sslmode=disable&sslnegotiation=postgres&target_session_attrs=any&krbsrvname=postgres&gsslib=gssapi"
)
"""What a DSN of an embedded server names besides user, password, host, port and database: otherwise the libpq variables
of somebody's shell (PGSSLMODE=require) decide, which are meant for other servers."""
_POLL: Final = 0.02
_WATCH: Final = 0.5
_CONNECT_LIMIT: Final = 60.0
_SOURCE: Final = str(Path(__file__).resolve().parents[2])

_log = structlog.get_logger(__name__)


def placement(registry: ParticipantRegistry) -> Mapping[str, str]:
    """Return the server that holds each database of an installation: our own, and every participant's."""
    return {**_OWN, **registry.placement}


@asynccontextmanager
async def embedded(home: Path, *, durable: bool = True) -> AsyncIterator[Mapping[str, str]]:
    """Use the embedded servers of `home`: start them unless they run, and yield the base DSN of each by name.

    `durable=False` switches fsync off, for tests only. While the context is open, servers and guardian are restarted
    should they die. Raises HomeUnusableError, DiskFullError, DatabaseDamagedError or DatabaseStartError.
    """
    place = await asyncio.to_thread(prepare, home)
    users = await _join(place)
    try:
        served = await _serve(place, durable=durable)
        watching = asyncio.create_task(_watch(place, users, durable=durable))
        try:
            yield served
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
    finally:
        os.close(users)


async def _join(home: Home) -> int:
    """Take a shared lock on the users' lock file, waiting for a guardian that is stopping the servers to finish."""
    while (descriptor := home.lock("users", fcntl.LOCK_SH)) is None:  # noqa: ASYNC110 - another process releases it, without an event
        await asyncio.sleep(_POLL)
    return descriptor


async def _serve(home: Home, *, durable: bool) -> Mapping[str, str]:
    """Make sure that a guardian runs and both servers answer; return their base DSNs."""
    until = time.monotonic() + _CONNECT_LIMIT
    while True:
        state = read_state(home) if home.guarded() else None
        if state is None:
            await asyncio.to_thread(_launch, home, durable=durable)
            state = read_state(home)
        if state is not None:
            if state.durable < durable:
                reason = Text(
                    "该目录的服务器正以不落盘方式运行(仅供测试)",
                    "the servers of this home run without fsync, for tests",
                )
                raise DatabaseStartError(server=",".join(SERVERS), log=str(home.log("guardian")), reason=reason)
            served = {
                name: f"postgresql://{ROLE}:{home.password}@127.0.0.1:{state.ports[name]}/postgres?{_EVERY_PARAMETER}"
                for name in SERVERS
            }
            if await _is_answering(served.values()):
                return served
        if time.monotonic() > until:
            reason = Text("服务器未应答", "the servers do not answer")
            raise DatabaseStartError(server=",".join(SERVERS), log=str(home.log("guardian")), reason=reason)
        await asyncio.sleep(_POLL)


def _launch(home: Home, *, durable: bool) -> None:
    """Run the guardian's launcher to its end. Raises the error it prints."""
    argv = [sys.executable, "-P", "-m", "jiebang.store.postgres.supervisor", str(home.path)]
    argv += [] if durable else ["--not-durable"]
    inherited = os.environ.get("PYTHONPATH")
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        argv,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_SOURCE, inherited] if inherited else [_SOURCE])},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0 and (done.stdout or done.stderr):  # one that was killed prints nothing: we try again
        raise parse_error(done.stdout or done.stderr, home.log("guardian"))


async def _is_answering(served: Iterable[str]) -> bool:
    """Return whether every server accepts a connection. The state of a killed guardian may name stale ports."""
    try:
        for dsn in served:
            connection = await asyncpg.connect(dsn, timeout=5)
            await connection.close()
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


async def _watch(home: Home, users: int, *, durable: bool) -> None:
    """Replace a guardian that was killed while the home is in use; stop once the home is deleted."""
    while True:
        await asyncio.sleep(_WATCH)
        try:
            if not os.path.samestat(os.fstat(users), (home.folder / "users.lock").stat()):
                return
            if not home.guarded():
                _log.warning("guardian_replaced", home=str(home.path))
                await asyncio.to_thread(_launch, home, durable=durable)
        except FileNotFoundError:
            return
        except (OSError, JiebangError) as error:
            _log.error("guardian_not_replaced", home=str(home.path), error=repr(error))


async def wait_until_stopped(home: Path) -> None:
    """Wait until a home's servers and guardian have ended. Only sensible once its users are leaving."""
    while (place := find(home)) is not None and place.guarded():  # noqa: ASYNC110 - as above
        await asyncio.sleep(_POLL)


def find_postmaster_pid(home: Path, server: str) -> int | None:
    """Return the process id of a server's postmaster, None while it does not run. For tests that kill it."""
    place = find(home)
    return None if place is None else find_postmaster(place.data(server))


def database_dsn(base: str, database: str) -> str:
    """Return the DSN of another database of the same server."""
    return urlunsplit(urlsplit(base)._replace(path=f"/{database}"))


async def ensure_databases(servers: Mapping[str, str], databases: Mapping[str, str]) -> dict[str, str]:
    """Return one DSN for each of `databases` (as `placement` places them), creating those that are missing.

    Safe to run concurrently. Raises DiskFullError, SharedMemoryFullError.
    """
    names_by_server = {
        server: [name for name, placed in databases.items() if placed == server]
        for server in dict.fromkeys(databases.values())
    }
    await asyncio.gather(
        *(_create_missing(server, servers[server], names) for server, names in names_by_server.items())
    )
    return {name: database_dsn(servers[server], name) for name, server in databases.items()}


async def _create_missing(server: str, base: str, wanted: Iterable[str]) -> None:
    connection = await asyncpg.connect(base)
    try:
        existing = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_catalog.pg_database")}
        for name in (name for name in wanted if name not in existing):
            # CREATE DATABASE takes one name; a concurrent creation may raise unique_violation.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(f'CREATE DATABASE "{name}"')
    except asyncpg.PostgresError as error:
        full = explain_no_space(str(error), server, server)
        if full is not None:
            raise full from error
        raise
    finally:
        await connection.close()
