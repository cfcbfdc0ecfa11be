"""An installation whose participants are the product's and the newcomer: check, case, saga, audit, recovery, sweep."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jiebang.app import App, migrate, open_app
from jiebang.cli.cases.as_person import prove_case, submit_case
from jiebang.model.case import ENDED, Kind, State
from jiebang.model.origin import SERVICE
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.sandbox.processes import sandbox
from jiebang.settings import Settings
from jiebang.store.cases import cases as store
from jiebang.store.encryption import password_hash
from jiebang.store.postgres.data_directory import remove
from jiebang.usecases.cases.sweep_staged import StagedSweep
from jiebang.usecases.checks.request import CheckRequest
from jiebang.usecases.policy import lifecycle
from tests.newcomer.world import (
    NOW,
    PACK,
    PASSWORD,
    REGISTRY,
    SALT,
    area,
    database,
    given,
    people,
    staged,
)
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts


@pytest.fixture(scope="module")
async def dsn(servers: Mapping[str, str]) -> AsyncIterator[str]:
    async with database(servers) as made:
        yield made


@pytest.fixture(scope="module")
async def app(databases: Mapping[str, str], dsn: str, new_folder: Callable[[str], Path]) -> AsyncIterator[App]:
    """An installation whose participants are the product's and the newcomer, under the pack that names it."""
    home = new_folder("newcomer") / "home"
    settings = Settings(home=home, keys=home / "keys", databases={**databases, "loyalty": dsn}, sandbox=True)
    await migrate(settings, REGISTRY)
    async with sandbox(home, names=REGISTRY.networks), open_app(settings, declared=REGISTRY) as opened:
        platform = opened.pools["platform"]
        await lifecycle.add(platform, REGISTRY, *PACK, "Ann", datetime.now(UTC))
        for name in ("Ann", "Ben"):
            await lifecycle.activate(platform, REGISTRY, "newcomer/1", name, datetime.now(UTC))
        async with asyncio.timeout(PATIENCE_S):
            while opened.registry.in_force().id != "newcomer/1":  # noqa: ASYNC110 - the process looks by itself
                await asyncio.sleep(0.05)
        yield opened
    remove(home)


async def members(app: App, count: int, **columns: Any) -> list[int]:
    """People with an identity, a payment password, and points."""
    ids = await people(app.pools["loyalty"], count, **columns)
    mark = password_hash(app.secrets.passwords, SALT, PASSWORD)
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
    )
    for name in PARTICIPANTS.databases:
        own = {"password_salt": SALT, "password_hash": mark} if name == "wallet" else {}
        await insert_accounts(app.pools[name], REGISTRY.owner_of(name), ids, **own)
    return ids


@asynccontextmanager
async def working(app: App) -> AsyncIterator[None]:
    """A worker with all its chores."""
    threshold = gc.get_threshold()
    worker = app.worker()
    run = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await run
        gc.set_threshold(*threshold)
        gc.unfreeze()


async def ended(app: App, *ids: int) -> dict[int, State]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = {case.account_id: case for case in await store.load_of_accounts(app.pools["platform"], list(ids))}
            if all(case.state in ENDED for case in found.values()):
                return {account: case.state for account, case in found.items()}
            await asyncio.sleep(0.05)


async def proven(app: App, account: int, kind: Kind) -> None:
    """Submit and prove a case; what it brings is staged in between."""
    case = await submit_case(app, account, kind, None)
    if kind is Kind.CHANGE_IDENTITY:
        party = app.participants["loyalty"]
        assert isinstance(party, DatabaseParticipant)
        assert await area(party).stage("transfer", [given(account, points=account)]) == {}
    shown = await prove_case(app, case["id"], PASSWORD, None, quiet=True)
    assert shown["state"] == State.READY.value


async def row_of(app: App, account: int) -> Mapping[str, Any]:
    row = await app.pools["loyalty"].fetchrow("SELECT * FROM loyalty.account WHERE account_id = $1", account)
    assert row is not None
    return dict(row)


async def test_a_check_tells_its_facts_in_the_packs_words(app: App) -> None:
    """A person must see what stands in the way at a participant that was declared yesterday."""
    moving, free = *(await members(app, 1, redeeming=True, points=12, tier="gold")), *(await members(app, 1))
    await app.pools["loyalty"].execute("INSERT INTO loyalty.coupon VALUES ($1, 1, '茶', 1, $2)", moving, NOW)
    stopped, passed = await app.checker.check([CheckRequest(moving, SERVICE), CheckRequest(free, SERVICE)], Kind.REVOKE)
    [blocker] = stopped.blockers
    assert blocker.code == "POINTS-MOVING"
    assert blocker.explanation.en.startswith("12 points (gold) are being redeemed; 1 coupons: 茶 (until")
    assert passed.passes
    assert passed.versions["loyalty"] == 1


async def test_cases_of_both_kinds_go_through_with_it_and_the_audit_is_clean(app: App) -> None:
    """All or nothing holds of whoever takes part, whatever it was asked for."""
    leaving, moving, bare = await members(app, 3, points=100)
    await proven(app, leaving, Kind.REVOKE)
    await proven(app, moving, Kind.CHANGE_IDENTITY)
    case = await submit_case(app, bare, Kind.CHANGE_IDENTITY, None)
    await prove_case(app, case["id"], PASSWORD, None, quiet=True)
    async with working(app):
        states = await ended(app, leaving, moving, bare)
    assert states == {leaving: State.DONE, moving: State.DONE, bare: State.ABORTED}
    [aborted] = await store.load_of_accounts(app.pools["platform"], [bare])
    assert aborted.reason == "GIVEN-MISSING"
    assert app.registry.in_force().reason(aborted.reason).en == "The partner that the points go to was not named"
    left, moved, stayed = [await row_of(app, one) for one in (leaving, moving, bare)]
    assert (left["points"], left["partner"], left["case_op"]) == (10, None, "confirmed")
    assert (moved["points"], moved["partner"], moved["notify"]) == (moving, "茶馆", True)
    assert (stayed["points"], stayed["partner"], stayed["case_op"]) == (100, None, "cancelled")
    for name in ("security", "wallet"):
        row = await app.pools[name].fetchrow(f"SELECT case_op FROM {name}.account WHERE account_id = $1", bare)  # noqa: S608 - names of ours
        assert row is not None
        assert row["case_op"] == "cancelled"
    assert (await app.verify()).clean


async def test_its_database_is_recovered_from_a_backup_of_before_the_commit(app: App) -> None:
    """What was promised to a person must be done again where a restore has undone it, with what the case brought."""
    leaving, moving = await members(app, 2, points=100)
    await proven(app, leaving, Kind.REVOKE)
    await proven(app, moving, Kind.CHANGE_IDENTITY)
    pool = app.pools["loyalty"]
    await pool.execute(
        "CREATE TABLE public.account AS TABLE loyalty.account; CREATE TABLE public.staged AS TABLE loyalty.staged"
    )
    async with working(app):
        assert set((await ended(app, leaving, moving)).values()) == {State.DONE}
    await pool.execute(
        "TRUNCATE loyalty.account, loyalty.staged; INSERT INTO loyalty.account SELECT * FROM public.account;"
        "INSERT INTO loyalty.staged SELECT * FROM public.staged; DROP TABLE public.account, public.staged"
    )
    assert not (await app.verify()).clean
    await asyncio.sleep(0.1)
    found = await app.recover(
        ["loyalty"], "Ann", gap=0, patience=timedelta(seconds=10), outcomes={}, papers={}, dry_run=False
    )
    assert not found.undecided
    async with working(app):
        await ended(app, leaving, moving)
    left, moved = await row_of(app, leaving), await row_of(app, moving)
    assert (left["points"], left["case_op"]) == (10, "confirmed")
    assert (moved["points"], moved["partner"], moved["case_op"]) == (moving, "茶馆", "confirmed")
    assert await staged(pool, moving) == []
    assert (await app.verify()).clean


async def test_what_no_case_awaits_is_swept_and_what_one_awaits_is_not(app: App) -> None:
    """What was brought may be personal: it must not lie about for a case that will never take it up."""
    expired, waiting, done, nowhere = await members(app, 4)
    for account in (expired, waiting, done):
        await submit_case(app, account, Kind.CHANGE_IDENTITY, None)
    party = app.participants["loyalty"]
    assert isinstance(party, DatabaseParticipant)
    keys = [given(account) for account in (expired, waiting, done, nowhere)]
    assert await area(party).stage("transfer", keys) == {}
    for account, state, marks in ((expired, "expired", "..."), (done, "done", "ddd")):
        await app.pools["platform"].execute(
            """UPDATE platform.cases SET state = $2, marks = $3, versions = '{1,1,1}', ended_at = now(), due_at = NULL
               WHERE account_id = $1""",
            account,
            state,
            marks,
        )
    sweep = StagedSweep(app.pools["platform"], {"loyalty": area(party)}, page=2)
    ids = (expired, waiting, done, nowhere)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert await sweep(frozenset(), datetime.now(UTC)) == 0, "it was staged just now"
    assert sum([await sweep(frozenset(), later) for _ in range(9)]) == 2
    assert await staged(app.pools["loyalty"], *ids) == sorted([(waiting, 1), (done, 1)])
    await app.pools["loyalty"].execute(
        "UPDATE loyalty.account SET case_no = 1, case_op = 'tried' WHERE account_id = $1", expired
    )
    await app.pools["loyalty"].execute("INSERT INTO loyalty.staged SELECT $1, 1, 'transfer', '{}', now()", expired)
    assert await area(party).drop([(expired, 1)]) == 0, "a granted Try takes it up, or its Cancel drops it"
