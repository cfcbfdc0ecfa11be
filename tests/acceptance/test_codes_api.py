"""Codes and kinds at the API: what a person sees when they ask what a code means, or for what is not offered yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.api_world import Person, World, made, on_deck

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

ACCOUNT = 8801


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(ACCOUNT)
    return world


@pytest.fixture
async def person(world: World) -> AsyncIterator[Person]:
    async with on_deck(world) as client:
        yield Person(client, world.token(ACCOUNT), ACCOUNT)


async def test_the_bare_number_is_told_in_full(person: Person) -> None:
    told = await person.ask("GET", "/v1/codes/30007")
    assert told.status_code == 200
    assert (told.json()["code"], told.json()["legacy"]) == ("PAY-AUTODEBIT", ["30007"])
    assert told.json()["what"]["zh"]
    assert told.json()["appeal"]["en"]


async def test_an_unknown_code_is_answered_with_near_ones(person: Person) -> None:
    told = await person.ask("GET", "/v1/codes/PAY-BALNCE")
    assert (told.status_code, told.json()["code"]) == (404, "UNKNOWN-CODE")
    assert "PAY-BALANCE" in told.json()["fields"]["near"]


async def test_a_kind_that_is_not_offered_can_be_checked_and_not_submitted(person: Person) -> None:
    """Nobody finds out by a refusal only what stands in the way, nor believes that a clean check was a promise."""
    body = {"accounts": [str(ACCOUNT)], "kind": "appeal"}
    [check] = (await person.ask("POST", "/v1/checks", body)).json()["checks"]
    assert (check["passes"], check["offered"], check["blockers"]) == (True, False, [])
    assert "APPEAL-DECIDED-BY-PEOPLE" in [one["code"] for one in check["consequences"]]
    assert check["alternatives"][0]["costs"]["zh"]
    refused = await person.ask("POST", "/v1/cases", {"account": str(ACCOUNT), "kind": "appeal"})
    assert (refused.status_code, refused.json()["code"]) == (422, "KIND-NOT-OFFERED")
    assert refused.json()["fields"]["offered"] == ["close_payment", "revoke"], "nobody verifies documents in this world"
