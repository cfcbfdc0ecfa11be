"""More than can be done: what is refused is told so in both languages and has done nothing; what is accepted is kept.

Every gate here has small limits, so that a handful of requests is five times too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY

from jiebang.api.gate.capacity import Capacity
from jiebang.model.case import bucket_of
from tests.acceptance.api_world import PASSWORD, Person, World, made, on_deck
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.store.postgres.pool import Pool

PEOPLE = 60


@pytest.fixture(scope="module")
async def home(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issuer")
    await made(pools, folder).people(9001, PEOPLE)
    return folder


@asynccontextmanager
async def gated(pools: Mapping[str, Pool], home: Path, capacity: Capacity) -> AsyncIterator[tuple[World, Any]]:
    """A world behind a gate of its own."""
    world = made(pools, home, capacity)
    async with on_deck(world) as client:
        yield world, client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Hold a refusal to all it must say."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == (code, status)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in body["zh"]["title"])
    assert body["en"]["title"].isascii()
    assert body["zh"]["action"]
    assert body["en"]["action"]
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
        assert body["fields"]["retry_after_s"] == int(answer.headers["retry-after"])
    return body


async def test_a_burst_is_refused_in_part_and_nothing_accepted_is_lost(
    pools: Mapping[str, Pool], databases: Mapping[str, str], home: Path
) -> None:
    """Else somebody is told that their case was taken, and nobody ever hears of it again; or is shut out for good."""
    small = Capacity(places=3, kept=1, line=3, wait=timedelta(milliseconds=50))
    async with gated(pools, home, small) as (world, client):
        people = [Person(client, world.token(each), each) for each in range(9001, 9041)]
        keys = {person.account_id: str(uuid4()) for person in people}
        answers = await asyncio.gather(*(person.submit(key=keys[person.account_id]) for person in people))
        taken = {
            person.account_id: one.json()["id"] for person, one in zip(people, answers, strict=True) if one.is_success
        }
        sent_away = [person for person, one in zip(people, answers, strict=True) if not one.is_success]
        assert taken
        assert sent_away
        for one in answers:
            if not one.is_success:
                refused(one, 503, "PLATFORM-FULL")
        fresh = await asyncpg.connect(databases["platform"])  # what another process sees, and a restart would
        try:
            rows = await fresh.fetch(
                "SELECT account_id, case_no FROM platform.cases WHERE account_id BETWEEN 9001 AND 9040"
            )
            claimed = await fresh.fetchval(
                "SELECT count(*) FROM platform.idempotency WHERE key = ANY ($1)",
                [keys[person.account_id] for person in sent_away],
            )
        finally:
            await fresh.close()
        assert {row[0]: world.ids.encode(*row) for row in rows} == taken
        assert claimed == 0
        for person in sent_away:  # the burst is over: the same requests pass
            assert (await person.submit(key=keys[person.account_id])).status_code == 201


async def test_whoever_asks_too_much_is_held_back_alone_and_may_still_withdraw(
    pools: Mapping[str, Pool], home: Path
) -> None:
    """One hasty client must not cost others their turn, nor its owner the way out."""
    async with gated(pools, home, Capacity(person_rate=1, person_burst=4)) as (world, client):
        hasty, calm = (Person(client, world.token(each), each) for each in (9041, 9042))
        case = (await hasty.submit()).json()["id"]
        answers = [await hasty.ask("GET", f"/v1/cases/{case}") for _ in range(8)]
        assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
        for answer in answers[4:]:
            refused(answer, 429, "RATE-EXCEEDED")
        assert (await calm.submit()).status_code == 201
        other = Person(client, world.token(9041), 9041)  # a new token is no new caller
        refused(await other.ask("GET", f"/v1/cases/{case}"), 429, "RATE-EXCEEDED")
        assert (await hasty.ask("DELETE", f"/v1/cases/{case}")).status_code == 202


async def test_tokens_that_prove_nothing_are_held_back_by_address_before_they_are_verified(
    pools: Mapping[str, Pool], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of made-up tokens must not buy signature checks; whoever is known at that address stays welcome."""
    async with gated(pools, home, Capacity(unproven_rate=1, unproven_burst=5)) as (world, client):
        for each in range(9043, 9055):  # valid ones cost their address nothing
            known = Person(client, world.token(each), each)
            assert (await known.ask("POST", "/v1/checks", {"accounts": [str(each)], "kind": "revoke"})).is_success
        verified, caller = 0, world.deps.verifier.caller

        async def counting(authorization: str | None) -> Any:
            nonlocal verified
            verified += 1
            return await caller(authorization)

        monkeypatch.setattr(world.deps.verifier, "caller", counting)
        flood = [
            await client.post("/v1/checks", json={}, headers={"authorization": f"Bearer {number}.x.y"})
            for number in range(20)
        ]
        assert 5 <= verified <= 7
        assert flood[0].status_code == 401
        refused(flood[-1], 429, "RATE-EXCEEDED")
        refused(await client.get("/nowhere"), 429, "RATE-EXCEEDED")
        assert (await known.ask("POST", "/v1/checks", {"accounts": ["9054"], "kind": "revoke"})).is_success


async def overdue(world: World, ids: range) -> None:
    """Cases that no worker has come to for a minute."""
    platform = world.pools["platform"]
    await platform.execute(
        "INSERT INTO platform.account (account_id, created_at, last_case_no) SELECT unnest($1::bigint[]), now(), 1", ids
    )
    await platform.execute(
        """INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, wallet_version,
               created_at, due_at)
           SELECT i, 1, b, 'revoke', 'ready', 'wechat/2', '...........', 1, now(), now() - interval '1 minute'
           FROM unnest($1::bigint[], $2::smallint[]) AS n (i, b)""",
        ids,
        [bucket_of(each) for each in ids],
    )


async def test_while_workers_are_behind_new_cases_wait_and_everybody_else_goes_on(
    pools: Mapping[str, Pool], home: Path
) -> None:
    """A queue that only grows helps nobody; but who has a case may read it, prove it and leave it."""
    small = Capacity(backlog=20, backlog_every=timedelta(milliseconds=20))
    async with gated(pools, home, small) as (world, client):
        people = [Person(client, world.token(each), each) for each in range(9055, 9059)]
        mine = [(await person.submit()).json()["id"] for person in people[:2]]
        await overdue(world, range(20_000, 20_030))
        await asyncio.sleep(0.05)
        await people[3].submit()  # has the backlog read
        await asyncio.sleep(0.02)
        refused(await people[2].submit(), 503, "PLATFORM-FULL")
        assert (REGISTRY.get_sample_value("jiebang_overdue_cases") or 0) >= 20
        assert (await people[0].ask("GET", f"/v1/cases/{mine[0]}")).status_code == 200
        assert (await people[0].prove(mine[0], "payment_password", PASSWORD)).status_code == 200
        assert (await people[1].ask("DELETE", f"/v1/cases/{mine[1]}")).status_code == 202
        assert (await people[2].ask("POST", "/v1/checks", {"accounts": ["9057"], "kind": "revoke"})).is_success
        await pools["platform"].execute("DELETE FROM platform.cases WHERE account_id >= 20000")
        for _ in range(100):  # the workers have caught up: nobody has to tell us
            answer = await people[2].submit()
            if answer.is_success:
                break
            await asyncio.sleep(0.02)
        assert answer.status_code == 201


async def test_when_every_place_is_taken_the_way_out_and_the_watch_stay_open(
    pools: Mapping[str, Pool], databases: Mapping[str, str], home: Path
) -> None:
    """Where a database hangs, requests pile up; a person who wants to withdraw must not wait behind them."""
    small = Capacity(places=3, kept=1, line=1, wait=timedelta(milliseconds=30))
    async with gated(pools, home, small) as (world, client):
        leaving, *others = (Person(client, world.token(each), each) for each in range(9059, 9061))
        case = (await leaving.submit()).json()["id"]
        hanging = await asyncpg.connect(databases["wallet"])
        try:
            hold = hanging.transaction()
            await hold.start()
            await hanging.execute("LOCK TABLE wallet.account IN ACCESS EXCLUSIVE MODE")
            body = {"accounts": [str(others[0].account_id)], "kind": "revoke"}
            asked = [asyncio.create_task(others[0].ask("POST", "/v1/checks", body)) for _ in range(3)]
            await asyncio.sleep(0.1)
            assert sorted(task.done() for task in asked) == [False, True, True]
            assert (await client.get("/health")).status_code == 200
            assert b"jiebang_refused_total" in (await client.get("/metrics")).content
            assert (await leaving.ask("DELETE", f"/v1/cases/{case}")).status_code == 202
            await hold.rollback()
        finally:
            await hanging.close()
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200, 503, 503]
        for answer in answers:
            if answer.status_code == 503:
                refused(answer, 503, "PLATFORM-FULL")
        assert (await others[0].ask("POST", "/v1/checks", body)).is_success


async def spoken(client: httpx.AsyncClient, *parts: bytes) -> tuple[int, dict[str, Any]]:
    """Say `parts` to the server and nothing more; return the status and the problem it answers with."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            with suppress(ConnectionResetError):  # it hangs up, for what was still to come
                assert await reader.read() == b""
    finally:
        writer.close()
    return int(head.split()[1]), msgspec.json.decode(body)


async def test_slow_and_endless_clients_are_shown_the_door(pools: Mapping[str, Pool], home: Path) -> None:
    """Connections that never say what they want must not use up the places of those who do."""
    soon = timedelta(milliseconds=400)
    world = made(pools, home, Capacity(headers_within=soon, body_within=soon, places=1, kept=1, bodies_per_address=2))
    post = b"POST /v1/checks HTTP/1.1\r\nhost: x\r\n"
    async with world.served() as client:
        slow = [asyncio.create_task(spoken(client, post, b"content-length: 9\r\n\r\n{")) for _ in range(2)]
        await asyncio.sleep(0.05)
        third = await client.post("/v1/checks", content=b"{}", headers={"authorization": f"Bearer {world.token(9001)}"})
        refused(third, 429, "RATE-EXCEEDED")
        token = {"authorization": f"Bearer {world.token(9002)}"}
        assert (await client.get("/v1/codes/BLOCKED", headers=token)).is_success  # slow bodies hold no place
        assert not any(task.done() for task in slow)
        said = [
            *await asyncio.gather(*slow),
            *await asyncio.gather(
                spoken(client, post[:20]),
                spoken(client, post, b"a: b\r\n" * 3_000),
                spoken(client, post, b"content-length: 99999999\r\n\r\n"),
                spoken(client, post, b"transfer-encoding: chunked\r\n\r\n", b"20000\r\n" + b" " * 0x20000 + b"\r\n"),
            ),
        ]
        assert [(status, problem["code"]) for status, problem in said] == [
            (408, "REQUEST-TOO-SLOW"),
            (408, "REQUEST-TOO-SLOW"),
            (408, "REQUEST-TOO-SLOW"),
            (431, "HEADERS-TOO-LARGE"),
            (413, "BODY-TOO-LARGE"),
            (413, "BODY-TOO-LARGE"),
        ]
        assert all(problem["zh"]["action"] and problem["en"]["action"] for _, problem in said)
        assert (await client.get("/openapi.json", headers={"x": "y" * 20_000})).status_code == 431
        assert (await client.get("/openapi.json")).status_code == 200
