"""Chaos on the real thing: people unbind and send money while everything breaks, and afterwards nothing is wrong.

Real processes of the API, workers, clearing networks and gateway, real PostgreSQL servers, and a proxy of ours on every
path between them. Short in the suite; `make chaos` (CHAOS=long) takes minutes. CHAOS_SEED replays a storm.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from jiebang.app import App, open_app
from jiebang.model.plan import NETWORKS
from jiebang.participants.base import UNANSWERED
from jiebang.sandbox.control import Control
from jiebang.sandbox.processes import SandboxProcess, sandbox
from jiebang.sandbox.proxy import Proxy
from jiebang.sandbox.stage import platform_processes
from jiebang.settings import Settings
from jiebang.store.embedded import stopped
from jiebang.store.home import remove
from tests.chaos.disk import small_disk
from tests.chaos.judge import Verdict, judge, quiet
from tests.chaos.people import People, Told, settle
from tests.chaos.storm import CENTRE, Stage, Trouble, plan, rage

LONG: Final = os.environ.get("CHAOS") == "long"
SEED: Final = int(os.environ.get("CHAOS_SEED", "20261122"))
ACCOUNTS, VISITORS, MOVERS = (6_000, 40, 6) if LONG else (600, 16, 3)
PATIENCE: Final = 240.0 if LONG else 60.0
_PACE: Final = {
    "JIEBANG_WORKER_LEASE": "2",
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
        outside = await stack.enter_async_context(sandbox(home))
        app = await stack.enter_async_context(open_app(Settings(home=home, keys=home / "keys")))
        app.issuer()
        paths = dict[str, Proxy]()

        async def path(name: str, port: int) -> int:
            paths[name] = await stack.enter_async_context(Proxy(name, port))
            return paths[name].port

        databases = {name: await _through(path, name, dsn) for name, dsn in app.databases.items()}
        links = {
            name: f"http://127.0.0.1:{await path(name, outside.processes[name].port)}" for name in outside.processes
        }
        environment = {
            "JIEBANG_KEYS": str(home / "keys"),
            "JIEBANG_DATABASES": json.dumps(databases),
            "JIEBANG_NETWORKS": json.dumps({name: {"base_url": links[name]} for name in NETWORKS}),
            "JIEBANG_PHONE_URL": links["phone"],
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
        controls = {name: Control(outside.link(name)) for name in NETWORKS}
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


async def longest_busy(app: App) -> float:
    """Watch the wallets until cancelled; return the longest that one stood between Try and Confirm or Cancel."""
    now, since, longest = asyncio.get_running_loop().time, dict[int, float](), 0.0
    with suppress(asyncio.CancelledError):
        while True:
            with suppress(*UNANSWERED):
                rows = await app.pools["wallet"].fetch("SELECT account_id FROM wallet.account WHERE case_op = 'tried'")
                tried = {row["account_id"] for row in rows}
                since = {account: since.get(account, now()) for account in tried}
                longest = max([longest, *(now() - each for each in since.values())])
            await asyncio.sleep(0.1)
    return longest


async def counters(stage: Stage) -> dict[str, float]:
    """Read what the workers that live now have counted of results not believed."""
    found = defaultdict[str, float](float)
    async with httpx.AsyncClient(trust_env=False) as client:
        for name, process in stage.processes.items():
            if name.startswith("worker"):
                try:
                    text = (await client.get(f"{process.url}/metrics")).text
                except httpx.HTTPError:  # it is just being born again
                    continue
                for line in text.splitlines():
                    if line.startswith("jiebang_results_ignored_total{"):
                        found[line.partition("{")[2].partition("}")[0]] += float(line.rpartition(" ")[2])
    return dict(found)


@pytest.mark.timeout(900 if LONG else 240)
async def test_whatever_breaks_nothing_told_is_untrue_and_everybody_agrees(home: Path) -> None:
    """Else a crash, a cut cable or a lying network leaves somebody's name half bound, or their money nowhere."""
    storm = (
        plan(SEED, rounds=7, lasts=12, gap=2.6, centre_lasts=60, disk_lasts=20)
        if LONG
        else plan(SEED, rounds=1, lasts=1.5, gap=0.8, centre_lasts=3, disk_lasts=3)
    )
    ids = list(range(1_000, 1_000 + ACCOUNTS))
    async with staged(home) as (stage, api_urls):
        await settle(stage.app, stage.outside, ids)
        people = People(stage.app, api_urls, stage.outside.processes["phone"].url, ids, SEED)
        watching = asyncio.create_task(longest_busy(stage.app))
        everybody = asyncio.create_task(people.run(visitors=VISITORS, movers=MOVERS))
        done = await rage(stage, storm)
        people.stopping.set()
        answered, _ = await asyncio.wait([everybody], timeout=PATIENCE)
        settled = await quiet(stage, PATIENCE)
        watching.cancel()
        busy = await watching
        verdict = await judge(stage, people.told, ids)
        ignored = await counters(stage)
        if not answered:
            everybody.cancel()
            verdict.wrong.append(f"people still wait, {people.told.waiting} of them for a definite answer")
        if not settled:
            verdict.wrong.append("it did not come to rest")
        tell(done, verdict, people.told, busy, ignored)
    await stopped(home)
    assert verdict.wrong == [], f"replay with CHAOS_SEED={SEED}"
    struck = sum(not what.startswith("missed") for _, what in done)
    assert struck > len(storm) * 2 // 3, "too few troubles struck to prove anything"
    assert verdict.ends["done"] > 0
    assert len(people.told.submitted) > VISITORS


def tell(
    done: Sequence[tuple[Trouble, str]], verdict: Verdict, told: Told, busy: float, ignored: dict[str, float]
) -> None:
    """Say what was injected and how it ended; shown with `-s`, or where the test fails."""
    screen = Console(width=130)
    table = Table(title=f"CHAOS_SEED={SEED}")
    for column in ("at (s)", "trouble", "target", "lasts (s)", "what it did"):
        table.add_column(column)
    for trouble, what in done:
        table.add_row(f"{trouble.at:.1f}", trouble.kind, trouble.target, f"{trouble.lasts:.1f}", what)
    screen.print(table)
    ends = Table(title="how the cases ended")
    for column in ("end", "cases"):
        ends.add_column(column)
    for end, count in verdict.ends.most_common():
        ends.add_row(end, str(count))
    screen.print(ends)
    screen.print(f"cases told of: {len(told.submitted)}, not told of: {verdict.untold}, parked: {verdict.parked}")
    screen.print(f"transfers: {len(told.moved)}; money at the end: {verdict.total_fen} fen")
    screen.print(f"longest busy wallet: {busy:.1f} s; longest a transfer was told busy: {told.busy_seconds:.1f} s")
    screen.print(f"sent again after: {dict(told.unanswered)}")
    screen.print(f"refused definitely: {dict(told.refused)}")
    screen.print(f"results of networks not believed (workers alive at the end): {ignored}")
    screen.print("VERDICT: " + ("nothing is wrong" if not verdict.wrong else "\n".join(verdict.wrong)))
