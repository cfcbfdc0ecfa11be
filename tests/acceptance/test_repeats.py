"""Repeats that overtake: one answer for all requests under a key, and nothing done that somebody was told was not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from jiebang.api.application import create_app
from jiebang.api.gate.capacity import Capacity
from jiebang.store.cases.idempotency import RepeatPolicy
from tests.acceptance.api_world import PATIENT_REPEATS, Person, World, made, on_deck
from tests.locks import waiting

if TYPE_CHECKING:
    from jiebang.model.case import Kind
    from jiebang.policy.record import Evidence
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.checks.request import CheckRequest

FIRST, PEOPLE = 8101, 60
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
    """A person nothing stands in the way of, new for each test."""
    account_id = next(_ids)
    return Person(client, world.token(account_id), account_id)


async def owed(world: World, accounts: Sequence[int], balance_fen: int) -> None:
    """Put money into wallets, which blocks; 0 clears it."""
    await world.pools["wallet"].execute(
        """UPDATE wallet.account SET balance_fen = $2, facts_version = facts_version + 1
           WHERE account_id = ANY ($1::bigint[])""",
        accounts,
        balance_fen,
    )


async def opened(world: World, account_id: int) -> int:
    found = await world.pools["platform"].fetchval(
        "SELECT count(*) FROM platform.cases WHERE account_id = $1", account_id
    )
    return int(found)


def said(answer: httpx.Response) -> tuple[int, bytes]:
    return answer.status_code, answer.content


class Gate:
    """Stands in for the check, and holds back the first request that has passed it."""

    def __init__(self, world: World) -> None:
        self.passed, self.goes_on = asyncio.Event(), asyncio.Event()
        self._examine: Callable[..., Awaitable[Sequence[Evidence]]] = world.context.examine

    async def __call__(self, asked: Sequence[CheckRequest], kind: Kind) -> Sequence[Evidence]:
        found = await self._examine(asked, kind)
        if not self.passed.is_set():
            self.passed.set()
            await self.goes_on.wait()
        return found


@asynccontextmanager
async def held_back(world: World) -> AsyncIterator[tuple[Gate, httpx.AsyncClient]]:
    """Serve another process of the same installation, in which the first submission stops between check and case."""
    gate = Gate(world)
    other = World(world.pools, world.issuer.jwks_path.parent, world.pack)
    other.issuer = world.issuer
    other.deps = msgspec.structs.replace(
        world.deps, context=msgspec.structs.replace(world.context, examine=gate), follower=other.follower
    )
    other.app = create_app(other.deps)
    async with on_deck(other) as client:
        yield gate, client


async def test_a_submission_held_up_opens_nothing_once_its_repeat_was_refused(world: World, one: Person) -> None:
    """The person was told no, and went on living: a case that opens a minute later takes their name from them."""
    async with held_back(world) as (gate, client):
        first = asyncio.create_task(Person(client, world.token(one.account_id), one.account_id).submit(key="over"))
        await gate.passed.wait()
        await owed(world, [one.account_id], 100)
        repeat = await one.submit(key="over")
        assert (repeat.status_code, repeat.json()["code"]) == (409, "BLOCKED")
        assert "idempotency-replayed" not in repeat.headers
        await owed(world, [one.account_id], 0)  # nothing but the answer that was given stands in the way now
        gate.goes_on.set()
        late = await first
    assert said(late) == said(repeat)
    assert late.headers["idempotency-replayed"] == "true"
    assert late.headers["content-type"].startswith("application/problem+json")
    assert late.headers["content-language"] == repeat.headers["content-language"]
    assert await opened(world, one.account_id) == 0


async def test_the_first_may_arrive_last_and_then_is_the_repeat(world: World, one: Person) -> None:
    """The network delivers the first only after its repeat was answered in full: it cannot be told from a repeat."""
    await owed(world, [one.account_id], 100)
    answered = await one.submit(key="last")
    assert answered.status_code == 409
    await owed(world, [one.account_id], 0)
    late = await one.submit(key="last")
    assert said(late) == said(answered)
    assert late.headers["idempotency-replayed"] == "true"
    assert await opened(world, one.account_id) == 0
    assert (await one.submit(key="anew")).status_code == 201, "to ask anew takes a new key"


async def test_a_repeat_is_not_refused_for_what_the_first_is_doing(world: World, one: Person) -> None:
    """The first is writing its case while the repeat finds a blocker: both are told of the case."""
    platform = world.pools["platform"]
    async with platform.acquire() as other, other.transaction():
        await other.execute("SELECT 1 FROM platform.account WHERE account_id = $1 FOR UPDATE", one.account_id)
        first = asyncio.create_task(one.submit(key="both"))
        await waiting(platform, 1)
        await owed(world, [one.account_id], 100)
        repeat = asyncio.create_task(one.submit(key="both"))
        await waiting(platform, 2)
        assert not repeat.done()
    assert said(await first) == said(await repeat)
    assert (await first).status_code == 201
    assert await opened(world, one.account_id) == 1


async def test_a_crowd_of_repeats_has_one_answer_each_while_blockers_come_and_go(
    world: World, client: httpx.AsyncClient
) -> None:
    """Whatever the order: all requests under a key are told one thing, and it is what was done."""
    crowd = [Person(client, world.token(account_id), account_id) for account_id in itertools.islice(_ids, 24)]
    accounts, over = [person.account_id for person in crowd], asyncio.Event()

    async def unsettle() -> None:
        for turn in itertools.count():
            if over.is_set():
                return
            await owed(world, accounts[turn % 2 :: 2], 100 * (turn % 3 > 0))
            await asyncio.sleep(0.005)

    unsettling = asyncio.create_task(unsettle())
    asked = [(person, number) for number in range(4) for person in crowd]
    answers = await asyncio.gather(*(person.submit(key="crowd") for person, _ in asked))
    over.set()
    await unsettling
    told: dict[int, set[tuple[int, bytes]]] = {}
    for (person, _), answer in zip(asked, answers, strict=True):
        told.setdefault(person.account_id, set()).add(said(answer))
    assert {account_id for account_id, each in told.items() if len(each) > 1} == set()
    for account_id, [(status, _)] in told.items():
        assert (status, await opened(world, account_id)) in ((201, 1), (409, 0))


@asynccontextmanager
async def hurried(world: World, one: Person) -> AsyncIterator[Person]:
    """The person at another process of the installation, where a repeat waits a moment only."""
    brief = World(world.pools, world.issuer.jwks_path.parent, world.pack)
    brief.issuer = world.issuer
    brief.deps = msgspec.structs.replace(
        world.deps, repeats=RepeatPolicy(wait=timedelta(milliseconds=50)), follower=brief.follower
    )
    brief.app = create_app(brief.deps)
    async with on_deck(brief) as client:
        yield Person(client, world.token(one.account_id), one.account_id)


async def test_a_remedy_under_way_holds_its_key(world: World, one: Person) -> None:
    """While the wallet works nobody else acts under the key; a repeat is told to come back, and then what was done."""
    body, path = {"account": str(one.account_id)}, "/v1/remedies/cash-out"
    await owed(world, [one.account_id], 500)
    wallet = world.pools["wallet"]
    async with hurried(world, one) as impatient:
        async with wallet.acquire() as other, other.transaction():
            await other.execute("SELECT 1 FROM wallet.account WHERE account_id = $1 FOR UPDATE", one.account_id)
            first = asyncio.create_task(one.ask("POST", path, body, key="held"))
            await waiting(wallet, 1)
            told = await impatient.ask("POST", path, body, key="held", accept_language="en")
            assert (told.status_code, told.json()["code"]) == (409, "IDEMPOTENCY-KEY-IN-USE")
            assert told.headers["retry-after"] == "1"
            assert told.json()["zh"]["title"]
            reused = await impatient.ask("POST", path, {**body, "kind": "restore"}, key="held")
            assert (reused.status_code, reused.json()["code"]) == (422, "IDEMPOTENCY-KEY-REUSED")
            patient = asyncio.create_task(one.ask("POST", path, body, key="held"))
            await asyncio.sleep(0)
        done, waited = await asyncio.gather(first, patient)
        again = await impatient.ask("POST", path, body, key="held")
    assert (done.status_code, done.json()["amount_fen"]) == (200, 500)
    assert said(done) == said(waited) == said(again)


async def test_the_claim_of_a_process_that_died_lapses(world: World, one: Person, client: httpx.AsyncClient) -> None:
    """A remedy begun by a process that is gone is carried out by the repeat, once its claim has lapsed: not before."""
    body, path = {"account": str(one.account_id)}, "/v1/remedies/cash-out"
    await owed(world, [one.account_id], 300)
    wallet = world.pools["wallet"]
    async with wallet.acquire() as other, other.transaction():
        await other.execute("SELECT 1 FROM wallet.account WHERE account_id = $1 FOR UPDATE", one.account_id)
        first = asyncio.create_task(one.ask("POST", path, body, key="dead"))
        await waiting(wallet, 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    async with hurried(world, one) as impatient:
        assert (await impatient.ask("POST", path, body, key="dead")).json()["code"] == "IDEMPOTENCY-KEY-IN-USE"
    try:
        world.later(PATIENT_REPEATS.held)
        again = await Person(client, world.token(one.account_id), one.account_id).ask("POST", path, body, key="dead")
    finally:
        world.later(-PATIENT_REPEATS.held)
    assert (again.status_code, again.json()["amount_fen"]) == (200, 300)


async def test_on_a_busy_machine_all_repeats_are_answered_alike(world: World, client: httpx.AsyncClient) -> None:
    """A suite that needs an idle machine fails where people build beside it, and says nothing about the product.

    What is held up here for longer than any limit of the product's own is what such a machine holds up.
    """
    account_id, wallet = next(_ids), world.pools["wallet"]
    await owed(world, [account_id], 700)
    one = Person(client, world.token(account_id), account_id)
    body, path = {"account": str(account_id)}, "/v1/remedies/cash-out"
    longest = max(RepeatPolicy().wait, Capacity().wait, Capacity().within)
    async with wallet.acquire() as other, other.transaction():
        await other.execute("SELECT 1 FROM wallet.account WHERE account_id = $1 FOR UPDATE", account_id)
        crowd = [asyncio.create_task(one.ask("POST", path, body, key="busy")) for _ in range(20)]
        await waiting(wallet, 1)
        await asyncio.sleep((longest + timedelta(milliseconds=200)).total_seconds())
    answers = await asyncio.gather(*crowd)
    assert {said(answer) for answer in answers} == {said(answers[0])}
    assert (answers[0].status_code, answers[0].json()["amount_fen"]) == (200, 700)
