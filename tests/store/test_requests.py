"""What a request leaves in the platform's store: kept answers, proofs, messages. Batches, by key, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from jiebang.model.case import Kind, bucket_of
from jiebang.model.errors import IdempotencyInUseError, IdempotencyReusedError
from jiebang.model.proof import Method
from jiebang.store.cases import cases, idempotency, proofs
from jiebang.store.cases.cases import NewCase
from jiebang.store.cases.idempotency import Claim, KeptAnswer
from jiebang.store.cases.proofs import Proof
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage
from tests.locks import waiting

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database, Pool

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVERY = range(256)


@pytest.fixture
def platform(pools: Mapping[str, Pool]) -> Pool:
    return pools["platform"]


def claim(key: str, body: bytes = b"a", lives: timedelta = timedelta(hours=1)) -> Claim:
    """A claim of a request of its own on `key`."""
    return Claim(
        caller="person:1", route="POST /v1/cases", key=key, body_hash=body, expires_at=NOW + lives, holder=uuid4()
    )


async def test_one_of_two_with_the_same_key_works(platform: Pool) -> None:
    """Twenty at once: the work is done once, all get its answer, and nobody meets an error."""
    done = 0

    async def work(_: Database) -> KeptAnswer:
        nonlocal done
        done += 1
        await asyncio.sleep(0.02)
        return KeptAnswer(201, b"made %d" % done)

    answers = await asyncio.gather(*(idempotency.run_once(platform, claim("k"), NOW, work) for _ in range(20)))
    assert done == 1
    assert {answer.kept.answer for answer in answers} == {b"made 1"}
    assert [answer.replayed for answer in answers].count(False) == 1


async def test_who_fails_leaves_the_key_free(platform: Pool) -> None:
    """A mutation that failed did nothing, so the same key may try again, even with another body."""

    async def fails(db: Database) -> KeptAnswer:
        await db.execute("INSERT INTO platform.account (account_id, created_at) VALUES (77, now())")
        raise ConnectionResetError

    async def works(_: Database) -> KeptAnswer:
        return KeptAnswer(200, b"fine")

    with pytest.raises(ConnectionResetError):
        await idempotency.run_once(platform, claim("f"), NOW, fails)
    assert await platform.fetchval("SELECT count(*) FROM platform.account WHERE account_id = 77") == 0
    assert (await idempotency.run_once(platform, claim("f", b"b"), NOW, works)).kept == KeptAnswer(200, b"fine")
    with pytest.raises(IdempotencyReusedError):
        await idempotency.run_once(platform, claim("f", b"c"), NOW, works)


async def test_what_was_told_first_holds(platform: Pool) -> None:
    """A repeat was refused while the first was held up: the first does nothing, and is told the refusal."""
    done = []

    async def works(_: Database) -> KeptAnswer:
        done.append(1)
        return KeptAnswer(201, b"made")

    refusal, other = KeptAnswer(409, b"no"), KeptAnswer(409, b"no, otherwise")
    told = await idempotency.settle(platform, claim("s"), refusal, NOW)
    assert (told.kept, told.replayed) == (refusal, False)
    late = await idempotency.run_once(platform, claim("s"), NOW, works)
    assert (late.kept, late.replayed, done) == (refusal, True, [])
    assert (await idempotency.settle(platform, claim("s"), other, NOW)).kept == refusal
    with pytest.raises(IdempotencyReusedError):
        await idempotency.settle(platform, claim("s", b"b"), other, NOW)
    await idempotency.run_once(platform, claim("w"), NOW, works)
    told = await idempotency.settle(platform, claim("w"), refusal, NOW)
    assert (told.kept, told.replayed) == (KeptAnswer(201, b"made"), True), "nobody is told no about what was done"


async def test_a_refusal_waits_for_what_may_yet_be_done(platform: Pool) -> None:
    """The first has done it and is about to commit: its repeat is not told no meanwhile."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def works(_: Database) -> KeptAnswer:
        begun.set()
        await goes_on.wait()
        return KeptAnswer(201, b"made")

    first = asyncio.create_task(idempotency.run_once(platform, claim("u"), NOW, works))
    await begun.wait()
    repeat = asyncio.create_task(idempotency.settle(platform, claim("u"), KeptAnswer(409, b"no"), NOW))
    await waiting(platform, 1)
    assert not repeat.done()
    goes_on.set()
    assert (await first).kept == (await repeat).kept == KeptAnswer(201, b"made")


async def test_a_key_is_held_by_one_and_lapses_with_a_dead_holder(platform: Pool) -> None:
    """One request alone may act in another's database; one that died keeps nobody waiting for ever."""
    first, repeat = claim("h"), claim("h")
    assert await idempotency.take(platform, first, NOW) is None
    for meets in (idempotency.take, idempotency.recall):
        with pytest.raises(IdempotencyInUseError):
            await meets(platform, repeat, NOW)
        with pytest.raises(IdempotencyReusedError):
            await meets(platform, claim("h", b"b"), NOW)
    with pytest.raises(IdempotencyInUseError):
        await idempotency.settle(platform, repeat, KeptAnswer(409, b"no"), NOW)
    later = NOW + first.held
    with pytest.raises(IdempotencyReusedError):
        await idempotency.take(platform, claim("h", b"b"), later)
    repeats = [repeat, *(claim("h") for _ in range(9))]
    taken = await asyncio.gather(*(idempotency.take(platform, each, later) for each in repeats), return_exceptions=True)
    [over] = [each for each, kept in zip(repeats, taken, strict=True) if kept is None]  # one of ten takes over
    with pytest.raises(IdempotencyInUseError):  # taken for dead, it was only slow: what it found is not the answer
        await idempotency.keep(platform, first, KeptAnswer(200, b"slow"))
    await idempotency.keep(platform, over, KeptAnswer(200, b"done"))
    assert await idempotency.take(platform, first, later) == KeptAnswer(200, b"done")


async def test_whoever_fails_lets_go_and_whoever_is_too_slow_gives_up(platform: Pool) -> None:
    """A repeat need not wait for a claim to lapse when the first has failed; none acts after its claim has lapsed."""
    first = claim("l")
    await idempotency.take(platform, first, NOW)
    with pytest.raises(ConnectionResetError):
        async with idempotency.hold(platform, first):
            raise ConnectionResetError
    with pytest.raises(IdempotencyReusedError):  # whether it was done nobody knows: the key stays that request's
        await idempotency.take(platform, claim("l", b"b"), NOW)
    assert await idempotency.recall(platform, claim("l"), NOW) is None
    brief = msgspec.structs.replace(claim("l"), held=timedelta(milliseconds=1))
    assert await idempotency.take(platform, brief, NOW) is None
    with pytest.raises(TimeoutError):
        async with idempotency.hold(platform, brief):
            await asyncio.sleep(60)
    assert await idempotency.take(platform, claim("l"), NOW) is None


async def test_a_key_ends_with_its_lifetime(platform: Pool) -> None:
    """A stale key is a new one, and the sweep takes stale keys alone, a bounded number at a time."""
    for number in range(5):
        mine = claim(f"old-{number}")
        assert await idempotency.take(platform, mine, NOW) is None
        await idempotency.keep(platform, mine, KeptAnswer(200, b"old"))
    later = NOW + timedelta(hours=2)
    assert await idempotency.recall(platform, claim("old-0"), later) is None
    again = claim("old-0", b"other", timedelta(hours=9))
    assert await idempotency.take(platform, again, later) is None
    await idempotency.keep(platform, again, KeptAnswer(200, b"new"))
    await platform.execute("DELETE FROM platform.idempotency WHERE key NOT LIKE 'old-%'")
    assert await idempotency.purge(platform, later, 3) == 3
    assert await idempotency.purge(platform, later, 3) == 1
    assert await idempotency.recall(platform, again, later) == KeptAnswer(200, b"new")


async def test_messages_are_told_once_or_put_off(platform: Pool) -> None:
    """What was told is never due again; what was not comes back at its time, with the attempt counted."""
    messages = [
        OutboxMessage(account_id=each, message_id=uuid4(), case_no=1, template="t", params={"n": each}, created_at=NOW)
        for each in range(1, 9)
    ]
    await outbox.insert(platform, messages, NOW)
    await outbox.insert(platform, messages[:3], NOW)
    found = await outbox.load_due(platform, EVERY, NOW, 100)
    assert sorted(found, key=lambda each: each.account_id) == messages
    assert await outbox.load_due(platform, [bucket_of(3)], NOW, 100) == [messages[2]]
    assert await outbox.load_due(platform, EVERY, NOW - timedelta(seconds=1), 100) == []
    keys = [message.key for message in messages]
    await outbox.mark_delivered(platform, keys[:5], NOW)
    await outbox.postpone(platform, dict.fromkeys(keys, NOW + timedelta(minutes=1)))
    assert await outbox.load_due(platform, EVERY, NOW, 100) == []
    back = await outbox.load_due(platform, EVERY, NOW + timedelta(minutes=1), 100)
    assert sorted((each.account_id, each.attempt) for each in back) == [(6, 1), (7, 1), (8, 1)]


async def test_wrong_tries_add_up_over_cases(platform: Pool) -> None:
    """A guesser who withdraws and asks again is counted on; what lies before the window is forgotten."""
    await platform.execute("INSERT INTO platform.account (account_id, created_at) VALUES (501, now())")
    for day, left in ((0, 1), (2, 3), (3, 5)):
        at = NOW + timedelta(days=day)
        new = NewCase(account_id=501, kind=Kind.REVOKE, plan="p/1", participants=1, due_at=at)
        case = (await cases.insert(platform, [new], at, [{"what": "state"}]))[501]
        proof = Proof(account_id=501, case_no=case.case_no, method=Method.SMS_CODE, tries_left=left)
        await proofs.insert(platform, [proof])
        await platform.execute(
            "UPDATE platform.cases SET state = 'expired', ended_at = now(), due_at = NULL WHERE account_id = 501"
        )
    assert await proofs.count_wrong_tries(platform, 501, Method.SMS_CODE, 5, NOW - timedelta(days=1)) == 6
    assert await proofs.count_wrong_tries(platform, 501, Method.SMS_CODE, 5, NOW + timedelta(days=1)) == 2
    assert await proofs.count_wrong_tries(platform, 501, Method.PAYMENT_PASSWORD, 5, NOW - timedelta(days=1)) == 0
