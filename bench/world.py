"""What the benches of the saga share: a durable database, accounts in it, cases in `ready`, and the real worker.

How to use it (helpers: `bench/latency.py`, `bench/growth.py`, `bench/workers.py`):

    async with opened(200_000) as world:          # the reference work: one server, six participants
        await world.ready(8_192)                  # cases of accounts not used before, recorded and due now
        driver = world.driver()                   # the product's Driver over `world.plan`; notes latencies itself
        outcome = await world.drained(driver, 8_192)   # a product Worker until so many have ended: seconds, CPU
        await world.verify()                      # `jiebang verify`; raises unless clean

    opened(people, full=True)        nine databases on two servers, both clearing networks, the pack's own plan
    world.worker(driver, Pace(...))  a Worker of the product that you run and stop yourself; any number of them
    world.dsns, world.pools          for processes of your own: `joined(dsns, pools)` makes a world again there
    world.fill(first, last)          more accounts, any range, by INSERT … generate_series (for growth)
    world.cpu()                      CPU seconds so far of our process, PostgreSQL, networks and machine; the
                                     difference of two is what the time between them cost
    world.settle()                   VACUUM ANALYZE and a checkpoint, between rounds, outside what is measured
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg

from bench.cost import Cpu, Meter, Outcome, cpu_of
from bench.measure import SMOKING
from jiebang.model.case import Case, Kind, bucket_of
from jiebang.model.ids import CaseIds
from jiebang.model.plan import Plan
from jiebang.participants import PARTICIPANTS
from jiebang.participants.http import HttpParticipant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.saga.chain import canonical, digest, time_text
from jiebang.saga.coordinator import Rechecked, Timing
from jiebang.sandbox.processes import sandbox
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.postgres.data_directory import SERVERS, remove
from jiebang.store.postgres.embedded import (
    database_dsn,
    embedded,
    ensure_databases,
    find_postmaster_pid,
    placement,
    wait_until_stopped,
)
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import WHOLE_TABLE, open_pools
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.quota import Quotas, RecheckWithClaim
from jiebang.usecases.driving.advance import ENDED_TOTAL, Driver, Limits
from jiebang.usecases.operations.verify import verify
from jiebang.worker import Pace, Worker

if TYPE_CHECKING:
    from jiebang.model.case import Key
    from jiebang.participants.base import Participant
    from jiebang.policy.pack import Pack
    from jiebang.store.postgres.pool import Database, Pool
    from jiebang.usecases.driving.advance import Recheck

SIX: Final = ("identity_shenzhen", "identity_guiyang", "security", "social", "openplatform", "wallet")
"""The participants of the reference work, in Try order; the wallet's wave is the last."""
PEOPLE: Final = 200_000
RECORDED_AT_ONCE: Final = 1_024


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@cache
def the_pack() -> Pack:
    """Return the pack that comes with the product."""
    return load_pack(*packs.text("wechat"), PARTICIPANTS)


def reference_plan(pack: Pack) -> Plan:
    """Return the plan of the reference work: six participants, with the operations of the pack's own plan."""
    operations = pack.plans[Kind.REVOKE].operations
    waves = (*(0 for _ in SIX[1:]), 1)
    return Plan(name=pack.id, participants=SIX, waves=waves, operations={n: operations[n] for n in SIX})


class TimedDriver(Driver):
    """The product's driver, which also notes how long each batch took: milliseconds a case, from taken to ended."""

    latencies: list[float]
    sizes: list[int]

    async def drive(self, taken: Any, late: Any = ()) -> None:
        """Drive a batch, and note its size, and its time for each of its cases."""
        cases, started = list(taken), perf_counter()
        await super().drive(cases, late)
        self.sizes.append(len(cases))
        self.latencies += [(perf_counter() - started) * 1000] * len(cases)


_IDENTITY: Final = (
    ", state, level, document_type, sealed, document_index, birth_date, region, changed_at",
    """, 'active', 2, 'resident_id', decode(repeat('00', 64), 'hex'),
       sha256(id::text::bytea), date '1990-01-01', NULL, timestamptz '2024-06-01'""",
)
"""Columns of an active identity, and what stands in them."""

_READY: Final = r"""
WITH numbered AS (
    UPDATE platform.account a SET last_case_no = last_case_no + 1
    WHERE a.account_id = ANY ($1::bigint[]) RETURNING account_id, last_case_no
), recorded AS (
    INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, wallet_version, created_at,
        due_at, head, by_service)
    SELECT n.account_id, n.last_case_no, i.bucket, 'revoke', 'ready', $3, $4, 1, $5::timestamptz,
        $5::timestamptz + i.place * interval '1 microsecond',
        sha256(sha256(
            convert_to(E'jiebang-timeline-1\n' || i.account_id || E'\n' || n.last_case_no, 'UTF8')) || $7::bytea),
        true
    FROM unnest($1::bigint[], $2::smallint[]) WITH ORDINALITY AS i (account_id, bucket, place)
    JOIN numbered n USING (account_id)
    RETURNING account_id, case_no, head
)
INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
SELECT account_id, case_no, 1, $5, $6::text::jsonb, head FROM recorded
"""


class World:
    """Databases with accounts, and the product's own parts over them."""

    def __init__(
        self, dsns: Mapping[str, str], pools: Mapping[str, Pool], participants: Mapping[str, Participant], plan: Plan
    ) -> None:
        """`participants`: all whose facts the policy's rules read; the saga's own are those of `plan`.

        `unchained`: accounts whose cases a rival drove, which keeps no timelines in a chain of hashes.
        `batch`: how many cases a worker took at a time when one last ran here (before: what its pace begins with).
        """
        self.dsns, self.pools, self.everybody, self.plan = dsns, pools, participants, plan
        self.participants: Mapping[str, Participant] = {name: participants[name] for name in plan.participants}
        self.home: Path | None = None
        self.network_pids: Callable[[], frozenset[int]] = frozenset
        self.pack = the_pack()
        self.batch = Pace().batch
        self.unchained: set[int] = set()
        self._next = 1

    # Accounts and cases

    async def fill(self, first: int, last: int) -> None:
        """Make accounts `first` to `last`: at each database of the plan, with a bound identity, nothing in the way."""
        owned = [name for name in self.plan.participants if name in PARTICIPANTS.databases]
        await asyncio.gather(*(self._fill(name, first, last) for name in owned))
        await self.pools["platform"].execute(
            """INSERT INTO platform.account (account_id, created_at)
               SELECT id, now() FROM generate_series($1::bigint, $2::bigint) id""",
            first,
            last,
            timeout=3600,
        )

    async def _fill(self, name: str, first: int, last: int) -> None:
        owner = name.split("_", maxsplit=1)[0]
        columns, values = _IDENTITY if owner == "identity" else ("", "")
        await self.pools[name].execute(
            f"""INSERT INTO {owner}.account (account_id{columns})
                SELECT id{values} FROM generate_series($1::bigint, $2::bigint) id""",  # noqa: S608 - names of ours
            first,
            last,
            timeout=3600,
        )

    async def settle(self) -> None:
        """Vacuum, analyse, and write everything out: what a round leaves behind is not the next one's."""
        names = ("platform", *(name for name in self.plan.participants if name in PARTICIPANTS.databases))
        for name in names:
            await self.pools[name].execute("VACUUM (ANALYZE, PARALLEL 0)", timeout=600)
        await asyncio.gather(*(self.pools[name].execute("CHECKPOINT", timeout=600) for name in names[:3]))

    def unused(self, count: int, *, rival: bool = False) -> range:
        """Return the next `count` accounts that no case was made for; `rival`: it will not be the product's worker."""
        self._next += count
        accounts = range(self._next - count, self._next)
        if rival:
            self.unchained.update(accounts)
        return accounts

    async def ready(self, count: int, *, due: timedelta = timedelta()) -> range:
        """Record `count` proven cases of accounts not used before, due `due` from now; return the accounts."""
        accounts = self.unused(count)
        await self.record(accounts, due=due)
        return accounts

    async def record(
        self, accounts: Sequence[int], *, due: timedelta = timedelta(), db: Database | None = None
    ) -> None:
        """Record a proven case for each of `accounts`, due `due` from now: its number, row and first timeline row.

        `db`: another connection to the platform's database than this world's.
        """
        db, at = db or self.pools["platform"], now() + due
        entries = canonical([{"at": at, "what": "state", "state": "ready"}])
        first = digest(1, time_text(at), entries)
        for start in range(0, len(accounts), RECORDED_AT_ONCE):
            part = list(accounts[start : start + RECORDED_AT_ONCE])
            buckets = [bucket_of(account) for account in part]
            marks = "." * len(self.plan.participants)
            await db.execute(_READY, part, buckets, self.plan.name, marks, at, entries, first)

    # The product's parts

    def driver(
        self,
        *,
        rules: bool = False,
        participants: Mapping[str, Participant] | None = None,
        timing: Timing | None = None,
        limits: Limits | None = None,
    ) -> TimedDriver:
        """Return the product's driver. `rules`: the re-check evaluates the pack's rules too, over everybody's facts."""
        parties = participants or self.participants
        driver = TimedDriver(
            pool=self.pools["platform"],
            participants=parties,
            plan_of=lambda _case: self.plan,
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
            recheck=self._rules() if rules else facts_alone(parties),
            clock=now,
            timing=timing or Timing(),
            limits=limits or Limits(),
        )
        driver.latencies, driver.sizes = [], []
        return driver

    def _rules(self) -> Recheck:
        platform = self.pools["platform"]
        checker = Checker(
            registry=PARTICIPANTS,
            pack=lambda: self.pack,
            participants=self.everybody,
            platform=platform,
            case_ids=CaseIds(bytes(16)),
            clock=now,
        )
        quotas = Quotas(PARTICIPANTS, self.everybody, platform, now)
        return RecheckWithClaim(checker.recheck, quotas, pool=platform, pack=lambda: self.pack, clock=now)

    def worker(self, driver: Driver, pace: Pace | None = None) -> Worker:
        """Return a worker of the product, without chores."""
        return Worker(
            worker_id=str(uuid4()),
            pool=self.pools["platform"],
            driver=driver,
            chores={},
            clock=now,
            pace=pace or Pace(),
        )

    async def drained(
        self, driver: TimedDriver, cases: int, *, meter: Meter | None = None, pace: Pace | None = None
    ) -> Outcome:
        """Have one worker run until `cases` more have ended; count from `meter`, or from now."""
        worker, before = self.worker(driver, pace), ended()
        meter = meter or Meter(self)
        running = asyncio.create_task(worker.run())
        while ended() - before < cases:
            if running.done():
                await running
            await asyncio.sleep(0.01)
        outcome = meter.read(cases, driver.latencies)
        self.batch = int(statistics.median_high([size for size in driver.sizes for _ in range(size)] or [self.batch]))
        worker.stop()
        await running
        return outcome

    # Cost and verification

    def cpu(self) -> Cpu:
        """Return the CPU seconds so far."""
        servers = frozenset(pid for name in SERVERS if self.home and (pid := find_postmaster_pid(self.home, name)))
        return cpu_of(servers, self.network_pids())

    async def states(self, accounts: Sequence[int]) -> dict[str, int]:
        """Count the cases of `accounts` by state."""
        rows = await self.pools["platform"].fetch(
            "SELECT state, count(*) AS n FROM platform.cases WHERE account_id = ANY ($1::bigint[]) GROUP BY state",
            list(accounts),
        )
        return {row["state"]: row["n"] for row in rows}

    async def require_done(self, accounts: Sequence[int]) -> None:
        """Check that every case of `accounts` is done in the store and at every database. Raises RuntimeError."""
        found = {"platform": (await self.states(accounts)).get("done", 0)}
        for name in self.plan.participants:
            if name in PARTICIPANTS.databases:
                owner = name.split("_", maxsplit=1)[0]
                found[name] = await self.pools[name].fetchval(
                    f"""SELECT count(*) FROM {owner}.account
                        WHERE account_id = ANY ($1::bigint[]) AND case_op = 'confirmed' AND epoch = 2""",  # noqa: S608 - names of ours
                    list(accounts),
                )
        if set(found.values()) != {len(accounts)}:
            message = f"of {len(accounts)} cases these are done: {found}"
            raise RuntimeError(message)

    async def verify(self) -> None:
        """Audit everything as `jiebang verify` does. Raises RuntimeError unless it is clean."""
        async with open_pools({"wallet": self.dsns["wallet"]}, size=1, settings=WHOLE_TABLE) as whole:
            report = await verify(
                pool=self.pools["platform"],
                participants=self.participants,
                wallet=WalletParticipant(whole["wallet"], now, pepper=bytes(32)),
                plan_of=lambda _case: self.plan,
                page=10_000,
            )
        findings = report.timelines.findings
        findings[:] = [one for one in findings if one.account_id not in self.unchained]
        if not report.clean:
            wrong = [*report.violations[:5], *findings[:5], *report.money_wrong[:5], *report.unread]
            message = f"the audit found {report.violation_count} violations: {wrong}"
            raise RuntimeError(message)


def ended() -> int:
    """Return how many cases the drivers of this process have ended."""
    return int(
        sum(
            sample.value
            for metric in ENDED_TOTAL.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        )
    )


def facts_alone(participants: Mapping[str, Participant]) -> Recheck:
    """Return a re-check that reads everybody's facts and evaluates no rule."""

    async def recheck(cases: Sequence[Case]) -> Mapping[Key, Rechecked]:
        accounts = [case.account_id for case in cases]
        batches = await asyncio.gather(*(each.facts(accounts) for each in participants.values()))
        found = {name: batch for name, batch in zip(participants, batches, strict=True) if batch is not None}
        if any(list(batch.accounts) != accounts for batch in found.values()):
            message = "somebody does not know all of them"
            raise RuntimeError(message)
        rows = list(zip(*(batch.versions for batch in found.values()), strict=True))
        told = {row: Rechecked(dict(zip(found, row, strict=True))) for row in set(rows)}
        return {case.key: told[row] for case, row in zip(cases, rows, strict=True)}

    return recheck


def joined(
    databases: Mapping[str, str], pools: Mapping[str, Pool], networks: Mapping[str, Participant] | None = None
) -> World:
    """Join a world over databases that exist. `networks`: given for the full plan, None for the reference work."""
    owned = open_participants(PARTICIPANTS, pools, now, pepper=bytes(32))
    pack = the_pack()
    plan = reference_plan(pack) if networks is None else pack.plans[Kind.REVOKE]
    return World(databases, pools, {**owned, **(networks or {})}, plan)


def start_servers(home: Path) -> AbstractAsyncContextManager[Mapping[str, str]]:
    """Start servers that lose nothing, as the product's do; under `--smoke`, where nothing is measured, any."""
    return embedded(home, durable=SMOKING not in os.environ)


@asynccontextmanager
async def opened(people: int = PEOPLE, *, full: bool = False, size: int = 8) -> AsyncIterator[World]:
    """Open durable servers of our own with accounts 1 to `people`, and remove them afterwards.

    `full`: the pack's own plan, its databases on two servers and both clearing networks; otherwise the reference work,
    everything on one server. `size`: connections at most, each database.
    """
    folder = await asyncio.to_thread(_folder)
    home = folder / "home"
    try:
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(start_servers(home))
            databases = (
                await ensure_databases(servers, placement(PARTICIPANTS)) if full else await on_one(servers[SERVERS[0]])
            )
            await migrate_all(databases, PARTICIPANTS)
            pools = await stack.enter_async_context(open_pools(databases, size=size))
            networks: dict[str, Participant] | None = None
            pids: Callable[[], frozenset[int]] = frozenset
            if full:
                running = await stack.enter_async_context(sandbox(home, names=PARTICIPANTS.networks))
                networks = {}
                for name in PARTICIPANTS.networks:
                    networks[name] = network = HttpParticipant(running.link(name))
                    stack.push_async_callback(network.aclose)
                pids = lambda: frozenset(pid for one in running.processes.values() if (pid := one.pid))  # noqa: E731
            world = joined(databases, pools, networks)
            world.home, world.network_pids = home, pids
            await world.fill(1, people)
            await world.settle()
            yield world
    finally:
        await wait_until_stopped(home)
        await asyncio.to_thread(_remove_folder, folder, home)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    folder.chmod(0o711)  # the database's own user must get in
    return folder


def _remove_folder(folder: Path, home: Path) -> None:
    remove(home)
    shutil.rmtree(folder, ignore_errors=True)


async def on_one(base: str) -> dict[str, str]:
    """Create the platform's database and all participants' on one server; return their DSNs."""
    names = ("platform", *PARTICIPANTS.databases)
    connection = await asyncpg.connect(base)
    try:
        for name in names:
            await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return {name: database_dsn(base, name) for name in names}
