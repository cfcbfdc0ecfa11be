"""An installation of before participants were declared: its migrations are known, and its cases end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from jiebang.model.case import Kind, State
from jiebang.participants import PARTICIPANTS
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, step
from jiebang.saga.timeline import entries, first_entry
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.postgres.migrate import load_migrations
from jiebang.usecases.driving.advance import Driver
from jiebang.usecases.policy import lifecycle
from jiebang.usecases.policy.registry import PackRegistry
from tests.store.test_advance import LIMITS, TIMING, World, now
from tests.unit.test_planned_operations import formerly

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

APPLIED: Final[Mapping[str, str]] = {
    "enterprise": "4b145cdfabd5b4af03da745273c0acd218d1691cc163fff88fcd3c571cc436b3",
    "gaming": "869bc3776c253a56ae4a6a765198881fb43670288542d54e513be829152e9659",
    "identity": "6a099902f2b9b2762e57f15d6069608a4e5f41eb725b77827ec818b7e55b6c0d",
    "keys": "b72d2a91b0b7c896bda0eceea08b6833b89e0a77a47e64b5069db16e3adca863",
    "merchant": "e92c4d1c7480e31e5138df1d64ae6f2940552fc7c87cc21c9aa4343bbfaec431",
    "openplatform": "e5462e68b9db7ade6ab36ce4da93f3930f67758c0c5ae1277d870e3a7533b837",
    "platform": "448fc0f93fe72655270950fdba7de67fd84be861e1227b946c0080031320b765",
    "security": "3f409d8891c44c3a859ebd3d6900a02124977976ac4b5ac4161bc4e3c4f23ce8",
    "social": "3adc2bf312e9c558c1f49859ba5d02053eb3ec2ce66216119b546254b13524a7",
    "wallet": "bfcac047f6966fd34a6586a602d91bcbc250b3416c7b811f22749503eeef0f97",
}
"""What such an installation has written down of each owner's first migration."""


@pytest.mark.parametrize("owner", APPLIED)
def test_the_first_migration_is_the_one_that_was_applied(owner: str) -> None:
    """Wherever its file stands by now: one that reads otherwise keeps an installation from starting."""
    first = load_migrations(owner, PARTICIPANTS)[0]
    assert (first.version, first.name, first.checksum) == (1, "init", APPLIED[owner])


async def test_a_case_under_a_pack_of_the_older_form_goes_through(pools: Mapping[str, Pool]) -> None:
    """It was promised under that pack, and follows it for ever: its person must not wait for an operator."""
    platform, world = pools["platform"], World(pools)
    await lifecycle.install(platform, PARTICIPANTS, {"emoney": (formerly("emoney"), "emoney.yaml")}, "emoney", now())
    registry = PackRegistry(platform, PARTICIPANTS, now)
    await registry.refresh()
    plan = registry.in_force().plans[Kind.REVOKE]
    [account] = await world.people(9_001, 1)
    new = NewCase(
        account_id=account,
        kind=Kind.REVOKE,
        plan=plan.name,
        participants=len(plan.participants),
        due_at=now() + timedelta(hours=1),
    )
    [case] = (await store.insert(platform, [new], now(), [first_entry(now())])).values()
    proven = step(case, plan, Proven(1), now(), TIMING).case
    await store.save(platform, [Save(cases=[proven], entries=entries(case, proven, (), (), now()))], now())
    world.driver = Driver(
        pool=platform,
        participants=world.participants,
        plan_of=registry.plan_of,
        know=registry.know,
        records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
        recheck=world.recheck,
        clock=now,
        timing=TIMING,
        limits=LIMITS,
    )
    try:
        found = await world.until_ended([case.key])
    finally:
        await world.driver.aclose()
    assert found[case.key].state is State.DONE
    state = await pools["identity_guiyang"].fetchval(
        "SELECT state FROM identity.account WHERE account_id = $1", account
    )
    assert state == "reclaimed"
