"""What an operator asks before a start: is everything there that it needs, and how many connections will it take?"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from jiebang.app.completeness import list_gaps, list_stand_ins
from jiebang.app.opening import hold_keys, is_installed
from jiebang.keys import list_missing, read_keys
from jiebang.model.errors import JiebangError, PoolerInTheWayError
from jiebang.model.facts import PLATFORM
from jiebang.participants import PARTICIPANTS
from jiebang.settings import SettingsProblem
from jiebang.store.postgres.connecting import explain_failure
from jiebang.store.postgres.embedded import embedded, ensure_databases, placement
from jiebang.store.postgres.migrate import require_migrated
from jiebang.store.postgres.pool import BY_KEY, open_pools, redact_dsn, session_settings
from jiebang.store.postgres.sessions import require_sessions
from jiebang.store.postgres.shares import find_server
from jiebang.usecases.operations.key_fingerprints import require_same_keys

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.settings import Settings
    from jiebang.store.postgres.pool import Pool

_PATIENCE: Final = 5.0
_ROOM: Final = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0),
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')
"""
_API_AND_WORKER: Final = 2


class ServerNeed(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is asked for.

    `most`: the connections that it gives to ordinary users; `open`: how many are open now, ours and others'; both None
    where it did not answer.
    """

    server: str
    databases: Sequence[str]
    per_process: int
    most: int | None = None
    open: int | None = None


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkup found. `installed`: False where there is no database to look into yet."""

    problems: Sequence[SettingsProblem]
    stand_ins: Sequence[str]
    installed: bool
    servers: Sequence[ServerNeed]

    @property
    def complete(self) -> bool:
        """Whether a process can start."""
        return not self.problems


async def check_up(settings: Settings, declared: ParticipantRegistry = PARTICIPANTS) -> Checkup:
    """Look into everything that a start needs, changing nothing; embedded servers run meanwhile, where there are any.

    Raises the errors of `embedded`.
    """
    problems = list_gaps(settings, declared)
    installed = is_installed(settings)
    needs: Sequence[ServerNeed] = ()
    if installed:
        async with AsyncExitStack() as stack:
            if settings.databases is None:
                servers = await stack.enter_async_context(embedded(settings.home))
                databases: Mapping[str, str] = await ensure_databases(servers, placement(declared))
            else:
                databases = settings.databases
            reached, rooms = await _reach(databases, problems)
            needs = _list_needs(settings, databases, rooms)
            problems += _find_shortages(needs)
            await _examine(settings, declared, reached, problems)
    return Checkup(problems=problems, stand_ins=list_stand_ins(settings, declared), installed=installed, servers=needs)


async def _reach(
    databases: Mapping[str, str], problems: list[SettingsProblem]
) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """Connect once to each database; return those that answered, and the room on the server of each."""

    async def one(name: str, dsn: str) -> tuple[int, int] | None:
        try:
            connection = await asyncpg.connect(
                dsn, timeout=_PATIENCE, statement_cache_size=0, server_settings=session_settings(BY_KEY)
            )
            try:
                async with connection.transaction():
                    most, taken = await connection.fetchrow(_ROOM) or (0, 1)
                    return most, taken - 1
            finally:
                await connection.close(timeout=_PATIENCE)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            reason = explain_failure(error)
            problems.append(SettingsProblem(f"databases.{name}", reason.zh, reason.en))
            return None

    found = dict(zip(databases, await asyncio.gather(*(one(*each) for each in databases.items())), strict=True))
    rooms = {name: room for name, room in found.items() if room is not None}
    return {name: databases[name] for name in rooms}, rooms


def _list_needs(
    settings: Settings, databases: Mapping[str, str], rooms: Mapping[str, tuple[int, int]]
) -> list[ServerNeed]:
    held = defaultdict[str, list[str]](list)
    for name, dsn in databases.items():
        held[find_server(dsn)].append(name)
    limits = settings.connections
    needs = list[ServerNeed]()
    for server, names in held.items():
        most, taken = next((rooms[name] for name in names if name in rooms), (None, None))
        needs.append(
            ServerNeed(
                server=server,
                databases=names,
                per_process=min(limits.per_server, limits.per_database * len(names)),
                most=most,
                open=taken,
            )
        )
    return needs


def _find_shortages(needs: Sequence[ServerNeed]) -> list[SettingsProblem]:
    """Return for which servers an API and a worker together ask for more connections than there are."""
    return [
        SettingsProblem(
            "connections.per_server",
            f"服务器 {need.server} 最多给出 {need.most} 个连接,而每个进程至多需要 {need.per_process} 个,"
            f"接口与工作进程各一个已放不下:减小此项,或增大 max_connections",
            f"the server {need.server} gives {need.most} connections, and each process takes up to "
            f"{need.per_process}: not enough for an API and a worker. Lower it, or raise max_connections",
        )
        for need in needs
        if need.most is not None and need.most < _API_AND_WORKER * need.per_process
    ]


async def _examine(
    settings: Settings, declared: ParticipantRegistry, reached: Mapping[str, str], problems: list[SettingsProblem]
) -> None:
    """Look into the databases that answer: sessions, schemas, keys."""
    async with open_pools(reached, size=4, patient=True) as pools:
        try:
            await require_sessions(pools)
        except PoolerInTheWayError as error:
            named, reason = error.fields["databases"], error.fields["reason"]
            problems += [SettingsProblem(f"databases.{name}", reason.zh, reason.en) for name in named]
            return  # whatever else these sessions would say means nothing
        try:
            await require_migrated(pools, declared)
            if PLATFORM in pools and not list_missing(settings.keys):
                await _compare_keys(settings, pools)
        except JiebangError as error:
            named = ", ".join(error.fields.get("databases") or error.fields.get("keys") or ())
            where = "keys" if "keys" in error.fields else "databases"
            text = error.title
            problems.append(SettingsProblem(where, f"{text.zh}:{named}", f"{text.en}: {named}"))


async def _compare_keys(settings: Settings, pools: Mapping[str, Pool]) -> None:
    await require_same_keys(pools[PLATFORM], hold_keys(settings.keys, read_keys(settings.keys)))


def settings_without_secrets(settings: Settings) -> dict[str, object]:
    """Return the settings in force for people to read: addresses without passwords, times in seconds."""
    plain: dict[str, object] = {name: _strip(name, getattr(settings, name)) for name in settings.__struct_fields__}
    return plain | {"stand_ins": list(list_stand_ins(settings, PARTICIPANTS))}


def _strip(name: str, value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return {field: _strip(field, getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {key: redact_dsn(one) if name == "databases" else _strip(key, one) for key, one in value.items()}
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and "://" in value:
        return redact_dsn(value)
    return str(value) if isinstance(value, Path) else value
