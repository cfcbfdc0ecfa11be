"""Remedies on the spot and consents: each done once, recorded once, its facts' version raised, and checked anew."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from jiebang.store.cases import cases, remedies
from jiebang.store.operations import outbox
from jiebang.usecases.cases.codes import derive_code, derive_hand_over_code
from tests.acceptance.api_world import CODES_KEY, PASSWORD, Person, World, made, on_deck

if TYPE_CHECKING:
    from jiebang.store.cases.remedies import RemedyRecord
    from jiebang.store.postgres.pool import Pool

_ids = itertools.count(7001)


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(7001, 40)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


@pytest.fixture
def one(world: World, client: httpx.AsyncClient) -> Person:
    """A person nothing stands in the way of, new for each test."""
    account_id = next(_ids)
    return Person(client, world.token(account_id), account_id)


async def sign(world: World, one: Person, *contracts: int) -> None:
    """Sign auto-debit contracts, as a merchant's system does: facts_version grows."""
    wallet = world.pools["wallet"]
    await wallet.execute(
        """INSERT INTO wallet.autodebit_contract (account_id, contract_id, merchant, service, amount_fen, signed_at)
           SELECT $1, c, '美团', '会员', 1500, now() FROM unnest($2::bigint[]) AS c""",
        one.account_id,
        contracts,
    )
    await wallet.execute(
        "UPDATE wallet.account SET facts_version = facts_version + 1 WHERE account_id = $1", one.account_id
    )


async def packets(world: World, one: Person, *ids: int, valid: bool = True) -> None:
    await world.pools["wallet"].execute(
        """INSERT INTO wallet.red_packet (account_id, packet_id, sender, amount_fen, state, sent_at, expires_at)
           SELECT $1, c, '妈妈', 100 * c, 'unclaimed', now() - interval '2 days',
               now() + CASE WHEN $3 THEN interval '1 day' ELSE interval '-1 hour' END
           FROM unnest($2::bigint[]) AS c""",
        one.account_id,
        ids,
        valid,
    )


async def login(world: World, one: Person, *ids: int) -> None:
    await world.pools["security"].execute(
        """INSERT INTO security.login (account_id, login_id, device_id, place, at, anomaly)
           SELECT $1, c, 'phone-x', '三亚', now() - interval '1 day', 'far_place' FROM unnest($2::bigint[]) AS c""",
        one.account_id,
        ids,
    )


async def version(world: World, one: Person, owner: str) -> int:
    found = await world.pools[owner].fetchval(
        f"SELECT facts_version FROM {owner}.account WHERE account_id = $1",  # noqa: S608 - an owner of ours
        one.account_id,
    )
    return int(found)


async def recorded(world: World, one: Person) -> list[RemedyRecord]:
    found = await remedies.load_of_accounts(world.pools["platform"], [one.account_id])
    return found.get(one.account_id, [])


def codes(check: Mapping[str, Any]) -> list[str]:
    return [blocker["code"] for blocker in check["blockers"]]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["zh"]["title"]
    assert answer.json()["en"]["title"].isascii()
    fields: dict[str, Any] = answer.json().get("fields", {})
    return fields


async def test_contracts_end_one_by_one(world: World, one: Person) -> None:
    """A person may end one contract and keep another: the check names what is left; a stranger's id ends nothing."""
    await sign(world, one, 11, 12)
    before = await version(world, one, "wallet")
    body = {"account": str(one.account_id), "contracts": ["11"]}
    ended = (await one.ask("POST", "/v1/remedies/auto-debits", body, key="a")).json()
    assert (ended["items"], codes(ended["check"])) == (["11"], ["PAY-AUTODEBIT"])
    assert [item["id"] for item in ended["check"]["blockers"][0]["facts"]["autodebit_items"]] == ["12"]
    assert await version(world, one, "wallet") == before + 1
    assert (await one.ask("POST", "/v1/remedies/auto-debits", body, key="a")).json() == ended
    mixed = {**body, "contracts": ["11", "12", "999"]}
    assert refused(await one.ask("POST", "/v1/remedies/auto-debits", mixed), 409, "NOTHING-TO-CLEAR") == {
        "items": ["11", "999"]
    }
    assert await version(world, one, "wallet") == before + 1
    [record] = await recorded(world, one)
    assert (record.code, record.action, record.outcome) == ("PAY-AUTODEBIT", "end_autodebits", {"items": ["11"]})


async def test_red_packets_are_opened_or_returned_one_by_one(world: World, one: Person) -> None:
    """One is opened and becomes balance, one returned, an expired one never opened: each with its record."""
    await packets(world, one, 1, 2)
    await packets(world, one, 3, valid=False)
    account = str(one.account_id)
    opened = await one.ask("POST", "/v1/remedies/red-packets", {"account": account, "packets": ["1", "3"]})
    assert (opened.json()["items"], opened.json()["amount_fen"]) == (["1", "3"], 100)
    assert codes(opened.json()["check"]) == ["PAY-BALANCE", "PAY-RED-PACKET"]
    back = {"account": account, "packets": ["2"], "action": "return"}
    returned = (await one.ask("POST", "/v1/remedies/red-packets", back, key="r")).json()
    assert (returned["items"], returned["amount_fen"], codes(returned["check"])) == (["2"], 0, ["PAY-BALANCE"])
    assert (await one.ask("POST", "/v1/remedies/red-packets", back, key="r")).json() == returned
    states = await world.pools["wallet"].fetch(
        "SELECT state FROM wallet.red_packet WHERE account_id = $1 ORDER BY packet_id", one.account_id
    )
    assert [row["state"] for row in states] == ["claimed", "returned", "returned"]
    assert (await world.wallet.audit_money([one.account_id])).wrong == []
    assert [record.outcome for record in await recorded(world, one)] == [
        {"items": ["1", "3"], "amount_fen": 100},
        {"items": ["2"], "amount_fen": 0},
    ]


async def test_a_remedy_cut_off_after_it_was_done_is_recorded_by_its_repeat(
    world: World, one: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the wallet's commit and ours: the repeat ends nothing more and tells what was ended."""
    await sign(world, one, 21, 22)
    body = {"account": str(one.account_id)}

    async def dies(*_: object, **__: object) -> None:
        raise asyncpg.PostgresConnectionError

    with monkeypatch.context() as broken:
        broken.setattr("jiebang.usecases.cases.remedy.record", dies)
        assert (await one.ask("POST", "/v1/remedies/auto-debits", body, key="cut")).status_code == 503
    [begun] = await recorded(world, one)
    assert begun.done_at is None
    again = await one.ask("POST", "/v1/remedies/auto-debits", body, key="cut")
    assert (again.status_code, again.json()["items"]) == (200, ["21", "22"])
    [record] = await recorded(world, one)
    assert record.outcome == {"items": ["21", "22"]}


async def test_twenty_at_once_under_one_key_do_it_once(world: World, one: Person) -> None:
    """Impatient tapping: one remedy, one record, one rise of the version."""
    await sign(world, one, 31)
    before, body = await version(world, one, "wallet"), {"account": str(one.account_id)}
    answers = await asyncio.gather(*(one.ask("POST", "/v1/remedies/auto-debits", body, key="many") for _ in range(20)))
    assert {(answer.status_code, answer.json().get("count"), answer.json().get("code")) for answer in answers} == {
        (200, 1, "PAY-AUTODEBIT")
    }
    assert await version(world, one, "wallet") == before + 1
    assert len(await recorded(world, one)) == 1


async def test_nothing_done_leaves_no_record(world: World, one: Person) -> None:
    """Records are of what was done: an empty wallet and a refused request leave none."""
    body = {"account": str(one.account_id)}
    assert (await one.ask("POST", "/v1/remedies/cash-out", body)).json()["amount_fen"] == 0
    refused(await one.ask("POST", "/v1/remedies/red-packets", {**body, "packets": ["5"]}), 409, "NOTHING-TO-CLEAR")
    assert await recorded(world, one) == []


async def test_a_consent_makes_a_blocker_a_consequence(world: World, one: Person) -> None:
    """Agreed contracts no longer block and are told as consequences; one signed afterwards blocks again."""
    await sign(world, one, 41, 42)
    body = {"account": str(one.account_id), "code": "PAY-AUTODEBIT"}
    given = await one.ask("POST", "/v1/consents", body, key="c")
    assert (given.status_code, given.json()["agreed"], given.json()["check"]["passes"]) == (200, ["41", "42"], True)
    assert given.json()["check"]["consents"] == ["PAY-AUTODEBIT"]
    assert any(each["consent"] == "PAY-AUTODEBIT" for each in given.json()["check"]["consequences"])
    assert (await one.ask("POST", "/v1/consents", body, key="c")).json() == given.json()
    await sign(world, one, 43)
    assert codes((await one.submit()).json()["check"]) == ["PAY-AUTODEBIT"]


async def test_a_consent_covers_only_what_was_shown(world: World, one: Person) -> None:
    """A merchant adds a contract while the person reads: it is not agreed to, and ids yet to come cannot be."""
    await sign(world, one, 51, 52)
    body = {"account": str(one.account_id), "code": "PAY-AUTODEBIT", "shown": ["51", "53"]}
    given = (await one.ask("POST", "/v1/consents", body)).json()
    assert (given["agreed"], given["check"]["passes"]) == (["51"], False)
    await sign(world, one, 53)
    await one.ask("POST", "/v1/remedies/auto-debits", {"account": str(one.account_id), "contracts": ["52"]})
    [blocker] = (await one.submit()).json()["check"]["blockers"]
    assert "53" in str(blocker["facts"]["autodebit_items"])


async def test_a_consent_is_taken_back_as_easily(world: World, one: Person) -> None:
    """PIPL art. 15: one request; the record of what was agreed stays; a second one changes nothing."""
    await sign(world, one, 61)
    await one.ask("POST", "/v1/consents", {"account": str(one.account_id), "code": "PAY-AUTODEBIT"})
    for _ in range(2):
        back = await one.ask("DELETE", "/v1/consents/PAY-AUTODEBIT")
        assert (back.status_code, back.json()["agreed"], codes(back.json()["check"])) == (200, None, ["PAY-AUTODEBIT"])
    rows = await world.pools["platform"].fetch(
        "SELECT what, withdrawn_at FROM platform.consent WHERE account_id = $1", one.account_id
    )
    assert [(row["what"], row["withdrawn_at"] is None) for row in rows] == [(["61"], False)]
    service = Person(one._client, world.service(), one.account_id)
    refused(await service.ask("DELETE", "/v1/consents/PAY-AUTODEBIT"), 403, "NOT-ALLOWED")


async def submitted(one: Person, **body: Any) -> httpx.Response:
    whole = {"account": str(one.account_id), "kind": "revoke", "consents": ["PAY-AUTODEBIT"], **body}
    return await one.ask("POST", "/v1/cases", whole)


async def rechecked(world: World, one: Person, case_no: int = 1) -> tuple[str, ...]:
    """What a worker that takes the case finds."""
    key = (one.account_id, case_no)
    [case] = (await cases.load_many(world.pools["platform"], [key])).values()
    found = await world.context.check.recheck([case])  # type: ignore[attr-defined]  # the world's is a Checker
    return tuple(found[key].blockers)


async def test_a_case_may_bring_the_consent(world: World, one: Person) -> None:
    """Agreed with the request, for this case alone: the worker's check passes until another contract is signed."""
    await sign(world, one, 71)
    refused(await one.submit(), 409, "BLOCKED")
    assert (await submitted(one)).status_code == 201
    assert await rechecked(world, one) == ()
    await sign(world, one, 72)
    assert await rechecked(world, one) == ("PAY-AUTODEBIT",)
    await world.pools["platform"].execute(
        "UPDATE platform.cases SET state = 'expired', ended_at = now(), due_at = NULL WHERE account_id = $1",
        one.account_id,
    )
    await one.ask("POST", "/v1/remedies/auto-debits", {"account": str(one.account_id), "contracts": ["72"]})
    refused(await one.submit(), 409, "BLOCKED")


async def test_a_case_brings_no_consent_to_what_was_not_shown(world: World, one: Person) -> None:
    """A contract signed between reading and submitting stands in the way, and nothing is agreed or opened."""
    await sign(world, one, 81, 82)
    refused(await submitted(one, shown=["81"]), 409, "BLOCKED")
    assert (
        await world.pools["platform"].fetchval(
            "SELECT count(*) FROM platform.consent WHERE account_id = $1", one.account_id
        )
        == 0
    )
    assert (await submitted(one, shown=["82", "81"])).status_code == 201


@pytest.mark.parametrize(
    ("state", "status", "ends"), [("open", 200, "open"), ("ready", 200, "withdrawn"), ("trying", 200, "trying")]
)
async def test_a_consent_taken_back_holds_its_case(
    world: World, one: Person, state: str, status: int, ends: str
) -> None:
    """A case that rests on it cannot commit: an open one meets it at the re-check, a later one is withdrawn."""
    await sign(world, one, 91)
    assert (await submitted(one)).status_code == 201
    platform = world.pools["platform"]
    await platform.execute(
        """UPDATE platform.cases SET state = $2, wallet_version = 1, deadline = now() + interval '1 hour',
               marks = CASE WHEN $2 = 'trying' THEN repeat('t', length(marks)) ELSE marks END,
               versions = array_fill(1, ARRAY[length(marks)]) WHERE account_id = $1""",
        one.account_id,
        state,
    )
    back = await one.ask("DELETE", "/v1/consents/PAY-AUTODEBIT")
    assert back.status_code == status
    [case] = (await cases.load_many(platform, [(one.account_id, 1)])).values()
    assert case.state == ends
    assert (case.withdraw_at is not None) == (state != "open")
    if state == "open":
        assert await rechecked(world, one) == ("PAY-AUTODEBIT",)


async def test_past_the_commit_point_a_consent_stays(world: World, one: Person) -> None:
    """409, and the consent still stands: a half-withdrawn case would be neither one thing nor the other."""
    await sign(world, one, 95)
    assert (await submitted(one)).status_code == 201
    platform = world.pools["platform"]
    await platform.execute(
        """UPDATE platform.cases SET state = 'confirming', marks = repeat('c', length(marks)), wallet_version = 1,
               versions = array_fill(1, ARRAY[length(marks)]) WHERE account_id = $1""",
        one.account_id,
    )
    refused(await one.ask("DELETE", "/v1/consents/PAY-AUTODEBIT"), 409, "TOO-LATE-TO-WITHDRAW")
    assert (
        await platform.fetchval("SELECT withdrawn_at FROM platform.consent WHERE account_id = $1", one.account_id)
        is None
    )


async def sms(world: World, one: Person) -> str:
    """The last code of a remedy that the person's phone was sent."""
    messages = await outbox.load_due(world.pools["platform"], range(256), world.now(), 10_000)
    last = [each for each in messages if each.account_id == one.account_id and each.template == "remedy_code"][-1]
    return derive_code(CODES_KEY, one.account_id, 0, bytes.fromhex(last.params["nonce"]), 6)


async def proof(one: Person, remedy: str, code: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
    body = {"account": str(one.account_id), "remedy": remedy, "password": password, "code": code}
    return await one.ask("POST", "/v1/remedies/logins/confirmation", body, **more)


def other_code(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


async def test_a_login_is_confirmed_with_both_proofs(world: World, one: Person) -> None:
    """Both right, once: the login blocks no longer, the version rises, the phone hears of it, the code is dead."""
    await login(world, one, 1, 2)
    before = await version(world, one, "security")
    assert codes((await one.submit()).json()["check"]) == ["SEC-ABNORMAL-LOGIN"]
    asked = await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})
    assert (asked.status_code, asked.json()["items"]) == (202, ["1", "2"])
    remedy, code = asked.json()["id"], await sms(world, one)
    assert code not in asked.text
    done = await proof(one, remedy, code, key="p")
    assert (done.status_code, done.json()["items"], done.json()["check"]["passes"]) == (200, ["1", "2"], True)
    assert (await proof(one, remedy, code, key="p")).json() == done.json()
    assert await version(world, one, "security") == before + 1
    assert refused(await proof(one, remedy, code), 409, "PROOF-REFUSED")["cause"] == "accepted"
    [record] = await recorded(world, one)
    assert (record.code, record.action, record.outcome) == (
        "SEC-ABNORMAL-LOGIN",
        "confirm_logins",
        {"items": ["1", "2"]},
    )
    told = await outbox.load_due(world.pools["platform"], range(256), world.now(), 10_000)
    assert [each.template for each in told if each.account_id == one.account_id][-1] == "remedy_done"


async def test_wrong_proofs_are_limited_and_never_named(world: World, one: Person) -> None:
    """Neither a wrong code nor a wrong password tells which it was; the fifth ends it, even for the right ones."""
    await login(world, one, 1)
    remedy = (await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})).json()["id"]
    code, said = await sms(world, one), []
    for attempt in range(5):
        wrong = await (proof(one, remedy, other_code(code)) if attempt % 2 else proof(one, remedy, code, "000000"))
        said.append(refused(wrong, 409, "PROOF-REFUSED"))
    assert [each["tries_left"] for each in said] == [4, 3, 2, 1, 0]
    assert len({str({**each, "tries_left": 0}) for each in said}) == 1
    assert refused(await proof(one, remedy, code), 409, "PROOF-REFUSED")["cause"] == "used_up"
    assert await recorded(world, one) == []


async def test_parallel_guesses_share_no_try(world: World, one: Person) -> None:
    """Forty guesses at once cost what forty in a row do: five are judged."""
    await login(world, one, 1)
    remedy = (await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})).json()["id"]
    code = other_code(await sms(world, one))
    answers = await asyncio.gather(*(proof(one, remedy, code) for _ in range(20)))
    causes = sorted(refused(answer, 409, "PROOF-REFUSED")["cause"] for answer in answers)
    assert causes == ["used_up"] * 15 + ["wrong"] * 5


async def test_new_remedies_bring_no_new_tries_without_end(world: World, one: Person) -> None:
    """Fifteen wrong tries lock the account for the window, for its cases too; the clock alone opens it again."""
    await login(world, one, 1)
    body = {"account": str(one.account_id)}
    try:
        for _ in range(3):
            remedy = (await one.ask("POST", "/v1/remedies/logins", body)).json()["id"]
            wrong = other_code(await sms(world, one))
            for _ in range(5):
                refused(await proof(one, remedy, wrong), 409, "PROOF-REFUSED")
            refused(await one.ask("POST", "/v1/remedies/logins", body), 429, "TOO-SOON")
            world.later(timedelta(seconds=61))
            one._token = world.token(one.account_id)
        locked = refused(await one.ask("POST", "/v1/remedies/logins", body), 409, "PROOF-REFUSED")
        assert locked["cause"] == "locked"
        world.later(timedelta(hours=25))
        one._token = world.token(one.account_id)
        assert (await one.ask("POST", "/v1/remedies/logins", body)).status_code == 202
    finally:
        world.skew = timedelta()


async def test_an_expired_or_replaced_remedy_is_dead(world: World, one: Person) -> None:
    """A code found later, or one before the newest, confirms nothing; nor does another account's remedy."""
    await login(world, one, 1)
    body = {"account": str(one.account_id)}
    try:
        first = (await one.ask("POST", "/v1/remedies/logins", body)).json()["id"]
        code = await sms(world, one)
        world.later(timedelta(seconds=61))
        second = (await one.ask("POST", "/v1/remedies/logins", body)).json()["id"]
        assert refused(await proof(one, first, code), 409, "PROOF-REFUSED")["cause"] == "expired"
        world.later(timedelta(minutes=6))
        one._token = world.token(one.account_id)
        assert refused(await proof(one, second, await sms(world, one)), 409, "PROOF-REFUSED")["cause"] == "expired"
        refused(await proof(one, str(uuid4()), code), 404, "UNKNOWN-REMEDY")
    finally:
        world.skew = timedelta()


async def test_a_login_is_not_confirmed_while_a_case_holds_the_account(world: World, one: Person) -> None:
    """Between Try and Confirm facts stand still: 503, and the same request goes through afterwards with its proof."""
    await login(world, one, 1)
    remedy = (await one.ask("POST", "/v1/remedies/logins", {"account": str(one.account_id)})).json()["id"]
    code, security = await sms(world, one), world.pools["security"]
    await security.execute(
        "UPDATE security.account SET case_no = 1, case_op = 'tried' WHERE account_id = $1", one.account_id
    )
    refused(await proof(one, remedy, code, key="held"), 503, "ACCOUNT-BUSY")
    await security.execute("UPDATE security.account SET case_op = 'cancelled' WHERE account_id = $1", one.account_id)
    done = await proof(one, remedy, code, key="held")
    assert (done.status_code, done.json()["items"]) == (200, ["1"])


async def test_a_request_is_handed_over_to_the_primary_device(world: World, one: Person) -> None:
    """The new device shows a code, the primary one takes over and passes; the code works once and is nowhere stored."""
    new = Person(one._client, world.token(one.account_id, device="tablet"), one.account_id)
    account = {"account": str(one.account_id)}
    assert codes((await new.submit()).json()["check"]) == ["SEC-DEVICE"]
    asked = await new.ask("POST", "/v1/remedies/device-handover", account, key="qr")
    shown = asked.json()["show"]
    assert (asked.status_code, len(shown)) == (202, 16)
    assert (await new.ask("POST", "/v1/remedies/device-handover", account, key="qr")).json() == asked.json()
    kept = await world.pools["platform"].fetchval("SELECT string_agg(answer, '') FROM platform.idempotency")
    assert shown.encode() not in kept
    approve = "/v1/remedies/device-handover/approval"
    cause = refused(await new.ask("POST", approve, {**account, "code": shown}), 409, "PROOF-REFUSED")["cause"]
    assert cause == "not_primary_device"
    wrong = refused(await one.ask("POST", approve, {**account, "code": "A" * 16}), 409, "PROOF-REFUSED")
    assert (wrong["cause"], wrong["tries_left"]) == ("wrong", 4)
    done = await one.ask("POST", approve, {**account, "code": shown.lower()})
    assert (done.status_code, done.json()["items"], done.json()["check"]["passes"]) == (200, ["tablet"], True)
    again = refused(await one.ask("POST", approve, {**account, "code": shown}), 409, "PROOF-REFUSED")
    assert again["cause"] == "accepted"
    [record] = await recorded(world, one)
    assert (record.code, record.outcome) == ("SEC-DEVICE", {"items": ["tablet"]})


async def test_a_code_of_another_account_hands_nothing_over(world: World, one: Person) -> None:
    """Bound to account and remedy: what one device of a stranger shows is worth nothing elsewhere."""
    account = {"account": str(one.account_id)}
    new = Person(one._client, world.token(one.account_id, device="tablet"), one.account_id)
    made_up = derive_hand_over_code(CODES_KEY, one.account_id + 1, uuid4())
    approve = "/v1/remedies/device-handover/approval"
    refused(await one.ask("POST", approve, {**account, "code": made_up}), 404, "UNKNOWN-REMEDY")
    await new.ask("POST", "/v1/remedies/device-handover", account)
    refused(await one.ask("POST", approve, {**account, "code": made_up}), 409, "PROOF-REFUSED")
    refused(await one.ask("POST", "/v1/remedies/device-handover", account), 409, "NOTHING-TO-CLEAR")
    service = Person(one._client, world.service(), one.account_id)
    refused(await service.ask("POST", "/v1/remedies/device-handover", account), 403, "NOT-ALLOWED")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("remedies/auto-debits", {"contracts": []}, 400, "INVALID-INPUT"),
        ("remedies/auto-debits", {"contracts": ["x"]}, 400, "INVALID-INPUT"),
        ("remedies/auto-debits", {"contracts": [1]}, 400, "INVALID-INPUT"),
        ("remedies/auto-debits", {"contracts": ["9999999999999999999"]}, 409, "NOTHING-TO-CLEAR"),
        ("remedies/auto-debits", {"contract": ["1"]}, 400, "INVALID-INPUT"),
        ("remedies/red-packets", {"action": "keep"}, 400, "INVALID-INPUT"),
        ("remedies/red-packets", {"packets": ["1"] * 1001}, 400, "INVALID-INPUT"),
        ("remedies/cash-out", {"kind": "vanish"}, 400, "INVALID-INPUT"),
        ("remedies/logins", {"logins": ["77"]}, 409, "NOTHING-TO-CLEAR"),
        ("remedies/logins", {}, 409, "NOTHING-TO-CLEAR"),
        ("remedies/logins/confirmation", {"remedy": "x", "password": "1", "code": "1"}, 400, "INVALID-INPUT"),
        ("remedies/device-handover/approval", {"code": ""}, 400, "INVALID-INPUT"),
        ("consents", {"code": "PAY-BALANCE"}, 422, "CONSENT-NOT-ASKED"),
        ("consents", {"code": "pay'; DROP"}, 400, "INVALID-INPUT"),
        ("consents", {"code": "PAY-AUTODEBIT"}, 409, "NOTHING-TO-CLEAR"),
        ("consents", {}, 400, "INVALID-INPUT"),
        ("cases", {"kind": "revoke", "consents": ["NOPE"]}, 422, "CONSENT-NOT-ASKED"),
        ("cases", {"kind": "revoke", "consents": "PAY-AUTODEBIT"}, 400, "INVALID-INPUT"),
    ],
)
async def test_bad_input_changes_nothing(
    world: World, client: httpx.AsyncClient, path: str, body: Mapping[str, Any], status: int, code: str
) -> None:
    """A wrong field, an id that is not there, a rule that asks nothing: told in both languages, nothing done."""
    one = Person(client, world.token(7040), 7040)
    refused(await one.ask("POST", f"/v1/{path}", {"account": "7040", **body}), status, code)
    refused(
        await one.ask("POST", f"/v1/{path}", {"account": "7039", **body}),
        *((403, "NOT-ALLOWED") if status != 400 else (400, "INVALID-INPUT")),
    )
    assert await recorded(world, one) == []
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.cases WHERE account_id = 7040") == 0
