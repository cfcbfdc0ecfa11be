"""The demo's stage: an empty installation to load people into, and the platform's own processes beside the sandbox."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jiebang.clock import utc_now
from jiebang.model.check import Text
from jiebang.model.errors import CallerError, HomeUnusableError, ProcessStartError
from jiebang.participants import PARTICIPANTS
from jiebang.remote.stand_ins import DEMO
from jiebang.sandbox.processes import SandboxProcess

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_LOCK: Final = "demo.lock"


class NotOursToClearError(CallerError):
    """The home holds accounts that the demo did not make. fields: home."""

    code = "HOME-IN-USE"
    title = Text("此目录中的账户不是演示程序创建的", "This home holds accounts that the demo did not make")
    action = Text(
        "演示总是从空库开始;请用 JIEBANG_HOME 另指定一个目录或在 JIEBANG_DATABASES 中指定空库。未改动任何内容。",
        "The demo starts from empty databases: set JIEBANG_HOME to another folder, or JIEBANG_DATABASES to empty ones. "
        "Nothing was changed.",
    )


class DemoRunningError(CallerError):
    """Another demo runs in this home: a second one would empty the databases under it. fields: home."""

    code = "DEMO-RUNNING"
    title = Text("此目录中已有一个演示在运行", "A demo is running in this home already")
    action = Text(
        "请先停止它,或用 JIEBANG_HOME 另指定一个目录。未改动任何内容。",
        "Stop it first, or set JIEBANG_HOME to another folder. Nothing was changed.",
    )


@contextmanager
def only_demo(home: Path) -> Iterator[None]:
    """Hold the lock of `home`'s demo until the block is left or the process ends.

    Raises DemoRunningError, and HomeUnusableError where nothing can be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        held = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
        raise HomeUnusableError(path=str(error.filename or home), reason=reason) from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoRunningError(home=str(home)) from None
        yield
    finally:
        os.close(held)


async def clear(pools: Mapping[str, Pool], home: Path, chain_ends: Iterable[Path], *, outside: bool) -> None:
    """Empty all databases and networks that an earlier demo filled, and mark the home as the demo's.

    What is kept outside the databases and speaks of what was in them goes with them: the clearing networks' ledgers,
    the phone's messages, the super-app's answers, and `chain_ends`, which remember the end of the chain of timeline
    seals (the anchor, and this host's file). One that no demo made is moved aside, never deleted.

    `outside`: the databases are not this home's own, so its mark says nothing of them, and they must be empty. Raises
    NotOursToClearError for accounts that somebody else loaded, and HomeUnusableError for an end of a chain that cannot
    be moved. No process of the sandbox may run.
    """
    mark = home / DEMO
    ours = not outside and await asyncio.to_thread(mark.exists)
    if ours:
        # Whatever the platform's own database holds: a demo killed while it loaded may have filled the others alone.
        await asyncio.gather(*(_empty(pool, PARTICIPANTS.owner_of(name)) for name, pool in pools.items()))
    elif await pools["platform"].fetchval("SELECT EXISTS (SELECT FROM platform.account)"):
        raise NotOursToClearError(home=str(home))
    for ledger in await asyncio.to_thread(lambda: list((home / "sandbox").glob("*.sqlite*"))):
        ledger.unlink()
    for end in chain_ends:
        await asyncio.to_thread(_end_anchor, end, ours=ours)
    if not outside:
        await asyncio.to_thread(mark.touch)


def _end_anchor(anchor: Path, *, ours: bool) -> None:
    """Part with the anchor of data that is gone: a chain that begins anew would look cut off beside it."""
    try:
        if ours:
            anchor.unlink(missing_ok=True)
        elif anchor.exists():
            anchor.rename(anchor.with_name(f"{anchor.name}.before-{utc_now():%Y%m%dT%H%M%S%f}"))
    except OSError as error:
        reason = Text(
            f"演示从空库开始,封印链的旧锚点须先移走;系统报告:{error.strerror}",
            f"the demo starts from empty databases, so the old anchor must go first; the system says: {error.strerror}",
        )
        raise HomeUnusableError(path=str(anchor), reason=reason) from error


async def _empty(pool: Pool, owner: str) -> None:
    tables = await pool.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_catalog.pg_tables"
        " WHERE schemaname = $1 AND tablename NOT IN ('schema_migration', 'key_fingerprint')",
        owner,
    )
    await pool.execute("TRUNCATE " + ", ".join(row["name"] for row in tables))


@asynccontextmanager
async def platform_processes(
    home: Path, *, api_port: int, workers: int = 1
) -> AsyncIterator[Mapping[str, SandboxProcess]]:
    """Run the API and `workers` workers as processes of their own, which end with this one however it ends.

    `api_port`: where the API answers; where another program has it, any free one. Raises ProcessStartError.
    """
    logs = home / "logs"
    here = os.path.abspath(home)  # noqa: PTH100, ASYNC240 - reads no file system
    # Without --port, any free one.
    environment = os.environ | {"JIEBANG_HOME": here, "JIEBANG_HTTP_PORT": "0", "JIEBANG_SANDBOX": "true"}
    processes = {
        name: SandboxProcess(name, ["jiebang", command], logs / f"{name}.log", environment=environment)
        for name, command in (("api", "serve"), *((f"worker-{number}", "worker") for number in range(1, workers + 1)))
    }
    async with AsyncExitStack() as stack:
        for process in processes.values():
            stack.push_async_callback(process.stop)
        others = [process.start() for name, process in processes.items() if name != "api"]
        await asyncio.gather(_start_at(processes["api"], api_port), *others)
        yield processes


async def _start_at(process: SandboxProcess, port: int) -> None:
    """Start a process at `port`, or at any free one where another program has it, or takes it just now."""
    process.port = port if _is_free(port) else 0
    try:
        await process.start()
    except ProcessStartError:
        if process.port == 0 or _is_free(port):
            raise
        process.port = 0
        await process.start()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
