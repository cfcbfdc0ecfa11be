"""A database is put back to an older state; `recover` brings everyone to agree again, and the workers end every case.

Real databases throughout: a backup is a copy of the tables, a restore puts the copy back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.model.errors import ParticipantUnavailableError
from jiebang.participants import PARTICIPANTS
from jiebang.participants.wallet import FUNDS_MOVING
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import Transfer
from jiebang.saga.fence import NO_ROW, FenceRow, Op
from jiebang.saga.recovery import RestoredInstallation
from jiebang.saga.recovery_driver import RecoveryTally
from jiebang.store.cases import cases as store
from jiebang.store.operations import recoveries, tasks
from jiebang.store.postgres.pool import WHOLE_TABLE, open_pools
from jiebang.store.timelines import timeline_rows
from jiebang.usecases.driving.advance import Limits
from jiebang.usecases.driving.recover import RecoverySetup, recover
from jiebang.usecases.operations.verify import VerificationReport, verify
from tests.patience import PATIENCE_S
from tests.store.test_advance import PLAN, World, now

if TYPE_CHECKING:
    import asyncpg

    from jiebang.saga.orders import Order
    from jiebang.store.postgres.pool import Pool


class Installation(World):
    """The driver's world, with backups."""

    def __init__(self, pools: Mapping[str, Pool], whole: Pool) -> None:
        # However slow the machine: nothing here is about rounds that close before everybody has answered.
        super().__init__(pools, Limits(round=timedelta(seconds=20), call=timedelta(seconds=20)))
        self.whole = whole
        self.wallet = WalletParticipant(pools["wallet"], now, pepper=bytes(32))

    async def back_up(self, database: str) -> None:
        """Copy a database's tables aside."""
        owner = PARTICIPANTS.owner_of(database)
        await self.pools[database].execute(
            "DROP SCHEMA IF EXISTS backup CASCADE; CREATE SCHEMA backup; "
            + "; ".join(f"CREATE TABLE backup.{name} AS TABLE {owner}.{name}" for name in await self._tables(database))
        )

    async def restore(self, database: str) -> None:
        """Put the copy back: what was written since is gone."""
        owner, names = PARTICIPANTS.owner_of(database), await self._tables(database)
        emptied = ", ".join(f"{owner}.{name}" for name in names)
        filled = "; ".join(f"INSERT INTO {owner}.{name} SELECT * FROM backup.{name}" for name in names)  # noqa: S608 - names of ours
        await self.pools[database].execute(f"BEGIN; TRUNCATE {emptied}; {filled}; COMMIT")

    async def _tables(self, database: str) -> list[str]:
        rows = await self.pools[database].fetch(
            "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename <> 'schema_migration'"
            " AND tablename <> ALL ('{recovery,worker,bucket_lease,task}')",
            PARTICIPANTS.owner_of(database),
        )
        return [row["tablename"] for row in rows]

    async def recover(
        self,
        *restored: str,
        gap: int = 0,
        page: int = 7,
        dry_run: bool = False,
        patience: timedelta = timedelta(0),
        outcomes: Mapping[tuple[int, int], bool] | None = None,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> RecoveryTally:
        self.waited_for = list[Mapping[str, int]]()

        async def nobody() -> None:
            """Nobody helps what is waited for along."""

        return await recover(
            RecoverySetup(
                pool=self.pools["platform"],
                participants=self.participants,
                restored=RestoredInstallation(
                    plan_of=lambda case: {PLAN.name: PLAN}[case.plan],
                    plans=((Kind.REVOKE, PLAN),),
                    databases=restored,
                    gap=gap,
                    passing=(FUNDS_MOVING,),
                    patience=patience,
                    outcomes=outcomes or {},
                ),
                clock=now,
                page=page,
                pause=timedelta(milliseconds=5),
                longest_pause=timedelta(milliseconds=40),
                each_turn=meanwhile or nobody,
            ),
            "Ann",
            dry_run=dry_run,
            waiting=lambda waits, _left: self.waited_for.append(waits),
        )

    async def to_the_end(self, ids: Sequence[int]) -> list[Case]:
        """Let a worker drive everything that is due, until nothing is."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                cases = await store.load_of_accounts(self.pools["platform"], ids)
                due = [
                    case for case in cases if case.due_at is not None and case.state not in (State.OPEN, State.READY)
                ]
                if not due:
                    return cases
                await self.driver.drive([case for case in due if case.due_at is not None and case.due_at <= now()])
                await asyncio.sleep(0.02)

    async def verify(self) -> VerificationReport:
        return await verify(
            pool=self.pools["platform"],
            participants=self.participants,
            wallet=WalletParticipant(self.whole, now, pepper=bytes(32)),
            plan_of=lambda _case: PLAN,
            page=11,
            settle=timedelta(milliseconds=1),
        )


@pytest.fixture
async def world(pools: Mapping[str, Pool], databases: Mapping[str, str]) -> AsyncIterator[Installation]:
    for name in PARTICIPANTS.databases:
        await pools[name].execute(f"TRUNCATE {PARTICIPANTS.owner_of(name)}.account")
    await pools["platform"].execute(
        "TRUNCATE platform.account, platform.cases, platform.case_event, platform.recovery, platform.task"
    )
    async with open_pools({"wallet": databases["wallet"]}, size=1, settings=WHOLE_TABLE) as whole:
        made = Installation(pools, whole["wallet"])
        yield made
        await made.driver.aclose()


@asynccontextmanager
async def silent(world: Installation, name: str, op: Op) -> AsyncIterator[None]:
    """One participant does not answer one op."""

    async def waits(asked: Op, _orders: Sequence[Order]) -> None:
        if asked is op:
            raise ConnectionRefusedError

    world.participants[name].before = waits
    yield
    world.participants[name].before = None


async def recorded(world: Installation) -> list[asyncpg.Record]:
    return list(await world.pools["platform"].fetch("SELECT restored, ended_at FROM platform.recovery"))


async def test_a_participant_put_back_before_everything_takes_part_again(world: Installation) -> None:
    """Half of the people were done and half rolled back; the social database forgets them all."""
    ids = await world.people(1, 20)
    await world.back_up("social")
    done = await world.ready(ids[:10])
    await world.driver.drive(done)
    async with silent(world, "wallet", Op.TRY):
        await world.driver.drive(await world.ready(ids[10:16]))  # in trying, with nothing from the wallet
    await world.restore("social")
    assert not (await world.verify()).clean, "the restore is seen"

    foreseen = await world.recover("social", dry_run=True)
    assert foreseen.sent == {"try": 10}
    assert not await recorded(world), "a dry run stops nothing"
    found = await world.recover("social")
    assert found.complete
    assert found.sent == {"try": 10, "confirm": 10}
    cases = await world.to_the_end(ids)
    assert {case.state for case in cases if case.account_id <= 10} == {State.DONE}
    assert {case.state for case in cases if case.account_id > 10} == {State.ABORTED}, "what was under way is broken off"
    assert (await world.verify()).violations == []
    again = await world.recover("social")
    assert (again.changed, again.made_again, again.sent) == (0, 0, {}), "and there is nothing left to do"


async def test_a_platform_put_back_finds_what_it_lost(world: Installation) -> None:
    """Cases done, cases committed, cases being tried; and one whole account that came after the backup."""
    ids = await world.people(1, 30)
    await world.back_up("platform")
    await world.driver.drive(await world.ready(ids[:10]))
    async with silent(world, "wallet", Op.CONFIRM):
        await world.driver.drive(await world.ready(ids[10:14]))
    async with silent(world, "wallet", Op.TRY):
        await world.driver.drive(await world.ready(ids[14:18]))
    await world.restore("platform")
    await world.pools["platform"].execute("DELETE FROM platform.account WHERE account_id = 3")

    found = await world.recover("platform", gap=100)
    assert (found.made_again, found.undecided) == (18, {})
    cases = await world.to_the_end(ids)
    states = {case.account_id: case.state for case in cases}
    assert {states[each] for each in ids[:14]} == {State.DONE}, "one confirmed row proves the commit"
    assert {states[each] for each in ids[14:18]} == {State.ABORTED}
    assert {case.case_no for case in cases} == {1}, "under their own numbers"
    assert (await world.verify()).violations == []
    numbers = await recoveries.load_numbers(world.pools["platform"], 0, 1 << 53, 100)
    assert set(numbers.values()) == {100, 101}, "numbers that nobody saw are stepped over"
    timelines = await timeline_rows.read_after(world.pools["platform"], {case.key: 0 for case in cases})
    assert {line.revision for line in timelines} >= {1, 2}
    assert await world.pools["platform"].fetchval("SELECT count(*) FROM platform.recovery WHERE ended_at IS NULL") == 0


async def test_what_nobody_can_decide_is_an_operators_and_the_rest_goes_on(world: Installation) -> None:
    ids = await world.people(1, 4)
    await world.driver.drive(await world.ready(ids))
    await world.pools["platform"].execute(
        """UPDATE platform.cases SET state = 'aborted', marks = replace(marks, 'd', 'z'), reason = 'X'
           WHERE account_id = 2"""
    )
    found = await world.recover("platform")
    assert found.undecided == {"contradicted": 1}
    [task] = await tasks.load_open(world.pools["platform"], 10)
    assert (task.account_id, task.kind, task.why) == (2, "undecided", "contradicted")
    await world.pools["platform"].execute(
        "UPDATE platform.cases SET state = 'done', marks = replace(marks, 'z', 'd') WHERE account_id = 2"
    )
    await world.recover("platform")
    assert not await tasks.load_open(world.pools["platform"], 10), "decided since, by whoever found out"


async def _with_an_open_transfer(world: Installation) -> Transfer:
    """Twenty people were done; the wallet goes back to when the first was sending the second some money."""
    ids, one = await world.people(1, 20), Transfer(transfer_id=uuid4(), sender=1, receiver=2, amount_fen=500)
    await world.pools["wallet"].execute("UPDATE wallet.account SET balance_fen = 1000 WHERE account_id = 1")
    await world.wallet.begin_transfers([one])
    await world.back_up("wallet")
    await world.wallet.complete_transfers([one])
    cases = [
        msgspec.structs.replace(case, wallet_version=version)
        for case, version in zip(await world.ready(ids), (3, 3, *[1] * 18), strict=True)
    ]
    await world.driver.drive(cases)
    assert {case.state for case in await world.to_the_end(ids)} == {State.DONE}
    await world.restore("wallet")
    return one


async def test_a_recovery_waits_for_an_open_transfer_and_sees_it_through(world: Installation) -> None:
    """A Try sent while money moves would be refused for ever: the wallet of somebody who is unbound stays open."""
    await _with_an_open_transfer(world)
    found = await world.recover(
        "wallet", patience=timedelta(minutes=1), meanwhile=lambda: world.wallet.complete_pending(now())
    )
    assert (found.complete, found.undecided, found.waited) == (True, {}, {"wallet FUNDS-MOVING": 2})
    assert world.waited_for[0] == {"wallet FUNDS-MOVING": 2}, "and the operator is told what for"
    assert (found.sent["try"], found.sent["confirm"]) == (20, 20)
    report = await world.verify()
    assert report.violations == []
    assert await world.pools["wallet"].fetchval("SELECT sum(balance_fen) FROM wallet.account") == 1000


async def test_what_was_waited_for_in_vain_is_an_operators_and_can_still_be_done(world: Installation) -> None:
    """Nothing is sent to a wallet that would refuse: its row stays free for the next recovery."""
    one = await _with_an_open_transfer(world)
    found = await world.recover("wallet", patience=timedelta(milliseconds=30))
    assert (found.complete, found.undecided, found.sent["try"]) == (True, {"cannot_try": 2}, 18)
    told = await tasks.load_open(world.pools["platform"], 10)
    assert {(task.account_id, task.why, task.note) for task in told} == {
        (1, "cannot_try", "wallet FUNDS-MOVING"),
        (2, "cannot_try", "wallet FUNDS-MOVING"),
    }
    assert await world.participants["wallet"].look([1, 2]) == {1: NO_ROW, 2: NO_ROW}
    await world.wallet.complete_transfers([one])
    found = await world.recover("wallet")
    assert (found.undecided, found.sent) == ({}, {"try": 2, "confirm": 2})
    assert not await tasks.load_open(world.pools["platform"], 10)
    assert (await world.verify()).violations == []


async def test_a_case_that_two_databases_forgot_together_is_found_and_people_can_settle_it(
    world: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform and the wallet go back to before case 1; the others were done with it and have gone on to case 2.

    The first recovery dies when it has raised the numbers over case 1: the next must still know of it.
    """
    ids = await world.people(1, 2)
    await world.back_up("platform")
    await world.back_up("wallet")
    await world.driver.drive(await world.ready(ids))
    again = [msgspec.structs.replace(case, wallet_version=2) for case in await world.ready(ids)]
    await world.driver.drive(again)  # refused: the identity is gone already
    assert {case.state for case in await world.to_the_end(ids)} == {State.DONE, State.ABORTED}
    await world.restore("platform")
    await world.restore("wallet")

    async def dies(*_of: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as broken:
        broken.setattr("jiebang.usecases.driving.recover._update_tasks", dies)
        with pytest.raises(ConnectionResetError):
            await world.recover("platform", "wallet", gap=100)
    found = await world.recover("platform", "wallet", gap=100)
    assert found.undecided["outcome_lost"] == 2
    found = await world.recover("platform", "wallet", gap=100)
    assert found.undecided["outcome_lost"] == 2, "it stays theirs, though its number is below the raised one by now"
    found = await world.recover("platform", "wallet", gap=100, outcomes={(1, 1): True, (2, 1): True})
    assert (found.undecided, found.sent["try"], found.sent["confirm"]) == ({}, 2, 2)
    states = {case.key: case.state for case in await world.to_the_end(ids)}
    assert states == {(each, number): end for each in ids for number, end in ((1, State.DONE), (2, State.ABORTED))}
    assert not await tasks.load_open(world.pools["platform"], 10)
    assert (await world.verify()).violations == []


async def test_a_recovery_that_cannot_hear_somebody_decides_nothing(
    world: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that was not read might have been the proof."""
    ids = await world.people(1, 2)
    await world.driver.drive(await world.ready(ids))
    merchant = world.participants["merchant"]

    async def gone(_accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        raise ConnectionRefusedError

    monkeypatch.setattr(merchant, "look", gone)
    with pytest.raises(ParticipantUnavailableError):
        await world.recover("wallet")
    assert not await recorded(world), "and nothing was stopped for it"


async def test_a_recovery_that_was_broken_off_is_gone_on_with(world: Installation) -> None:
    """Claims stay stopped meanwhile, and what both runs were told was restored adds up."""
    ids = await world.people(1, 6)
    await world.back_up("gaming")
    await world.driver.drive(await world.ready(ids))
    await world.restore("gaming")
    async with silent(world, "gaming", Op.CONFIRM):
        found = await world.recover("gaming")
    assert found.unfinished == ids
    assert await recoveries.read_under_way_since(world.pools["platform"]) is not None
    found = await world.recover("wallet")
    assert found.complete
    [run] = await recorded(world)
    assert run["restored"] == ["gaming", "wallet"]
    assert run["ended_at"] is not None
    assert (await world.verify()).violations == []


async def test_one_case_that_breaks_its_call_keeps_no_other_back(world: Installation) -> None:
    """A row that breaks the statement would else leave everybody of its page to another run, for ever."""
    ids = await world.people(1, 8)
    await world.back_up("social")
    await world.driver.drive(await world.ready(ids))
    await world.restore("social")

    async def breaks(op: Op, orders: Sequence[Order]) -> None:
        if op is Op.CONFIRM and any(order.account_id == 5 for order in orders):
            raise ValueError

    world.participants["social"].before = breaks
    found = await world.recover("social", page=20)
    assert found.unfinished == [5]
    world.participants["social"].before = None
    assert (await world.recover("social")).complete
    assert (await world.verify()).violations == []


async def test_during_a_recovery_no_case_is_opened(world: Installation) -> None:
    """Its number might be one that participants know already as another's."""
    [first, second] = await world.people(1, 2)
    pool = world.pools["platform"]
    run = await recoveries.begin_recovery(pool, ["platform"], "Ann", now())
    assert await world.ready([first]) == []
    await recoveries.end_recovery(pool, run, {}, now())
    assert len(await world.ready([second])) == 1


async def test_a_commit_found_again_has_its_slot_of_the_documents_quota(world: Installation) -> None:
    """Else the document could be used once more than the law allows; the slot was lost with the backup's later days."""
    ids, platform = await world.people(1, 3), world.pools["platform"]
    cases = await world.ready(ids)
    await platform.execute("UPDATE platform.cases SET document_index = $1", bytes(32))
    await world.back_up("platform")
    await world.driver.drive([msgspec.structs.replace(case, document_index=bytes(32)) for case in cases])
    await world.restore("platform")
    found = await world.recover("platform")
    assert found.states == {"confirming": 3}
    await world.to_the_end(ids)
    report = await world.verify()
    assert (report.violations, report.quota_slots) == ([], 3)
    await platform.execute("TRUNCATE platform.identity_quota")
