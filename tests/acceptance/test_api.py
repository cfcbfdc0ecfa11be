"""The HTTP API over real databases: asking, proving, following and withdrawing, as a person does it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.api_world import PASSWORD, Person, World, at_superapp, made, until

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(1001, 40)
    await world.people(2001, 5, balance_fen=1)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.served() as client:
        yield client


def person(world: World, client: httpx.AsyncClient, account_id: int, **claims: Any) -> Person:
    return Person(client, world.token(account_id, **claims), account_id)


async def opened(one: Person) -> str:
    answer = await one.submit()
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_person_asks_proves_and_is_ready(world: World, client: httpx.AsyncClient) -> None:
    """The main road: submit, both proofs, ready, with the wallet's version on the case."""
    one = person(world, client, 1001)
    answer = await one.submit()
    assert answer.status_code == 201
    case = answer.json()
    assert answer.headers["location"] == f"/v1/cases/{case['id']}"
    assert case["state"] == "open"
    assert {proof["method"]: proof["state"] for proof in case["proofs"]} == {
        "payment_password": "wanted",
        "sms_code": "wanted",
    }
    assert set(case["participants"].values()) == {"untouched"}
    first = await one.prove(case["id"], "payment_password", PASSWORD)
    assert (first.status_code, first.json()["state"]) == (200, "open")
    second = await one.prove(case["id"], "sms_code", await world.code(1001))
    assert (second.status_code, second.json()["state"]) == (200, "ready")
    read = await one.ask("GET", f"/v1/cases/{case['id']}")
    assert read.json()["state"] == "ready"
    assert (
        await world.pools["platform"].fetchval("SELECT wallet_version FROM platform.cases WHERE account_id = 1001") == 1
    )


async def test_the_person_hears_of_it_at_once_and_no_code_is_stored(world: World, client: httpx.AsyncClient) -> None:
    """A thief cannot ask quietly, and a stolen database holds no code."""
    await opened(person(world, client, 1002))
    rows = await world.pools["platform"].fetch(
        "SELECT template, params FROM platform.outbox WHERE account_id = 1002 ORDER BY template"
    )
    assert [row["template"] for row in rows] == ["case_requested", "sms_code"]
    code = await world.code(1002)
    dump = str(await world.pools["platform"].fetch("SELECT * FROM platform.outbox WHERE account_id = 1002"))
    dump += str(await world.pools["platform"].fetch("SELECT * FROM platform.proof WHERE account_id = 1002"))
    assert f"'{code}'" not in dump
    assert f'"{code}"' not in dump


async def test_blocked_shows_the_whole_check(world: World, client: httpx.AsyncClient) -> None:
    """One fen left: 409 with every blocker, its value and its remedy, in both languages; and nothing was opened."""
    answer = await person(world, client, 2001).submit()
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["code"] == "BLOCKED"
    [blocker] = problem["check"]["blockers"]
    assert blocker["code"] == "PAY-BALANCE"
    assert blocker["facts"]["balance_fen"] == 1
    assert blocker["remedy"]["what"]["zh"]
    assert blocker["remedy"]["what"]["en"]
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.cases WHERE account_id = 2001") == 0
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.outbox WHERE account_id = 2001") == 0


async def test_cash_out_clears_the_balance(world: World, client: httpx.AsyncClient) -> None:
    """The remedy works on the spot, once however often it is sent, and the request passes afterwards."""
    one = person(world, client, 2002)
    assert (await one.submit()).status_code == 409
    paid = await one.ask("POST", "/v1/remedies/cash-out", {"account": "2002"}, key="k1")
    assert (paid.status_code, paid.json()["amount_fen"]) == (200, 1)
    again = await one.ask("POST", "/v1/remedies/cash-out", {"account": "2002"}, key="k1")
    assert (again.content, again.headers["idempotency-replayed"]) == (paid.content, "true")
    assert (await one.submit()).status_code == 201


async def test_one_tap_ends_every_autodebit(world: World, client: httpx.AsyncClient) -> None:
    """Two contracts stand in the way with merchant and amount; one tap ends them, a case keeps them from ending."""
    one, wallet = person(world, client, 1015), world.pools["wallet"]
    await wallet.execute(
        """INSERT INTO wallet.autodebit_contract (account_id, contract_id, merchant, service, amount_fen, signed_at)
           VALUES (1015, 1, '美团', '会员', 1500, now()), (1015, 2, '滴滴', '出行', NULL, now())"""
    )
    [blocker] = (await one.submit()).json()["check"]["blockers"]
    assert (blocker["code"], blocker["severity"]) == ("PAY-AUTODEBIT", "needs_consent")
    assert [item["merchant"] for item in blocker["facts"]["autodebit_items"]] == ["美团", "滴滴"]
    body = {"account": "1015"}
    await wallet.execute("UPDATE wallet.account SET case_no = 1, case_op = 'tried' WHERE account_id = 1015")
    assert (await one.ask("POST", "/v1/remedies/auto-debits", body)).json()["code"] == "WALLET-BUSY"
    await wallet.execute("UPDATE wallet.account SET case_no = 0, case_op = 'cancelled' WHERE account_id = 1015")
    ended = await one.ask("POST", "/v1/remedies/auto-debits", body, key="tap")
    assert (ended.status_code, ended.json()["count"], ended.json()["items"]) == (200, 2, ["1", "2"])
    assert ended.json()["check"]["passes"]
    assert (await one.ask("POST", "/v1/remedies/auto-debits", body, key="tap")).json()["count"] == 2
    assert (await one.ask("POST", "/v1/remedies/auto-debits", body)).json()["count"] == 0
    assert await wallet.fetchval("SELECT facts_version FROM wallet.account WHERE account_id = 1015") == 2
    assert (await one.submit()).status_code == 201


async def test_red_packets_are_opened_on_the_spot(world: World, client: httpx.AsyncClient) -> None:
    """An unopened red packet stands in the way; opening it turns it into a balance, which stands in the way then."""
    one = person(world, client, 1016)
    await world.pools["wallet"].execute(
        """INSERT INTO wallet.red_packet (account_id, packet_id, sender, amount_fen, state, sent_at, expires_at)
           VALUES (1016, 1, '妈妈', 888, 'unclaimed', now(), now() + interval '1 day')"""
    )
    assert [blocker["code"] for blocker in (await one.submit()).json()["check"]["blockers"]] == ["PAY-RED-PACKET"]
    opened_now = await one.ask("POST", "/v1/remedies/red-packets", {"account": "1016"})
    assert (opened_now.status_code, opened_now.json()["amount_fen"]) == (200, 888)
    assert [blocker["code"] for blocker in (await one.submit()).json()["check"]["blockers"]] == ["PAY-BALANCE"]
    assert (await one.ask("POST", "/v1/remedies/cash-out", {"account": "1016"})).json()["amount_fen"] == 888
    assert (await one.submit()).status_code == 201


async def test_a_stream_lives_no_longer_than_its_token(world: World, client: httpx.AsyncClient) -> None:
    """A stolen token that has run out tells its thief nothing more."""
    one = person(world, client, 1017, lives=timedelta(seconds=60))
    case = await opened(one)
    stream = asyncio.create_task(one.ask("GET", f"/v1/cases/{case}/events"))
    await until(lambda: world.follower.streams == 1)
    world.later(timedelta(seconds=61))
    await person(world, client, 1017).ask("DELETE", f"/v1/cases/{case}")
    assert "withdrawn" not in (await stream).text


async def test_another_device_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    """A token from a device that is not the primary one meets SEC-DEVICE."""
    answer = await person(world, client, 1003, device="stranger").submit()
    assert answer.status_code == 409
    assert [blocker["code"] for blocker in answer.json()["check"]["blockers"]] == ["SEC-DEVICE"]


async def test_one_live_case_an_account(world: World, client: httpx.AsyncClient) -> None:
    """A second request meets CASE-OPEN; of many at once exactly one opens a case."""
    one = person(world, client, 1004)
    answers = await asyncio.gather(*(one.submit() for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            assert "CASE-OPEN" in [blocker["code"] for blocker in answer.json()["check"]["blockers"]]
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.cases WHERE account_id = 1004") == 1


async def test_money_moved_between_the_proofs_is_on_the_case(
    world: World, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The version on the case is the wallet's as of the last proof, not of the first."""
    one = person(world, client, 1005)
    case = await opened(one)
    await one.prove(case, "payment_password", PASSWORD)
    body = {"from": "2003", "to": "1005", "amount_fen": 1}
    async with at_superapp(world, tmp_path) as superapp:
        assert (await person(world, superapp, 2003).ask("POST", "/v1/transfers", body)).status_code == 200
    assert (await one.prove(case, "sms_code", await world.code(1005))).json()["state"] == "ready"
    on_case = await world.pools["platform"].fetchval(
        "SELECT wallet_version FROM platform.cases WHERE account_id = 1005"
    )
    in_wallet = await world.pools["wallet"].fetchval("SELECT facts_version FROM wallet.account WHERE account_id = 1005")
    assert on_case == in_wallet > 1


async def test_wrong_codes_are_limited(world: World, client: httpx.AsyncClient) -> None:
    """Five wrong tries and the right code is refused too: a guesser gets no sixth."""
    one = person(world, client, 1006)
    case = await opened(one)
    right = await world.code(1006)
    wrong = "000000" if right != "000000" else "000001"
    for left in (4, 3, 2, 1, 0):
        refused = await one.prove(case, "sms_code", wrong)
        assert (refused.status_code, refused.json()["code"]) == (409, "PROOF-REFUSED")
        assert refused.json()["fields"]["tries_left"] == left
    assert (await one.prove(case, "sms_code", right)).status_code == 409


async def test_parallel_guesses_share_no_try(world: World, client: httpx.AsyncClient) -> None:
    """Twelve wrong guesses at once cost five tries and no more were judged."""
    one = person(world, client, 1007)
    case = await opened(one)
    answers = await asyncio.gather(*(one.prove(case, "payment_password", f"wrong-{n}") for n in range(12)))
    assert sorted(answer.json()["fields"]["tries_left"] for answer in answers) == [0] * 8 + [1, 2, 3, 4]
    assert [answer.json()["fields"]["cause"] for answer in answers].count("wrong") == 5


async def test_withdrawing_brings_no_new_tries(world: World, client: httpx.AsyncClient) -> None:
    """Fifteen wrong tries a day over all cases: withdrawing and asking again does not help a guesser."""
    one = person(world, client, 1008)
    for _ in range(3):
        case = await opened(one)
        for n in range(5):
            await one.prove(case, "payment_password", f"wrong-{n}")
        assert (await one.ask("DELETE", f"/v1/cases/{case}")).status_code == 202
        world.later(timedelta(minutes=5))  # the pause before another case
    case = await opened(one)
    refused = await one.prove(case, "payment_password", PASSWORD)
    assert refused.status_code == 409
    assert refused.json()["fields"]["cause"] == "locked"


async def test_a_code_is_single_use_bound_to_its_case_and_expires(world: World, client: httpx.AsyncClient) -> None:
    """A used, foreign or old code opens nothing."""
    one, other = person(world, client, 1009), person(world, client, 1010)
    case, others = await opened(one), await opened(other)
    code = await world.code(1009)
    if code != await world.code(1010):
        assert (await other.prove(others, "sms_code", code)).status_code == 409
    assert (await one.prove(case, "sms_code", code)).status_code == 200
    again = await one.prove(case, "sms_code", code)
    assert (again.status_code, again.json()["fields"]["cause"]) == (409, "accepted")
    world.later(timedelta(minutes=6))
    late = Person(client, world.token(1010), 1010)
    expired = await late.prove(others, "sms_code", await world.code(1010))
    assert (expired.status_code, expired.json()["fields"]["cause"]) == (409, "expired")
    fresh = await late.ask("POST", f"/v1/cases/{others}/codes")
    assert fresh.status_code == 202
    assert (await late.prove(others, "sms_code", await world.code(1010))).status_code == 200


async def test_codes_cannot_be_asked_for_without_end(world: World, client: httpx.AsyncClient) -> None:
    """Within a minute the next code is refused, with the time to wait."""
    one = person(world, client, 1011)
    case = await opened(one)
    answer = await one.ask("POST", f"/v1/cases/{case}/codes")
    assert (answer.status_code, answer.json()["code"]) == (429, "TOO-SOON")
    assert 0 < int(answer.headers["retry-after"]) <= 60


async def test_withdraw_while_it_can_win(world: World, client: httpx.AsyncClient) -> None:
    """Open, ready: gone at once. Trying: the wish is recorded. Past the commit point: 409."""
    one = person(world, client, 1012)
    case = await opened(one)
    gone = await one.ask("DELETE", f"/v1/cases/{case}")
    assert (gone.status_code, gone.json()["state"]) == (202, "withdrawn")
    assert (await one.ask("DELETE", f"/v1/cases/{case}")).status_code == 202
    case = await opened(one)
    marks = len((await one.ask("GET", f"/v1/cases/{case}")).json()["participants"])
    await world.pools["platform"].execute(
        """UPDATE platform.cases SET state = 'trying', marks = repeat('t', $1),
               versions = array_fill(1::bigint, ARRAY[$1]), deadline = now(), wallet_version = 1
           WHERE account_id = 1012 AND ended_at IS NULL""",
        marks,
    )
    wished = await one.ask("DELETE", f"/v1/cases/{case}")
    assert (wished.status_code, wished.json()["state"]) == (202, "trying")
    assert wished.json()["withdraw_asked_at"]
    await world.pools["platform"].execute(
        """UPDATE platform.cases SET state = 'confirming', marks = repeat('c', $1), withdraw_at = NULL
           WHERE account_id = 1012 AND ended_at IS NULL""",
        marks,
    )
    late = await one.ask("DELETE", f"/v1/cases/{case}")
    assert (late.status_code, late.json()["code"]) == (409, "TOO-LATE-TO-WITHDRAW")


def events(text: str) -> list[dict[str, str]]:
    """Read a finished event stream as a browser would."""
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        for block in text.replace("\r\n", "\n").split("\n\n")
        if block.strip()
    ]


async def test_events_follow_resume_and_end(world: World, client: httpx.AsyncClient) -> None:
    """A stream tells what happens while it is open, ends with the case, and goes on where a broken one left off."""
    one = person(world, client, 1013)
    case = await opened(one)
    path = f"/v1/cases/{case}/events"

    async def whole() -> str:
        answer = await one.ask("GET", path)
        assert answer.headers["content-type"].startswith("text/event-stream")
        return answer.text

    streams = [asyncio.create_task(whole()) for _ in range(3)]
    await until(lambda: world.follower.streams == 3)
    await one.ask("DELETE", f"/v1/cases/{case}")
    told = [events(text) for text in await asyncio.gather(*streams)]
    assert told[0] == told[1] == told[2]
    assert [event["event"] for event in told[0]] == ["change", "change", "end"]
    states = [msgspec.json.decode(event["data"])["entries"][-1]["state"] for event in told[0][:2]]
    assert states == ["open", "withdrawn"]
    resumed = await one.ask("GET", path, last_event_id=told[0][0]["id"])
    assert events(resumed.text) == told[0][1:]
    assert (await one.ask("GET", path, last_event_id=told[0][1]["id"])).status_code == 204
    assert world.follower.streams == 0


async def test_a_reader_who_leaves_is_forgotten(world: World, client: httpx.AsyncClient) -> None:
    """A browser that goes away must not be followed for ever."""
    one = person(world, client, 1014)
    case = await opened(one)
    headers = {"authorization": f"Bearer {world.token(1014)}"}
    async with client.stream("GET", f"/v1/cases/{case}/events", headers=headers) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                break
        assert world.follower.streams == 1
    await until(lambda: not world.follower.streams)


async def test_health_ready_metrics(world: World, client: httpx.AsyncClient) -> None:
    """An operator sees that it lives, what answers, and figures that name nobody."""
    assert (await client.get("/health")).json() == {"status": "alive"}
    ready = await client.get("/ready")
    assert ready.status_code == 200
    assert set(ready.json()["participants"]) == set(world.participants)
    assert all(ready.json()["participants"].values())
    one = person(world, client, 1017)
    case = await opened(one)
    assert (await one.ask("GET", f"/v1/cases/{case}")).status_code == 200
    metrics = text_string_to_metric_families((await client.get("/metrics")).text)
    labels = {
        value
        for family in metrics
        for sample in family.samples
        for name, value in sample.labels.items()
        if name != "le"  # the bounds of histograms, which are round numbers of ours
    }
    assert "/v1/cases/{case_id}" in labels
    named = re.compile(rf"{case}|case_[a-z2-7]{{26}}|\b(10[0-4][0-9]|200[0-9])\b")  # ids of cases, and of these people
    assert [label for label in labels if named.search(label)] == []
    for path in ("/metrics", "/ready", "/health", "/.well-known/jwks.json", "/openapi.json", "/v1/cases/x"):
        told = (await client.get(path)).headers["content-type"]
        assert told.count("charset") <= 1, f"{path}: a scraper that reads {told} strictly refuses it"
