"""The demo's stage: an empty installation to load people into, and the platform's own processes beside the sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jiebang.model.check import Text
from jiebang.model.errors import CallerError
from jiebang.sandbox.processes import SandboxProcess
from jiebang.store.migrate import owner_of

if TYPE_CHECKING:
    from jiebang.store.pool import Pool

_MARK: Final = "demo"
"""A file in the home: the accounts there were made by the demo, which may therefore clear them away."""


class NotOursToClearError(CallerError):
    """The home holds accounts that the demo did not make. fields: home."""

    code = "HOME-IN-USE"
    title = Text("此目录中的账户不是演示程序创建的", "This home holds accounts that the demo did not make")
    action = Text(
        "演示总是从空库开始;请用 JIEBANG_HOME 另指定一个目录。未改动任何内容。",
        "The demo starts from empty databases: set JIEBANG_HOME to another folder. Nothing was changed.",
    )


async def clear(pools: Mapping[str, Pool], home: Path) -> None:
    """Empty all databases and networks that an earlier demo filled, and mark the home as the demo's.

    Raises NotOursToClearError for accounts that somebody else loaded. No process of the sandbox may run.
    """
    mark = home / _MARK
    filled = await pools["platform"].fetchval("SELECT EXISTS (SELECT FROM platform.account)")
    if filled and not await asyncio.to_thread(mark.exists):
        raise NotOursToClearError(home=str(home))
    if filled:
        await asyncio.gather(*(_empty(pool, owner_of(name)) for name, pool in pools.items()))
        for ledger in await asyncio.to_thread(lambda: list((home / "sandbox").glob("*.sqlite*"))):
            ledger.unlink()
    await asyncio.to_thread(mark.touch)


async def _empty(pool: Pool, owner: str) -> None:
    tables = await pool.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_catalog.pg_tables"
        " WHERE schemaname = $1 AND tablename <> 'schema_migration'",
        owner,
    )
    await pool.execute("TRUNCATE " + ", ".join(row["name"] for row in tables))


@asynccontextmanager
async def platform_processes(
    home: Path, *, api_port: int, workers: int = 1
) -> AsyncIterator[Mapping[str, SandboxProcess]]:
    """Run the API and `workers` workers as processes of their own, which end with this one however it ends."""
    logs = home / "logs"
    environment = os.environ | {"JIEBANG_HOME": os.path.abspath(home)}  # noqa: PTH100, ASYNC240 - reads no file system
    processes = {
        name: SandboxProcess(name, ["jiebang", command], logs / f"{name}.log", environment=environment)
        for name, command in (("api", "serve"), *((f"worker-{number}", "worker") for number in range(1, workers + 1)))
    }
    processes["api"].port = api_port
    async with AsyncExitStack() as stack:
        for process in processes.values():
            stack.push_async_callback(process.stop)
        await asyncio.gather(*(process.start() for process in processes.values()))
        yield processes
