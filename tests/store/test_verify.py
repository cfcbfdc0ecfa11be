"""The audit over real databases and real networks: clean where all agree, and every planted fault is found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.plan import UNNAMED, Plan
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import Participant
from jiebang.participants.http import HttpParticipant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import Transfer
from jiebang.saga.audit import Breach, Violation
from jiebang.saga.batch import Save
from jiebang.saga.chain import TimelineFault
from jiebang.saga.coordinator import Proven, Rechecked, Timing, step
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.saga.timeline import entries, first_entry
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.postgres.pool import WHOLE_TABLE, open_pools
from jiebang.store.timelines.seal_signing_keys import build_seal_keys
from jiebang.usecases.driving.advance import Driver, Limits
from jiebang.usecases.operations.verify import VerificationReport, verify
from jiebang.usecases.timelines.seal import Sealer, SealPace
from jiebang.usecases.timelines.verify import TimelineFinding
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

ORDER = (*(name for name in PARTICIPANTS.databases if name != "wallet"), *PARTICIPANTS.networks, "wallet")
PLAN = Plan(name="test/1", participants=ORDER, waves=(*(0 for _ in ORDER[1:]), 1))
PEOPLE, PAGE = 24, 5
numbers = count(10_001)


def now() -> datetime:
    return datetime.now(UTC)


class World:
    """Nine databases, two networks, people, and cases of theirs that have ended."""

    def __init__(self, pools: Mapping[str, Pool], whole: Pool, networks: Mapping[str, Participant]) -> None:
        self.pools, self.whole = pools, whole
        owned = open_participants(PARTICIPANTS, pools, now, pepper=bytes(32))
        self.keys = build_seal_keys(bytes(32))
        self.participants: dict[str, Participant] = {**owned, **networks}
        wallet = owned["wallet"]
        assert isinstance(wallet, WalletParticipant)
        self.wallet = wallet

    async def people(self, ids: Sequence[int]) -> None:
        await self.pools["platform"].execute(
            "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
        )
        await asyncio.gather(
            *(insert_accounts(self.pools[name], PARTICIPANTS.owner_of(name), ids) for name in PARTICIPANTS.databases)
        )

    async def unbound(self, ids: Sequence[int]) -> None:
        """Take people through a whole case; those with an odd number meet a refusal and are rolled back."""
        pool = self.pools["platform"]
        new = [
            NewCase(account_id=each, kind=Kind.REVOKE, plan=PLAN.name, participants=len(ORDER), due_at=now())
            for each in ids
        ]
        saves = []
        for case in (await store.insert(pool, new, now(), [first_entry(now())])).values():
            proven = step(case, PLAN, Proven(1), now(), Timing()).case
            saves.append(Save(cases=[proven], entries=entries(case, proven, (), (), now())))
        ready = (await store.save(pool, saves, now())).kept()

        async def recheck(cases: Sequence[Case]) -> Mapping[tuple[int, int], Rechecked]:
            right = dict.fromkeys(PARTICIPANTS.databases, 1)
            return {case.key: Rechecked(right | ({"social": 9} if case.account_id % 2 else {})) for case in cases}

        driver = Driver(
            pool=pool,
            participants=self.participants,
            plan_of=lambda _case: PLAN,
            records=CheckRecordStore(bytes(32), lambda: os.urandom(16)),
            recheck=recheck,
            clock=now,
            timing=Timing(),
            limits=Limits(round=timedelta(seconds=5), call=timedelta(seconds=5)),
        )
        await driver.drive(ready.values())
        await driver.aclose()

    async def sealed(self) -> int:
        """Have the worker's chore seal what has ended; return how many seals it made."""
        pace = SealPace(grace=timedelta(microseconds=1), batch=3)
        return await Sealer(pool=self.pools["platform"], keys=self.keys, anchor_at=None, pace=pace).turn(now())

    async def audit(self, page: int = PAGE, **without: Participant) -> VerificationReport:
        return await verify(
            keys=self.keys,
            pool=self.pools["platform"],
            participants=self.participants | without,
            wallet=WalletParticipant(self.whole, now, pepper=bytes(32)),
            plan_of=lambda _case: PLAN,
            page=page,
            settle=timedelta(milliseconds=1),
        )

    @asynccontextmanager
    async def planted(self, database: str, change: str, undo: str, *args: Any) -> AsyncIterator[None]:
        """Change something behind everybody's back, and put it right again."""
        assert (await self.pools[database].execute(change, *args)).split()[-1] != "0", "nothing was planted"
        yield
        await self.pools[database].execute(undo, *args)


@pytest.fixture(scope="module")
async def networks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    async with sandbox(tmp_path_factory.mktemp("networks"), names=PARTICIPANTS.networks) as running:
        yield running


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], databases: Mapping[str, str], networks: Sandbox) -> AsyncIterator[World]:
    remote = {name: HttpParticipant(networks.link(name)) for name in PARTICIPANTS.networks}
    async with open_pools({"wallet": databases["wallet"]}, size=1, settings=WHOLE_TABLE) as whole:
        made = World(pools, whole["wallet"], remote)
        ids = list(range(1, PEOPLE + 1))
        await made.people(ids)
        await made.unbound(ids[: PEOPLE // 2])
        yield made
    for each in remote.values():
        await each.aclose()


def breaches(report: VerificationReport) -> set[tuple[Breach, int, str]]:
    return {(each.breach, each.account_id, each.participant) for each in report.violations}


@pytest.mark.parametrize("page", [1, 3, PEOPLE, 10_000])
async def test_a_world_that_agrees_is_clean_however_it_is_cut(world: World, page: int) -> None:
    """A page's end must neither lose anybody nor count them twice."""
    report = await world.audit(page)
    assert report.violation_count == 0, report
    assert (report.accounts, report.cases) == (PEOPLE, PEOPLE // 2)
    assert report.cases_by_state == {State.DONE: PEOPLE // 4, State.ABORTED: PEOPLE // 4}
    assert set(report.fence_marks) == set(ORDER)
    assert set(report.fence_marks.values()) == {PEOPLE // 2}, "whoever was not asked yet is cancelled all the same"


async def test_timelines_that_the_driver_wrote_are_whole_and_sealed(world: World) -> None:
    """What was told of a person's case must hold from its first row to its last, whoever wrote which."""
    assert await world.sealed() == 2
    report = await world.audit()
    assert report.violation_count == 0, report.timelines
    found = report.timelines
    assert (found.timelines, found.seals, found.sealed, found.unsealed) == (PEOPLE // 2, 2, PEOPLE // 2, 0)
    assert found.rows >= 4 * found.timelines


async def test_a_timeline_that_was_tampered_with_is_a_violation(world: World) -> None:
    """`jiebang verify` must fail on it, or nobody will ever look."""
    plant = "UPDATE platform.case_event SET at = at - interval '1 day' WHERE account_id = 2 AND revision = 2"
    undo = "UPDATE platform.case_event SET at = at + interval '1 day' WHERE account_id = 2 AND revision = 2"
    async with world.planted("platform", plant, undo):
        report = await world.audit()
    assert (report.violation_count, report.clean) == (1, False)
    assert report.timelines.findings == [
        TimelineFinding(fault=TimelineFault.CHANGED, account_id=2, case_no=1, revision=2)
    ]


async def test_a_mark_without_a_case_is_found(world: World) -> None:
    """Somebody's account would be reserved by a case that nobody will ever end."""
    mark = "UPDATE gaming.account SET case_no = 4, case_op = 'tried' WHERE account_id = 20"
    undo = "UPDATE gaming.account SET case_no = 0, case_op = 'cancelled' WHERE account_id = 20"
    async with world.planted("gaming", mark, undo):
        assert breaches(await world.audit()) == {(Breach.UNEXPLAINED, 20, "gaming")}


@pytest.mark.parametrize("account", [PEOPLE + 7, 4_000_000_000_000_000])
async def test_a_mark_of_an_account_the_platform_does_not_know_is_found(world: World, account: int) -> None:
    """Nobody thinks of that account: an audit that walks our own accounts alone would never see it."""
    mark = "INSERT INTO social.account (account_id, case_no, case_op) VALUES ($1, 1, 'tried')"
    async with world.planted("social", mark, "DELETE FROM social.account WHERE account_id = $1", account):
        for page in (1, PAGE, 10_000):
            assert breaches(await world.audit(page)) == {(Breach.UNEXPLAINED, account, "social")}


async def test_more_strangers_than_a_page_are_all_found(world: World) -> None:
    """A range full of marks nobody can explain must be walked to its end."""
    mark = """INSERT INTO merchant.account (account_id, case_no, case_op)
              SELECT 1000 + n, 1, 'confirmed' FROM generate_series(1, 23) AS n"""
    async with world.planted("merchant", mark, "DELETE FROM merchant.account WHERE account_id > 1000"):
        report = await world.audit()
    assert breaches(report) == {(Breach.UNEXPLAINED, 1000 + n, "merchant") for n in range(1, 24)}
    assert report.fence_marks["merchant"] == PEOPLE // 2 + 23
    assert report.accounts == PEOPLE


async def test_a_done_case_that_one_participant_never_confirmed_is_found(world: World) -> None:
    """The person was told "done" while their name was still bound there."""
    for change, breach in (
        ("case_no = 1, case_op = 'tried'", Breach.DISAGREES),
        ("case_no = 0, case_op = 'cancelled'", Breach.NOT_CONFIRMED),
    ):
        plant = f"UPDATE enterprise.account SET {change} WHERE account_id = 2"  # noqa: S608 - from above
        undo = "UPDATE enterprise.account SET case_no = 1, case_op = 'confirmed' WHERE account_id = 2"
        async with world.planted("enterprise", plant, undo):
            assert breaches(await world.audit()) == {(breach, 2, "enterprise")}


async def test_a_rolled_back_case_that_one_participant_kept_is_found(world: World) -> None:
    """The person was told that everything was put back, and one system had unbound them."""
    plant = "UPDATE openplatform.account SET case_op = 'confirmed' WHERE account_id = 3"
    undo = "UPDATE openplatform.account SET case_op = 'cancelled' WHERE account_id = 3"
    async with world.planted("openplatform", plant, undo):
        assert breaches(await world.audit()) == {(Breach.DISAGREES, 3, "openplatform")}


async def test_a_case_lost_from_our_own_store_is_found(world: World) -> None:
    """As after a restore from an old backup: everybody else remembers it."""
    copy = "CREATE TABLE platform.kept AS SELECT * FROM platform.cases WHERE account_id = 4"
    await world.pools["platform"].execute(copy)
    plant = "DELETE FROM platform.cases WHERE account_id = 4"
    async with world.planted("platform", plant, "INSERT INTO platform.cases SELECT * FROM platform.kept"):
        report = await world.audit()
    await world.pools["platform"].execute("DROP TABLE platform.kept")
    assert breaches(report) == {(Breach.UNEXPLAINED, 4, name) for name in ORDER}


async def test_marks_that_do_not_fit_the_plan_are_found_and_do_not_stop_the_audit(world: World) -> None:
    """One odd row must not hide what is wrong with everybody else."""
    plant = "UPDATE platform.cases SET marks = 'ddd', versions = '{1,1,1}' WHERE account_id = 6"
    stood = await world.pools["platform"].fetchval("SELECT versions FROM platform.cases WHERE account_id = 6")
    undo = f"UPDATE platform.cases SET marks = '{'d' * len(ORDER)}', versions = ARRAY{list(stood)} WHERE account_id = 6"  # noqa: S608 - what stood there
    async with world.planted("platform", plant, undo):
        assert (Breach.MISFIT, 6, "platform") in breaches(await world.audit())


async def test_a_balance_changed_behind_the_ledger_is_found(world: World) -> None:
    """Money made or lost by hand."""
    plant = "UPDATE wallet.account SET balance_fen = balance_fen + 1 WHERE account_id = 15"
    undo = "UPDATE wallet.account SET balance_fen = balance_fen - 1 WHERE account_id = 15"
    async with world.planted("wallet", plant, undo):
        report = await world.audit()
    assert (report.money_wrong, report.violation_count, report.clean) == ([15], 1, False)


async def test_a_transfer_with_one_side_is_found(world: World) -> None:
    """Its two accounts each agree with their ledgers; only the sum over everybody tells."""
    entry = UUID(int=next(numbers))
    plant = """WITH e AS (INSERT INTO wallet.entry
                   (account_id, entry_id, kind, counterparty_id, title, amount_fen, state, made_at, ended_at)
                   VALUES (16, $1, 'transfer', 17, '', 700, 'completed', now(), now()))
               UPDATE wallet.account SET balance_fen = balance_fen + 700 WHERE account_id = 16"""
    undo = """WITH e AS (DELETE FROM wallet.entry WHERE entry_id = $1)
              UPDATE wallet.account SET balance_fen = balance_fen - 700 WHERE account_id = 16"""
    async with world.planted("wallet", plant, undo, entry):
        report = await world.audit()
    assert (report.transfers_fen, report.money_wrong, report.violation_count) == (700, [], 1)


async def test_real_transfers_are_no_violation(world: World) -> None:
    """Between its two steps too, when the money is in nobody's balance."""
    opening = """WITH e AS (INSERT INTO wallet.entry
                   (account_id, entry_id, kind, title, amount_fen, state, made_at, ended_at)
                   VALUES (18, $1, 'opening', '', 500, 'completed', now(), now()))
               UPDATE wallet.account SET balance_fen = 500 WHERE account_id = 18"""
    await world.pools["wallet"].execute(opening, UUID(int=next(numbers)))
    transfer = Transfer(transfer_id=uuid4(), sender=18, receiver=19, amount_fen=200, title="")
    (begun,) = await world.wallet.begin_transfers([transfer])
    assert begun.refusal is None
    assert (await world.audit()).clean
    await world.wallet.complete_transfers([transfer])
    report = await world.audit()
    assert report.clean
    assert report.balance_fen == 500


class Gone:
    """A participant that answers for a while and then is gone."""

    def __init__(self, real: Participant, answers: int, error: Exception) -> None:
        self._real, self.name, self._left, self._error = real, real.name, answers, error

    async def marks(self, after: int, upto: int, limit: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return await self._real.marks(after, upto, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("answers", [0, 2])
@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        asyncpg.CannotConnectNowError("starting"),
        asyncpg.InternalClientError("cut off"),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        KeyError("rows"),
    ],
)
async def test_a_participant_that_is_down_is_unread_and_never_clean(
    world: World, answers: int, error: Exception
) -> None:
    """An audit that passes over whom it could not read would call a lost database clean."""
    real = world.participants["security"]
    report = await world.audit(security=Gone(real, answers, error))
    assert report.unread == ["security"]
    assert (report.clean, report.violation_count, report.violations) == (False, 1, [])
    assert report.accounts == PEOPLE


async def test_the_rest_is_judged_although_one_is_down(world: World) -> None:
    """One database under repair must not hide what is wrong in another."""
    plant = "UPDATE gaming.account SET case_op = 'tried' WHERE account_id = 2"
    undo = "UPDATE gaming.account SET case_op = 'confirmed' WHERE account_id = 2"
    gone: Any = Gone(world.participants["social"], 0, OSError())
    async with world.planted("gaming", plant, undo):
        report = await world.audit(social=gone)
    assert report.unread == ["social"]
    assert breaches(report) == {(Breach.DISAGREES, 2, "gaming")}


async def test_a_network_that_is_down_is_unread(world: World, networks: Sandbox) -> None:
    """A clearing network is judged like a database, and missed like one."""
    nowhere = msgspec.structs.replace(networks.link("unionpay"), base_url="http://127.0.0.1:9")
    silent = HttpParticipant(nowhere)
    report = await world.audit(unionpay=silent)
    await silent.aclose()
    assert (report.unread, report.clean) == (["unionpay"], False)


async def test_cases_under_way_are_given_time_to_settle(world: World) -> None:
    """People go on being unbound while we look; an audit that cries wolf is one nobody reads."""
    ids = list(range(101, 161))
    await world.people(ids)
    auditing = asyncio.create_task(world.audit(7))
    await world.unbound(ids)
    assert (await auditing).violations == []
    assert (await world.audit()).clean
    assert PEOPLE + len(ids) == (await world.audit()).accounts


async def test_a_mark_that_a_network_alone_holds_is_found(world: World) -> None:
    """A network that remembers a case we never made: after a restore of ours, say. Runs last, for the mark stays."""
    stranger = 7_777_777
    await world.participants["netsunion"].apply(Op.TRY, [Order(stranger, 1)], UNNAMED)
    assert breaches(await world.audit()) == {(Breach.UNEXPLAINED, stranger, "netsunion")}
    assert (await world.audit()).violations == [Violation(Breach.UNEXPLAINED, stranger, 1, "netsunion")]
