"""The doors of the API and of the super-app, fuzzed and one by one: no input is a fault of ours."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from litestar.routes import HTTPRoute

from jiebang.api.application import classify
from jiebang.api.gate.capacity import STRICTEST, AdmissionClass, Capacity, Urgency
from jiebang.api.gate.shares import Shares, TrustedProxies, read_address
from jiebang.api.gate.uvicorn_protocol import server_config
from jiebang.sandbox.superapp.door import Door
from jiebang.sandbox.superapp.routers import build_routers
from tests.acceptance.api_world import Person, World, at_superapp, made, on_deck, problem, until
from tests.examples import examples
from tests.hostile import JSON, TEXT, hostile
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from litestar import Litestar

    from jiebang.store.postgres.pool import Pool

OPEN_WIDE: Final = Capacity(
    person_rate=10**9, person_burst=10**9, service_rate=10**9, service_burst=10**9,
    unproven_rate=10**9, unproven_burst=10**9,
)  # fmt: skip
OWNER: Final = 8801
CASE: Final = "case_" + "a" * 26


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"), OPEN_WIDE)
    await world.people(OWNER, 20)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


@pytest.fixture(scope="module")
async def superapp(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with at_superapp(world, tmp_path_factory.mktemp("superapp")) as client:
        yield client


BODIES: Final[Mapping[tuple[str, str], Any]] = {
    ("POST", "/v1/checks"): {"accounts": [str(OWNER)], "kind": "revoke"},
    ("POST", "/v1/limits"): {"accounts": [str(OWNER)]},
    ("POST", "/v1/cases"): {"account": str(OWNER), "kind": "revoke", "consents": ["PAY-AUTODEBIT"], "shown": ["1"]},
    ("POST", f"/v1/cases/{CASE}/proofs"): {"method": "sms_code", "secret": "123456"},
    ("POST", f"/v1/cases/{CASE}/identity"): {
        "name": "李雷", "document_type": "resident_id", "number": "110101199001011237",
    },
    ("POST", f"/v1/cases/{CASE}/codes"): {},
    ("DELETE", f"/v1/cases/{CASE}"): {},
    ("POST", "/v1/remedies/cash-out"): {"account": str(OWNER), "kind": "revoke"},
    ("POST", "/v1/remedies/red-packets"): {"account": str(OWNER), "action": "open", "packets": ["1"]},
    ("POST", "/v1/remedies/auto-debits"): {"account": str(OWNER), "contracts": ["1"]},
    ("POST", "/v1/remedies/logins"): {"account": str(OWNER), "logins": ["1"]},
    ("POST", "/v1/remedies/logins/confirmation"): {
        "account": str(OWNER), "remedy": "c0ffee00-0000-4000-8000-000000000000", "password": "1", "code": "1",
    },
    ("POST", "/v1/remedies/proof-lock"): {"account": str(OWNER)},
    ("POST", "/v1/remedies/proof-lock/confirmation"): {
        "account": str(OWNER), "remedy": "c0ffee00-0000-4000-8000-000000000000", "password": "1", "code": "1",
    },
    ("POST", "/v1/remedies/device-handover"): {"account": str(OWNER)},
    ("POST", "/v1/remedies/device-handover/approval"): {"account": str(OWNER), "code": "1"},
    ("POST", "/v1/consents"): {"account": str(OWNER), "code": "PAY-AUTODEBIT", "shown": ["1"]},
    ("DELETE", "/v1/consents/PAY-AUTODEBIT"): {},
}  # fmt: skip


def hold(answer: httpx.Response) -> None:
    """Hold an answer to be no fault of ours, and a refusal to be a whole problem."""
    assert answer.status_code not in (500, 503), (answer.request.url, answer.request.content, answer.text)
    if answer.status_code >= 400:
        problem(answer, answer.status_code, answer.json()["code"])


def test_every_mutation_is_fuzzed(world: World) -> None:
    """A new route that nobody tries with bad bodies would be the next door."""
    fuzzed = {(method, path.replace(CASE, "{case_id}").replace("PAY-AUTODEBIT", "{code}")) for method, path in BODIES}
    assert fuzzed == {
        (method, route.path_format)
        for route in routes_of(world).routes
        if isinstance(route, HTTPRoute)
        for method in route.methods & {"POST", "DELETE", "PUT", "PATCH"}
    }


async def test_what_is_fuzzed_is_valid_to_begin_with(world: World, client: httpx.AsyncClient) -> None:
    """Bodies that are refused at the first look would never try what lies behind it."""
    one = Person(client, world.token(OWNER + 6), OWNER + 6)
    for (method, path), body in BODIES.items():
        changed = json.loads(json.dumps(body).replace(str(OWNER), str(OWNER + 6)))
        answer = await one.ask(method, path, changed)
        assert answer.status_code < 400 or answer.json()["code"] != "INVALID-INPUT", (path, answer.text)
        hold(answer)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\u202e", "\x1b[2J", "\ufdd0", "\U0010ffff", "1" * 64])
async def test_any_letter_in_any_text(world: World, client: httpx.AsyncClient, text: str) -> None:
    """A text of JSON may hold NUL, a text of the database may not: whoever types it is told, not us."""
    one = Person(client, world.token(OWNER + 7), OWNER + 7)
    answer = await one.submit()
    case = answer.json()["id"] if answer.status_code == 201 else CASE
    hold(answer)
    for method in ("payment_password", "sms_code"):
        hold(await one.prove(case, method, text))
    hold(await one.ask("DELETE", f"/v1/cases/{case}"))
    for (verb, path), body in BODIES.items():
        for name, value in body.items():
            put = [text] if isinstance(value, list) else text
            whole = json.loads(json.dumps(body).replace(str(OWNER), str(OWNER + 7))) | {name: put}
            hold(await one.ask(verb, path, whole))
        hold(await one.ask(verb, path, {"account": str(OWNER + 7), text: text}))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    (method, path), valid = draw(st.sampled_from(sorted(BODIES.items(), key=str)))
    return method, path, draw(hostile(valid))


@given(requests())
@examples(300)
async def test_bodies(world: World, client: httpx.AsyncClient, request_: tuple[str, str, bytes]) -> None:
    """Whatever a person's app sends, each refusal says what is wrong with it, and nothing is a fault of ours."""
    method, path, body = request_
    for token in (world.token(OWNER), world.service()):
        headers = {
            "authorization": f"Bearer {token}",
            "idempotency-key": str(uuid4()),
            "content-type": "application/json",
        }
        hold(await client.request(method, path, content=body, headers=headers))


SUPERAPP_BODIES: Final[Mapping[str, Any]] = {
    "/v1/transfers": {"from": str(OWNER), "to": str(OWNER + 1), "amount_fen": 1},
    "/v1/cash-outs": {"account": str(OWNER)},
    "/v1/moments": {"account": str(OWNER), "body": "x", "images": 1, "visibility": "some"},
    "/v1/logins": {"account": str(OWNER), "place": "x", "code": "123456"},
    "/v1/game-sessions": {"account": str(OWNER), "game": "1"},
    "/v1/open-api/calls": {"account": str(OWNER), "subject": "wx1", "api": "x"},
    "/v1/enterprise-api/calls": {"account": str(OWNER), "credential": "1", "api": "x"},
    "/v1/friend-requests": {"from": str(OWNER), "to": str(OWNER + 1), "greeting": "x"},
}


def test_every_door_of_the_super_app_is_fuzzed(world: World) -> None:
    """A new door that nobody tries with bad bodies would be the next hole."""

    async def nothing(_notices: object) -> None:
        return

    door = Door(world.deps.verifier, None)  # type: ignore[arg-type]  # its routes are only named here
    there = {path for each in build_routers(door, world.pools, world.now, nothing) for method, path in each.routes()}
    assert there == SUPERAPP_BODIES.keys()


@given(
    st.sampled_from(sorted(SUPERAPP_BODIES)).flatmap(
        lambda path: st.tuples(st.just(path), hostile(SUPERAPP_BODIES[path]))
    )
)
@examples(200)
async def test_bodies_at_the_super_app(world: World, superapp: httpx.AsyncClient, asked: tuple[str, bytes]) -> None:
    """It shares the platform's decoding and tokens, and so what is decided of them."""
    path, body = asked
    headers = {
        "authorization": f"Bearer {world.token(OWNER)}",
        "idempotency-key": str(uuid4()),
        "content-type": "application/json",
    }
    hold(await superapp.post(path, content=body, headers=headers))


LATIN: Final = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40)
NAMES: Final = st.sampled_from(
    ["authorization", "idempotency-key", "content-type", "accept-language", "last-event-id", "host", "accept",
     "x-forwarded-for", "content-encoding", "cookie", "origin", "expect", "range"]
)  # fmt: skip


@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"]),
    st.one_of(
        st.sampled_from([path for _, path in BODIES]),
        st.sampled_from([f"/v1/cases/{CASE}/events", f"/v1/cases/{CASE}/timeline", "/ready", "/openapi.json"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0?#"), max_size=20).map(lambda text: f"/v1/{text}"),
        TEXT.map(lambda text: "/v1/codes/" + "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "replace"))),
        st.binary(max_size=8).map(lambda raw: "/v1/cases/" + "".join(f"%{byte:02x}" for byte in raw)),
    ),
    st.lists(st.tuples(NAMES, st.one_of(LATIN, st.sampled_from(["application/json", "", "-1", "9" * 12]))), max_size=4),
    st.booleans(),
)  # fmt: skip
@examples(300)
async def test_headers_and_paths(
    world: World, client: httpx.AsyncClient, method: str, path: str, more: list[tuple[str, str]], known: bool
) -> None:
    """Any header may be anything; any path may be asked for."""
    own = [("authorization", f"Bearer {world.token(OWNER)}"), ("idempotency-key", str(uuid4()))] if known else []
    headers = [(name.encode(), value.encode("latin-1")) for name, value in [*own, *more]]
    try:
        request = client.build_request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    except (httpx.InvalidURL, UnicodeError):
        return
    answer = await client.send(request)
    assert answer.status_code not in (500, 503), (method, path, headers, answer.text)
    if answer.status_code >= 400 and answer.content:
        problem(answer, answer.status_code, answer.json()["code"])


def headers_of(world: World, key: str, **more: str) -> list[tuple[str, str]]:
    return [
        ("authorization", f"Bearer {world.token(OWNER + 1)}"),
        ("idempotency-key", key),
        ("content-type", "application/json"),
        *more.items(),
    ]


@pytest.mark.parametrize("name", ["authorization", "idempotency-key", "content-type"])
async def test_a_header_that_comes_twice(
    world: World, client: httpx.AsyncClient, superapp: httpx.AsyncClient, name: str
) -> None:
    """Neither door picks one of two tokens, or of two keys; nothing is done."""
    body = json.dumps({"account": str(OWNER + 1), "kind": "revoke"}).encode()
    first = headers_of(world, "two")
    for second in (dict(first)[name], "other"):
        for door, path in ((client, "/v1/cases"), (superapp, "/v1/transfers")):
            answer = await door.post(path, content=body, headers=[*first, (name, second)])
            assert problem(answer, 400, "HEADER-REPEATED")["fields"] == {"header": name}
    count = "SELECT count(*) FROM platform.cases WHERE account_id = $1"
    assert await world.pools["platform"].fetchval(count, OWNER + 1) == 0


async def test_the_same_request_in_other_words_under_one_key(world: World, client: httpx.AsyncClient) -> None:
    """A client that orders its JSON anew, or adds a slash, is repeating itself; another request is another."""
    one, key = str(OWNER + 2), "words"
    headers = [("authorization", f"Bearer {world.token(OWNER + 2)}"), *headers_of(world, key)[1:]]
    first = await client.post("/v1/cases", content=f'{{"account":"{one}","kind":"revoke"}}', headers=headers)
    assert first.status_code == 201, first.text
    for path, body in (
        ("/v1/cases", f'{{"kind": "revoke",\n "account": "{one}"}}'),
        ("/v1/cases", f'{{"acc\\u006funt":"{one}","kind":"revoke"}}'),
        ("/v1/cases/", f'{{"account":"{one}","kind":"revoke"}}'),
        ("//v1/cases", f'{{"account":"{one}","kind":"revoke"}}'),
    ):
        again = await client.post(f"http://api.test{path}", content=body, headers=headers)
        assert (again.status_code, again.content) == (201, first.content), path
        assert again.headers["idempotency-replayed"] == "true"
    other = await client.post("/v1/cases", content=f'{{"account":"{one}","kind":"restore"}}', headers=headers)
    problem(other, 422, "IDEMPOTENCY-KEY-REUSED")
    twice = await client.post(
        "/v1/cases", content=f'{{"account":"1","account":"{one}","kind":"revoke"}}', headers=headers
    )
    assert problem(twice, 400, "INVALID-INPUT")["fields"]["field"] == "account"


async def test_a_repeat_of_a_request_before_an_upgrade(world: World, client: httpx.AsyncClient) -> None:
    """An earlier version kept the hash of the bytes; a repeat that comes after the upgrade still gets its answer."""
    body = f'{{"kind":"revoke","account":"{OWNER + 3}"}}'.encode()
    headers = [("authorization", f"Bearer {world.token(OWNER + 3)}"), *headers_of(world, "before")[1:]]
    first = await client.post("/v1/cases", content=body, headers=headers)
    assert first.status_code == 201
    as_before = hmac.digest(world.deps.bodies_key, body, hashlib.sha256)
    changed = await world.pools["platform"].execute(
        "UPDATE platform.idempotency SET body_hash = $1 WHERE key = 'before'", as_before
    )
    assert changed == "UPDATE 1"
    again = await client.post("/v1/cases", content=body, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)


async def test_an_empty_last_event_id_begins_at_the_beginning(world: World, client: httpx.AsyncClient) -> None:
    """A reader whose last event had no id sends none, or an empty one (HTML, 9.2): both mean from the beginning."""
    one = Person(client, world.token(OWNER + 4), OWNER + 4)
    case = (await one.submit()).json()["id"]
    await one.ask("DELETE", f"/v1/cases/{case}")
    told = [await one.ask("GET", f"/v1/cases/{case}/events", last_event_id=value) for value in ("", "0")]
    bare = await one.ask("GET", f"/v1/cases/{case}/events")
    assert {answer.text for answer in told} == {bare.text}
    assert "event: end" in bare.text
    problem(await one.ask("GET", f"/v1/cases/{case}/events", last_event_id="-1"), 400, "INVALID-INPUT")


async def test_the_largest_account_id(world: World, client: httpx.AsyncClient) -> None:
    """What loads can be checked: an id of 2**53-1 is an account, 2**53 is none."""
    largest = (1 << 53) - 1
    await world.people(largest)
    one = Person(client, world.token(largest), largest)
    checked = await one.ask("POST", "/v1/checks", {"accounts": [str(largest)]})
    assert checked.json()["checks"][0]["account"] == str(largest)
    assert (await one.submit()).status_code == 201
    service = Person(client, world.service(), 0)
    for beyond in (largest + 1, 10**16):
        problem(await service.ask("POST", "/v1/checks", {"accounts": [str(beyond)]}), 400, "INVALID-INPUT")


def routes_of(world: World) -> Litestar:
    inner: Any = world.app._inner
    app: Litestar = inner
    return app


def test_every_route_says_how_the_gate_treats_it(world: World) -> None:
    """The gate and the router would otherwise disagree by a slash, and new cases come in by an unwatched way."""
    app = routes_of(world)
    told: dict[tuple[str, str], AdmissionClass] = {}
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or route.path_format.startswith("/openapi.json"):
            continue
        for method in route.methods - {"OPTIONS"}:
            path = route.path_format.replace("{case_id}", CASE).replace("{code}", "X")
            (declared,) = (one.opt["admission"] for one in route.route_handlers if method in one.http_methods)
            for written in (path, f"{path}/", f"/{path}", path.replace("/v1/", "/v1//", 1), f"{path}//"):
                assert classify(app, str(method), written) is declared, written
            told[str(method), route.path_format] = declared
    assert {at for at, one in told.items() if one.always} == {
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
    }
    assert {at for at, one in told.items() if one.opens_case} == {("POST", "/v1/cases")}
    assert {at for at, one in told.items() if one.urgency is Urgency.NEW} == {
        ("POST", "/v1/cases"), ("POST", "/v1/checks"),
    }  # fmt: skip
    assert {at for at, one in told.items() if one.urgency is Urgency.WAY_OUT} == {
        ("DELETE", "/v1/cases/{case_id}"), ("DELETE", "/v1/consents/{code}"), ("POST", "/v1/remedies/cash-out"),
    }  # fmt: skip
    for method, path in (
        ("POST", "/v2/cases"), ("PUT", "/v1/cases"), ("OPTIONS", "/v1/cases"), ("X", "/"), ("GET", "/healthy"),
        ("POST", "/health"), ("GET", "/v1/cases/../health"), ("GET", "/"), ("DELETE", "/v1"),
    ):  # fmt: skip
        assert classify(app, method, path) is STRICTEST, path


async def test_the_gate_stands_before_a_trailing_slash_too(pools: Mapping[str, Pool], tmp_path: Path) -> None:
    """While the workers are behind, no way of writing the address lets a new case in."""
    world = made(pools, tmp_path, OPEN_WIDE)
    await world.people(8901)

    async def behind() -> int:
        return 7

    world.app._backlog.seconds_to_wait = behind  # type: ignore[method-assign]
    async with on_deck(world) as client:
        headers = [("authorization", f"Bearer {world.token(8901)}"), *headers_of(world, "slash")[1:]]
        for path in ("/v1/cases", "/v1/cases/", "//v1/cases", "/v1//cases//", "/v1/%63ases/"):
            answer = await client.post(
                f"http://api.test{path}", content='{"account":"8901","kind":"revoke"}', headers=headers
            )
            problem(answer, 503, "PLATFORM-FULL")
            assert answer.headers["retry-after"] == "7"
        problem(await client.post("/nowhere", content="{}", headers=headers), 503, "PLATFORM-FULL")
        for path in ("/health", "/health/"):
            assert (await client.get(path)).status_code == 200


async def test_nobody_takes_all_event_streams(pools: Mapping[str, Pool], tmp_path: Path) -> None:
    """One person, and all persons of one address, hold their share of streams; others still get in; ends give back."""
    world = made(
        pools, tmp_path, Capacity(streams=6, streams_per_person=2, streams_per_address=3, streams_per_service=2)
    )
    await world.people(8911, 3)
    async with world.served() as client:
        people = [Person(client, world.token(8911 + at), 8911 + at) for at in range(3)]
        service = Person(client, world.service(), 0)
        cases = [(await one.submit()).json()["id"] for one in people]

        async def follow(one: Person, case: str) -> int:
            token = one._token
            async with client.stream(
                "GET", f"/v1/cases/{case}/events", headers={"authorization": f"Bearer {token}"}
            ) as answer:
                if answer.status_code == 200:
                    await asyncio.sleep(600)
                return answer.status_code

        async def opens(one: Person, case: str) -> asyncio.Task[int]:
            before = world.follower.streams
            task = asyncio.create_task(follow(one, case))
            await until(lambda: task.done() or world.follower.streams > before)
            return task

        held = [await opens(people[0], cases[0]) for _ in range(2)]
        assert (await opens(people[0], cases[0])).result() == 429, "a person's own share"
        held.append(await opens(people[1], cases[1]))
        assert (await opens(people[2], cases[2])).result() == 429, "an address's share"
        held += [await opens(service, cases[0]) for _ in range(2)]
        assert (await opens(service, cases[1])).result() == 429, "a service's own share, whatever its address holds"
        assert world.follower.streams == 5
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        streams = routes_of(world).state.streams
        await until(lambda: len(streams) == 0)
        again = await opens(people[0], cases[0])
        assert not again.done(), "what was given back is there again"
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


async def test_nobody_takes_all_connections(pools: Mapping[str, Pool], tmp_path: Path) -> None:
    """One address holds its share of connections; a proxy that is named stands for many and has none."""
    world = made(pools, tmp_path, Capacity(connections=8, connections_per_address=3))
    for proxies, most in (("10.0.0.1", 3), ("127.0.0.1", 8)):
        await use_up(uvicorn.Server(server_config(world.app, trusted_proxies=proxies)), most)


async def use_up(server: uvicorn.Server, most: int) -> None:
    """Open as many connections as one address may: one more is refused, and one less lets the next one in."""
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(most)]
    await until(lambda: len(server.server_state.connections) == most)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert said.startswith(b"HTTP/1.1 503 "), said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "PLATFORM-FULL"
    writer.close()
    held.pop()[1].close()
    await until(lambda: len(server.server_state.connections) < most)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
    for _, each in held:
        each.close()
    server.should_exit = True
    await task


@given(st.lists(st.sampled_from("abc"), max_size=30))
@examples(50)
def test_shares_are_given_back_as_they_were_taken(order: list[str]) -> None:
    """A share that leaks would lock somebody out until the next start."""
    shares, held = Shares(), list[dict[Any, int]]()
    for who in order:
        limits: dict[Any, int] = {who: 2, "all": 4}
        if shares.take(limits):
            held.append(limits)
        elif held:
            shares.give_back(held.pop(0))
        assert len(held) <= 4
    for limits in held:
        shares.give_back(limits)
    assert len(shares) == 0


def test_whose_word_is_taken_for_an_address() -> None:
    """As uvicorn reads the same setting: addresses, networks, or all."""
    listed = TrustedProxies("10.0.0.1, 192.168.0.0/16, ::1, unix")
    assert [host in listed for host in ("10.0.0.1", "10.0.0.2", "192.168.7.7", "::1", "", "x")] == [
        True, False, True, True, False, False,
    ]  # fmt: skip
    assert "8.8.8.8" in TrustedProxies("*")


@given(st.one_of(TEXT, st.sampled_from(["a:b", "::1::", "1.2.3.4:80", "fe80::1%eth0", "[::1]:1", ":" * 300])))
@examples(100)
async def test_what_a_proxy_passes_on_as_an_address(world: World, host: str) -> None:
    """Whoever writes X-Forwarded-For would otherwise make a fault of ours, before any route is reached."""
    assert len(read_address((host, 1))) <= 64
    transport = httpx.ASGITransport(app=world.app, client=(host, 1))  # type: ignore[arg-type] # an ASGI application
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        hold(await client.post("/v1/checks", json={}))


def test_addresses_that_are_one_client() -> None:
    """A client has a whole /64 of IPv6: each of its addresses would else have a share of its own."""
    assert read_address(("2001:db8::1", 1)) == read_address(("2001:db8::ffff", 2)) == "2001:db8::/64"
    assert read_address(("2001:db8:0:1::1", 1)) != read_address(("2001:db8::1", 1))
    assert (read_address(("10.0.0.1", 1)), read_address(None)) == ("10.0.0.1", "")


@given(
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda method, path, head: b"%s %s HTTP/1.1\r\nhost: x\r\n%s\r\n\r\n" % (method, path, head),
            st.sampled_from([b"GET", b"POST", b"get", b"\xff"]),
            st.one_of(
                st.sampled_from([b"/\xff", b"/%ff", b"*", b"http://x/health", b"/v1/codes/%00"]),
                st.binary(max_size=9),
            ),
            st.one_of(
                st.sampled_from(
                    [b"content-length: 1, 1", b"content-length: -1", b"transfer-encoding: x", b"a\xff: b", b"a:\xff"]
                ),
                st.binary(max_size=20),
            ),
        ),
    )
)  # fmt: skip
@examples(80)
async def test_bytes_that_are_no_http(served: int, sent: bytes) -> None:
    """What no client would send gets a problem as everything else does, or no answer; never plain text, or a fault."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served)
    try:
        writer.write(sent + b"\r\n\r\n")
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return
    finally:
        writer.close()
    if said:
        head, _, body = said.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        assert status not in (500, 503), said
        if status >= 400:
            assert b"application/problem+json" in head.lower(), said
            assert b'"zh":' in body


@pytest.fixture(scope="module")
async def served(world: World) -> AsyncIterator[int]:
    """The port of a real server."""
    async with world.served() as client:
        port = client.base_url.port
        assert port is not None
        yield port


@given(JSON)
@examples(20)
def test_the_strategies_are_what_they_say(value: Any) -> None:
    """A strategy that only made valid JSON would find nothing."""
    json.dumps(value)
