"""A thief and a nuisance at the API: what they try with a stolen token, and what their victim hears and keeps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec
import pytest

from jiebang.api.application import create_app
from jiebang.policy.protection import UseLimits
from jiebang.store.operations import outbox
from jiebang.usecases.cases.codes import derive_code
from tests.acceptance.api_world import CODES_KEY, PASSWORD, Person, World, made, on_deck, problem

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

FIRST, PEOPLE = 8001, 90
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
    return Person(client, world.token(account_id, lives=timedelta(days=30)), account_id)


def elsewhere(world: World, one: Person, device: str | None = "thief") -> Person:
    """The same account at another device, or with a token that names none."""
    return Person(one._client, world.token(one.account_id, device=device, lives=timedelta(days=30)), one.account_id)


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
    await odd_login(world, one)
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


async def messages(world: World, one: Person) -> list[str]:
    """The templates of all messages to a person, the oldest first."""
    rows = await world.pools["platform"].fetch(
        "SELECT template FROM platform.outbox WHERE account_id = $1 ORDER BY created_at, template", one.account_id
    )
    return [row["template"] for row in rows]


async def test_submitting_and_withdrawing_in_a_loop_comes_to_an_end(world: World, one: Person) -> None:
    """80 cases and 239 SMS in 20 seconds: now pauses that grow, and a cap a day; withdrawing is always possible."""
    opened_at: list[int] = []
    waits, start = list[int](), world.now()
    while len(opened_at) < 5:
        answer = await one.submit()
        if answer.status_code == 201:
            opened_at.append(round((world.now() - start).total_seconds() / 60))
            assert (await one.ask("DELETE", f"/v1/cases/{answer.json()['id']}")).status_code == 202
            continue
        waits.append(problem(answer, 429, "TOO-SOON")["fields"]["retry_after_s"])
        assert answer.headers["retry-after"] == str(waits[-1])
        problem(await one.submit(), 429, "TOO-SOON")
        world.later(timedelta(seconds=waits[-1]))
    # Whoever withdrew by mistake asks again at once; then it takes a minute, two, three.
    assert opened_at == [0, 0, 1, 3, 6]
    assert problem(await one.submit(), 429, "TOO-SOON")["fields"]["retry_after_s"] > 80_000
    assert len(await messages(world, one)) == 15
    world.later(timedelta(days=1))
    assert (await one.submit()).status_code == 201


async def test_many_at_once_open_no_more_than_one_after_another(world: World, one: Person) -> None:
    """The count stands in the row that gives the case its number: a race of submissions wins nothing."""
    world.later(timedelta(days=1))
    platform = world.pools["platform"]
    for _ in range(5):
        await platform.execute(
            "UPDATE platform.cases SET state = 'expired', ended_at = $2, due_at = NULL WHERE account_id = $1",
            one.account_id,
            world.now(),
        )
        answers = await asyncio.gather(*(one.submit() for _ in range(4)))
        assert [answer.status_code for answer in answers].count(201) == 1
        world.later(timedelta(minutes=5))
    await platform.execute(
        "UPDATE platform.cases SET state = 'expired', ended_at = $2, due_at = NULL WHERE account_id = $1",
        one.account_id,
        world.now(),
    )
    answers = await asyncio.gather(*(one.submit() for _ in range(4)))
    assert {answer.status_code for answer in answers} == {429}


async def test_codes_are_capped_over_cases_and_remedies(world: World, one: Person) -> None:
    """A code a minute the whole day is no less a nuisance: cases' and remedies' count together."""
    await odd_login(world, one)
    case, sent = await opened(one), 1
    for _ in range(20):
        world.later(timedelta(seconds=61))
        sent += (await one.ask("POST", f"/v1/cases/{case}/codes")).status_code == 202
        sent += (await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})).status_code == 202
    told = await messages(world, one)
    assert (sent, sum(each in ("sms_code", "remedy_code") for each in told)) == (15, 15)
    problem(await one.ask("POST", f"/v1/cases/{case}/codes"), 429, "TOO-SOON")
    assert (await one.ask("DELETE", f"/v1/cases/{case}")).status_code == 202


async def test_an_address_has_its_caps_too(world: World) -> None:
    """One address with many people's tokens; others, private ones and services of ours go on."""
    few = UseLimits(cases=2, codes=100, messages=100)
    pack = world.context.pack()
    assert pack.protection is not None
    narrow = msgspec.structs.replace(pack, protection=msgspec.structs.replace(pack.protection, address=few))
    context = msgspec.structs.replace(world.context, pack=lambda: narrow)
    app = create_app(msgspec.structs.replace(world.deps, context=context))

    async def submitted(address: str, token: str | None = None) -> int:
        account_id = next(_ids)
        transport = httpx.ASGITransport(app=cast("Any", app), client=(address, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
            return (await Person(client, token or world.token(account_id), account_id).submit()).status_code

    assert [await submitted("93.184.216.34") for _ in range(3)] == [201, 201, 429]
    assert await submitted("93.184.216.35") == 201
    of_one_network = ["2606:2800:220:1::1", "2606:2800:220:1::2", "2606:2800:220:1:ffff::3", "2606:2800:220:2::1"]
    assert [await submitted(address) for address in of_one_network] == [201, 201, 429, 201]
    assert [await submitted("10.0.0.1") for _ in range(3)] == [201] * 3
    assert [await submitted("93.184.216.34", world.service()) for _ in range(2)] == [201] * 2


async def odd_login(world: World, one: Person) -> None:
    await world.pools["security"].execute(
        """INSERT INTO security.login (account_id, login_id, device_id, place, at, anomaly, confirmed_at)
           VALUES ($1, 1, 'x', '三亚', now() - interval '40 day', 'far_place', NULL)""",
        one.account_id,
    )


async def locked(world: World, one: Person) -> None:
    """Make the fifteen wrong tries that lock the payment password, over three cases."""
    for _ in range(3):
        case = await opened(one)
        for _ in range(5):
            problem(await one.prove(case, "payment_password", "wrong"), 409, "PROOF-REFUSED")
        assert (await one.ask("DELETE", f"/v1/cases/{case}")).status_code == 202
        world.later(timedelta(minutes=5))


async def lock_cause(one: Person) -> str:
    case = await opened(one)
    answer = await one.prove(case, "payment_password", PASSWORD)
    await one.ask("DELETE", f"/v1/cases/{case}")
    return "" if answer.status_code == 200 else str(problem(answer, 409, "PROOF-REFUSED")["fields"]["cause"])


async def test_the_window_counts_by_when_a_try_was_made(world: World, one: Person) -> None:
    """Tries made late in an old case counted as old, and a guesser had as many again; old ones must lock nobody."""
    case = await opened(one)
    world.later(timedelta(hours=23))
    for _ in range(5):
        await one.prove(case, "payment_password", "wrong")
    await one.ask("DELETE", f"/v1/cases/{case}")
    world.later(timedelta(hours=2))  # the case is older than a day now, its wrong tries are not
    for _ in range(2):
        case = await opened(one)
        for _ in range(5):
            await one.prove(case, "payment_password", "wrong")
        await one.ask("DELETE", f"/v1/cases/{case}")
        world.later(timedelta(minutes=5))
    assert await lock_cause(one) == "locked"
    world.later(timedelta(hours=22, minutes=30))  # the first five are a day old, the later ten are not
    assert await lock_cause(one) == ""


async def test_the_owner_hears_of_wrong_tries_once(world: World, one: Person) -> None:
    """Fifteen wrong tries and not one message: the owner is told at the third, in both languages, once a window."""
    case = await opened(one)
    for _ in range(2):
        await one.prove(case, "payment_password", "wrong")
    assert "wrong_tries" not in await messages(world, one)
    await one.ask("DELETE", f"/v1/cases/{case}")
    world.later(timedelta(minutes=5))
    await locked(world, one)
    assert (await messages(world, one)).count("wrong_tries") == 1
    world.later(timedelta(days=1, hours=1))
    await locked(world, one)
    assert (await messages(world, one)).count("wrong_tries") == 2


async def unlock(world: World, one: Person, password: str = PASSWORD) -> httpx.Response:
    """Free locked proofs: ask, read the code on the phone, prove."""
    account = {"account": str(one.account_id)}
    asked = await one.ask("POST", "/v1/remedies/proof-lock", account)
    if asked.status_code != 202:
        return asked
    due = await outbox.load_due(world.pools["platform"], range(256), world.now(), 10_000)
    last = [each for each in due if each.account_id == one.account_id and each.template == "remedy_code"][-1]
    code = derive_code(CODES_KEY, one.account_id, 0, bytes.fromhex(last.params["nonce"]), 6)
    body = {**account, "remedy": asked.json()["id"], "password": password, "code": code}
    return await one.ask("POST", "/v1/remedies/proof-lock/confirmation", body)


async def test_a_lock_has_a_way_out_that_a_thief_has_not(world: World, one: Person) -> None:
    """Only on the primary device, only after a pause, with password and code; then proofs are judged again."""
    problem(await unlock(world, one), 409, "NOTHING-TO-CLEAR")
    await locked(world, one)
    assert await lock_cause(one) == "locked"
    for device in (None, "thief"):
        problem(await unlock(world, elsewhere(world, one, device)), 409, "WRONG-DEVICE")
    assert 0 < problem(await unlock(world, one), 429, "TOO-SOON")["fields"]["retry_after_s"] <= 1800
    world.later(timedelta(minutes=31))
    freed = await unlock(world, one)
    assert (freed.status_code, freed.json()["code"], freed.json()["items"]) == (200, "PROOF-LOCK", ["proofs"])
    assert "remedy_done" in await messages(world, one)
    world.later(timedelta(seconds=61))
    assert await lock_cause(one) == ""
    problem(await unlock(world, one), 409, "NOTHING-TO-CLEAR")


async def test_the_way_out_is_no_way_in(world: World, one: Person) -> None:
    """A thief with the phone and without the password has three guesses a day there, each after a pause."""
    await locked(world, one)
    causes = []
    for guess in range(5):
        world.later(timedelta(minutes=31))
        answer = await unlock(world, one, f"guess-{guess}")
        causes.append(problem(answer, 409, "PROOF-REFUSED")["fields"]["cause"])
    assert causes == ["wrong", "wrong", "wrong", "locked", "locked"]
    assert (await messages(world, one)).count("wrong_tries") == 1
    assert await lock_cause(one) == "locked"


async def _live(world: World, one: Person) -> bool:
    return bool(
        await world.pools["platform"].fetchval(
            "SELECT count(*) FROM platform.cases WHERE account_id = $1 AND ended_at IS NULL", one.account_id
        )
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("checks", {"accounts": ["ACCOUNT"]}),
        ("cases", {"account": "ACCOUNT", "kind": "revoke"}),
        ("consents", {"account": "ACCOUNT", "code": "PAY-AUTODEBIT"}),
        ("remedies/cash-out", {"account": "ACCOUNT"}),
        ("remedies/red-packets", {"account": "ACCOUNT"}),
        ("remedies/auto-debits", {"account": "ACCOUNT"}),
        ("remedies/logins", {"account": "ACCOUNT"}),
        ("remedies/device-handover", {"account": "ACCOUNT"}),
        ("remedies/device-handover/approval", {"account": "ACCOUNT", "code": "x"}),
        ("remedies/proof-lock", {"account": "ACCOUNT"}),
    ],
)
async def test_a_stranger_learns_not_even_that_an_account_exists(
    world: World, one: Person, path: str, body: dict[str, Any]
) -> None:
    """Refused alike for an account with a live case, one with none, and one that is not there."""
    live, none = next(_ids), next(_ids)
    assert (await Person(one._client, world.token(live), live).submit()).status_code == 201
    told = set()
    for account in map(str, (live, none, 987_654_321)):
        sent = msgspec.json.decode(msgspec.json.encode(body).replace(b"ACCOUNT", account.encode()))
        answer = await one.ask("POST", f"/v1/{path}", sent)
        assert problem(answer, 403, "NOT-ALLOWED")["fields"] == {"account": account}
        told.add(answer.text.replace(account, "ACCOUNT"))
    assert len(told) == 1
