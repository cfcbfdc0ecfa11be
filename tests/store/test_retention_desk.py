"""What law keeps: read for a stated purpose alone, on record before it opens, held where a court asks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from jiebang.model.errors import InvalidInputError, NothingRetainedError
from jiebang.participants.identity.reclaimed import ReclaimedIdentityTable
from jiebang.store.retention import acts, data_keys
from jiebang.store.retention.key_wrapping import RETENTION, FileWrappingKey
from jiebang.usecases.retention.keep import RetentionDesk, find_horizon
from tests.store.key_world import CENTRES, ENDED, LATER, LOCKS, NAME, World, open_world, turn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool
    from jiebang.store.retention.key_wrapping import WrappingKey

ID = UUID(int=7)


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> World:
    made = await open_world(pools)
    await made.take_back([1, 2])
    await made.bind([3])
    await turn(made.chore())
    return made


def desk(world: World, retention: WrappingKey = LOCKS.retention) -> RetentionDesk:
    identities = {name: ReclaimedIdentityTable(world.pools[name]) for name in CENTRES}
    return RetentionDesk(platform=world.pools["platform"], keys=world.keys, identities=identities, retention=retention)


async def test_what_law_keeps_opens_for_a_purpose_that_is_on_record(world: World) -> None:
    """Kept for the law and read by the curious: without a record nobody would ever know."""
    [found] = await desk(world).read(1, "order 7 of the PBoC", "Ann", ID, LATER)
    assert found.identity == NAME
    assert (found.kept_under, found.last_day, found.held) == ("wechat/2 IDENTITY-AML", date(2036, 2, 28), False)
    assert NAME.name not in repr(found)
    [act] = await acts.load_acts(world.pools["platform"], ENDED, 10)
    assert (act.account_id, act.act, act.purpose, act.done_by, act.at) == (
        1,
        "read",
        "order 7 of the PBoC",
        "Ann",
        LATER,
    )


async def test_without_a_purpose_or_a_record_nothing_opens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would be a reading that nobody answers for."""
    for purpose, by in (("", "Ann"), ("  ", "Ann"), ("order 7", ""), ("order\x1b[2J", "Ann")):
        with pytest.raises(InvalidInputError):
            await desk(world).read(1, purpose, by, uuid4(), LATER)
    for account in (3, 4):  # in use; unknown
        with pytest.raises(NothingRetainedError):
            await desk(world).read(account, "order 7", "Ann", uuid4(), LATER)
    assert await acts.load_acts(world.pools["platform"], ENDED, 10) == []

    async def refuse(*_args: object) -> None:
        raise TimeoutError

    opened = list[object]()

    class Watched(FileWrappingKey):
        def unwrap(self, wraps: object) -> list[bytes | None]:
            opened.append(wraps)
            return []

    monkeypatch.setattr(acts, "record", refuse)
    with pytest.raises(TimeoutError):
        await desk(world, Watched(RETENTION, bytes(32), os.urandom)).read(1, "order 7", "Ann", uuid4(), LATER)
    assert opened == [], "it must not open before it is on record"


async def test_a_later_identity_does_not_overwrite_what_law_keeps(world: World) -> None:
    """Whoever takes a name back and binds another would otherwise have erased what law keeps of the first."""
    for name in CENTRES:
        await world.pools[name].execute("UPDATE identity.account SET sealed = '\\x00' WHERE account_id = 1")
    [found] = await desk(world).read(1, "order 7", "Ann", ID, LATER)
    assert found.identity == NAME
    await world.pools["identity_shenzhen"].execute("DELETE FROM identity.retained")
    [found] = await desk(world).read(1, "order 7", "Ann", uuid4(), LATER)
    assert found.identity == NAME, "the other data centre has it"


async def test_what_a_court_holds_outlives_its_day_until_it_is_released(world: World) -> None:
    """Evidence that is destroyed on schedule is destroyed evidence."""
    ended = datetime(2036, 2, 28, 16, tzinfo=UTC)
    assert await desk(world).hold(1, "court order 9", "Ann", uuid4(), LATER) == 1
    assert await desk(world).hold(1, "court order 9", "Ann", uuid4(), LATER) == 0
    await turn(world.chore(), ended)
    first, second = await data_keys.load_states(world.keys, [1, 2])
    assert (first.is_retained, second.is_retained) == (True, False)
    assert await desk(world).hold(1, "order 9 lifted", "Ben", uuid4(), ended, release=True) == 1
    await turn(world.chore(), ended)
    assert not (await world.one(1)).is_retained
    assert [act.act for act in await acts.load_acts(world.pools["platform"], ENDED, 10)] == ["release", "hold", "hold"]
    with pytest.raises(NothingRetainedError):
        await desk(world).read(1, "order 7", "Ann", uuid4(), ended)


async def test_what_ends_when_and_why_is_told(world: World) -> None:
    """What an operator, an auditor and the law ask for: how much, by which article, for what, until when."""
    assert (await desk(world).list_ending(find_horizon(LATER, 30), LATER)).days == []
    found = await desk(world).list_ending(find_horizon(LATER, 3_660), LATER)
    assert [(day.last_day, day.keys, day.held) for day in found.days] == [(date(2036, 2, 28), 2, 0)]
    late = await desk(world).list_ending(LATER, datetime(2036, 3, 1, tzinfo=UTC))
    assert (late.undetermined, late.overdue_keys, late.overdue_retentions) == (0, 0, 2)
    await desk(world).read(2, "order 7", "Ann", ID, LATER)
    report = await desk(world).report(LATER - timedelta(days=1))
    assert [(kept.basis, kept.keys) for kept in report.kept] == [("wechat/2 IDENTITY-AML", 2)]
    [basis] = report.bases
    assert basis.law.en == "Anti-Money Laundering Law art. 34"
    assert basis.purpose.zh
    assert [act.done_by for act in report.acts] == ["Ann"]
