"""The life of a policy on real databases: two people, all processes at once, never half a version, decisions again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.errors import (
    AlreadyInForceError,
    KindNotOfferedError,
    NameUnusableError,
    NoRecordError,
    NothingToRollBackError,
    PackExistsError,
    PackInvalidError,
    RecordUnreadableError,
    SamePersonError,
    TooSoonError,
    UnknownPackError,
)
from jiebang.model.origin import SERVICE, Origin
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.saga.coordinator import Timing
from jiebang.store.cases import cases
from jiebang.store.cases.idempotency import Claim, KeptAnswer
from jiebang.store.checks.records import CheckRecordStore, CheckStep
from jiebang.store.policy import packs as store
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.submit import Submission, submit
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.request import CheckRequest
from jiebang.usecases.driving.advance import Driver, Limits
from jiebang.usecases.policy import lifecycle
from jiebang.usecases.policy.registry import LEAD, PackRegistry
from jiebang.usecases.policy.shadow import Shadow
from tests.acceptance.api_world import World, made
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

TEXT, FILE = packs.text("wechat")
START: Final = datetime(2026, 3, 1, 4, tzinfo=UTC)
TABLES: Final = "platform.policy_pack, platform.policy_activation, platform.policy_state, platform.policy_shadow"
TITLES: Final = ("零钱余额未清零", "当前设备不是主设备")
"""The titles of two rules, which the second version marks: an answer that mixed the two would show."""


def version(number: int, *changes: tuple[str, str]) -> str:
    """The text of a later version of our pack."""
    text = TEXT
    for old, new in (("\nversion: 2\n", f"\nversion: {number}\n"), *changes):
        assert old in text, old
        text = text.replace(old, new)
    return text


MARKED: Final = version(3, *((title, f"{title}二") for title in TITLES))
THIRD: Final = version(4, ("identity_change_days: {value: 90", "identity_change_days: {value: 120"))
BROKEN: Final = version(5, ("when: balance_fen > 0", "when: balance_fan > 0"))
USELESS: Final = version(6, ("when: balance_fen > 0", "when: balance_fen < 0"))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def db(pools: Mapping[str, Pool], clock: Clock) -> Pool:
    """A store with our pack in force."""
    await pools["platform"].execute(f"TRUNCATE {TABLES}")
    await lifecycle.install(pools["platform"], PARTICIPANTS, {"wechat": (TEXT, FILE)}, "wechat", clock())
    return pools["platform"]


async def registry(db: Pool, clock: Clock) -> PackRegistry:
    """What another process would know."""
    found = PackRegistry(db, PARTICIPANTS, clock)
    await found.refresh()
    return found


async def activated(db: Pool, text: str, clock: Clock) -> str:
    """Bring a version into force the usual way."""
    pack, _ = await lifecycle.add(db, PARTICIPANTS, text, "new.yaml", "Ann", clock())
    await lifecycle.activate(db, PARTICIPANTS, pack.id, "Ann", clock())
    await lifecycle.activate(db, PARTICIPANTS, pack.id, "Ben", clock())
    clock.now += LEAD
    return pack.id


async def test_both_people_are_told_where_protection_weakens(db: Pool, clock: Clock) -> None:
    """A second person approves what they are shown: one number less among a thousand lines is not seen."""
    weaker = version(7, ("identity_change_days: {value: 90", "identity_change_days: {value: 30"))
    pack, _ = await lifecycle.add(db, PARTICIPANTS, weaker, "new.yaml", "Ann", clock())
    told = {one.path for one in await lifecycle.compare_with_force(db, PARTICIPANTS, pack)}
    assert told == {"rules[ID-RECENT-CHANGE].when"}
    for person in ("Ann", "Ben"):
        done = await lifecycle.activate(db, PARTICIPANTS, "wechat/7", person, clock())
        assert {one.path for one in done.weakenings} == told
    clock.now += LEAD
    assert (await lifecycle.roll_back(db, PARTICIPANTS, "Ann", clock())).weakenings == []


async def test_a_version_in_force_that_falls_short_today_goes_on_and_cannot_come_back(db: Pool, clock: Clock) -> None:
    """An upgrade must not stop an installation for a number that it was allowed; nor let it be chosen again."""
    bad = version(8, ("proof_tries: {value: 5", "proof_tries: {value: 40000"))
    with pytest.raises(PackInvalidError):
        await lifecycle.add(db, PARTICIPANTS, bad, "new.yaml", "Ann", clock())
    await db.execute(
        "INSERT INTO platform.policy_pack SELECT 'wechat/8', 'wechat', 8, $1, sha256(convert_to($1, 'UTF8')),"
        " added_by, added_at FROM platform.policy_pack WHERE pack = 'wechat/2'",
        bad,
    )
    with pytest.raises(PackInvalidError):
        await lifecycle.activate(db, PARTICIPANTS, "wechat/8", "Ann", clock())
    await db.execute("UPDATE platform.policy_state SET pack = 'wechat/8', before = pack, revision = revision + 1")
    found = (await registry(db, clock)).in_force()
    assert (found.id, found.proofs[Kind.REVOKE].tries) == ("wechat/8", 10)


async def test_many_that_start_at_once_install_once(pools: Mapping[str, Pool], clock: Clock) -> None:
    """A roll-out starts all processes at the same moment; one of them failing would stop it."""
    platform = pools["platform"]
    await platform.execute(f"TRUNCATE {TABLES}")
    shipped = {"wechat": (TEXT, FILE)}
    await asyncio.gather(*(lifecycle.install(platform, PARTICIPANTS, shipped, "wechat", clock()) for _ in range(6)))
    assert (await registry(platform, clock)).in_force().id == "wechat/2"
    assert [(one.action, one.pack) for one in await store.load_history(platform, 9)] == [("install", "wechat/2")]
    changed = {"wechat": (TEXT.replace("撤销实名策略", "另一个"), FILE)}
    await lifecycle.install(platform, PARTICIPANTS, changed, "wechat", clock())
    assert await lifecycle.read_pack_text(platform, "wechat/2") == TEXT, "a version in the store never changes"


@pytest.mark.parametrize("again", ["Ann", " ann ", "ANN", "Ａｎｎ", "Аnn", "Ánn", "An n", "A\u0578n"])
async def test_one_person_is_never_two(db: Pool, clock: Clock, again: str) -> None:
    """Four eyes are the only thing between a typing error and everybody's rights."""
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", clock())
    first = await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ann", clock())
    assert (first.in_force_since, first.replaces) == (None, "wechat/2")
    with pytest.raises(SamePersonError):
        await lifecycle.activate(db, PARTICIPANTS, "wechat/3", again, clock())
    assert (await registry(db, clock)).in_force().id == "wechat/2"
    with pytest.raises(asyncpg.CheckViolationError):  # the schema, too, whatever a bug would write
        await db.execute("UPDATE platform.policy_activation SET approved_by = 'ANN', approved_at = proposed_at")
    second = await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ben", clock())
    assert (second.proposed_by, second.approved_by) == ("Ann", "Ben")


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x00b", "Jiebang", "\u200b"])
async def test_nobody_acts_without_a_name(db: Pool, clock: Clock, name: str) -> None:
    """A history that names nobody answers no question."""
    with pytest.raises(NameUnusableError):
        await lifecycle.activate(db, PARTICIPANTS, "wechat/2", name, clock())


async def test_of_many_who_approve_at_once_one_does(db: Pool, clock: Clock) -> None:
    """Ten approvals of three versions in the same moment: one comes into force."""
    for text in (MARKED, THIRD, version(7)):
        pack, _ = await lifecycle.add(db, PARTICIPANTS, text, "new.yaml", "Ann", clock())
        await lifecycle.activate(db, PARTICIPANTS, pack.id, "Ann", clock())
    names = [f"wechat/{number}" for number in (3, 4, 7)]
    answers = await asyncio.gather(
        *(lifecycle.activate(db, PARTICIPANTS, names[at % 3], f"Approver {at}", clock()) for at in range(10)),
        return_exceptions=True,
    )
    won = [one for one in answers if isinstance(one, lifecycle.ActivationStatus)]
    assert len(won) == 1
    assert all(isinstance(one, TooSoonError) for one in answers if not isinstance(one, lifecycle.ActivationStatus))
    history = await store.load_history(db, 99)
    assert [one.pack for one in history if one.in_force_since is not None] == [won[0].pack, "wechat/2"]
    assert {one.pack for one in history if one.lapsed_at is not None} == set(names) - {won[0].pack}
    clock.now += LEAD
    found = await registry(db, clock)
    assert found.in_force().id == won[0].pack


async def test_of_many_who_propose_at_once_the_second_approves(db: Pool, clock: Clock) -> None:
    """Two colleagues who press the button together have agreed; nobody is told an error for it."""
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", clock())
    answers = await asyncio.gather(
        *(lifecycle.activate(db, PARTICIPANTS, "wechat/3", name, clock()) for name in ("Ann", "Ben"))
    )
    assert sorted(one.in_force_since is not None for one in answers) == [False, True]
    with pytest.raises(TooSoonError):
        await lifecycle.roll_back(db, PARTICIPANTS, "Cid", clock())
    clock.now += LEAD
    with pytest.raises(AlreadyInForceError):
        await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Cid", clock())


async def test_a_bad_version_never_comes_into_force(db: Pool, clock: Clock) -> None:
    """Not through the door, and not past it: written into the table, it is refused by who activates and who reads."""
    for text in (BROKEN, USELESS):
        with pytest.raises(PackInvalidError) as caught:
            await lifecycle.add(db, PARTICIPANTS, text, "new.yaml", "Ann", clock())
        assert caught.value.fields["problems"][0]["line"] > 1
    await store.add(db, [store.NewPack("wechat", 4, BROKEN), store.NewPack("wechat", 5, USELESS)], "Mallory", clock())
    for pack in ("wechat/4", "wechat/5"):
        with pytest.raises(PackInvalidError):
            await lifecycle.activate(db, PARTICIPANTS, pack, "Ann", clock())
    with pytest.raises(PackInvalidError):
        await lifecycle.start_shadow(db, PARTICIPANTS, "wechat/4", "Ann", clock())
    with pytest.raises(UnknownPackError):
        await lifecycle.activate(db, PARTICIPANTS, "wechat/77", "Ann", clock())
    found = await registry(db, clock)
    await db.execute("UPDATE platform.policy_state SET revision = revision + 1, activation_no = 2, pack = 'wechat/4'")
    await found.refresh()
    assert found.in_force().id == "wechat/2", "what is known to work stays in force"
    with pytest.raises(UnknownPackError):
        await registry(db, clock)  # a process with nothing to go on with does not start


async def test_a_version_never_changes(db: Pool, clock: Clock) -> None:
    """Cases and receipts name it: another text under the same name would rewrite what was decided."""
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", clock())
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ben", clock())
    with pytest.raises(PackExistsError) as caught:
        await lifecycle.add(
            db, PARTICIPANTS, MARKED.replace("零钱余额未清零二", "零钱余额未清零"), "new.yaml", "Ben", clock()
        )
    assert caught.value.fields["added_by"] == "Ann"
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("UPDATE platform.policy_pack SET text = text || ' ' WHERE pack = 'wechat/3'")


async def test_rolling_back_goes_down_the_stack(db: Pool, clock: Clock) -> None:
    """One person is enough in an emergency; going back twice must not come back to what was wrong."""
    with pytest.raises(NothingToRollBackError):
        await lifecycle.roll_back(db, PARTICIPANTS, "Cid", clock())
    await activated(db, MARKED, clock)
    await activated(db, THIRD, clock)
    await lifecycle.add(db, PARTICIPANTS, version(7), "new.yaml", "Ann", clock())
    await lifecycle.activate(db, PARTICIPANTS, "wechat/7", "Ann", clock())
    for wanted in ("wechat/3", "wechat/2"):
        await lifecycle.roll_back(db, PARTICIPANTS, "Cid", clock())
        clock.now += LEAD
        assert (await registry(db, clock)).in_force().id == wanted
    with pytest.raises(NothingToRollBackError):
        await lifecycle.roll_back(db, PARTICIPANTS, "Cid", clock())
    # What was proposed against another version must be proposed anew: Ben's word alone is not two people's.
    assert (await lifecycle.activate(db, PARTICIPANTS, "wechat/7", "Ben", clock())).in_force_since is None


async def test_all_processes_switch_within_a_second_and_together(db: Pool) -> None:
    """No restart, and no moment at which one process opens cases that another has never heard of."""

    def now() -> datetime:
        return datetime.now(UTC)

    others = [await registry(db, now) for _ in range(2)]  # type: ignore[arg-type]
    loops = [asyncio.create_task(one.run()) for one in others]
    try:
        await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", now())
        await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ann", now())
        done = await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ben", now())
        assert done.in_force_since is not None
        assert done.in_force_since - now() < timedelta(seconds=1)
        async with asyncio.timeout(PATIENCE_S):
            while any(one.in_force().id == "wechat/2" for one in others):  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
        assert now() >= done.in_force_since
    finally:
        for loop in loops:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    """A hundred people whom nothing stands in the way of."""
    found = made(pools, Path(tmp_path_factory.mktemp("issuer")))
    await found.people(1, 100)
    return found


class Process(msgspec.Struct):
    """What one process of the platform holds."""

    registry: PackRegistry
    checker: Checker
    context: Context
    shadow: Shadow


@asynccontextmanager
async def process(world: World, db: Pool, clock: Clock) -> AsyncIterator[Process]:
    """Join the real parts as `app` does."""
    known = await registry(db, clock)
    shadow = Shadow(db, known.shadow)
    checker = Checker(
        registry=PARTICIPANTS,
        pack=known.in_force,
        participants=world.participants,
        platform=db,
        case_ids=world.ids,
        clock=clock,
        limit=timedelta(seconds=10),
        shadow=shadow,
    )
    context = msgspec.structs.replace(
        world.context,
        check=checker,
        examine=checker.examine,
        pack=known.in_force,
        plan_of=known.plan_of,
        pack_named=known.pack,
        know=known.know,
        clock=clock,
        records=CheckRecordStore(b"r" * 32, lambda: os.urandom(16)),
    )
    yield Process(known, checker, context, shadow)


async def opened(at: Process, account: int) -> Case:
    """Submit a case."""
    ends = START + timedelta(days=900)
    claim = Claim(
        caller="t", route="t", key=str(uuid4()), body_hash=b"", answers_key=bytes(32), expires_at=ends, holder=uuid4()
    )
    asked = Submission(account_id=account, kind=Kind.REVOKE, origin=Origin(f"phone-{account}"))
    await submit(at.context, asked, claim, lambda _found: KeptAnswer(201, b"{}"))
    return (await cases.load_live(at.context.platform, [account]))[account]


async def test_no_check_is_answered_with_half_a_version(world: World, db: Pool, clock: Clock) -> None:
    """Checks without end while versions change under them: each answer is of one version to its last word."""
    await world.pools["wallet"].execute("UPDATE wallet.account SET balance_fen = 1 WHERE account_id BETWEEN 1 AND 40")
    clock.now = datetime.now(UTC)
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", clock())
    async with process(world, db, clock) as at:
        seen: set[str] = set()
        going = True

        async def ask(first: int) -> None:
            while going:
                requests = [CheckRequest(account, Origin("elsewhere")) for account in range(first, first + 8)]
                for answer in await at.checker.check(requests, Kind.REVOKE):
                    seen.add(answer.pack)
                    titles = {one.code: one.title.zh for one in answer.blockers}
                    marks = {titles[code].endswith("二") for code in ("PAY-BALANCE", "SEC-DEVICE")}
                    assert marks == {answer.pack == "wechat/3"}

        askers = [asyncio.create_task(ask(first)) for first in (1, 9, 17, 25)]
        for turn in range(6):
            if turn % 2:
                await lifecycle.roll_back(db, PARTICIPANTS, "Cid", clock())
            else:
                await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ann", clock())
                await lifecycle.activate(db, PARTICIPANTS, "wechat/3", "Ben", clock())
            await at.registry.refresh()
            await asyncio.sleep(0.03)
            clock.now += LEAD
            await asyncio.sleep(0.03)
        going = False
        await asyncio.gather(*askers)
        assert seen == {"wechat/2", "wechat/3"}
    await world.pools["wallet"].execute("UPDATE wallet.account SET balance_fen = 0")


async def test_a_case_keeps_its_own_version(world: World, db: Pool, clock: Clock) -> None:
    """A plan that changes under a running case would leave participants tried that nobody remembers."""
    clock.now = datetime.now(UTC)
    async with process(world, db, clock) as at:
        first = await opened(at, 51)
        stale = await registry(db, clock)
        other = version(
            3, ("      - [identity_shenzhen, identity_guiyang,", "      - [identity_guiyang, identity_shenzhen,")
        )
        await activated(db, other, clock)
        await at.registry.refresh()
        second = await opened(at, 52)
        assert (first.plan, second.plan) == ("wechat/2", "wechat/3")
        assert at.registry.plan_of(first).participants[:2] == ("identity_shenzhen", "identity_guiyang")
        assert at.registry.plan_of(second).participants[:2] == ("identity_guiyang", "identity_shenzhen")
        with pytest.raises(UnknownPackError):
            stale.plan_of(second)
        await stale.know([first, second])  # a process that missed it all learns of it before it steps the case
        assert stale.plan_of(second).participants == at.registry.plan_of(second).participants


async def test_a_version_without_a_kind_lets_none_of_it_through(world: World, db: Pool, clock: Clock) -> None:
    """A case of a kind that the version in force no longer knows: no rules must never read as nothing in the way."""
    clock.now = datetime.now(UTC)
    async with process(world, db, clock) as at:
        case = msgspec.structs.replace(await opened(at, 56), kind=Kind.RESTORE)
        assert (await at.checker.recheck([case]))[case.key].blockers != (KindNotOfferedError.code,)
        await activated(db, packs.text("emoney")[0], clock)
        await at.registry.refresh()
        assert (await at.checker.recheck([case]))[case.key].blockers == (KindNotOfferedError.code,)
        with pytest.raises(KindNotOfferedError):
            await at.checker.check([CheckRequest(56, SERVICE)], Kind.RESTORE)


async def test_every_decision_is_kept_and_given_again(world: World, db: Pool, clock: Clock) -> None:
    """A regulator asks a year later: the same facts, the same version, the same answer, whatever is in force."""
    clock.now = datetime.now(UTC)
    async with process(world, db, clock) as at:
        case = await opened(at, 61)
        await activated(db, MARKED, clock)
        await at.registry.refresh()
        (again,) = await lifecycle.replay(db, at.context.records, at.registry, case.key)
        assert (again.step, again.pack, again.outcome, again.differences) == (
            CheckStep.SUBMIT,
            "wechat/2",
            "PASSED",
            [],
        )
        assert again.facts["identity_state"] == "active"
        row = await db.fetchrow("SELECT * FROM platform.check_record WHERE account_id = 61")
        assert row is not None
        assert b"active" not in row["sealed"], "facts are sealed"
        await db.execute("UPDATE platform.check_record SET account_id = 62 WHERE account_id = 61")
        with pytest.raises(NoRecordError):
            await lifecycle.replay(db, at.context.records, at.registry, case.key)
        await db.execute("UPDATE platform.check_record SET account_id = 61 WHERE account_id = 62")
        for change in (
            "outcome = 'PAY-BALANCE'",
            "pack = 'wechat/3'",
            "at = at + interval '1 day'",
            "sealed = sealed || 'x'",
        ):
            async with db.acquire() as connection:
                tried = connection.transaction()
                await tried.start()
                await connection.execute(f"UPDATE platform.check_record SET {change} WHERE account_id = 61")  # noqa: S608 - the list above
                with pytest.raises(RecordUnreadableError):
                    await lifecycle.replay(connection, at.context.records, at.registry, case.key)
                await tried.rollback()
        other = CheckRecordStore(b"s" * 32, lambda: os.urandom(16))
        with pytest.raises(RecordUnreadableError):
            await lifecycle.replay(db, other, at.registry, case.key)


async def test_a_worker_keeps_what_it_rejected_a_case_for(world: World, db: Pool, clock: Clock) -> None:
    """The last word on a person's request is the worker's: it must be as explainable as the first."""
    clock.now = datetime.now(UTC)
    async with process(world, db, clock) as at:
        people = [71, 72, 73]
        for account in people:
            await opened(at, account)
        await world.pools["wallet"].execute("UPDATE wallet.account SET balance_fen = 5 WHERE account_id IN (71, 72)")
        await db.execute(
            "UPDATE platform.cases SET state = 'ready', wallet_version = 999, due_at = $2 WHERE account_id = ANY ($1)",
            people,
            clock(),
        )
        driver = Driver(
            pool=db,
            participants=world.participants,
            plan_of=at.registry.plan_of,
            recheck=at.checker.recheck,
            records=at.context.records,
            know=at.registry.know,
            clock=clock,
            timing=Timing(),
            limits=Limits(),
        )
        live = await cases.load_live(db, people)
        await driver.drive(live.values())
        ended = await cases.load_many(db, [case.key for case in live.values()])
        assert {case.state for case in ended.values()} == {State.REJECTED}
        for account, outcome in ((71, "PAY-BALANCE"), (72, "PAY-BALANCE"), (73, "FUNDS-MOVED")):
            first, last = await lifecycle.replay(db, at.context.records, at.registry, live[account].key)
            assert (first.step, first.outcome) == (CheckStep.SUBMIT, "PASSED")
            assert (last.step, last.outcome, last.differences) == (CheckStep.TAKE, outcome, [])
            assert last.facts.get("balance_fen", 0) == (0 if account == 73 else 5)


def counts(found: list[store.ShadowCount]) -> Mapping[tuple[str, str], tuple[int, ...]]:
    return {(one.segment, one.code): (one.checks, one.in_both, one.only_live, one.only_shadow) for one in found}


async def test_a_version_in_shadow_says_where_it_would_differ(world: World, db: Pool, clock: Clock) -> None:
    """Whoever approves a version must see whom it would stop, by code and segment; live answers stay as they are."""
    clock.now = datetime.now(UTC)
    # The next version asks for more than 10 yuan before a balance stands in the way.
    looser = version(3, ("when: balance_fen > 0", "when: balance_fen > 1000"))
    await lifecycle.add(db, PARTICIPANTS, looser, "new.yaml", "Ann", clock())
    await lifecycle.start_shadow(db, PARTICIPANTS, "wechat/3", "Ann", clock())
    with pytest.raises(AlreadyInForceError):
        await lifecycle.start_shadow(db, PARTICIPANTS, "wechat/2", "Ann", clock())
    wallet = world.pools["wallet"]
    await wallet.execute("UPDATE wallet.account SET balance_fen = 500 WHERE account_id IN (81, 82)")
    await wallet.execute("UPDATE wallet.account SET balance_fen = 5000 WHERE account_id = 83")
    for name in ("identity_shenzhen", "identity_guiyang"):
        await world.pools[name].execute(
            "UPDATE identity.account SET document_type = 'passport', birth_date = '2015-05-05' WHERE account_id = 82"
        )
    async with process(world, db, clock) as at:
        asked = [CheckRequest(account, Origin(f"phone-{account}")) for account in range(81, 91)]
        answers = await at.checker.check(asked, Kind.REVOKE)
        assert [one.account_id for one in answers if "PAY-BALANCE" in {each.code for each in one.blockers}] == [
            81,
            82,
            83,
        ]
        (single,) = await at.checker.check(asked[:1], Kind.REVOKE)
        assert {one.pack for one in (*answers, single)} == {"wechat/2"}
        await at.shadow.flush()
        await at.checker.check(asked[:2], Kind.REVOKE)
        await at.shadow.flush()
        found = counts(await lifecycle.read_shadow_report(db))
        assert found["all", "PAY-BALANCE"] == (13, 1, 5, 0)
        assert found["document_type=passport", "PAY-BALANCE"] == (2, 0, 2, 0)
        assert found["minor", "PAY-BALANCE"] == (2, 0, 2, 0)
        assert found["all", "SEC-DEVICE"] == (13, 0, 0, 0)
        assert found["all", ""][0] == 13
        assert found["document_type=resident_id", ""][2] == 3, "those whom only the version in force stops"
        await lifecycle.stop_shadow(db)
        await at.registry.refresh()
        await at.checker.check(asked, Kind.REVOKE)
        await at.shadow.flush()
        assert counts(await lifecycle.read_shadow_report(db, "wechat/3")) == found
        await lifecycle.start_shadow(db, PARTICIPANTS, "wechat/3", "Ann", clock())
        assert not await lifecycle.read_shadow_report(db)
    await wallet.execute("UPDATE wallet.account SET balance_fen = 0")


async def test_a_silent_store_holds_up_no_live_check(world: World, db: Pool, clock: Clock) -> None:
    """Counters are worth nothing against an answer: what cannot be written waits, what is too much is dropped."""
    clock.now = datetime.now(UTC)
    await lifecycle.add(db, PARTICIPANTS, MARKED, "new.yaml", "Ann", clock())
    await lifecycle.start_shadow(db, PARTICIPANTS, "wechat/3", "Ann", clock())
    async with process(world, db, clock) as at:
        closed: Any = asyncpg.create_pool(host="127.0.0.1", port=9, min_size=0, timeout=1)
        silent = Shadow(closed, at.registry.shadow)
        at.checker._shadow = silent
        (answer,) = await at.checker.check([CheckRequest(91, Origin("phone-91"))], Kind.REVOKE)
        assert answer.pack == "wechat/2"
        with pytest.raises((OSError, asyncpg.InterfaceError)):
            await silent.flush()
        silent._db = db
        await silent.flush()
        assert counts(await lifecycle.read_shadow_report(db))["all", ""][0] == 1
        silent._room = 0
        await at.checker.check([CheckRequest(91, Origin("phone-91"))], Kind.REVOKE)
        assert silent._waiting == []
