"""The kill test: workers and a whole PostgreSQL server die by kill -9 while cases run; nothing is left undone.

Short in the suite; `make chaos` (CHAOS=long) runs 2,000 cases through 20 kills of a worker and 3 of a server.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from jiebang.app import App, open_app, utc_now
from jiebang.model.case import Kind, State
from jiebang.model.plan import DATABASES
from jiebang.saga.coordinator import Proven, step
from jiebang.saga.timeline import entries, opened
from jiebang.sandbox.processes import sandbox
from jiebang.sandbox.stage import platform_processes
from jiebang.settings import Settings
from jiebang.store import cases as store
from jiebang.store.cases import Key, NewCase, Save
from jiebang.store.embedded import postmaster_pid, stopped
from jiebang.store.home import remove
from jiebang.store.migrate import owner_of
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.sandbox.processes import SandboxProcess

LONG: Final = os.environ.get("CHAOS") == "long"
CASES, WORKER_KILLS, SERVER_KILLS = (2_000, 20, 3) if LONG else (240, 4, 1)
PATIENCE: Final = 300 if LONG else 120
WAVES: Final = 8


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own: its servers are durable, unlike the session's."""
    folder = Path(tempfile.mkdtemp(prefix="jiebang-kill-"))
    folder.chmod(0o711)
    yield folder / "home"
    remove(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


async def people(app: App, ids: Sequence[int]) -> None:
    """Bind an identity to the accounts everywhere."""
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
    )
    await asyncio.gather(*(insert_accounts(app.pools[name], owner_of(name), ids) for name in DATABASES))


async def submit(app: App, ids: Sequence[int]) -> list[Key]:
    """Open a case for each account and prove it, as the API does."""
    pool, now = app.pools["platform"], utc_now()
    plan = app.registry.in_force().plans[Kind.REVOKE]
    new = [
        NewCase(
            account_id=each,
            kind=Kind.REVOKE,
            plan=plan.name,
            participants=len(plan.participants),
            due_at=now + timedelta(hours=1),
        )
        for each in ids
    ]
    made = await store.insert(pool, new, now, [opened(now)])
    proven = {case.key: step(case, plan, Proven(1), now, app.settings.saga).case for case in made.values()}
    saves = [
        Save(case=proven[case.key], entries=entries(case, proven[case.key], (), (), now)) for case in made.values()
    ]
    return list(await store.save(pool, saves, now))


async def kill_now_and_then(processes: Mapping[str, SandboxProcess], home: Path, dice: random.Random) -> int:
    """Kill a worker, and now and then a server, a moment after each other; return how many kills struck."""
    kills = ["worker"] * WORKER_KILLS + ["server"] * SERVER_KILLS
    dice.shuffle(kills)
    struck = 0
    for kill in kills:
        await asyncio.sleep(dice.uniform(0.1, 0.6))
        if kill == "worker":
            pid = dice.choice([process for name, process in processes.items() if name.startswith("worker")]).pid
        else:
            pid = postmaster_pid(home, dice.choice(["shenzhen", "guiyang"]))
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            struck += 1
    return struck


async def retrying(app: App, ids: Sequence[int]) -> list[Key]:
    """Submit, again and again while the platform's server is down; what was not answered is there, or was not taken."""
    while True:
        try:
            await submit(app, ids)
        except Exception:  # noqa: BLE001 - whatever a dying server makes a driver say
            await asyncio.sleep(0.2)
            continue
        try:
            return [case.key for case in await store.of_accounts(app.pools["platform"], ids)]
        except Exception:  # noqa: BLE001 - as above
            await asyncio.sleep(0.2)


async def until_ended(app: App, keys: Sequence[Key]) -> dict[Key, State]:
    """Wait until every case has ended, through whatever the servers do."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                found = await store.load_many(app.pools["platform"], keys)
            except Exception:  # noqa: BLE001 - a server may still be coming back
                found = {}
            if len(found) == len(keys) and all(case.due_at is None for case in found.values()):
                return {key: case.state for key, case in found.items()}
            await asyncio.sleep(0.2)


@pytest.mark.timeout(PATIENCE * 2)
async def test_whoever_dies_every_case_ends_and_everybody_agrees(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a crash leaves somebody's name bound in one place and gone in another, and nobody ever tells them."""
    monkeypatch.setenv("JIEBANG_WORKER_LEASE", "1")
    monkeypatch.setenv("JIEBANG_SAGA_TRY_LIMIT", "5")
    dice = random.Random(20261122)  # noqa: S311 - a test that fails must fail again
    ids = list(range(1_000, 1_000 + CASES))
    settings = Settings(home=home, keys=home / "keys")
    async with (
        open_app(settings) as first,
        sandbox(home),
        open_app(settings) as app,
        platform_processes(home, api_port=0, workers=2) as processes,
    ):
        await people(first, ids)
        killing = asyncio.create_task(kill_now_and_then(processes, home, dice))
        keys: list[Key] = []
        for wave in range(WAVES):
            keys += await retrying(app, ids[wave::WAVES])
            await asyncio.sleep(0.05)
        struck = await killing
        ended = await until_ended(app, keys)
        report = await app.verify()
    await stopped(home)
    assert struck > (WORKER_KILLS + SERVER_KILLS) // 2, "too few kills struck to prove anything"
    assert len(ended) == CASES
    assert set(ended.values()) <= {State.DONE, State.ABORTED}
    assert State.DONE in ended.values()
    assert report.violation_count == 0, report
    assert report.cases == CASES
