"""Keys: two locks on each, the master's gone within the minutes of the pack, the law's gone on its day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.participants.identity.reclaimed import ReclaimedIdentityTable
from jiebang.policy import packs
from jiebang.saga.audit import Breach
from jiebang.store.postgres.faults import UNANSWERED
from jiebang.store.retention import data_keys
from jiebang.store.retention.ended_cases import EndedCase
from jiebang.usecases.policy import lifecycle
from jiebang.usecases.retention.audit import KeyAudit
from jiebang.usecases.retention.destroy import KEYS_OVERDUE, SilentIdentitiesError
from jiebang.usecases.retention.second_lock import SecondLock
from tests.rows import BOUND, insert
from tests.store.key_world import CASE, CENTRES, ENDED, HELD, LATER, LOCKS, NAME, World, open_world, turn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> World:
    return await open_world(pools)


async def test_a_key_goes_within_the_minutes_of_its_pack_and_law_keeps_the_other_lock(world: World) -> None:
    """What a reclaimed name's owner was told: from then on nobody lives with it, and law has its part until a day."""
    await world.take_back([1])
    assert await world.read_with(LOCKS.master, "wrapped", 1) == NAME.name
    await turn(world.chore())
    state = await world.one(1)
    assert state.destroyed_at is not None
    assert state.destroy_at is not None
    assert state.destroyed_at <= state.destroy_at == ENDED + timedelta(minutes=5)
    assert await world.read_with(LOCKS.master, "wrapped", 1) is None
    assert await world.read_with(LOCKS.retention, "retained", 1) == NAME.name
    assert (state.kept_under, state.last_day) == ("wechat/2 IDENTITY-AML", date(2036, 2, 28))
    basis = await world.keys.fetchrow("SELECT law_en, purpose_zh, time_zone FROM keys.retention_basis")
    assert basis is not None
    assert (basis["law_en"], basis["time_zone"]) == ("Anti-Money Laundering Law art. 34", "Asia/Shanghai")
    kept = [await world.pools[name].fetchval("SELECT count(*) FROM identity.retained") for name in CENTRES]
    assert kept == [1, 1], "an identity bound later must not overwrite what law keeps"


async def test_a_living_name_keeps_its_key(world: World) -> None:
    """A key destroyed by mistake is an identity lost for ever: to its owner, and to the law."""
    await world.bind([1, 2, 3, 4])
    await world.end_cases([1], kind="close_payment")  # which takes no name back
    await insert(
        world.pools["platform"],
        "platform.cases",
        [
            {"account_id": 2, "case_no": 1, "bucket": 1, "kind": "revoke", "state": "withdrawn", "plan": "wechat/2"}
            | {"marks": "...", "created_at": ENDED, "withdraw_at": ENDED, "ended_at": ENDED}
        ],
    )
    await world.pools["identity_guiyang"].execute("UPDATE identity.account SET epoch = 2 WHERE account_id = 3")
    await world.end_cases([3, 4])  # 3: an epoch was raised and no new key made; 4: never reclaimed anywhere
    await turn(world.chore(), ENDED + timedelta(days=7_000))
    for account in (1, 2, 3, 4):
        assert (await world.one(account)).destroyed_at is None


async def test_a_swapped_identity_loses_its_old_key_alone(world: World) -> None:
    """A new name under a new key must live on when the old one goes."""
    await world.take_back([1])
    await world.bind([1], epoch=2)
    for name in CENTRES:
        await world.pools[name].execute(
            """UPDATE identity.account SET state = 'active', epoch = 2, level = 2, document_type = 'passport',
                   document_index = $1, birth_date = '1990-12-31', key_destroy_at = NULL""",
            BOUND["document_index"],
        )
    await turn(world.chore())
    old, new = await data_keys.load_states(world.keys, [1])
    assert old.destroyed_at is not None
    assert (new.destroy_at, new.destroyed_at, new.is_retained) == (None, None, True)


async def test_what_law_kept_goes_when_its_last_day_ends_in_shanghai(world: World) -> None:
    """A day early breaks one law, a day late another."""
    await world.take_back([1])
    await turn(world.chore())
    midnight = datetime(2036, 2, 28, 16, tzinfo=UTC)
    await turn(world.chore(), midnight - timedelta(seconds=1))
    assert (await world.one(1)).is_retained
    await world.keys.execute("UPDATE keys.data_key SET held_at = $1", ENDED)
    await turn(world.chore(), midnight)
    assert (await world.one(1)).is_retained, "what a court holds stays"
    await world.keys.execute("UPDATE keys.data_key SET held_at = NULL")
    await turn(world.chore(), midnight)
    state = await world.one(1)
    assert (state.is_retained, state.retention_ended_at) == (False, midnight)
    kept = [await world.pools[name].fetchval("SELECT count(*) FROM identity.retained") for name in CENTRES]
    assert kept == [0, 0]


async def test_a_worker_that_dies_anywhere_leaves_nothing_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was forgotten because a process was killed is a promise broken in silence."""
    await world.take_back([1, 2, 3])

    class Killed(Exception):  # noqa: N818 - it is no error of ours
        pass

    async def die(*_args: Any, **_named: Any) -> Any:
        raise Killed

    for step in ("read_progress", "add_bases", "queue", "note_progress", "destroy_queued", "end_retentions"):
        with monkeypatch.context() as patch:
            patch.setattr(data_keys, step, die)
            with pytest.raises(Killed):
                await world.chore()(HELD, LATER)
    await turn(world.chore())
    assert all(state.destroyed_at for state in await data_keys.load_states(world.keys, [1, 2, 3]))


async def test_one_data_centre_is_enough_and_none_is_waited_for(world: World) -> None:
    """A data centre that is cut off, or restored from an old backup, must not keep a key alive: the case is done."""
    await world.bind([1])
    await world.reclaim([1], at=["identity_guiyang"])
    await world.end_cases([1])
    with pytest.raises(SilentIdentitiesError):
        await world.chore(cut=CENTRES)(HELD, LATER)
    assert (await world.one(1)).destroy_at is None
    await turn(world.chore(cut=["identity_shenzhen"]))
    assert (await world.one(1)).destroyed_at is not None
    assert issubclass(TimeoutError, UNANSWERED)


async def test_cases_of_a_pack_that_said_nothing_of_retention_are_not_forgotten(world: World) -> None:
    """Done before this version: their keys go too, and law's part has the date of the newest version that gives one."""
    text, _ = packs.text("wechat")
    older = re.sub(r"\nretentions:\n(?:[ #].*\n|\n)+", "\n", text.replace("version: 2", "version: 1", 1))
    await lifecycle.add(world.pools["platform"], PARTICIPANTS, older, "wechat.yaml", "Ann", ENDED)
    await world.registry.know([EndedCase(**CASE, plan="wechat/1")])
    assert world.registry.pack("wechat/1").retentions is None
    await world.take_back([1], plan="wechat/1")
    await world.take_back([2], plan="gone/1")  # a pack that does not load any more: what law keeps of it nobody knows
    await turn(world.chore())
    first, second = await world.one(1), await world.one(2)
    assert (first.kept_under, first.last_day) == ("wechat/2 IDENTITY-AML", date(2036, 2, 28))
    assert first.destroyed_at is not None
    assert second.destroyed_at is not None
    assert (second.is_retained, second.last_day, second.retention_ends_at) == (True, None, None)
    gone = text.replace("name: wechat", "name: gone", 1)
    await lifecycle.add(world.pools["platform"], PARTICIPANTS, gone, "gone.yaml", "Ann", ENDED)
    await world.registry.refresh()
    chore = world.chore()
    await turn(chore)
    assert (await world.one(2)).kept_under == "gone/2 IDENTITY-AML", "determined as soon as a version says it"


async def test_keys_of_before_get_the_second_lock_first_and_go_then(world: World) -> None:
    """An upgrade that destroyed the one lock there was would destroy what law keeps with it."""
    await world.bind(range(1, 8), locks=1)
    await world.reclaim([1, 2])
    await world.end_cases([1, 2])
    await turn(world.chore())
    assert (await world.one(1)).destroyed_at is None, "it waits for its second lock"
    await world.keys.execute("UPDATE keys.data_key SET wrapped = decode(repeat('00', 60), 'hex') WHERE account_id = 7")
    second = SecondLock(world.keys, LOCKS, page=3)
    turns = [await second(HELD, LATER) for _ in range(4)]
    assert turns == [3, 3, 0, 0], "the last does not open, is told, and keeps nobody"
    for account in range(1, 7):
        assert await world.read_with(LOCKS.retention, "retained", account) == NAME.name
    await turn(world.chore())
    destroyed = [
        state.account_id for state in await data_keys.load_states(world.keys, range(1, 8)) if state.destroyed_at
    ]
    assert destroyed == [1, 2]
    assert await world.read_with(LOCKS.master, "wrapped", 3) == NAME.name


async def test_a_thousand_keys_take_one_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys one by one would fall behind the cases of a busy day."""
    accounts = range(1, 2_501)
    await world.bind(accounts)
    await world.reclaim(accounts)
    await world.end_cases(accounts)
    await turn(world.chore())  # they ended at one moment, and are queued together
    done = await data_keys.load_states(world.keys, accounts)
    assert all(state.destroyed_at for state in done)
    await world.keys.execute("UPDATE keys.data_key SET wrapped = decode(repeat('00', 60), 'hex'), destroyed_at = NULL")
    counts = list[int]()
    destroy = data_keys.destroy_queued

    async def count(*args: Any) -> Any:
        found = await destroy(*args)
        counts.append(len(found))
        return found

    monkeypatch.setattr(data_keys, "destroy_queued", count)
    await turn(world.chore())
    assert counts == [1_000, 1_000, 500, 0]


async def test_the_audit_finds_what_the_queue_forgot(world: World) -> None:
    """Whoever trusts the queue to audit the queue finds nothing, ever."""
    await world.bind([1, 2, 3])
    await world.reclaim([1, 2])  # and no case that ended is on record: 2's still runs
    ended = datetime(2036, 2, 28, 16, tzinfo=UTC)

    async def find(at: datetime, *accounts: int) -> list[tuple[str, int]]:
        identities = {name: ReclaimedIdentityTable(world.pools[name]) for name in CENTRES}
        audit = KeyAudit(world.keys, identities, lambda: at)
        return [(each.breach, each.account_id) for each in await audit.find_late(accounts, live=[2])]

    assert await find(ENDED + timedelta(minutes=6), 1, 2, 3) == []
    late = ENDED + timedelta(minutes=6, seconds=1)
    assert await find(late, 1, 2, 3) == [(Breach.KEY_NOT_DESTROYED, 1)]
    await world.end_cases([1])
    await turn(world.chore())
    assert await find(late, 1, 2, 3) == []
    assert await find(ended, 1) == []
    assert await find(ended + timedelta(minutes=1, seconds=1), 1) == [(Breach.KEPT_TOO_LONG, 1)]
    await world.keys.execute("UPDATE keys.data_key SET held_at = now()")
    assert await find(ended + timedelta(days=30), 1) == []
    assert await find(ended) == []


async def test_a_key_that_is_late_is_counted_until_it_is_gone(world: World) -> None:
    """A promise that is broken must not be broken in silence."""
    await world.take_back([1])
    chore = world.chore()
    late = ENDED + timedelta(minutes=6, seconds=1)
    await chore.queue_ended(late)
    await world.keys.execute("UPDATE keys.data_key SET retained = NULL")  # which keeps it from being destroyed
    assert await chore(HELD, late) == 0
    assert KEYS_OVERDUE.labels("master")._value.get() == 1
    assert await chore(frozenset({1}), late) == 0
    assert KEYS_OVERDUE.labels("master")._value.get() == 0, "another worker counts now"
    assert await SecondLock(world.keys, LOCKS)(HELD, late) == 1
    await turn(chore, late)
    assert KEYS_OVERDUE.labels("master")._value.get() == 0
