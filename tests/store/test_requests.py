"""What a request leaves in the platform's store: kept answers, proofs, messages. Batches, by key, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from jiebang.model.case import bucket_of
from jiebang.model.errors import AnswerUnreadableError, IdempotencyInUseError, IdempotencyReusedError
from jiebang.store.cases import idempotency, wrong_tries
from jiebang.store.cases.idempotency import Claim, KeptAnswer
from jiebang.store.cases.wrong_tries import TriedProof, WrongTry
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage, Settlement
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
        caller="person:1",
        route="POST /v1/cases",
        key=key,
        body_hash=body,
        answers_key=b"a" * 32,
        expires_at=NOW + lives,
        holder=uuid4(),
    )


async def keep(platform: Pool, of: Claim, answer: bytes) -> None:
    async def work(_: Database) -> KeptAnswer:
        return KeptAnswer(201, answer)

    await idempotency.run_once(platform, of, NOW, work)


async def test_a_kept_answer_is_stored_so_that_the_database_alone_tells_nothing(platform: Pool) -> None:
    """Balances, merchants and places of logins stood there in clear for a day, and in every backup of that day."""
    told = '{"balance_fen": 123456, "merchant": "美团外卖"}'.encode()
    await keep(platform, claim("secret"), told)
    await idempotency.settle(platform, claim("settled"), KeptAnswer(409, told), NOW)
    stored = [
        row["answer"] for row in await platform.fetch("SELECT answer FROM platform.idempotency WHERE key ~ '^se'")
    ]
    assert len(stored) == 2
    assert not any(word in answer for answer in stored for word in (b"123456", "美团".encode(), b"balance"))
    assert await idempotency.recall(platform, claim("secret"), NOW) == KeptAnswer(201, told)
    assert await idempotency.recall(platform, claim("settled"), NOW) == KeptAnswer(409, told)
    assert await idempotency.recall(platform, claim("secret"), NOW + timedelta(hours=1)) is None, "its life is over"


CHANGES = (
    "answer = set_byte(answer, 20, get_byte(answer, 20) # 1)",
    "expires_at = expires_at + interval '1 day'",
    "status = 200",
    "answer = substring(answer FOR 5)",
    "answer = (SELECT answer FROM platform.idempotency WHERE key = 'of another')",
)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_kept_answer_that_was_changed_moved_or_given_a_longer_life_does_not_open(
    platform: Pool, change: str
) -> None:
    """Whoever writes the database would tell a person something that the platform never answered."""
    await keep(platform, claim("changed"), b'{"state": "open"}')
    await keep(platform, claim("of another"), b'{"state": "done"}')
    await platform.execute(f"UPDATE platform.idempotency SET {change} WHERE key = 'changed'")  # noqa: S608 - of the list
    with pytest.raises(AnswerUnreadableError):
        await idempotency.recall(platform, claim("changed"), NOW)
    await platform.execute("DELETE FROM platform.idempotency WHERE key IN ('changed', 'of another')")


async def test_an_answer_that_an_earlier_version_kept_is_still_given(platform: Pool) -> None:
    """An upgrade must not make a request be carried out twice."""
    await keep(platform, claim("older"), b"{}")
    await platform.execute("UPDATE platform.idempotency SET answer = '[1]' WHERE key = 'older'")
    assert await idempotency.recall(platform, claim("older"), NOW) == KeptAnswer(201, b"[1]")


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
    await outbox.settle(platform, [Settlement(key=key, delivered=True) for key in keys[:5]], NOW)
    again = NOW + timedelta(minutes=1)
    await outbox.settle(platform, [Settlement(key=key, again_at=again) for key in keys], NOW)
    assert await outbox.load_due(platform, EVERY, NOW, 100) == []
    back = await outbox.load_due(platform, EVERY, NOW + timedelta(minutes=1), 100)
    assert sorted((each.account_id, each.attempt) for each in back) == [(6, 1), (7, 1), (8, 1)]


async def test_wrong_tries_add_up_by_when_they_were_made(platform: Pool) -> None:
    """A guesser who withdraws and asks again is counted on; what lies before the window is forgotten, then deleted."""
    await platform.execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest(ARRAY[501, 502]::bigint[]), now()"
    )
    day, told = timedelta(days=1), []
    code, password = TriedProof.SMS_CODE, TriedProof.PAYMENT_PASSWORD

    async def counted(at: datetime) -> dict[TriedProof, int]:
        found = await wrong_tries.count(platform, [501, 502], at - day)
        return {proof: tries.made for proof, tries in found.get(501, {}).items()}

    for hours in (0, 1, 30, 31, 32):
        at = NOW + timedelta(hours=hours)
        made = [
            WrongTry(account_id=501, try_id=uuid4(), proof=code),
            *([WrongTry(account_id=502, try_id=uuid4(), proof=password)] if hours == 0 else []),
        ]
        told += [await wrong_tries.add(platform, made, at, at - day, at - 2 * day, 2)]
    # The second try of each window tells the owner, once.
    assert told == [set(), {501}, set(), {501}, set()]
    assert await counted(NOW + timedelta(hours=2)) == {code: 5}
    assert await counted(NOW + timedelta(hours=32)) == {code: 3}
    await wrong_tries.free(platform, [501], NOW + timedelta(hours=31))
    assert await counted(NOW + timedelta(hours=32)) == {code: 1}
    at = NOW + timedelta(days=9)
    made = [WrongTry(account_id=501, try_id=uuid4(), proof=password)]
    await wrong_tries.add(platform, made, at, at - day, at - 2 * day, 2)
    assert await platform.fetchval("SELECT count(*) FROM platform.wrong_try WHERE account_id = 501") == 1
    assert await platform.fetchval("SELECT count(*) FROM platform.wrong_try WHERE account_id = 502") == 1
