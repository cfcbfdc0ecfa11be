"""Promises: whatever a person read before they asked is kept, and each place where it is not is found and named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import remove
from tests.acceptance.api_world import Person, problem
from tests.acceptance.kinds_world import KindsWorld, kinds_world

SEED: Final = 11
PEOPLE: Final = 16
FENCE: Final = {"case_no", "case_op", "epoch", "facts_version"}
COVERED: Final = {
    "identity.reclaim": {"state", "level", "document_type", "document_index", "birth_date", "document_doubt", "region"},
    "identity.key_destroyed_after_minutes": {"key_destroy_at", "changed_at"},
}
"""What a keeper covers whose name is no column: for all others, a column of the same name, or see `RENAMED`."""
RENAMED: Final = {
    "wallet.cash_out_pause_hours": "cash_out_paused_until",
    "merchant.records_kept_days": "records_kept_until",
    "wallet.close": "state",
}
CHILDREN: Final = {
    "wallet.autodebit_contract": {"contract_id": "n", "merchant": "'美团'", "service": "'会员'", "signed_at": "$3"},
    "openplatform.oauth_grant": {
        "grant_id": "n",
        "app_id": "'app-' || n",
        "app_name": "'滴滴'",
        "scopes": "ARRAY['profile']",
        "granted_at": "$3",
    },
    "openplatform.oauth_token": {
        "token_id": "n",
        "grant_id": "n",
        "kind": "'access'",
        "issued_at": "$3",
        "expires_at": "$3::timestamptz + interval '1 year'",
    },
    "openplatform.app": {"app_id": "'a' || n", "name": "'记账'", "technical_lead": "true", "created_at": "$3"},
    "openplatform.mini_program": {
        "program_id": "'m' || n",
        "name": "'点餐'",
        "state": "'published'",
        "created_at": "$3",
    },
    "openplatform.review": {
        "review_id": "n",
        "subject_id": "'m' || n",
        "kind": "'qualification'",
        "state": "'accepted'",
        "submitted_at": "$3",
        "decided_at": "$3",
    },
    "enterprise.approval": {
        "approval_id": "n",
        "enterprise_id": "1",
        "title": "'报销'",
        "state": "'in_flight'",
        "submitted_at": "$3",
    },
    "enterprise.api_credential": {
        "credential_id": "n",
        "enterprise_id": "1",
        "name": "'后台'",
        "issued_at": "$3",
    },
}
"""What a random person has any number of."""


@pytest.fixture(scope="module")
async def world(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> AsyncIterator[KindsWorld]:
    folder = new_folder("promises")
    async with kinds_world(databases, folder / "home 家") as opened:
        yield opened
    remove(folder)


async def read(one: Person, case: str) -> dict[str, Any]:
    answer = await one.ask("GET", f"/v1/cases/{case}/promises")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def kept(world: KindsWorld, one: Person, case: str) -> dict[str, Any]:
    """Wait until the notices are delivered too, so that nothing is due, and return the promises by code."""
    await world.heard(one, "was completed" if (await read(one, case))["kind"] == "revoke" else "was closed")
    return {each["code"]: each for each in (await read(one, case))["promises"]}


async def random_person(world: KindsWorld, chance: Random) -> Person:
    """Somebody who has a random part of all that a revocation touches, and whom nothing stands in the way of."""
    one = await world.somebody(
        wallet={"receive_limit_fen": chance.choice([None, 5_000_000, 200_000, 1])},
        openplatform={"api_quota_level": chance.choice(["none", "test", "standard", "high"])},
        enterprise={"api_rights": chance.random() < 0.5},
        gaming={"game_guard": chance.random() < 0.5},
        security={"login_needs_sms": chance.random() < 0.5},
        social={"friend_requests_blocked": chance.random() < 0.5, "moments_per_day": chance.choice([None, 1, 50])},
    )
    for table, values in CHILDREN.items():
        sql = f"""INSERT INTO {table} (account_id, {", ".join(values)})
            SELECT $1, {", ".join(values.values())} FROM generate_series(1, $2::integer) n
            WHERE $3::timestamptz IS NOT NULL"""  # noqa: S608 - the test's own
        had = chance.choice([0, 0, 1, 3])
        await world.pool(table.split(".")[0]).execute(sql, one.account_id, had, world.app.clock() - timedelta(days=1))
    return one


async def checked(one: Person, kind: str) -> dict[str, Any]:
    answer = await one.ask("POST", "/v1/checks", {"accounts": [str(one.account_id)], "kind": kind})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["checks"][0]
    return found


def columns_of(promises: Mapping[str, Any]) -> dict[str, set[str]]:
    """The columns of account rows that these promises tell of, by owner."""
    found: dict[str, set[str]] = {}
    for promise in promises.values():
        for keeper in promise["kept_by"]:
            name = keeper["keeper"].split(": ")[1]
            owner, _, column = name.partition(".")
            found.setdefault(owner, set()).update(COVERED.get(name, {RENAMED.get(name, column)}))
    return found


@pytest.mark.parametrize("kind", ["revoke", "close_payment"])
async def test_whatever_was_told_is_kept_and_nothing_else_changed(world: KindsWorld, kind: str) -> None:
    """A person decides on what they read: less would be a lie, and more a theft."""
    chance = Random(f"{SEED} {kind}")  # noqa: S311 - people, not secrets

    at_once = asyncio.Semaphore(3)

    async def live(one: Person) -> None:
        async with at_once:
            await go(one)

    async def go(one: Person) -> None:
        told = await checked(one, kind)
        consents = [each["code"] for each in told["blockers"]]
        assert set(consents) <= {"PAY-AUTODEBIT"}, consents
        before = await world.rows(one.account_id)
        done = await world.go_through(one, kind, consents=consents)
        assert done["state"] == "done"
        promises = await kept(world, one, done["id"])
        assert promises.keys() == {each["code"] for each in told["consequences"]}
        for promise in promises.values():
            assert promise["state"] in ("kept", "due"), promise
            assert datetime.fromisoformat(promise["since"]), promise
            assert promise["kept_by"], promise
        after = await world.rows(one.account_id)
        covered = columns_of(promises)
        for name, row in after.items():
            changed = {column for column, value in row.items() if value != before[name][column]}
            assert changed <= FENCE | covered.get(PARTICIPANTS.owner_of(name), set()), (name, changed)

    people = [await random_person(world, chance) for _ in range(PEOPLE)]
    async with asyncio.TaskGroup() as group:
        for one in people:
            group.create_task(live(one))


@pytest.mark.parametrize(
    ("owner", "harm", "code", "keeper"),
    [
        ("wallet", "SET receive_limit_fen = 5000000", "WALLET-LIMIT-SET", "effect: wallet.receive_limit_fen"),
        (
            "wallet",
            "SET cash_out_paused_until = now()",
            "WALLET-CASH-OUT-PAUSED",
            "effect: wallet.cash_out_pause_hours",
        ),
        ("wallet", "SET epoch = epoch - 1", "WALLET-CARDS-UNBOUND", "children: wallet.bank_card"),
        ("security", "SET login_needs_sms = false", "SECURITY-LOGIN-SMS", "effect: security.login_needs_sms"),
        ("social", "SET moments_per_day = NULL", "SOCIAL-MOMENTS-LIMITED", "effect: social.moments_per_day"),
        (
            "social",
            "SET case_op = 'cancelled'",
            "SOCIAL-FRIEND-REQUESTS-BLOCKED",
            "effect: social.friend_requests_blocked",
        ),
    ],
)
async def test_a_promise_that_is_broken_afterwards_is_named(
    world: KindsWorld, owner: str, harm: str, code: str, keeper: str
) -> None:
    """A row that somebody sets back by hand looks like any other: only what was promised tells that it is wrong."""
    one = await world.somebody()
    done = await world.go_through(one, "revoke")
    assert {each["state"] for each in (await kept(world, one, done["id"])).values()} == {"kept"}
    await world.pool(owner).execute(f"UPDATE {owner}.account {harm} WHERE account_id = $1", one.account_id)
    found = await read(one, done["id"])
    broken = {each["code"]: each for each in found["promises"] if each["state"] == "broken"}
    assert code in broken
    assert found["counts"]["broken"] == len(broken)
    assert keeper in [each["keeper"] for each in broken[code]["kept_by"] if each["state"] == "broken"]
    assert all(PARTICIPANTS.owner_of(each["participant"]) == owner for each in broken[code]["kept_by"])


async def test_who_does_not_answer_makes_nothing_kept_or_broken(world: KindsWorld) -> None:
    """Silence is no proof, and no alarm about every promise there is."""
    one = await world.somebody()
    done = await world.go_through(one, "revoke")
    await kept(world, one, done["id"])
    await world.outside.processes["unionpay"].stop()
    try:
        found = {each["code"]: each["state"] for each in (await read(one, done["id"]))["promises"]}
    finally:
        await world.outside.processes["unionpay"].start()
    assert found["UNIONPAY-RELEASED"] == "unknown"
    assert {state for code, state in found.items() if code != "UNIONPAY-RELEASED"} == {"kept"}


async def test_a_case_under_way_has_all_to_come_and_one_withdrawn_has_none(world: KindsWorld) -> None:
    """Nothing was taken from whoever changed their mind, so nothing is left to keep."""
    one = await world.somebody()
    case = await world.ask_for(one, "revoke")
    under_way = await read(one, case["id"])
    assert under_way["told"] == len(under_way["promises"]) > 8
    assert under_way["counts"] == {"due": under_way["told"]}
    await one.ask("DELETE", f"/v1/cases/{case['id']}")
    await world.ended(one, case["id"])
    withdrawn = await read(one, case["id"])
    assert (withdrawn["state"], withdrawn["told"], withdrawn["recorded"]) == ("withdrawn", 0, True)


async def test_a_later_case_takes_the_place_of_an_earlier_one(world: KindsWorld) -> None:
    """Whoever closed their payment account and then took their name back is not told that the first is broken."""
    one = await world.somebody()
    first = await world.go_through(one, "close_payment")
    second = await world.go_through(one, "revoke")
    states = {each["code"]: each["state"] for each in (await read(one, first["id"]))["promises"]}
    assert states["PAYMENT-CLOSED"] == "ended"
    assert states["UNIONPAY-RELEASED"] == "ended"
    assert {each["state"] for each in (await kept(world, one, second["id"])).values()} == {"kept"}


async def test_promises_are_read_by_their_person_alone(world: KindsWorld) -> None:
    """They tell what somebody has and has lost."""
    one, other = await world.somebody(), await world.somebody()
    case = await world.ask_for(one, "revoke")
    problem(await other.ask("GET", f"/v1/cases/{case['id']}/promises"), 404, "UNKNOWN-CASE")
