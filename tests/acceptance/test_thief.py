"""A thief and a nuisance at the API: what they try with a stolen token, and what their victim hears and keeps."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.acceptance.api_world import PASSWORD, Person, World, made, on_deck, problem

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

FIRST, PEOPLE = 8001, 60
_ids = itertools.count(FIRST)


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(FIRST, PEOPLE)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


@pytest.fixture
def one(world: World, client: httpx.AsyncClient) -> Person:
    """A person nothing stands in the way of, at their primary device, new for each test."""
    account_id = next(_ids)
    return Person(client, world.token(account_id), account_id)


def elsewhere(world: World, one: Person, device: str | None = "thief") -> Person:
    """The same account at another device, or with a token that names none."""
    return Person(one._client, world.token(one.account_id, device=device), one.account_id)


def service(world: World, one: Person) -> Person:
    return Person(one._client, world.service(), one.account_id)


async def opened(one: Person) -> str:
    answer = await one.submit()
    assert answer.status_code == 201, answer.text
    case: str = answer.json()["id"]
    return case


def codes(check: Mapping[str, Any]) -> list[str]:
    return [blocker["code"] for blocker in check["blockers"]]


@pytest.mark.parametrize("device", [None, "thief"])
async def test_an_unknown_device_never_passes(world: World, one: Person, device: str | None) -> None:
    """A token without the claim `device` was taken for a service and passed; a service says that it is one."""
    thief = elsewhere(world, one, device)
    check = await thief.ask("POST", "/v1/checks", {"accounts": [str(one.account_id)]})
    assert codes(check.json()["checks"][0]) == ["SEC-DEVICE"]
    assert codes(problem(await thief.submit(), 409, "BLOCKED")["check"]) == ["SEC-DEVICE"]
    assert (await service(world, one).submit()).status_code == 201


@pytest.mark.parametrize("device", [None, "thief"])
async def test_a_case_is_proven_where_it_was_opened(world: World, one: Person, device: str | None) -> None:
    """With the password and the victim's own code: nothing is judged elsewhere, no code sent, no try lost."""
    case = await opened(one)
    thief = elsewhere(world, one, device)
    for method, secret in (("payment_password", PASSWORD), ("sms_code", await world.code(one.account_id))):
        told = problem(await thief.prove(case, method, secret), 409, "WRONG-DEVICE")
        assert told["fields"] == {"wanted": "case"}
        problem(await thief.prove(case, method, "wrong"), 409, "WRONG-DEVICE")
    problem(await thief.ask("POST", f"/v1/cases/{case}/codes"), 409, "WRONG-DEVICE")
    shown = (await one.ask("GET", f"/v1/cases/{case}")).json()
    assert {proof["tries_left"] for proof in shown["proofs"]} == {5}
    assert (await one.prove(case, "payment_password", PASSWORD)).status_code == 200
    ready = await one.prove(case, "sms_code", await world.code(one.account_id))
    assert ready.json()["state"] == "ready"


async def test_a_case_that_a_service_opened_is_proven_on_the_primary_device(world: World, one: Person) -> None:
    """Customer service opens it and has no device: not every device of the person then is the right one."""
    case = await opened(service(world, one))
    problem(await elsewhere(world, one).prove(case, "payment_password", PASSWORD), 409, "WRONG-DEVICE")
    assert (await one.prove(case, "payment_password", PASSWORD)).status_code == 200


async def test_remedies_and_consents_know_their_device(world: World, one: Person) -> None:
    """A thief elsewhere ends no contract and agrees to nothing in the victim's name, before a case or during one."""
    await world.pools["wallet"].execute(
        """INSERT INTO wallet.autodebit_contract (account_id, contract_id, merchant, service, amount_fen, signed_at)
           VALUES ($1, 1, '美团', '会员', 1500, now())""",
        one.account_id,
    )
    thief, account = elsewhere(world, one), {"account": str(one.account_id)}
    consent = {**account, "code": "PAY-AUTODEBIT"}
    for _ in range(2):  # without a case, and while one runs
        for path, body in (
            ("remedies/auto-debits", account),
            ("remedies/red-packets", account),
            ("remedies/logins", account),
            ("consents", consent),
        ):
            problem(await thief.ask("POST", f"/v1/{path}", body), 409, "WRONG-DEVICE")
        if not await _live(world, one):
            assert (await one.ask("POST", "/v1/consents", consent)).status_code == 200
            await opened(one)


async def test_the_proof_of_a_remedy_comes_from_where_it_was_asked_for(world: World, one: Person) -> None:
    """Asked for on the victim's phone, with the right password and code: elsewhere it is no proof."""
    await world.pools["security"].execute(
        """INSERT INTO security.login (account_id, login_id, device_id, place, at, anomaly)
           VALUES ($1, 1, 'x', '三亚', now() - interval '1 day', 'far_place')""",
        one.account_id,
    )
    asked = await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})
    proof = {"account": str(one.account_id), "remedy": asked.json()["id"], "password": PASSWORD, "code": "000000"}
    for device in (None, "thief"):
        answer = await elsewhere(world, one, device).ask("POST", "/v1/remedies/logins/confirmation", proof)
        problem(answer, 409, "WRONG-DEVICE")
    judged = await one.ask("POST", "/v1/remedies/logins/confirmation", proof)
    assert problem(judged, 409, "PROOF-REFUSED")["fields"]["tries_left"] == 4


@pytest.mark.parametrize("device", [None, "tablet"])
async def test_ways_out_are_open_to_any_device(world: World, one: Person, device: str | None) -> None:
    """Whoever takes a thief's case back need not hold the phone that the thief holds."""
    case, owner = await opened(one), elsewhere(world, one, device)
    assert (await owner.ask("DELETE", "/v1/consents/PAY-AUTODEBIT")).status_code == 200
    assert (await owner.ask("DELETE", f"/v1/cases/{case}")).json()["state"] == "withdrawn"


async def _live(world: World, one: Person) -> bool:
    return bool(
        await world.pools["platform"].fetchval(
            "SELECT count(*) FROM platform.cases WHERE account_id = $1 AND ended_at IS NULL", one.account_id
        )
    )
