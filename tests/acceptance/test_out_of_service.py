"""What operators decided, at the API: a participant out of service, and a recovery, refuse new cases and say so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.store.operations import outages, recoveries
from tests.acceptance.api_world import Person, World, made, on_deck

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.store.postgres.pool import Pool


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(1, 3)
    return world


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


def person(world: World, client: httpx.AsyncClient, account: int) -> Person:
    return Person(client, world.token(account), account)


async def test_a_submission_meets_a_participant_out_of_service_as_a_blocker(
    world: World, client: httpx.AsyncClient
) -> None:
    """In both languages, with what to do; and as soon as it is back, the same request passes."""
    pool, somebody = world.pools["platform"], person(world, client, 1)
    await outages.take_out(pool, ["gaming"], "moving house", "Ann", world.now())
    refused = await somebody.submit()
    assert refused.status_code == 409
    [blocker] = refused.json()["check"]["blockers"]
    assert blocker["code"] == "PARTICIPANT-OUT"
    assert "gaming (since" in blocker["explanation"]["en"]
    assert "游戏（自" in blocker["explanation"]["zh"]
    await outages.take_back(pool, ["gaming"], "Ann", world.now())
    assert (await somebody.submit()).status_code == 201


async def test_a_policy_that_has_no_word_on_it_lets_no_case_through_either(world: World, tmp_path: Path) -> None:
    """Older versions and other people's packs do not know the fact; nothing may begin that cannot end."""
    text, source = packs.text("wechat")
    without = yaml.safe_load(text)
    without["rules"] = [rule for rule in without["rules"] if rule["code"] != "PARTICIPANT-OUT"]
    pack = load_pack(yaml.safe_dump(without, allow_unicode=True), source, PARTICIPANTS)
    other = World(world.pools, tmp_path, pack)
    async with on_deck(other) as their_client:
        somebody, pool = Person(their_client, other.token(2), 2), world.pools["platform"]
        await outages.take_out(pool, ["gaming"], "moving house", "Ann", world.now())
        try:
            refused = await somebody.submit()
        finally:
            await outages.take_back(pool, ["gaming"], "Ann", world.now())
    assert (refused.status_code, refused.json()["code"]) == (503, "OUT-OF-SERVICE")
    assert refused.json()["fields"]["participants"] == ["gaming"]
    assert refused.headers["retry-after"]


async def test_during_a_recovery_the_api_says_so(world: World, client: httpx.AsyncClient) -> None:
    """With a 503 that another try outlives, and nothing half written behind it."""
    pool, somebody = world.pools["platform"], person(world, client, 3)
    run = await recoveries.begin_recovery(pool, ["platform"], "Ann", world.now())
    refused = await somebody.submit(key="one-request")
    assert (refused.status_code, refused.json()["code"]) == (503, "RECOVERING")
    await recoveries.end_recovery(pool, run, {}, world.now())
    opened = await somebody.submit(key="one-request")
    assert opened.status_code == 201
