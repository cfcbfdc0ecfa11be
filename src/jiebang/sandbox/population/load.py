"""`jiebang accounts load`: a population file into all databases, all of it or nothing, in constant memory.

One transaction a database, open from the first row to the last; a run of lines is read, checked and encoded in a thread
while the run before it is copied into all databases at once. The platform's own row of each account goes in first: what
it refuses is there already, or stood on an earlier line. What the tables refuse, they refuse while copying: the run is
taken back to its savepoint and read again line by line, to say which it was. The transactions are committed one right
after the other, the platform's last: should a database die in between, the error names those that kept the rows.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg
import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import CallerError, OtherSystemError
from jiebang.model.facts import PLATFORM
from jiebang.participants.base import UNANSWERED
from jiebang.sandbox.ledger import Binding
from jiebang.sandbox.population.preparing import PreparedRun, Preparer
from jiebang.sandbox.population.reading import LineFault
from jiebang.sandbox.population.tables import ESCAPE, NULL, QUOTE, LoadKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime
    from typing import BinaryIO

    Connection = asyncpg.Connection[asyncpg.Record]

MAX_FAULTS: Final = 1000
"""Faults kept in a report; all are counted."""

_PIECE: Final = 1 << 18
_AT_ONCE: Final = max(2, os.cpu_count() or 2)
"""Databases copied into at once: more would take the processor from the thread that reads ahead."""

_VALUE_REFUSED: Final = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)
"""Raised when a database, or the driver (ValueError), refuses a value: the rows are at fault, not the database."""

_TWICE: Final = Text("该账户已载入,或在前面的行中出现过", "the account is loaded already, or stood on an earlier line")
_NEW_ACCOUNTS: Final = """
INSERT INTO platform.account (account_id, created_at)
SELECT DISTINCT ON (account_id) account_id, created_at
FROM unnest($1::bigint[], $2::timestamptz[]) AS new (account_id, created_at)
ON CONFLICT (account_id) DO NOTHING
RETURNING account_id
"""


class LoadReport(msgspec.Struct, kw_only=True):
    """What a load did. `loaded`: the databases hold it; otherwise none of them holds anything of it.

    `faults` holds the first MAX_FAULTS, `bad_lines` counts the lines refused. `bindings`: sent to clearing networks;
    `bindings_skipped`: in the file, but no network was given. `doubts`: rows loaded although a number in them departs
    from its standard, by the number's field; each carries the doubt (docs/population-format.md).
    """

    loaded: bool = False
    lines: int = 0
    people: int = 0
    rows: int = 0
    bad_lines: int = 0
    faults: list[LineFault] = msgspec.field(default_factory=list)
    bindings: int = 0
    bindings_skipped: int = 0
    doubts: Counter[str] = msgspec.field(default_factory=Counter)


class LoadRefusedError(CallerError):
    """A database refused rows that the format allows: they are there already. fields: database, table, lines."""

    code = "LOAD-REFUSED"
    title = Text("数据库拒绝了部分数据,未载入任何内容", "A database refused rows; nothing was loaded")
    action = Text(
        "多为其中的账户已存在:请改用新的账户号,或使用空数据库。",
        "Most likely accounts of the file exist there already: use new account ids, or empty databases.",
    )


class LoadBrokenError(OtherSystemError):
    """A database went away. fields: database, and `kept`: databases that had committed already (mostly none)."""

    code = "LOAD-BROKEN"
    title = Text("载入期间数据库中断", "A database went away while loading")
    action = Text(
        "kept 为空则未载入任何内容,可直接重试;否则请先清空 kept 所列数据库。",
        "With `kept` empty nothing was loaded: try again. Otherwise empty the databases it names first.",
    )


class BindingTarget(Protocol):
    """A clearing network of the sandbox, as far as loading needs it (sandbox/control.py)."""

    async def bind(self, bindings: Sequence[Binding]) -> list[int]:
        """Bring bindings into force."""


async def load(
    source: BinaryIO,
    dsns: Mapping[str, str],
    keys: LoadKeys,
    *,
    now: datetime,
    skip_bad: bool = False,
    networks: Mapping[str, BindingTarget] | None = None,
    progress: Callable[[int, int], None] = lambda _bytes, _people: None,
) -> LoadReport:
    """Load a population file, opened in binary, into the databases of `dsns` (by the names of `embedded.placement`).

    A bad line means that nothing is loaded, and the report holds every fault; with `skip_bad` the other lines are
    loaded. `progress` is called with bytes read and people ready. The file's network bindings go to `networks` once the
    databases hold everything. Raises LoadRefusedError and LoadBrokenError; nothing is loaded then either, but for what
    the latter names.
    """
    async with AsyncExitStack() as stack:
        connections = await _connect(dsns, stack)
        spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        preparer = Preparer(source, keys, now, networks=tuple(networks or ()))
        loader = _Loader(connections, preparer, spool, skip_bad=skip_bad, progress=progress)
        report = await loader.run()
        if report.loaded:
            await _commit(connections)
        # Bindings have waited in the spool for the commit: a network cannot roll back.
        if report.loaded:
            report.bindings = await _bind(spool, networks or {})
            report.bindings_skipped = loader.bindings - report.bindings
    return report


async def _connect(dsns: Mapping[str, str], stack: AsyncExitStack) -> dict[str, Connection]:
    async def one(name: str, dsn: str) -> tuple[str, Connection]:
        try:
            connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "jiebang load"})
        except UNANSWERED as error:
            raise LoadBrokenError(database=name, kept=[]) from error
        stack.push_async_callback(_close, connection)
        await connection.execute("BEGIN")
        return name, connection

    return dict(await asyncio.gather(*(one(name, dsn) for name, dsn in dsns.items())))


async def _close(connection: Connection) -> None:
    """Close; what was not committed rolls back with it."""
    with suppress(*UNANSWERED):
        await connection.close(timeout=5)


async def _commit(connections: Mapping[str, Connection]) -> None:
    """Commit all databases at once, the platform's last: without its row an account does not exist."""
    kept = list[str]()

    async def run(name: str, statement: str) -> None:
        try:
            await connections[name].execute(statement)
        except UNANSWERED as error:
            raise LoadBrokenError(database=name, kept=kept) from error
        if statement == "COMMIT":
            kept.append(name)

    others = [name for name in connections if name != PLATFORM]
    await asyncio.gather(*(run(name, "SELECT 1") for name in connections))  # first check that all still answer
    done = await asyncio.gather(*(run(name, "COMMIT") for name in others), return_exceptions=True)
    for error in filter(None, done):
        raise error
    await run(PLATFORM, "COMMIT")


class _Loader:
    """One load: takes runs of lines from the preparer and copies them."""

    def __init__(
        self,
        connections: Mapping[str, Connection],
        preparer: Preparer,
        spool: BinaryIO,
        *,
        skip_bad: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        self._platform = connections[PLATFORM]
        self._others = {name: one for name, one in connections.items() if name != PLATFORM}
        self._preparer, self._spool = preparer, spool
        self._skip_bad, self._progress = skip_bad, progress
        self._turn = asyncio.Lock()  # of the platform's connection
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._report = LoadReport()
        self._size = 0
        self.bindings = 0

    @property
    def _goes_on(self) -> bool:
        """Whether what is copied can still be committed."""
        return self._skip_bad or not self._report.bad_lines

    async def run(self) -> LoadReport:
        """Copy everything, in open transactions; the report says whether they are to be committed."""
        copying: asyncio.Task[object] | None = None
        reading = asyncio.create_task(asyncio.to_thread(self._preparer.next))
        try:
            while (run := await reading).lines:
                reading = asyncio.create_task(asyncio.to_thread(self._preparer.next))
                run = await self._insert_accounts(run)
                if copying is not None:
                    await copying
                self._report.lines += len(run.lines)
                self._size += run.size
                copying = asyncio.create_task(self._copy(run) if self._goes_on else self._examine(run))
                self._progress(self._size, self._report.people)
            if copying is not None:
                await copying
            self._progress(self._size, self._report.people)
        finally:
            for task in (reading, copying):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for task in (reading, copying) if task is not None), return_exceptions=True)
        self._report.loaded = self._goes_on
        return self._report

    def _record_faults(self, faults: Sequence[LineFault]) -> None:
        self._report.bad_lines += len({fault.line for fault in faults})
        self._report.faults.extend(faults[: max(0, MAX_FAULTS - len(self._report.faults))])

    async def _insert_accounts(self, run: PreparedRun) -> PreparedRun:
        """Insert the platform's rows; prepare the run again without lines whose account exists already."""
        try:
            async with self._turn:
                rows = await self._platform.fetch(_NEW_ACCOUNTS, run.accounts, run.created)
        except _VALUE_REFUSED as error:
            raise LoadRefusedError(database=PLATFORM, table="platform.account", lines=_span(run)) from error
        except UNANSWERED as error:
            raise LoadBrokenError(database=PLATFORM, kept=[]) from error
        new = {row["account_id"] for row in rows}
        faults = list(run.faults)
        if len(new) < len(run.accounts):
            kept = set[int]()
            for account, number in zip(run.accounts, run.numbers, strict=True):
                if account in new:
                    new.remove(account)
                    kept.add(number)
                else:
                    faults.append(LineFault(number, "account_id", _TWICE))
            lines = [line for line in run.lines if line.number in kept]
            again = await asyncio.to_thread(self._preparer.prepare, lines, run.size)
            again.lines, run = run.lines, again
        self._record_faults(sorted(faults, key=lambda fault: fault.line))
        return run

    async def _examine(self, run: PreparedRun) -> set[int]:
        """Find out what the tables would refuse; return the accounts of those lines."""
        faults = await asyncio.to_thread(self._preparer.examine, run.without(set()))
        self._record_faults(faults)
        bad = {fault.line for fault in faults}
        return {account for account, number in zip(run.accounts, run.numbers, strict=True) if number in bad}

    async def _copy(self, run: PreparedRun) -> None:
        """Copy a run; where a table refuses it, roll it back, and copy it again without the bad lines."""
        await self._everywhere("SAVEPOINT run")
        refused = await self._copy_all(run)
        if refused is not None:
            await self._everywhere("ROLLBACK TO SAVEPOINT run")
            bad = await self._examine(run)
            if not bad:
                raise refused
            if not self._goes_on:
                return
            async with self._turn:
                await self._platform.execute("DELETE FROM platform.account WHERE account_id = ANY($1)", list(bad))
            run = await asyncio.to_thread(self._preparer.prepare, run.without(bad), run.size)
            if (refused := await self._copy_all(run)) is not None:
                raise refused
        await self._everywhere("RELEASE SAVEPOINT run")
        self._report.people += len(run.accounts)
        self._report.rows += len(run.accounts) + sum(
            count * len(table.databases) for table, (_, count) in run.payloads.items()
        )
        self._report.doubts.update(run.doubts)
        self.bindings += run.binding_count
        for network, bindings in run.bindings.items():
            self._spool.write(msgspec.json.encode((network, bindings)) + b"\n")

    async def _everywhere(self, statement: str) -> None:
        async def one(name: str, connection: Connection) -> None:
            try:
                await connection.execute(statement)
            except UNANSWERED as error:
                raise LoadBrokenError(database=name, kept=[]) from error

        await asyncio.gather(*(one(name, connection) for name, connection in self._others.items()))

    async def _copy_all(self, run: PreparedRun) -> LoadRefusedError | None:
        """Copy a run, the fullest databases first; return the first refusal, once all have finished."""
        sizes = dict.fromkeys(self._others, 0)
        for table, (payload, _) in run.payloads.items():
            for name in table.databases:
                sizes[name] += len(payload)
        order = sorted(sizes, key=lambda name: -sizes[name])
        done = await asyncio.gather(*(self._copy_into(name, run) for name in order), return_exceptions=True)
        errors = [one for one in done if isinstance(one, BaseException)]
        for error in sorted(errors, key=lambda error: isinstance(error, LoadRefusedError)):
            if not isinstance(error, LoadRefusedError):
                raise error
            return error
        return None

    async def _copy_into(self, database: str, run: PreparedRun) -> None:
        async with self._room:
            await self._copy_tables(database, run)

    async def _copy_tables(self, database: str, run: PreparedRun) -> None:
        connection = self._others[database]
        for table, (payload, count) in run.payloads.items():
            if database in table.databases:
                where = {"database": database, "table": f"{table.schema}.{table.name}"}
                try:
                    said = await connection.copy_to_table(
                        table.name,
                        schema_name=table.schema,
                        columns=list(table.columns),
                        source=_pieces(payload),
                        format="csv",
                        quote=QUOTE,
                        escape=ESCAPE,
                        null=NULL,
                    )
                except _VALUE_REFUSED as error:
                    raise LoadRefusedError(**where, lines=_span(run)) from error
                except UNANSWERED as error:
                    raise LoadBrokenError(database=database, kept=[]) from error
                if said != f"COPY {count}":
                    raise LoadRefusedError(**where, lines=_span(run))


def _span(run: PreparedRun) -> str:
    return f"{run.lines[0].number}-{run.lines[-1].number}"


async def _pieces(payload: bytearray | bytes) -> AsyncIterator[bytes]:
    view = memoryview(payload)
    for at in range(0, len(view), _PIECE):
        yield bytes(view[at : at + _PIECE])


async def _bind(spool: BinaryIO, networks: Mapping[str, BindingTarget]) -> int:
    """Send the spooled bindings to their networks."""
    spool.seek(0)
    sent = 0
    for line in spool:
        name, bindings = msgspec.json.decode(line, type=tuple[str, list[Binding]])
        await networks[name].bind(bindings)
        sent += len(bindings)
    return sent
