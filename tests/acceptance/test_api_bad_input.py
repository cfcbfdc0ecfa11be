"""Bad input at the API: a clear error in both languages each time, and nothing lost or done (issue 2, "Bad input")."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.api_world import PASSWORD, Person, World, closed, made, on_deck, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jiebang.store.postgres.pool import Pool


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(3001, 20)
    await world.people(3101, 5, balance_fen=1000)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


def person(world: World, client: httpx.AsyncClient, account_id: int, **claims: Any) -> Person:
    return Person(client, world.token(account_id, **claims), account_id)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"account": 3001, "kind": "revoke"}, "account"),
        ({"account": "3001", "kind": "vanish"}, "kind"),
        ({"account": "0", "kind": "revoke"}, "account"),
        ({"account": "-1", "kind": "revoke"}, "account"),
        ({"account": "٣٠٠١", "kind": "revoke"}, "account"),
        ({"account": "9999999999999999999", "kind": "revoke"}, "account"),
        ({"account": "3001\n", "kind": "revoke"}, "account"),
        ({"account": "3001", "kind": "revoke", "force": True}, "force"),
        ({"account": "3001"}, "kind"),
        ([], "object"),
        ("3001", "object"),
    ],
)
async def test_wrong_types(world: World, client: httpx.AsyncClient, body: Any, field: str) -> None:
    """A wrong or unknown field is named, and nothing is opened."""
    answer = await person(world, client, 3001).ask("POST", "/v1/cases", body)
    assert field in str(problem(answer, 400, "INVALID-INPUT")["fields"])
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.cases WHERE account_id = 3001") == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"account": "3001",}', b"[" * 40_000, b"null", b'"\\ud800"']
)
async def test_a_body_that_is_not_json(world: World, client: httpx.AsyncClient, content: bytes) -> None:
    """Broken, empty or absurdly nested bodies are told to be no JSON."""
    headers = {
        "authorization": f"Bearer {world.token(3001)}",
        "idempotency-key": "x",
        "content-type": "application/json",
    }
    answer = await client.post("/v1/cases", content=content, headers=headers)
    assert answer.status_code == 400
    problem(answer, 400, answer.json()["code"])
    assert answer.json()["code"] in ("BODY-NOT-JSON", "INVALID-INPUT")


async def test_a_body_that_is_not_said_to_be_json(world: World, client: httpx.AsyncClient) -> None:
    """A form is refused as one, not read as JSON."""
    headers = {"authorization": f"Bearer {world.token(3001)}", "idempotency-key": "x"}
    problem(await client.post("/v1/cases", data={"account": "3001"}, headers=headers), 415, "MEDIA-TYPE")


async def test_a_huge_body_and_a_huge_batch(world: World, client: httpx.AsyncClient) -> None:
    """1,001 accounts are refused by count; a megabyte is refused unread; 1,000 pass."""
    service = Person(client, world.service(), 0)
    many = [str(number) for number in range(1, 1002)]
    problem(await service.ask("POST", "/v1/checks", {"accounts": many}), 400, "INVALID-INPUT")
    problem(await service.ask("POST", "/v1/checks", {"accounts": ["1" * 15] * 100_000}), 413, "BODY-TOO-LARGE")
    problem(await service.ask("POST", "/v1/checks", {"accounts": []}), 400, "INVALID-INPUT")
    unknown = problem(await service.ask("POST", "/v1/checks", {"accounts": many[:1000]}), 404, "UNKNOWN-ACCOUNT")
    assert len(unknown["fields"]["accounts"]) == 1000


async def test_unknown_account_and_case(world: World, client: httpx.AsyncClient) -> None:
    """An account that does not exist, and a case id that is made up, are told so."""
    nobody = person(world, client, 999_999)
    body = problem(await nobody.ask("POST", "/v1/checks", {"accounts": ["999999"]}), 404, "UNKNOWN-ACCOUNT")
    assert body["fields"]["accounts"] == ["999999"]
    problem(await nobody.submit(), 404, "UNKNOWN-ACCOUNT")
    for made_up in ("case_" + "a" * 26, "case_", "1", "case_" + "A" * 26):
        problem(await nobody.ask("GET", f"/v1/cases/{made_up}"), 404, "UNKNOWN-CASE")


async def test_an_account_of_another_person(world: World, client: httpx.AsyncClient) -> None:
    """A person reaches only their own account; another's case answers like one that does not exist, everywhere."""
    thief, owner = person(world, client, 3002), person(world, client, 3003)
    problem(await thief.ask("POST", "/v1/checks", {"accounts": ["3002", "3003"]}), 403, "NOT-ALLOWED")
    problem(await thief.ask("POST", "/v1/cases", {"account": "3003", "kind": "revoke"}), 403, "NOT-ALLOWED")
    problem(await thief.ask("POST", "/v1/remedies/cash-out", {"account": "3101"}), 403, "NOT-ALLOWED")
    case = (await owner.submit()).json()["id"]
    answers = [
        await thief.ask("GET", f"/v1/cases/{case}"),
        await thief.ask("GET", f"/v1/cases/{case}/events"),
        await thief.ask("DELETE", f"/v1/cases/{case}"),
        await thief.ask("POST", f"/v1/cases/{case}/codes"),
        await thief.prove(case, "payment_password", PASSWORD),
    ]
    unknown = await thief.ask("GET", "/v1/cases/case_" + "a" * 26)
    for answer in answers:
        problem(answer, 404, "UNKNOWN-CASE")
        assert answer.content == unknown.content
    assert (await owner.ask("GET", f"/v1/cases/{case}")).json()["state"] == "open"


async def test_a_scope_that_is_lacking(world: World, client: httpx.AsyncClient) -> None:
    """A token does what its scopes say and no more; a service without `service` reaches nobody."""
    reader = person(world, client, 3004, scopes=["case:read"])
    answer = await reader.submit()
    assert problem(answer, 403, "NOT-ALLOWED")["fields"] == {"scope": "case:write"}
    assert 'scope="case:write"' in answer.headers["www-authenticate"]
    service = Person(client, world.service(scopes=["check"]), 0)
    problem(await service.ask("POST", "/v1/checks", {"accounts": ["3004"]}), 403, "NOT-ALLOWED")
    greedy = person(world, client, 3004, scopes=["check", "service"])
    problem(await greedy.ask("POST", "/v1/checks", {"accounts": ["3003"]}), 403, "NOT-ALLOWED")


async def test_a_token_that_is_missing_or_expired(world: World, client: httpx.AsyncClient) -> None:
    """No token, an expired one, somebody else's idea of one: 401, with what to do in the header too."""
    answer = await client.get("/v1/cases/case_" + "a" * 26)
    problem(answer, 401, "NOT-AUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    old = person(world, client, 3001, lives=timedelta(minutes=-5))
    expired = await old.submit()
    assert problem(expired, 401, "NOT-AUTHENTICATED")["fields"] == {"cause": "expired"}
    assert 'error="invalid_token"' in expired.headers["www-authenticate"]
    for header in ("Basic abc", "Bearer", "Bearer a.b.c", "Bearer " + "x" * 9000):
        answer = await client.get("/v1/cases/case_" + "a" * 26, headers={"authorization": header})
        problem(answer, 401, "NOT-AUTHENTICATED")


async def test_a_mutation_without_a_key(world: World, client: httpx.AsyncClient) -> None:
    """Every mutation needs an Idempotency-Key, and says so."""
    headers = {"authorization": f"Bearer {world.token(3001)}"}
    case = "/v1/cases/case_" + "a" * 26
    for method, path in (
        ("POST", "/v1/cases"), ("POST", "/v1/remedies/cash-out"), ("DELETE", case),
        ("POST", "/v1/remedies/red-packets"), ("POST", f"{case}/proofs"), ("POST", f"{case}/codes"),
    ):  # fmt: skip
        problem(await client.request(method, path, json={}, headers=headers), 400, "IDEMPOTENCY-KEY-MISSING")
        bad = headers | {"idempotency-key": "k" * 129}
        problem(await client.request(method, path, json={}, headers=bad), 400, "IDEMPOTENCY-KEY-MISSING")


async def test_a_repeat_gets_the_same_answer(world: World, client: httpx.AsyncClient) -> None:
    """A lost answer can be asked for again, byte for byte, even where asking anew would now be refused."""
    one, key = person(world, client, 3005), str(uuid4())
    first = await one.submit(key=key)
    again = await one.submit(key=key)
    assert first.status_code == again.status_code == 201
    assert (again.content, again.headers["location"]) == (first.content, first.headers["location"])
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    problem(await one.submit(), 409, "BLOCKED")
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.outbox WHERE account_id = 3005") == 2


async def test_a_repeated_wrong_proof_costs_one_try(world: World, client: httpx.AsyncClient) -> None:
    """A phone with a bad line does not use up its owner's tries."""
    one, key = person(world, client, 3006), str(uuid4())
    case = (await one.submit()).json()["id"]
    answers = [await one.prove(case, "payment_password", "wrong", key=key) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert problem(answers[2], 409, "PROOF-REFUSED")["fields"]["tries_left"] == 4
    assert answers[2].headers["idempotency-replayed"] == "true"


async def test_a_key_used_with_another_body(world: World, client: httpx.AsyncClient) -> None:
    """The same key with another body is refused, and neither executed nor answered with the old answer."""
    one, path = person(world, client, 3101), "/v1/remedies/cash-out"
    first = await one.ask("POST", path, {"account": "3101"}, key="same")
    assert (first.status_code, first.json()["amount_fen"]) == (200, 1000)
    other = await one.ask("POST", path, {"account": "3101", "kind": "restore"}, key="same")
    problem(other, 422, "IDEMPOTENCY-KEY-REUSED")
    payer = person(world, client, 3102)
    mine = await payer.ask("POST", path, {"account": "3102"}, key="same")
    assert mine.status_code == 200, "a key belongs to its caller: another's is another key"
    balances = await world.pools["wallet"].fetch(
        "SELECT balance_fen FROM wallet.account WHERE account_id IN (3101, 3102) ORDER BY account_id"
    )
    assert [row[0] for row in balances] == [0, 0]


async def test_a_stale_key(world: World, client: httpx.AsyncClient) -> None:
    """After its lifetime a key is forgotten: the same key with another body is a new request."""
    one = person(world, client, 3007)
    case = (await one.submit(key="old")).json()["id"]
    await one.ask("DELETE", f"/v1/cases/{case}")
    world.later(timedelta(hours=25))
    again = await Person(client, world.token(3007), 3007).ask(
        "POST", "/v1/cases", {"kind": "revoke", "account": "3007"}, key="old"
    )
    assert again.status_code == 201
    assert again.json()["id"] != case


async def test_the_same_key_at_the_same_time(world: World, client: httpx.AsyncClient) -> None:
    """Ten at once with one key: one executes, all get its answer; money moves once."""
    one, path = person(world, client, 3103), "/v1/remedies/cash-out"
    answers = await asyncio.gather(*(one.ask("POST", path, {"account": "3103"}, key="once") for _ in range(10)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    paid_out = "SELECT count(*) FROM wallet.entry WHERE account_id = 3103 AND kind = 'cash_out'"
    assert await world.pools["wallet"].fetchval(paid_out) == 1
    asker = person(world, client, 3008)
    cases = await asyncio.gather(*(asker.submit(key="once") for _ in range(10)))
    assert {(answer.status_code, answer.content) for answer in cases} == {(201, cases[0].content)}


async def test_addresses_and_methods_that_do_not_exist(world: World, client: httpx.AsyncClient) -> None:
    """404 and 405 are problems too, and 405 says which methods there are."""
    problem(await client.get("/v2/cases"), 404, "NO-SUCH-ROUTE")
    answer = await client.put("/v1/cases", json={})
    problem(answer, 405, "METHOD-NOT-ALLOWED")
    assert "POST" in answer.headers["allow"]
    problem(
        await person(world, client, 3001).ask("GET", "/v1/cases/case_" + "a" * 26 + "/nothing"), 404, "NO-SUCH-ROUTE"
    )


async def test_language_follows_the_reader(client: httpx.AsyncClient) -> None:
    """Title and detail come in the language asked for; both are always there."""
    for asked, told in (
        ("en-GB,en;q=0.9,zh;q=0.1", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "zh"),
        (";;q=x", "zh"),
    ):
        answer = await client.get("/nowhere", headers={"accept-language": asked})
        assert answer.json()["title"] == answer.json()[told]["title"]
        assert answer.headers["content-language"].startswith(told)


async def test_a_participant_that_is_down(world: World, client: httpx.AsyncClient) -> None:
    """Its facts are unknown and named; the check answers, the request is blocked, and /ready names it."""
    silent = Silent(world.participants["social"])
    world.participants["social"] = silent
    try:
        one = person(world, client, 3009)
        checked = (await one.ask("POST", "/v1/checks", {"accounts": ["3009"]})).json()["checks"][0]
        assert [blocker["code"] for blocker in checked["blockers"]] == ["FACT-UNAVAILABLE"]
        assert checked["versions"]["social"] is None
        problem(await one.submit(), 409, "BLOCKED")
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["participants"]["social"]) == (200, False)
    finally:
        world.participants["social"] = silent.real
    assert (await one.submit()).status_code == 201


class Silent:
    """A participant whose database is gone."""

    def __init__(self, real: Any) -> None:
        self.real, self.name = real, real.name

    async def facts(self, _accounts: Any) -> Any:
        raise ConnectionRefusedError

    async def look(self, _accounts: Any) -> Any:
        raise ConnectionRefusedError


async def test_our_own_database_is_down(world: World, client: httpx.AsyncClient, servers: Mapping[str, str]) -> None:
    """503 with Retry-After, nothing lost: what was there before is there when it is back."""
    one = person(world, client, 3010)
    case = (await one.submit()).json()["id"]
    database = await world.pools["platform"].fetchval("SELECT current_database()")
    async with closed(servers["shenzhen"], database):
        for answer in (
            await one.ask("GET", f"/v1/cases/{case}"),
            await one.prove(case, "payment_password", PASSWORD),
            await one.ask("DELETE", f"/v1/cases/{case}"),
        ):
            body = problem(answer, 503, "PARTICIPANT-UNAVAILABLE")
            assert body["fields"] == {"participant": "platform"}
            assert answer.headers["retry-after"]
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200
    await until_ready(client)
    assert (await one.ask("GET", f"/v1/cases/{case}")).json()["state"] == "open"


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait until the database is back."""
    for _ in range(200):
        if (await client.get("/ready")).status_code == 200:
            return
        await asyncio.sleep(0.05)
