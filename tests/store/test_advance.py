"""The driver against real databases: what it does when somebody is silent, refuses, withdraws or dies."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.plan import Plan, PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import Participant, TriesWithoutMark
from jiebang.participants.opening import open_participants
from jiebang.saga.audit import audit
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, Rechecked, Reply, Timing, step
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.saga.timeline import entries, first_entry
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.timelines import timeline_rows
from jiebang.usecases.driving.advance import Driver, Limits
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database, Pool

ORDER = (*(name for name in PARTICIPANTS.databases if name != "wallet"), "wallet")
PLAN = Plan(name="test/1", participants=ORDER, waves=(*(0 for _ in ORDER[1:]), 1))
TIMING = Timing(try_limit=timedelta(seconds=2), resend=timedelta(milliseconds=50))
LIMITS = Limits(round=timedelta(milliseconds=100), call=timedelta(seconds=1))
DOCUMENT = b"\x01" * 32


def now() -> datetime:
    return datetime.now(UTC)


class Wrapped:
    """A real participant that can be made to misbehave towards the driver."""

    def __init__(self, real: Participant) -> None:
        self._real, self.name = real, real.name
        self.before: Callable[[Op, Sequence[Order]], Any] | None = None
        self.calls: list[tuple[Op, int]] = []

    async def facts(self, accounts: Sequence[int]) -> Any:
        return await self._real.facts(accounts)

    async def look(self, accounts: Sequence[int]) -> Any:
        return await self._real.look(accounts)

    async def marks(self, after: int, upto: int, limit: int) -> Any:
        return await self._real.marks(after, upto, limit)

    async def try_again(self, orders: Sequence[Order], planned: PlannedOperation) -> Mapping[int, str]:
        assert isinstance(self._real, TriesWithoutMark)
        return await self._real.try_again(orders, planned)

    async def aclose(self) -> None:
        await self._real.aclose()

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        self.calls.append((op, len(orders)))
        if self.before is not None:
            await self.before(op, orders)
        return await self._real.apply(op, orders, planned)


class World:
    """Nine real databases, a driver, and accounts whose identity is bound."""

    def __init__(self, pools: Mapping[str, Pool], limits: Limits = LIMITS) -> None:
        self.pools = pools
        real = open_participants(PARTICIPANTS, pools, now, pepper=bytes(32))
        self.participants = {name: Wrapped(each) for name, each in real.items()}
        self.driver = Driver(
            pool=pools["platform"],
            participants=self.participants,
            plan_of=lambda _case: PLAN,
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
            recheck=self.recheck,
            clock=now,
            timing=TIMING,
            limits=limits,
        )

    async def recheck(self, cases: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
        """Read the versions alone: what blocks is the check's business, tested elsewhere."""
        accounts = [case.account_id for case in cases]
        batches = {name: await each.facts(accounts) for name, each in self.participants.items()}
        versions = {
            name: dict(zip(batch.accounts, batch.versions, strict=True)) for name, batch in batches.items() if batch
        }
        return {
            case.key: Rechecked({name: of.get(case.account_id, 0) for name, of in versions.items()}) for case in cases
        }

    async def people(self, first: int, count: int) -> list[int]:
        """Bind an identity to `count` new accounts everywhere."""
        ids = list(range(first, first + count))
        await self.pools["platform"].execute(
            "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
        )
        for name in PARTICIPANTS.databases:
            owner = name.split("_", maxsplit=1)[0]
            if owner == "identity":
                await self.pools[name].execute(
                    """INSERT INTO identity.account (account_id, state, level, document_type, sealed, document_index,
                           birth_date, region, changed_at)
                       SELECT id, 'active', 2, 'resident_id', '\\x00', $2, '1990-01-01', NULL, now()
                       FROM unnest($1::bigint[]) AS id""",
                    ids,
                    DOCUMENT,
                )
            else:
                await self.pools[name].execute(
                    f"INSERT INTO {owner}.account (account_id) SELECT unnest($1::bigint[])",
                    ids,
                )
        return ids

    async def ready(self, ids: Sequence[int]) -> list[Case]:
        """Open a case for each account and prove it."""
        due = now() + timedelta(hours=1)
        new = [
            NewCase(account_id=each, kind=Kind.REVOKE, plan="test/1", participants=len(ORDER), due_at=due)
            for each in ids
        ]
        opened_cases = await store.insert(self.pools["platform"], new, now(), [first_entry(now())])
        saves = []
        for case in opened_cases.values():
            proven = step(case, PLAN, Proven(1), now(), TIMING)
            saves.append(Save(cases=[proven.case], entries=entries(case, proven.case, (), (), now())))
        return list((await store.save(self.pools["platform"], saves, now())).kept().values())

    async def until_ended(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Case]:
        """Do what a worker's loop does, until every case has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await store.load_many(self.pools["platform"], keys)
                if all(
                    case.state in {State.DONE, State.ABORTED, State.REJECTED, State.WITHDRAWN}
                    for case in found.values()
                ):
                    return found
                late, self.driver.late = self.driver.late, []
                due = [case for case in found.values() if case.due_at is not None and case.due_at <= now()]
                await self.driver.drive(due, late)
                await asyncio.sleep(0.01)

    async def agree(self, ids: Sequence[int]) -> None:
        """Every database agrees with every case."""
        rows = {name: await each.look(ids) for name, each in self.participants.items()}
        assert audit(await store.load_of_accounts(self.pools["platform"], ids), rows, lambda _case: PLAN) == []


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    made = World(pools)
    yield made
    await made.driver.aclose()


@pytest.fixture
async def patient(pools: Mapping[str, Pool]) -> AsyncIterator[World]:
    """A world whose rounds wait for everybody, for tests of a single drive: a crowded machine is no silence."""
    made = World(pools, Limits(round=timedelta(seconds=20), call=timedelta(seconds=20)))
    yield made
    await made.driver.aclose()


async def test_a_batch_is_unbound_everywhere_with_one_call_a_participant_and_op(patient: World) -> None:
    """Else people wait for one another, and the platform pays for every one of them."""
    ids = await patient.people(1_000, 100)
    cases = await patient.ready(ids)
    await patient.driver.drive(cases)
    ended = await patient.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} == {State.DONE}
    for each in patient.participants.values():
        assert each.calls == [(Op.TRY, 100), (Op.CONFIRM, 100)]
    states = await patient.pools["identity_guiyang"].fetch(
        "SELECT DISTINCT state FROM identity.account WHERE account_id = ANY ($1)", ids
    )
    assert [row["state"] for row in states] == ["reclaimed"]
    await patient.agree(ids)


async def test_people_who_proved_themselves_one_by_one_are_saved_as_one(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody becomes ready in the same microsecond as another: was each saved alone, all would cost double."""
    cases = await patient.ready(await patient.people(1_500, 20))
    assert len({case.due_at for case in cases}) == 20
    groups: list[list[int]] = []
    save = store.save

    async def noted(db: Database, saves: Sequence[Save], at: datetime) -> store.SaveResult:
        groups.append([len(each.cases) for each in saves])
        return await save(db, saves, at)

    monkeypatch.setattr(store, "save", noted)
    await patient.driver.drive(cases)
    assert groups == [[20], [20], [20]]
    await patient.agree([case.account_id for case in cases])


async def test_the_case_that_a_save_refuses_is_the_one_that_waits(patient: World) -> None:
    """Were another of its crowd taken for it, its ops would leave unsaved, and the other's would not leave at all."""
    cases = await patient.ready(await patient.people(1_600, 5))
    bad = cases[3]
    await patient.pools["platform"].execute(
        """INSERT INTO platform.case_event (account_id, case_no, revision, at, entries)
           VALUES ($1, $2, $3, now(), '[{"what": "stray"}]')""",
        *bad.key,
        bad.revision + 1,
    )
    asked: set[int] = set()

    async def noted(_op: Op, orders: Sequence[Order]) -> None:
        asked.update(order.account_id for order in orders)

    patient.participants["social"].before = noted
    await patient.driver.drive(cases)
    found = await store.load_many(patient.pools["platform"], [case.key for case in cases])
    assert {key for key, case in found.items() if case.state is not State.DONE} == {bad.key}
    assert (found[bad.key].state, found[bad.key].revision) == (State.READY, bad.revision)
    assert bad.account_id not in asked, "nothing unsaved is sent"
    waits = found[bad.key].due_at
    assert waits is not None
    assert waits > now() + timedelta(seconds=5), "and it is not refused again at once"


async def test_each_kind_follows_its_own_plan_in_one_batch(patient: World) -> None:
    """Plans of one pack share its name: had a batch one plan a name, some would lose what others asked for."""
    short = msgspec.structs.replace(PLAN, participants=("social", "security"), waves=(0, 0))
    other = msgspec.structs.replace(short, participants=("security", "social"))
    plans = {Kind.REVOKE: PLAN, Kind.CLOSE_PAYMENT: short, Kind.CHANGE_IDENTITY: other}
    patient.driver._plan_of = lambda case: plans[case.kind]
    whole = await patient.ready(await patient.people(1_700, 4))
    mixed = [
        msgspec.structs.replace(case, kind=kind, marks="." * len(plans[kind].participants))
        for case, kind in zip(whole, (*plans, Kind.CLOSE_PAYMENT), strict=True)
    ]
    await patient.pools["platform"].executemany(
        "UPDATE platform.cases SET kind = $2, marks = $3 WHERE account_id = $1",
        [(case.account_id, case.kind.value, case.marks) for case in mixed],
    )
    await patient.driver.drive(mixed)
    ended = await store.load_many(patient.pools["platform"], [case.key for case in mixed])
    assert [(case.kind, case.state, case.marks) for case in ended.values()] == [
        (case.kind, State.DONE, "d" * len(case.marks)) for case in mixed
    ]
    assert patient.participants["gaming"].calls == [(Op.TRY, 1), (Op.CONFIRM, 1)]
    assert patient.participants["social"].calls.count((Op.TRY, 2)) == 1


async def test_one_refusal_rolls_back_that_person_alone(world: World) -> None:
    """Else one person's changed facts would cost others their turn, or leave them half unbound."""
    ids = await world.people(2_000, 10)
    cases = await world.ready(ids)
    await world.pools["social"].execute("UPDATE social.account SET facts_version = 2 WHERE account_id = 2005")
    versions = world.recheck

    async def stale(cases: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
        return {key: Rechecked(dict(told.versions) | {"social": 1}) for key, told in (await versions(cases)).items()}

    world.driver._recheck = stale
    await world.driver.drive(cases)
    ended = await world.until_ended([case.key for case in cases])
    assert {key[0] for key, case in ended.items() if case.state is State.ABORTED} == {2_005}
    assert ended[2_005, 1].reason == "VERSION-CHANGED"
    row = await world.pools["identity_shenzhen"].fetchrow("SELECT state FROM identity.account WHERE account_id = 2005")
    assert row is not None
    assert row["state"] == "active"
    await world.agree(ids)


async def test_silence_before_the_commit_point_rolls_everything_back(world: World) -> None:
    """Else a dead database would leave people half unbound."""
    ids = await world.people(3_000, 5)
    cases = await world.ready(ids)

    async def silent(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            raise OSError

    world.participants["gaming"].before = silent
    ended = await world.until_ended([case.key for case in cases])
    assert {(case.state, case.reason) for case in ended.values()} == {(State.ABORTED, "TRY-TIMED-OUT")}
    await world.agree(ids)


async def test_silence_after_the_commit_point_is_asked_again_until_done(world: World) -> None:
    """Else a committed person would stay bound in one database."""
    ids = await world.people(4_000, 5)
    cases = await world.ready(ids)
    silences = iter(range(6))

    async def silent(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.CONFIRM and next(silences, None) is not None:
            raise TimeoutError

    world.participants["merchant"].before = silent
    ended = await world.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} == {State.DONE}
    await world.agree(ids)


async def test_a_slow_answer_joins_a_later_round(world: World) -> None:
    """Else one slow network would time out people whose answer had only been late."""
    ids = await world.people(5_000, 5)
    cases = await world.ready(ids)

    async def slow(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            await asyncio.sleep(0.15)

    world.participants["enterprise"].before = slow
    ended = await world.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} == {State.DONE}
    await world.agree(ids)


async def test_a_poison_case_does_not_stop_its_batch(world: World) -> None:
    """Else one broken row would stop everybody whom a worker holds with it."""
    ids = await world.people(6_000, 16)
    cases = await world.ready(ids)

    async def poisoned(op: Op, orders: Sequence[Order]) -> None:
        if op is Op.TRY and any(order.account_id == 6_007 for order in orders):
            message = "a row that breaks the statement"
            raise ValueError(message)

    world.participants["social"].before = poisoned
    ended = await world.until_ended([case.key for case in cases])
    assert {key[0] for key, case in ended.items() if case.state is not State.DONE} == {6_007}
    assert ended[6_007, 1].state is State.ABORTED
    await world.agree(ids)


async def test_another_worker_goes_on_from_what_was_saved(world: World, pools: Mapping[str, Pool]) -> None:
    """Else a worker that dies after a save leaves its people half unbound for ever."""
    ids = await world.people(7_000, 8)
    cases = await world.ready(ids)

    async def dies(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.CONFIRM:
            raise asyncio.CancelledError

    world.participants["wallet"].before = dies
    driving = asyncio.create_task(world.driver.drive(cases))
    with pytest.raises(asyncio.CancelledError):
        await driving
    other = World(pools)
    ended = await other.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} == {State.DONE}
    await other.agree(ids)


async def test_a_wish_to_withdraw_before_the_commit_point_wins(world: World) -> None:
    """Else a person told "withdrawn" would lose their name anyway."""
    ids = await world.people(8_000, 4)
    cases = await world.ready(ids)

    async def wishes(op: Op, orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            keys = [(order.account_id, order.case_no) for order in orders if order.account_id % 2]
            assert await store.wish_withdraw(world.pools["platform"], keys, now()) == set(keys)

    world.participants["wallet"].before = wishes
    await world.driver.drive(cases)
    ended = await world.until_ended([case.key for case in cases])
    assert {key[0] for key, case in ended.items() if case.state is State.ABORTED} == {8_001, 8_003}
    assert {case.reason for case in ended.values() if case.state is State.ABORTED} == {"WITHDRAWN"}
    assert await store.wish_withdraw(world.pools["platform"], [(8_000, 1)], now()) == set()
    await world.agree(ids)


async def test_a_case_on_its_way_rests_without_moving_in_the_index(world: World) -> None:
    """Moving it for so short a time cost a third of a save. Were it not at rest, others would take it up meanwhile."""
    platform, cases = world.pools["platform"], await world.ready(await world.people(8_500, 3))
    keys = {case.key for case in cases}
    places: list[asyncpg.Record] = []
    due: list[set[tuple[int, int]]] = []

    async def read(at: datetime) -> set[tuple[int, int]]:
        return {case.key for case in await store.load_due(platform, range(256), at, 10_000)} & keys

    async def looked(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            until = (await store.load_many(platform, keys))[min(keys)].due_at
            assert until is not None
            places.extend(await platform.fetch("SELECT due_at FROM platform.cases WHERE account_id >= 8500"))
            before = until - timedelta(microseconds=1)
            due.append(await read(before))
            due.append(await read(until))
            await store.wish_withdraw(platform, [min(keys)], before)
            due.append(await read(before))

    world.participants["wallet"].before = looked
    await world.driver.drive(cases)
    assert {row["due_at"] for row in places} == {case.due_at for case in cases}
    assert due == [set(), keys, {min(keys)}]
    ended = await world.until_ended([case.key for case in cases])
    assert [ended[key].state for key in sorted(keys)] == [State.ABORTED, State.DONE, State.DONE]


async def test_a_case_kept_waiting_moves_to_when_it_is_looked_at_next(world: World) -> None:
    """Else whoever waits for a dead network would be read again with every look for due cases."""
    platform, (case,) = world.pools["platform"], await world.ready(await world.people(8_600, 1))

    async def silent(op: Op, _orders: Sequence[Order]) -> None:
        if op is Op.TRY:
            raise OSError

    world.participants["gaming"].before = silent
    await world.driver.drive([case])
    await world.driver.drive((await store.load_many(platform, [case.key])).values())
    for waits in range(2):
        after = (await store.load_many(platform, [case.key]))[case.key]
        raw = await platform.fetchrow("SELECT due_at FROM platform.cases WHERE account_id = 8600")
        assert raw is not None
        if after.attempt:
            assert raw["due_at"] == after.due_at
            break
        assert not waits, "an unanswered case is asked again"
        await asyncio.sleep(TIMING.resend.total_seconds())
        await world.driver.drive([after])
    world.participants["gaming"].before = None
    await world.until_ended([case.key])


async def test_two_workers_on_the_same_cases_do_no_harm(world: World, pools: Mapping[str, Pool]) -> None:
    """Else a lease that two workers believe they hold would unbind somebody twice, or half."""
    ids = await world.people(9_000, 40)
    cases = await world.ready(ids)
    other = World(pools)
    await asyncio.gather(world.driver.drive(cases), other.driver.drive(cases))
    ended = await world.until_ended([case.key for case in cases])
    assert {case.state for case in ended.values()} == {State.DONE}
    await world.agree(ids)
    await other.driver.aclose()


async def test_the_timeline_tells_every_step_once(patient: World) -> None:
    """Else a reviewer could not say what happened to a person, or would be told things twice."""
    (account_id,) = await patient.people(10_000, 1)
    (case,) = await patient.ready([account_id])
    await patient.driver.drive([case])
    rows = await timeline_rows.read_after(patient.pools["platform"], {case.key: 0})
    assert [row.revision for row in rows] == list(range(1, len(rows) + 1))
    told = [entry for row in rows for entry in row.entries]
    assert [entry["state"] for entry in told if entry["what"] == "state"] == [
        "open",
        "ready",
        "trying",
        "confirming",
        "done",
    ]
    for op in ("try", "confirm"):
        for what in ("send", "answer"):
            assert sorted(
                entry["participant"] for entry in told if entry["what"] == what and entry["op"] == op
            ) == sorted(ORDER)
    message = await patient.pools["platform"].fetchrow(
        "SELECT template FROM platform.outbox WHERE account_id = $1", account_id
    )
    assert message is not None
    assert message["template"] == "case_done"


async def test_an_account_has_one_live_case_however_many_ask_at_once(world: World) -> None:
    """Else two cases of one person would fight over the same rows."""
    ids = await world.people(11_000, 20)
    asked = await asyncio.gather(*(world.ready(ids) for _ in range(4)))
    assert sorted(case.account_id for cases in asked for case in cases) == ids


async def test_a_stale_save_changes_nothing(world: World) -> None:
    """Else a worker that slept would overwrite what another one decided."""
    (account_id,) = await world.people(12_000, 1)
    (case,) = await world.ready([account_id])
    stale = msgspec.structs.replace(case, state=State.REJECTED, reason="X", due_at=None, revision=case.revision)
    saved = await store.save(world.pools["platform"], [Save(cases=[stale], entries=[first_entry(now())])], now())
    assert saved.kept() == {}
