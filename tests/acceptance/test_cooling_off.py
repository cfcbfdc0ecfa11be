"""The yearly quota at the API: a check is free, a submission too many begins the cooling-off, and says so."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from tests.acceptance.api_world import Person, World, on_deck
from tests.rows import insert

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

KIND = "change_identity"
START = datetime(2026, 12, 1, 4, tzinfo=UTC)
REFUSALS = "SELECT document_index, account_id FROM platform.quota_refusal WHERE document_index = $1"


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    """The pack that we ship, but for a plan for changing the identity: what the plan does is not the matter here."""
    text, source = packs.text("wechat")
    pack = yaml.safe_load(text)
    for part in ("plans", "proofs"):
        pack[part].setdefault(KIND, deepcopy(pack[part]["revoke"]))
    world = World(
        pools,
        tmp_path_factory.mktemp("issuer"),
        load_pack(yaml.safe_dump(pack, allow_unicode=True), source, PARTICIPANTS),
    )
    await world.people(1, 40)
    return world


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    world.skew = START - datetime.now(UTC)
    async with on_deck(world) as client:
        yield client


async def document(world: World, *accounts: int) -> bytes:
    """Give the accounts a document of their own, the same for all of them."""
    paper = accounts[0].to_bytes(32, "big")
    for name in ("identity_shenzhen", "identity_guiyang"):
        await world.pools[name].execute(
            "UPDATE identity.account SET document_index = $2 WHERE account_id = ANY ($1)", accounts, paper
        )
    return paper


async def changed(world: World, paper: bytes, account: int, times: int, *, everywhere: bool = True) -> None:
    """Put `times` changes of this year into the account's history."""
    rows = [
        {
            "account_id": account,
            "change_id": one + 1,
            "kind": "renamed" if one else "bound",
            "document_type": "resident_id",
            "document_index": paper,
            "at": world.now() - timedelta(days=200 - one),
        }
        for one in range(times + 1)
    ]
    for name in ("identity_shenzhen", "identity_guiyang") if everywhere else ("identity_shenzhen",):
        await insert(world.pools[name], "identity.change", rows)


class Asking(Person):
    """A person who wants to change the identity."""

    async def check(self) -> set[str]:
        answer = await self.ask("POST", "/v1/checks", {"accounts": [str(self.account_id)], "kind": KIND})
        assert answer.status_code == 200, answer.text
        return codes(answer.json()["checks"][0])

    async def submit(self, **kwargs: Any) -> httpx.Response:
        return await self.ask("POST", "/v1/cases", {"account": str(self.account_id), "kind": KIND}, **kwargs)


def codes(check: Mapping[str, Any]) -> set[str]:
    return {blocker["code"] for blocker in check["blockers"]}


def person(world: World, client: httpx.AsyncClient, account_id: int) -> Asking:
    return Asking(client, world.token(account_id), account_id)


def told(answer: httpx.Response, paper: bytes) -> bool:
    """Whether an answer tells the document's index, however written."""
    return any(form in answer.text for form in (paper.hex(), b64encode(paper).decode(), str(paper)))


async def test_the_third_change_opens_a_case_that_knows_its_document(world: World, client: httpx.AsyncClient) -> None:
    paper = await document(world, 1)
    await changed(world, paper, 1, 2)
    one = person(world, client, 1)
    assert await one.check() == set()
    answer = await one.submit()
    assert answer.status_code == 201, answer.text
    assert not told(answer, paper)
    row = await world.pools["platform"].fetchrow("SELECT document_index FROM platform.cases WHERE account_id = 1")
    assert row is not None
    assert row["document_index"] == paper


async def test_a_check_alone_begins_nothing(world: World, client: httpx.AsyncClient) -> None:
    """Asking what stands in the way must never cost anything."""
    paper = await document(world, 2)
    await changed(world, paper, 2, 3)
    one = person(world, client, 2)
    for _ in range(3):
        assert await one.check() == {"ID-QUOTA"}
    assert await world.pools["platform"].fetch(REFUSALS, paper) == []


async def test_a_submitted_fourth_begins_the_cooling_off_once(world: World, client: httpx.AsyncClient) -> None:
    """Of the document, on whatever account; asking again makes it no longer; its end is told at once, and held."""
    paper = await document(world, 3, 4)
    await changed(world, paper, 3, 3)
    one, other = person(world, client, 3), person(world, client, 4)
    first = await one.submit()
    assert first.status_code == 409
    assert first.json()["code"] == "BLOCKED"
    standing = {blocker["code"]: blocker["remedy"]["earliest"] for blocker in first.json()["check"]["blockers"]}
    assert standing.keys() == {"ID-QUOTA", "ID-COOLING"}
    assert datetime.fromisoformat(standing["ID-COOLING"]) == datetime(2027, 5, 30, 16, tzinfo=UTC)
    assert not told(first, paper)
    for again in (one, other, one):
        refused = await again.submit()
        assert codes(refused.json()["check"]) == {"ID-QUOTA", "ID-COOLING"}
    assert [row["account_id"] for row in await world.pools["platform"].fetch(REFUSALS, paper)] == [3]
    world.skew = datetime(2027, 5, 30, 15, 59, 30, tzinfo=UTC) - datetime.now(UTC)
    assert await person(world, client, 4).check() == {"ID-COOLING"}
    world.skew = datetime(2027, 5, 30, 16, tzinfo=UTC) - datetime.now(UTC)
    assert await person(world, client, 4).check() == set()
    answer = await person(world, client, 4).submit()
    assert answer.status_code == 201, answer.text


async def test_a_fourth_after_the_cooling_off_in_the_same_year_begins_another(
    world: World, client: httpx.AsyncClient
) -> None:
    paper = await document(world, 5)
    await changed(world, paper, 5, 3)
    await world.pools["platform"].execute(
        "INSERT INTO platform.quota_refusal VALUES ($1, $2, 5)", paper, START - timedelta(days=182)
    )
    assert await person(world, client, 5).check() == {"ID-QUOTA"}
    refused = await person(world, client, 5).submit()
    assert codes(refused.json()["check"]) == {"ID-QUOTA", "ID-COOLING"}
    assert len(await world.pools["platform"].fetch(REFUSALS, paper)) == 2


async def test_another_kind_is_neither_counted_nor_refused(world: World, client: httpx.AsyncClient) -> None:
    """A name can be taken back however often it was changed: that changes no identity."""
    paper = await document(world, 6)
    await changed(world, paper, 6, 3)
    answer = await Person(client, world.token(6), 6).submit()
    assert answer.status_code == 201, answer.text
    row = await world.pools["platform"].fetchrow("SELECT document_index FROM platform.cases WHERE account_id = 6")
    assert row is not None
    assert row["document_index"] is None


async def test_what_the_data_centres_tell_differently_is_unread(world: World, client: httpx.AsyncClient) -> None:
    """Neither passed nor refused, and no cooling-off for a fault of ours; the live case is still known."""
    paper = await document(world, 7)
    await changed(world, paper, 7, 3, everywhere=False)
    answer = await person(world, client, 7).submit()
    assert answer.status_code == 409
    [blocker] = answer.json()["check"]["blockers"]
    assert (blocker["code"], blocker["facts"]["owner"]) == ("FACT-UNAVAILABLE", "quota")
    assert await world.pools["platform"].fetch(REFUSALS, paper) == []
