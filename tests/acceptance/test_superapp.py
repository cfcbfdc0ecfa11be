"""The super-app's door: money is sent once, by its owner alone, and every refusal says what is wrong."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import OperationalError
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest

from jiebang.model.errors import IdempotencyReusedError
from jiebang.model.plan import UNNAMED
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.sandbox.superapp import CALLED
from jiebang.sandbox.superapp.answers import LIFETIME, AnswerStore, RequestKey, StoredAnswer
from tests.acceptance.api_world import Person, World, at_superapp, closed, made, problem
from tests.locks import waiting
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

FIRST, PEOPLE, OPENING = 5001, 80, 1000
_ids = itertools.count(FIRST)


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(FIRST, PEOPLE, balance_fen=OPENING)
    return world


@pytest.fixture(scope="module")
async def superapp(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with at_superapp(world, tmp_path_factory.mktemp("superapp")) as client:
        yield client


@pytest.fixture
def one(world: World, superapp: httpx.AsyncClient) -> Person:
    """Somebody with OPENING in their wallet, new for each test."""
    return someone(world, superapp)


def someone(world: World, client: httpx.AsyncClient, **claims: Any) -> Person:
    account_id = next(_ids)
    return Person(client, world.token(account_id, **claims), account_id)


def money(sender: Person, to: Person, amount_fen: Any = 1) -> dict[str, Any]:
    return {"from": str(sender.account_id), "to": str(to.account_id), "amount_fen": amount_fen}


async def send(sender: Person, to: Person, amount_fen: Any = 1, **kwargs: Any) -> httpx.Response:
    return await sender.ask("POST", "/v1/transfers", money(sender, to, amount_fen), **kwargs)


async def balance(world: World, *people: Person) -> list[int]:
    rows = await world.pools["wallet"].fetch(
        "SELECT balance_fen FROM wallet.account WHERE account_id = ANY ($1::bigint[]) ORDER BY account_id",
        [each.account_id for each in people],
    )
    return [row["balance_fen"] for row in rows]


def said(answer: httpx.Response) -> tuple[int, bytes]:
    return answer.status_code, answer.content


async def test_money_arrives(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """Else the sandbox's people cannot pay each other, and no story is told of money that moves."""
    other = someone(world, superapp)
    answer = await send(one, other, 30)
    assert answer.status_code == 200
    moved = answer.json()
    assert (moved["account"], moved["state"], moved["amount_fen"]) == (str(one.account_id), "completed", 30)
    entries = await world.pools["wallet"].fetch("SELECT * FROM wallet.entry WHERE entry_id = $1", UUID(moved["id"]))
    assert {(row["account_id"], row["amount_fen"]) for row in entries} == {
        (one.account_id, -30),
        (other.account_id, 30),
    }
    assert await balance(world, one, other) == [OPENING - 30, OPENING + 30]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount_fen": 0}, "amount_fen"), ({"amount_fen": -1}, "amount_fen"), ({"amount_fen": 1.5}, "amount_fen"),
        ({"amount_fen": "1"}, "amount_fen"), ({"amount_fen": 1 << 60}, "amount_fen"), ({"amount_fen": True}, "amount"),
        ({"to": 5001}, "to"), ({"to": "0"}, "to"), ({"to": "٥٠٠١"}, "to"), ({"to": "5001\n"}, "to"),
        ({"to": "9999999999999999999"}, "to"), ({"from": "-1"}, "from"), ({"force": True}, "force"),
    ],
)  # fmt: skip
async def test_a_wrong_field_is_named(
    world: World, superapp: httpx.AsyncClient, one: Person, change: dict[str, Any], field: str
) -> None:
    """A client's mistake must not become somebody's money: it is refused in both languages, and nothing moves."""
    answer = await one.ask("POST", "/v1/transfers", money(one, someone(world, superapp)) | change)
    assert field in str(problem(answer, 400, "INVALID-INPUT")["fields"])
    assert await balance(world, one) == [OPENING]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"from": "5001",}', b"[" * 40_000, b"null", b"[]", b'"\\ud800"']
)
async def test_a_body_that_is_no_object_of_json(superapp: httpx.AsyncClient, one: Person, content: bytes) -> None:
    """Broken, empty or absurdly nested bodies end as a problem, not as a fault of ours."""
    answer = await superapp.post("/v1/transfers", content=content, headers=one.headers("x"))
    assert answer.status_code == 400
    problem(answer, 400, answer.json()["code"])
    assert answer.json()["code"] in ("BODY-NOT-JSON", "INVALID-INPUT")


async def test_bodies_of_another_kind_or_size(superapp: httpx.AsyncClient, one: Person) -> None:
    """A form is refused as one, not read as JSON; what is far too large is not read to its end."""
    form = one.headers("x") | {"content-type": "application/x-www-form-urlencoded"}
    problem(await superapp.post("/v1/transfers", content=b"from=5001", headers=form), 415, "MEDIA-TYPE")
    huge = await superapp.post("/v1/transfers", content=b" " * 100_000, headers=one.headers("x"))
    problem(huge, 413, "BODY-TOO-LARGE")


async def test_who_may_not(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """Another's money, no token, an old one, no scope, no key: refused with what to do, and nothing moves."""
    thief = someone(world, superapp)
    body = money(one, thief)
    problem(await thief.ask("POST", "/v1/transfers", body), 403, "NOT-ALLOWED")
    missing = await superapp.post("/v1/transfers", json=body, headers={"idempotency-key": "x"})
    problem(missing, 401, "NOT-AUTHENTICATED")
    assert missing.headers["www-authenticate"] == "Bearer"
    account_id = one.account_id
    expired = Person(superapp, world.token(account_id, lives=timedelta(minutes=-5)), account_id)
    told = await expired.ask("POST", "/v1/transfers", body)
    assert problem(told, 401, "NOT-AUTHENTICATED")["fields"] == {"cause": "expired"}
    assert 'error="invalid_token"' in told.headers["www-authenticate"]
    for header in ("Basic abc", "Bearer", "Bearer a.b.c", "Bearer " + "x" * 9000):
        headers = one.headers("x") | {"authorization": header}
        problem(await superapp.post("/v1/transfers", json=body, headers=headers), 401, "NOT-AUTHENTICATED")
    reader = Person(superapp, world.token(account_id, scopes=["check"]), account_id)
    lacking = await reader.ask("POST", "/v1/transfers", body)
    assert problem(lacking, 403, "NOT-ALLOWED")["fields"] == {"scope": "transfer"}
    assert 'scope="transfer"' in lacking.headers["www-authenticate"]
    for key in ("", "k" * 129, "a b"):
        answer = await superapp.post("/v1/transfers", json=body, headers=one.headers(key))
        problem(answer, 400, "IDEMPOTENCY-KEY-MISSING")
    assert await balance(world, one, thief) == [OPENING, OPENING]


async def test_addresses_methods_and_languages(superapp: httpx.AsyncClient) -> None:
    """404 and 405 are problems too; title and detail come in the language asked for, and both are always there."""
    problem(await superapp.get("/v1/nothing"), 404, "NO-SUCH-ROUTE")
    wrong = await superapp.get("/v1/transfers")
    problem(wrong, 405, "METHOD-NOT-ALLOWED")
    assert wrong.headers["allow"] == "POST"
    for asked, told in (("en-GB,en;q=0.9,zh;q=0.1", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("", "zh")):
        answer = await superapp.get("/nowhere", headers={"accept-language": asked})
        assert answer.json()["title"] == answer.json()[told]["title"]
        assert answer.headers["content-language"].startswith(told)


async def test_the_platform_sends_no_money(world: World, one: Person) -> None:
    """The platform takes names back; whoever finds a way to move money there has found one too many."""
    async with world.served() as api:
        asked = Person(api, world.token(one.account_id), one.account_id)
        problem(await send(asked, asked), 404, "NO-SUCH-ROUTE")


async def test_money_that_is_not_there(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """More than the balance, to oneself: refused, and the balance stands."""
    problem(await send(one, someone(world, superapp), OPENING + 1), 409, "INSUFFICIENT-FUNDS")
    problem(await send(one, one), 400, "INVALID-INPUT")
    assert await balance(world, one) == [OPENING]


async def test_a_stranger_learns_nothing_of_a_receiver(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """Who has an account, and who took their name back, is nobody's business: refusals are equal to the byte."""
    revoked, named = someone(world, superapp), someone(world, superapp)
    for account_id, limit in ((revoked.account_id, 100), (named.account_id, 500)):
        await world.pools["wallet"].execute(
            "UPDATE wallet.account SET receive_limit_fen = $2 WHERE account_id = $1", account_id, limit
        )
    receivers = [str(revoked.account_id), str(named.account_id), "888888", "999999999"]
    bodies = [money(one, one) | {"to": to, "amount_fen": 501} for to in receivers]
    refused = [await one.ask("POST", "/v1/transfers", body) for body in bodies]
    problem(refused[0], 409, "RECEIVER-UNAVAILABLE")
    assert len({(*said(answer), str(sorted(answer.headers.items()))) for answer in refused}) == 1
    # Nor does whoever names more than they have learn it free of charge.
    bodies = [body | {"amount_fen": OPENING + 1} for body in bodies] + [money(one, named, OPENING + 1)]
    poor = [await one.ask("POST", "/v1/transfers", body) for body in bodies]
    problem(poor[0], 409, "INSUFFICIENT-FUNDS")
    assert len({said(answer) for answer in poor}) == 1
    assert await balance(world, one, revoked, named) == [OPENING] * 3


async def test_a_busy_wallet_says_so_and_the_same_key_goes_through_later(
    world: World, superapp: httpx.AsyncClient, one: Person
) -> None:
    """Between its Try and its Cancel a wallet moves nothing; who was told so is not told so for ever."""
    other, wallet = someone(world, superapp), world.participants["wallet"]
    order = Order(other.account_id, 1)
    await wallet.apply(Op.TRY, [order], UNNAMED)
    busy = await send(one, other, 5, key="later")
    problem(busy, 503, "WALLET-BUSY")
    assert busy.headers["retry-after"] == "1"
    await wallet.apply(Op.CANCEL, [order], UNNAMED)
    done = await send(one, other, 5, key="later")
    assert (done.status_code, "idempotency-replayed" in done.headers) == (200, False)
    assert await balance(world, one, other) == [OPENING - 5, OPENING + 5]


async def test_a_repeat_is_told_the_same(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """A lost answer can be asked for again, byte for byte; money moves once."""
    other = someone(world, superapp)
    first = await send(one, other, 7, key="again")
    again = await send(one, other, 7, key="again")
    assert said(again) == said(first)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    problem(await send(one, other, 8, key="again"), 422, "IDEMPOTENCY-KEY-REUSED")
    mine = await send(other, one, 7, key="again")
    assert (mine.status_code, mine.json()["id"] == first.json()["id"]) == (200, False), "a key belongs to its caller"
    assert await balance(world, one, other) == [OPENING, OPENING]


async def test_ten_at_once_under_one_key(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """One executes, all get its answer; money moves once."""
    other = someone(world, superapp)
    answers = await asyncio.gather(*(send(one, other, 10, key="once") for _ in range(10)))
    assert {said(answer) for answer in answers} == {(200, answers[0].content)}
    assert await balance(world, one, other) == [OPENING - 10, OPENING + 10]


async def test_a_transfer_refused_stays_refused(world: World, superapp: httpx.AsyncClient, one: Person) -> None:
    """The money comes later: a transfer that somebody was told had failed does not go through behind their back."""
    other = someone(world, superapp)
    poor = await send(one, other, OPENING + 70, key="poor")
    problem(poor, 409, "INSUFFICIENT-FUNDS")
    assert (await send(other, one, 100)).status_code == 200
    again = await send(one, other, OPENING + 70, key="poor", accept_language="en")
    assert said(again) == said(poor)
    assert (again.headers["idempotency-replayed"], again.headers["content-language"]) == ("true", "zh-CN")
    assert (await send(one, other, OPENING + 70, key="rich")).status_code == 200


async def test_a_transfer_under_way_holds_its_key(world: World, tmp_path: Path) -> None:
    """While the wallet works nobody else acts under the key; a repeat is told to come back, and then what was done."""
    wallet = world.pools["wallet"]
    async with at_superapp(world, tmp_path, wait=0.3) as hurried:
        one, other = someone(world, hurried), someone(world, hurried)
        async with wallet.acquire() as holder, holder.transaction():
            await holder.execute("SELECT 1 FROM wallet.account WHERE account_id = $1 FOR UPDATE", one.account_id)
            first = asyncio.create_task(send(one, other, 5, key="held"))
            await waiting(wallet, 1)
            told = await send(one, other, 5, key="held", accept_language="en")
            problem(told, 409, "IDEMPOTENCY-KEY-IN-USE")
            assert told.headers["retry-after"] == "1"
            problem(await send(one, other, 6, key="held"), 422, "IDEMPOTENCY-KEY-REUSED")
            waited = asyncio.create_task(send(one, other, 5, key="held"))
            await asyncio.sleep(0.05)
        assert said(await first) == said(await waited)
    assert await balance(world, one, other) == [OPENING - 5, OPENING + 5]


async def test_a_wallet_that_is_away(world: World, superapp: httpx.AsyncClient, servers: Mapping[str, str]) -> None:
    """503 while the wallet's database is silent; the same key goes through once it is back."""
    one, other = someone(world, superapp), someone(world, superapp)
    database = await world.pools["wallet"].fetchval("SELECT current_database()")
    async with closed(servers["shenzhen"], database):
        away = await send(one, other, 5, key="back")
        assert problem(away, 503, "PARTICIPANT-UNAVAILABLE")["fields"] == {"participant": "wallet"}
    back = await send(one, other, 5, key="back")
    assert back.status_code == 200
    assert await balance(world, one, other) == [OPENING - 5, OPENING + 5]


async def test_answers_outlive_a_process_and_not_their_day(tmp_path: Path) -> None:
    """A key whose process died acts under the same id again; one a day old is a new key; one process has the file."""
    now, key = datetime.now(UTC), RequestKey(caller="person:1", route="POST /x", key="k", body_hash=b"1")
    store = AnswerStore(tmp_path / "answers.sqlite")
    taken = await store.take(key, now)
    assert isinstance(taken, UUID)
    with pytest.raises(OperationalError, match="locked"):
        AnswerStore(tmp_path / "answers.sqlite", patience=0.1)
    store.close()
    store = AnswerStore(tmp_path / "answers.sqlite")
    assert await store.take(key, now) == taken
    with pytest.raises(IdempotencyReusedError):
        await store.take(RequestKey(caller="person:1", route="POST /x", key="k", body_hash=b"2"), now)
    await store.keep(key, StoredAnswer(200, b"first"))
    await store.keep(key, StoredAnswer(409, b"second"))
    assert await store.take(key, now) == StoredAnswer(200, b"first")
    anew = await store.take(key, now + LIFETIME)
    assert isinstance(anew, UUID)
    assert anew != taken
    store.close()


HELD = 42
HOLD = """
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock(%d);
    RETURN new;
END $$;
CREATE TRIGGER hold BEFORE %s ON wallet.entry FOR EACH ROW EXECUTE FUNCTION public.hold();
"""
"""Stops whoever writes an entry where a test wants to kill it."""
RELEASE = "DROP TRIGGER hold ON wallet.entry; DROP FUNCTION public.hold()"


@asynccontextmanager
async def running(world: World, databases: Mapping[str, str], home: Path) -> AsyncIterator[tuple[Sandbox, Any]]:
    """The real process, and a client of it; tokens are the sandbox's own meanwhile."""
    own = world.issuer
    async with (
        sandbox(home, names=(), databases=databases) as outside,
        httpx.AsyncClient(base_url=outside.addresses["superapp"], trust_env=False, timeout=PATIENCE_S) as client,
    ):
        world.issuer = outside.issuer
        try:
            yield outside, client
        finally:
            world.issuer = own


@pytest.mark.parametrize("step", ["INSERT", "UPDATE"])
async def test_a_process_killed_in_the_middle_of_a_transfer(
    world: World, databases: Mapping[str, str], tmp_path: Path, step: str
) -> None:
    """Killed before its first step is done, or its second: the repeat finds the transfer, and no money is lost."""
    wallet = world.pools["wallet"]
    async with running(world, databases, tmp_path) as (outside, client):
        one, other, key = someone(world, client), someone(world, client), str(uuid4())
        await wallet.execute(HOLD % (HELD, step))
        async with wallet.acquire() as holder:
            await holder.execute("SELECT pg_advisory_lock($1)", HELD)
            cut_off = asyncio.create_task(send(one, other, 50, key=key))
            await waiting(wallet, 1)
            process = outside.processes["superapp"]
            pid = process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                await cut_off
            pending = "SELECT count(*) FROM wallet.entry WHERE account_id = $1 AND state = 'pending'"
            assert await wallet.fetchval(pending, one.account_id) == (step == "UPDATE")
            await holder.execute("SELECT pg_advisory_unlock($1)", HELD)
        await wallet.execute(RELEASE)
        async with asyncio.timeout(PATIENCE_S):
            while process.pid in (None, pid):  # noqa: ASYNC110 - another process's state, which offers no event
                await asyncio.sleep(0.02)
        again = await _patiently(one, other, key)
        assert (again.status_code, again.json()["state"]) == (200, "completed")
        assert said(await send(one, other, 50, key=key)) == said(again)
    assert await balance(world, one, other) == [OPENING - 50, OPENING + 50]
    sent = "SELECT count(*) FROM wallet.entry WHERE account_id = $1 AND kind = 'transfer'"
    assert await wallet.fetchval(sent, one.account_id) == 1
    audit = await world.wallet.audit_money([one.account_id, other.account_id])
    assert (list(audit.wrong), audit.balance_fen) == ([], 2 * OPENING)


async def _patiently(one: Person, other: Person, key: str) -> httpx.Response:
    """Send again until the process that came back listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await send(one, other, 50, key=key)
            except httpx.TransportError:
                await asyncio.sleep(0.05)


async def test_what_a_dead_process_began_the_wallet_finishes(
    world: World, databases: Mapping[str, str], tmp_path: Path
) -> None:
    """Nobody repeats: the wallet's own duty completes the transfer, or a person's revocation would wait for ever."""
    wallet = world.pools["wallet"]
    async with running(world, databases, tmp_path) as (outside, client):
        one, other = someone(world, client), someone(world, client)
        await wallet.execute(HOLD % (HELD, "UPDATE"))
        async with wallet.acquire() as holder:
            await holder.execute("SELECT pg_advisory_lock($1)", HELD)
            cut_off = asyncio.create_task(send(one, other, 50))
            await waiting(wallet, 1)
            pid = outside.processes["superapp"].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                await cut_off
            await holder.execute("SELECT pg_advisory_unlock($1)", HELD)
        await wallet.execute(RELEASE)
    assert await world.wallet.complete_pending(world.now()) == 1
    assert await balance(world, one, other) == [OPENING - 50, OPENING + 50]


async def test_nothing_of_the_platforms_settings_reaches_it(
    databases: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The super-app knows only whose gates it calls, in its environment: no other's password, and none on a command."""
    monkeypatch.setenv("JIEBANG_DATABASES", "secret")
    async with sandbox(tmp_path, names=(), databases=databases) as outside:
        proc = Path(f"/proc/{outside.processes['superapp'].pid}")
        if not await asyncio.to_thread(proc.exists):
            pytest.skip("this system shows no environment of processes")
        command = await asyncio.to_thread((proc / "cmdline").read_bytes)
        environment = await asyncio.to_thread((proc / "environ").read_bytes)
    for name, dsn in databases.items():
        assert (dsn.encode() in environment) == (name in CALLED), name
        assert dsn.encode() not in command
    assert b"JIEBANG_" not in environment
