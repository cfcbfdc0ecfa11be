"""Migrations: numbered SQL files, `NNNN_name.sql`, applied once each, in order.

A participant's are in its own folder, under `load_migrations`; those of the platform and the key store under
`store/migrations`.

Each runs in a transaction of its own, under an advisory lock, so that any number of processes may migrate at the same
time. `<owner>.schema_migration` records what was applied with the file's checksum: a file that changed afterwards is
refused, and so is a database that is ahead of this version of jiebang.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
import structlog

from jiebang.model.check import Text
from jiebang.model.errors import MigrationRefusedError, NotMigratedError, ParticipantUnavailableError
from jiebang.store.postgres.connecting import explain_failure
from jiebang.store.postgres.faults import UNANSWERED

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.store.postgres.pool import Database, Pool

_log = structlog.get_logger(__name__)

_FILES: Final = files("jiebang.store") / "migrations"
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_UNREACHED: Final = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InterfaceError,
)
"""What connecting to a database raises that is down, missing, or refuses us."""
_LOCK: Final = 0x6A696562_616E6701  # "jiebang" and a byte: one lock per database

_RECORD: Final = """
CREATE TABLE "{owner}".schema_migration (
    version integer PRIMARY KEY CHECK (version > 0),
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE "{owner}".schema_migration IS 'Which migrations were applied here. Written by jiebang alone.'
"""


class Migration(msgspec.Struct, frozen=True):
    """One migration file; `checksum` is the SHA-256 of its text with Unix line ends."""

    version: int
    name: str
    sql: str
    checksum: str


def list_owners(registry: ParticipantRegistry) -> frozenset[str]:
    """Return every owner that has migrations."""
    own = {folder.name for folder in _FILES.iterdir() if folder.is_dir() and any(_list_scripts(folder))}
    return frozenset(own | {declared.owner for declared in registry.declarations if declared.databases})


def load_migrations(owner: str, registry: ParticipantRegistry) -> tuple[Migration, ...]:
    """Return an owner's migrations in order, numbered from 1 without gaps. Raises ValueError for an unknown owner."""
    declared = registry.of_owner(owner)
    if declared is not None and declared.migrations:
        return tuple(_build(at, name, sql) for at, (name, sql) in enumerate(declared.migrations, start=1))
    folder = _FILES / owner if declared is None else files(declared.package) / "migrations"
    if not folder.is_dir():
        message = f"there are no migrations for {owner!r}"
        raise ValueError(message)
    return _read(folder)


def _list_scripts(folder: Traversable) -> Iterable[Traversable]:
    return (script for script in folder.iterdir() if script.name.endswith(".sql"))


def _read(folder: Traversable) -> tuple[Migration, ...]:
    scripts: list[Migration] = []
    for script in sorted(_list_scripts(folder), key=lambda script: script.name):
        match = _NAME.fullmatch(script.name)
        if match is None or int(match[1]) != len(scripts) + 1:
            message = f"{script}: migrations are named NNNN_name.sql, from 0001 on without gaps"
            raise ValueError(message)
        sql = script.read_text("utf-8").replace("\r\n", "\n")
        scripts.append(_build(int(match[1]), match[2], sql))
    return tuple(scripts)


def _build(version: int, name: str, sql: str) -> Migration:
    return Migration(version, name, sql, hashlib.sha256(sql.encode()).hexdigest())


async def migrate(dsn: str, owner: str, scripts: Sequence[Migration]) -> tuple[int, ...]:
    """Bring a database up to date; return the versions applied now. `scripts`: those of its owner.

    Raises MigrationRefusedError, asyncpg.PostgresError for a faulty script, OSError where the database does not answer.
    """
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        applied: list[int] = []
        for script in scripts:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                if script.version in _verify_applied(owner, scripts, await _read_applied(connection, owner)):
                    continue
                await connection.execute(script.sql)
                await _record(connection, owner, script)
                applied.append(script.version)
        return tuple(applied)
    finally:
        await connection.close()


async def _read_applied(connection: Database, owner: str) -> dict[int, tuple[str, str]]:
    """Return (name, checksum) by version of the migrations that were applied to this database."""
    if await connection.fetchval("SELECT to_regclass($1)", f'"{owner}".schema_migration') is None:
        return {}
    rows = await connection.fetch(f'SELECT version, name, checksum FROM "{owner}".schema_migration')  # noqa: S608 - the name of a folder of ours
    return {row["version"]: (row["name"], row["checksum"]) for row in rows}


def _verify_applied(owner: str, scripts: Sequence[Migration], applied: Mapping[int, tuple[str, str]]) -> frozenset[int]:
    """Return the applied versions. Raises MigrationRefusedError where they do not match our files."""
    ours = {script.version: script for script in scripts}
    for version, (name, checksum) in sorted(applied.items()):
        if version not in ours:
            reason = Text("数据库已由更新版本的解绑升级", "the database was migrated by a later version of jiebang")
        elif ours[version].checksum != checksum:
            reason = Text("该迁移文件在应用之后被改动", "this migration's file was changed after it was applied")
        else:
            continue
        raise MigrationRefusedError(owner=owner, version=version, name=name, reason=reason)
    return frozenset(applied)


async def _record(connection: asyncpg.Connection[asyncpg.Record], owner: str, script: Migration) -> None:
    if script.version == 1:  # the first migration creates the schema that holds the record
        await connection.execute(_RECORD.format(owner=owner))
    await connection.execute(
        f'INSERT INTO "{owner}".schema_migration (version, name, checksum) VALUES ($1, $2, $3)',  # noqa: S608 - as above
        script.version,
        script.name,
        script.checksum,
    )


async def migrate_all(dsns: Mapping[str, str], registry: ParticipantRegistry) -> dict[str, tuple[int, ...]]:
    """Bring all databases up to date concurrently; return the versions applied now, by database.

    One that fails does not stop the others; its error is raised once they are done: ParticipantUnavailableError
    where it does not answer, else what `migrate` raises.
    """
    owner_of = registry.owner_of
    results = await asyncio.gather(
        *(migrate(dsn, owner_of(name), load_migrations(owner_of(name), registry)) for name, dsn in dsns.items()),
        return_exceptions=True,
    )
    done: dict[str, tuple[int, ...]] = {}
    for name, result in zip(dsns, results, strict=True):
        if isinstance(result, _UNREACHED):
            raise ParticipantUnavailableError(participant=name, reason=explain_failure(result)) from result
        if isinstance(result, BaseException):
            raise result
        done[name] = result
    return done


async def require_migrated(pools: Mapping[str, Pool], registry: ParticipantRegistry) -> None:
    """Make sure that every database that answers has all of our migrations; all are queried concurrently.

    One that does not answer is passed over, as pools do. Raises NotMigratedError, naming all that lack some, and
    MigrationRefusedError for one that does not match our files.
    """

    async def is_behind(name: str, pool: Pool) -> bool:
        owner = registry.owner_of(name)
        scripts = load_migrations(owner, registry)
        try:
            return len(_verify_applied(owner, scripts, await _read_applied(pool, owner))) < len(scripts)
        except UNANSWERED as error:
            _log.warning("migrations_not_read", database=name, error=type(error).__name__)
            return False

    lacking = await asyncio.gather(*(is_behind(name, pool) for name, pool in pools.items()))
    behind = [name for name, is_lacking in zip(pools, lacking, strict=True) if is_lacking]
    if behind:
        raise NotMigratedError(databases=behind)
