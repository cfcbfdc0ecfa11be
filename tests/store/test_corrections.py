"""A frozen plan that a participant cannot carry out: nobody stays half unbound, and two people set it right."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from prometheus_client import REGISTRY

from jiebang.model.case import Case, Kind, State
from jiebang.model.errors import (
    CorrectionNeedlessError,
    InvalidInputError,
    NameUnusableError,
    SamePersonError,
    UnknownCorrectionError,
    UnknownPackError,
)
from jiebang.model.plan import EffectCorrection
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.statements import EFFECT_UNFIT
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy import packs
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, step
from jiebang.saga.timeline import entries, first_entry
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks.records import CheckRecordStore
from jiebang.usecases.driving.advance import Driver
from jiebang.usecases.operations import corrections
from jiebang.usecases.operations.gauges import Gauges
from jiebang.usecases.operations.stuck import RetryOutcome
from jiebang.usecases.operations.verify import VerificationReport, verify
from jiebang.usecases.policy import lifecycle
from jiebang.usecases.policy.registry import PackRegistry
from tests.patience import PATIENCE_S
from tests.store.test_advance import LIMITS, TIMING, World, now

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.store.policy.corrections import Correction
    from jiebang.store.postgres.pool import Pool

TEXT, FILE = packs.text("emoney")
BAD: Final = TEXT.replace("\nversion: 2\n", "\nversion: 3\n").replace(
    "key_destroy_minutes: {value: 60,", "key_destroy_minutes: {value: 99999999999999,"
)
"""A version as an earlier jiebang admitted it: a key that is destroyed in the year 190,000,000."""
PLACE: Final[Mapping[str, Any]] = {"pack": "emoney/3", "kind": Kind.REVOKE}
EFFECT: Final = "key_destroyed_after_minutes"
WHY: Final = "beyond what the column takes"


class Frozen(World):
    """An installation with `BAD` in force, which nobody could add today."""

    registry: PackRegistry

    async def start(self) -> None:
        db = self.pools["platform"]
        await db.execute(
            "TRUNCATE platform.policy_pack, platform.policy_activation, platform.policy_state, platform.plan_correction"
        )
        await lifecycle.install(db, PARTICIPANTS, {"emoney": (TEXT, FILE)}, "emoney", now())
        await db.execute(
            "INSERT INTO platform.policy_pack SELECT 'emoney/3', 'emoney', 3, $1, sha256(convert_to($1, 'UTF8')),"
            " added_by, added_at FROM platform.policy_pack WHERE pack = 'emoney/2'",
            BAD,
        )
        await db.execute("UPDATE platform.policy_state SET pack = 'emoney/3', revision = revision + 1")
        self.registry = PackRegistry(db, PARTICIPANTS, now)
        await self.registry.refresh()
        self.driver = Driver(
            pool=db,
            participants=self.participants,
            plan_of=self.registry.plan_of,
            know=self.registry.know,
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
            recheck=self.recheck,
            clock=now,
            timing=TIMING,
            limits=LIMITS,
        )

    def plan(self) -> Plan:
        return self.registry.plan_named("emoney/3", Kind.REVOKE)

    async def proven(self, account: int) -> Case:
        """A case that follows the bad plan, ready to be taken."""
        db, plan = self.pools["platform"], self.plan()
        new = NewCase(
            account_id=account,
            kind=Kind.REVOKE,
            plan=plan.name,
            participants=len(plan.participants),
            due_at=now() + timedelta(hours=1),
        )
        [case] = (await store.insert(db, [new], now(), [first_entry(now())])).values()
        ready = step(case, plan, Proven(1), now(), TIMING).case
        await store.save(db, [Save(cases=[ready], entries=entries(case, ready, (), (), now()))], now())
        return ready

    async def propose(self, value: Any, by: str = "Ann", **changes: Any) -> Correction:
        given = {**PLACE, "participant": "identity_guiyang", "effect": EFFECT, "value": value, "why": WHY, **changes}
        return await corrections.propose(
            self.pools["platform"], self.registry, **given, by=by, timing=TIMING, now=now()
        )

    async def approve(self, number: int, by: str) -> tuple[Correction, Mapping[Any, RetryOutcome]]:
        return await corrections.approve(self.pools["platform"], self.registry, number, by, TIMING, now())


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> AsyncIterator[Frozen]:
    made = Frozen(pools)
    await made.start()
    yield made
    await made.driver.aclose()


async def committed(world: Frozen, first: int) -> Case:
    """A case that an earlier jiebang took past its commit point: it did not look at the effects when it tried."""
    [account] = await world.people(first, 1)
    case = await world.proven(account)
    good = world.plan().corrected(
        EffectCorrection(name, EFFECT, 60) for name in ("identity_shenzhen", "identity_guiyang")
    )
    trusted = world.registry.plan_of
    seen = 0

    async def fail_confirm(op: Any, _orders: Any) -> None:
        nonlocal seen
        if op == "confirm":
            seen += 1
            raise ConnectionRefusedError

    world.driver._plan_of = lambda _case: good
    for each in world.participants.values():
        each.before = fail_confirm
    await world.driver.drive([case])
    assert seen, "it came to its Confirms"
    for each in world.participants.values():
        each.before = None
    world.driver._plan_of = trusted
    case = (await store.load_many(world.pools["platform"], [case.key]))[case.key]
    assert case.state is State.CONFIRMING
    return case


async def driven(world: Frozen, case: Case, until: str) -> Case:
    async with asyncio.timeout(PATIENCE_S):
        while case.marks != until:
            due = [case] if case.due_at is not None and case.due_at <= now() else []
            late, world.driver.late = world.driver.late, []
            await world.driver.drive(due, late)
            await asyncio.sleep(0.01)
            case = (await store.load_many(world.pools["platform"], [case.key]))[case.key]
    return case


async def test_a_bad_plan_that_was_admitted_once_ends_before_the_commit_point(world: Frozen) -> None:
    """On upgrade the version in force may be such a one: its cases are put back whole, and its people told."""
    [account] = await world.people(100, 1)
    case = await world.proven(account)
    ended = (await world.until_ended([case.key]))[case.key]
    assert (ended.state, ended.reason) == (State.ABORTED, EFFECT_UNFIT)
    for name in world.plan().participants:
        [row] = (await world.participants[name].look([account])).values()
        assert row.case_op == "cancelled", name


async def test_two_people_set_right_what_nobody_could_confirm(world: Frozen) -> None:
    """Ten participants had confirmed and one never would: the wallet was busy and a name half unbound, for ever."""
    case = await committed(world, 200)
    db = world.pools["platform"]
    case = await driven(world, case, "CCdd")
    assert case.due_at is None, "it waits for an operator"

    [listed] = await corrections.list_confirming(db, world.registry, TIMING, now(), 100)
    assert (listed.case.key, listed.waits_for) == (case.key, ("identity_shenzhen", "identity_guiyang"))
    assert {(one.participant, one.effect) for one in listed.unfit} == {
        ("identity_shenzhen", EFFECT),
        ("identity_guiyang", EFFECT),
    }

    first = await world.propose(60)
    assert world.plan().operations["identity_guiyang"].effects[EFFECT] == 99_999_999_999_999, (
        "one person changes nothing"
    )
    for same in ("Ann", " ann ", "Аnn", "Ａｎｎ"):
        with pytest.raises(SamePersonError):
            await world.approve(first.correction_no, same)
    with pytest.raises(asyncpg.CheckViolationError):  # the schema, too, whatever a bug would write
        await db.execute("UPDATE platform.plan_correction SET approved_by = 'ANN', approved_at = proposed_at")
    approved, outcomes = await world.approve(first.correction_no, "Ben")
    assert (approved.proposed_by, approved.approved_by, approved.was, approved.value) == (
        "Ann", "Ben", 99_999_999_999_999, 60,
    )  # fmt: skip
    assert outcomes == {case.key: RetryOutcome.RETRIED}
    case = await driven(world, (await store.load_many(db, [case.key]))[case.key], "Cddd")
    second = await world.propose(60, participant="identity_shenzhen")
    await world.approve(second.correction_no, "Ben")
    ended = (await world.until_ended([case.key]))[case.key]
    assert ended.state is State.DONE
    for name in ("identity_shenzhen", "identity_guiyang"):
        row = await world.pools[name].fetchrow(
            "SELECT state, key_destroy_at - changed_at AS wait FROM identity.account WHERE account_id = 200"
        )
        assert row is not None
        assert (row["state"], row["wait"]) == ("reclaimed", timedelta(minutes=60))
    history = await corrections.list_corrections(db)
    assert [(each.effect, each.proposed_by, each.approved_by, each.why) for each in history] == [
        (EFFECT, "Ann", "Ben", WHY)
    ] * 2
    assert await corrections.list_confirming(db, world.registry, TIMING, now(), 100) == []

    # Every later process, and every later case of the plan, has it as corrected.
    other = PackRegistry(db, PARTICIPANTS, now)
    await other.refresh()
    assert other.plan_named("emoney/3", Kind.REVOKE) == world.plan()
    [account] = await world.people(201, 1)
    later = await world.proven(account)
    assert (await world.until_ended([later.key]))[later.key].state is State.DONE


async def test_a_correction_is_no_way_around_policy(world: Frozen) -> None:
    """Two people could otherwise change what was promised, without a new version."""
    with pytest.raises(CorrectionNeedlessError):
        await world.propose(60)  # nobody waits
    case = await committed(world, 300)
    case = await driven(world, case, "CCdd")
    with pytest.raises(CorrectionNeedlessError):  # it confirmed
        await world.propose(False, participant="security", effect="login_needs_sms")
    wrongs: list[dict[str, Any]] = [
        {"participant": "atlantis"},
        {"effect": "nothing"},
        {"value": -1},
        {"value": "60"},
        {"value": 99_999_999_999_999},
        {"kind": Kind.RESTORE},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidInputError) as caught:
            await world.propose(**{"value": 60, **wrong})
        assert caught.value.fields["reason"].zh
    with pytest.raises(UnknownPackError):
        await world.propose(60, pack="emoney/9")
    with pytest.raises(InvalidInputError):
        await world.propose(60, why=" ")
    with pytest.raises(NameUnusableError):
        await world.propose(60, by="")
    with pytest.raises(UnknownCorrectionError):
        await world.approve(999, "Ben")


async def test_a_proposal_lapses_when_another_takes_its_place(world: Frozen) -> None:
    """Whoever approves must approve what was proposed last, not what a colleague has thought better of."""
    case = await committed(world, 400)
    await driven(world, case, "CCdd")
    old, new = await world.propose(600), await world.propose(None)
    with pytest.raises(UnknownCorrectionError):
        await world.approve(old.correction_no, "Ben")
    await world.approve(new.correction_no, "Ben")
    assert EFFECT not in world.plan().operations["identity_guiyang"].effects, "left out"
    assert EFFECT in world.plan().operations["identity_shenzhen"].effects, "nothing else was asked for"
    with pytest.raises(UnknownCorrectionError):
        await world.approve(new.correction_no, "Cyd")


async def test_an_audit_and_an_alarm_name_who_is_half_unbound(world: Frozen) -> None:
    """`verify` found nothing wrong while a person was unbound in ten systems and bound in the eleventh."""
    case = await driven(world, await committed(world, 500), "CCdd")
    report = await audited(world)
    [sitting] = [one for one in report.confirming if one.account_id == 500]
    assert (sitting.case_no, sitting.plan, sitting.kind) == (case.case_no, "emoney/3", "revoke")
    assert sitting.waits_for == ("identity_shenzhen", "identity_guiyang")
    assert not report.clean
    assert report.violation_count >= 1

    later = now() + timedelta(minutes=2)
    gauges = Gauges(
        world.pools["platform"],
        world.registry.plan_named,
        lease=timedelta(seconds=10),
        resend_limit=TIMING.resend_limit,
    )
    await gauges(frozenset({0}), later)
    assert REGISTRY.get_sample_value("jiebang_confirming_seconds") > 60  # type: ignore[operator]
    await gauges(frozenset(), later)
    assert REGISTRY.get_sample_value("jiebang_confirming_seconds") == 0, "another worker tells of it now"

    for name in ("identity_shenzhen", "identity_guiyang"):
        made = await world.propose(60, participant=name)
        await world.approve(made.correction_no, "Ben")
    await world.until_ended([case.key])
    assert not [one for one in (await audited(world)).confirming if one.account_id == 500]


async def test_a_case_on_its_way_is_no_alarm(world: Frozen) -> None:
    """Every case passes through `confirming`: who is told of each would soon look at none."""
    await committed(world, 600)
    assert not [one for one in (await audited(world)).confirming if one.account_id == 600]
    late = await audited(world, clock=lambda: now() + timedelta(minutes=2))
    assert [one.waits_for for one in late.confirming if one.account_id == 600] == [world.plan().participants]


def open_wallet(world: Frozen) -> WalletParticipant:
    return WalletParticipant(world.pools["wallet"], now, pepper=bytes(32))


async def audited(world: Frozen, clock: Callable[[], datetime] = now) -> VerificationReport:
    return await verify(
        pool=world.pools["platform"],
        participants=world.participants,
        wallet=open_wallet(world),
        plan_of=world.registry.plan_of,
        settle=timedelta(),
        clock=clock,
    )
