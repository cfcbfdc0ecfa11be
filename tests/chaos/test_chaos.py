"""Chaos on the real thing: people unbind and send money while everything breaks, and afterwards nothing is wrong.

Real processes of the API, workers, clearing networks and gateway, real PostgreSQL servers, and a proxy of ours on every
path between them. Short in the suite; `make chaos` (CHAOS=long) takes minutes. CHAOS_SEED replays a storm.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from jiebang.app import open_app
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import UNANSWERED
from jiebang.sandbox.control import Control
from jiebang.sandbox.processes import SandboxProcess, sandbox
from jiebang.sandbox.stage import platform_processes
from jiebang.settings import Settings
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import wait_until_stopped
from tests.chaos.disk import small_disk
from tests.chaos.judge import Verdict, judge, operated, quiet
from tests.chaos.people import People, Told, settle
from tests.chaos.proxy import Proxy
from tests.chaos.storm import CENTRE, Stage, Trouble, plan, rage

LONG: Final = os.environ.get("CHAOS") == "long"
SEED: Final = int(os.environ.get("CHAOS_SEED", "20261122" if LONG else "20263841"))
"""The short storm's seed is one that lets the networks lie to living workers before most of these are killed."""
ACCOUNTS, VISITORS, MOVERS = (6_000, 40, 6) if LONG else (600, 16, 3)
GUSTS, GETTING_ON = (6, 40) if LONG else (3, 6)
PATIENCE: Final = 240.0 if LONG else 60.0
_PACE: Final = {
    "JIEBANG_WORKER_LEASE": "2",
    "JIEBANG_REPEATS_HELD": "3",
    "JIEBANG_SAGA_RESEND_LIMIT": "10" if LONG else "1",
}


@pytest.fixture
def home(new_folder: Callable[[str], Path]) -> Iterator[Path]:
    """A home of its own: its servers are durable, unlike the session's."""
    folder = new_folder("chaos")
    yield folder / "home"
    if os.environ.get("CHAOS_LOGS"):
        shutil.copytree(folder / "home" / "logs", os.environ["CHAOS_LOGS"], dirs_exist_ok=True)
    remove(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def staged(home: Path) -> AsyncIterator[tuple[Stage, list[str]]]:
    """Start everything, with a proxy on every path; give it and the API's addresses."""
    async with AsyncExitStack() as stack:
        disk = await stack.enter_async_context(small_disk(home, CENTRE))
        settings = Settings(home=home, keys=home / "keys", sandbox=True)
        bare = await stack.enter_async_context(open_app(settings))
        paths = dict[str, Proxy]()

        async def path(name: str, port: int) -> int:
            paths[name] = await stack.enter_async_context(Proxy(name, port))
            return paths[name].port

        databases = {name: await _through(path, name, dsn) for name, dsn in bare.databases.items()}
        outside = await stack.enter_async_context(sandbox(home, databases=databases))
        app = await stack.enter_async_context(open_app(settings))  # now with links to the networks, which run
        links = {
            name: f"http://127.0.0.1:{await path(name, outside.processes[name].port)}" for name in outside.processes
        }
        environment = {
            "JIEBANG_KEYS": str(home / "keys"),
            "JIEBANG_DATABASES": json.dumps(databases),
            "JIEBANG_NETWORKS": json.dumps({name: {"base_url": links[name]} for name in PARTICIPANTS.networks}),
            "JIEBANG_GATEWAY_URL": links["phone"],
            "JIEBANG_SANDBOX": "true",  # its issuer of tokens
            **_PACE,
        }
        with mock.patch.dict(os.environ, environment | {"JIEBANG_HOME": str(home), "JIEBANG_HTTP_PORT": "0"}):
            second = SandboxProcess(
                "api-2", ["jiebang", "serve"], home / "logs" / "api-2.log", environment=dict(os.environ)
            )
            started = asyncio.create_task(second.start())
            stack.push_async_callback(second.stop)
            others = await stack.enter_async_context(platform_processes(home, api_port=0, workers=2))
            await started
        processes = {**others, "api-2": second}
        controls = {name: Control(outside.link(name)) for name in PARTICIPANTS.networks}
        for control in controls.values():
            stack.push_async_callback(control.aclose)
        apis = [await path(name, processes[name].port) for name in ("api", "api-2")]
        yield (
            Stage(
                home=home,
                app=app,
                processes=processes,
                outside=outside,
                paths=paths,
                controls=controls,
                disk=disk,
            ),
            [f"http://127.0.0.1:{port}" for port in apis],
        )


async def _through(path: Any, name: str, dsn: str) -> str:
    host, _, port = dsn.rpartition("/")[0].rpartition(":")
    return f"{host}:{await path(name, int(port))}/{name}"


class Watch:
    """What is seen from outside while it storms."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ignored = dict[tuple[int | None, str], float]()
        self.busy_seconds = 0.0

    async def wallets(self) -> None:
        """Find the longest that a wallet stood between its Try and its Confirm or Cancel."""
        now, since = asyncio.get_running_loop().time, dict[int, float]()
        wallet = self._stage.app.pools["wallet"]
        while True:
            with suppress(*UNANSWERED):
                rows = await wallet.fetch("SELECT account_id FROM wallet.account WHERE case_op = 'tried'")
                since = {row["account_id"]: since.get(row["account_id"], now()) for row in rows}
                self.busy_seconds = max([self.busy_seconds, *(now() - each for each in since.values())])
            await asyncio.sleep(0.1)

    async def counters(self) -> None:
        """Read what the workers count of results not believed, each process until it dies."""
        workers = [process for name, process in self._stage.processes.items() if name.startswith("worker")]
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while True:
                for worker in workers:
                    with suppress(httpx.HTTPError, AttributeError):  # dead just now
                        pid, text = worker.pid, (await client.get(f"{worker.url}/metrics")).text
                        for line in text.splitlines():
                            if line.startswith("jiebang_results_ignored_total{"):
                                reason = line.partition("{")[2].partition("}")[0]
                                self._ignored[pid, reason] = float(line.rpartition(" ")[2])
                await asyncio.sleep(0.5)

    @property
    def ignored(self) -> dict[str, int]:
        """How many results of the networks the workers did not believe, by participant and reason."""
        found = Counter[str]()
        for (_, reason), count in self._ignored.items():
            found[reason.replace('"', "")] += int(count)
        return dict(found)


@pytest.mark.timeout(1_800 if LONG else 280)
async def test_whatever_breaks_nothing_told_is_untrue_and_everybody_agrees(home: Path) -> None:
    """Else a crash, a cut cable or a lying network leaves somebody's name half bound, or their money nowhere."""
    storm = (
        plan(SEED, rounds=5, lasts=6, gap=3.0, centre_lasts=60, disk_lasts=20)
        if LONG
        else plan(SEED, rounds=1, lasts=1.5, gap=0.6, centre_lasts=2.5, disk_lasts=2.5)
    )
    ids = list(range(1_000, 1_000 + ACCOUNTS))
    async with staged(home) as (stage, api_urls):
        await settle(stage.app, stage.outside, ids)
        people = People(stage, api_urls, f"http://127.0.0.1:{stage.paths['superapp'].port}", ids, SEED)
        watch = Watch(stage)
        watching = [asyncio.create_task(each) for each in (watch.wallets(), watch.counters())]
        everybody = asyncio.create_task(people.run(visitors=VISITORS, movers=MOVERS))
        done = await rage(stage, storm, GUSTS, partial(people.get_on, GETTING_ON, PATIENCE))
        recovered = await people.get_on(VISITORS, PATIENCE, done=True)
        people.stopping.set()
        answered, _ = await asyncio.wait([everybody], timeout=PATIENCE)
        settled = await quiet(stage, PATIENCE)
        parked, unattended = await operated(stage, PATIENCE)
        settled = await quiet(stage, PATIENCE) and settled
        verdict = await judge(stage, people.told, ids)
        verdict.parked = parked
        verdict.wrong += unattended
        for each in watching:
            each.cancel()
        seen = await asyncio.gather(*watching, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in seen), seen
        if not recovered:
            verdict.wrong.append(f"fewer than {VISITORS} people could unbind in {PATIENCE:.0f} s of fair weather")
        if not answered:
            everybody.cancel()
            verdict.wrong.append(f"people still wait, {people.told.waiting} of them for a definite answer")
        if not settled:
            verdict.wrong.append("it did not come to rest")
        tell(done, verdict, people.told, watch)
    await wait_until_stopped(home)
    assert verdict.wrong == [], f"replay with CHAOS_SEED={SEED}"
    struck = sum(not what.startswith("missed") for _, what in done)
    assert struck > len(storm) * 2 // 3, "too few troubles struck to prove anything"


def tell(done: Sequence[tuple[Trouble, str]], verdict: Verdict, told: Told, watch: Watch) -> None:
    """Say what was injected and how it ended; shown with `-s`, or where the test fails."""
    screen = Console(width=120)
    if verdict.wrong:
        _table(
            screen,
            f"all of it, CHAOS_SEED={SEED}",
            ("at (s)", "trouble", "target", "lasts (s)", "what it did"),
            [(f"{each.at:.1f}", each.kind, each.target, f"{each.lasts:.1f}", what) for each, what in done],
        )
    kinds = defaultdict[str, list[tuple[Trouble, str]]](list)
    for each in done:
        kinds[each[0].kind].append(each)
    rows = []
    for kind, several in sorted(kinds.items()):
        missed = sum(what.startswith("missed") for _, what in several)
        what = several[0][1] if len(several) == 1 else ""
        longest = max(trouble.lasts for trouble, _ in several)
        rows.append((kind, str(len(several) - missed), str(missed), f"{longest:.1f}" if longest else "", what))
    _table(screen, f"injected, CHAOS_SEED={SEED}", ("trouble", "struck", "missed", "longest (s)", "what it did"), rows)
    ends = [(end, str(count)) for end, count in verdict.ends.most_common()]
    _table(screen, "how the cases ended", ("end", "cases"), ends)
    screen.print(
        f"cases told of: {len(told.submitted)}, not told of: {verdict.untold}, "
        f"parked until an operator retried: {verdict.parked}"
    )
    screen.print(f"transfers: {len(told.moved)}; money at the end: {verdict.total_fen} fen")
    screen.print(f"longest busy wallet: {watch.busy_seconds:.1f} s; told busy: {told.busy_seconds:.1f} s")
    screen.print(f"sent again after: {dict(told.unanswered)}")
    screen.print(f"refused definitely: {dict(told.refused)}")
    screen.print(f"results of networks not believed: {watch.ignored}")
    screen.print("VERDICT: " + ("nothing is wrong" if not verdict.wrong else "\n".join(verdict.wrong)))


def _table(screen: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    screen.print(table)
