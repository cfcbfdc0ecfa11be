"""The nine database participants: the suite of every participant, and what is a database's own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from jiebang.model.plan import UNNAMED, PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.conformance.fence import CASE, NUMBERS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.core.statements import VERSION_CHANGED
from jiebang.participants.identity import NOT_BOUND
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet import BALANCE_LEFT, FUNDS_MOVING, PAYMENT_CLOSED
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Order
from tests.bringing import bring
from tests.conformance.suite import ParticipantSuite, Subject
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.saga.coordinator import Reply
    from jiebang.store.postgres.pool import Pool

NOW = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
_ids: Iterator[int] = itertools.count(5_000_001)

# column -> value before, and after a Confirm with EFFECTS.
EFFECTS: Mapping[str, Mapping[str, Any]] = {
    "identity_shenzhen": {"key_destroyed_after_minutes": 5},
    "identity_guiyang": {"key_destroyed_after_minutes": 5},
    "wallet": {"receive_limit_fen": 200_000, "cash_out_pause_hours": 72},
    "security": {"login_needs_sms": True},
    "social": {"friend_requests_blocked": True, "moments_per_day": 3},
    "openplatform": {"api_quota_level": "test", "test_calls_per_day": 100},
    "enterprise": {"api_rights": False},
    "merchant": {"records_kept_days": 30},
    "gaming": {},
}
RECLAIMED = {
    "state": "reclaimed",
    "level": 0,
    "document_type": None,
    "document_index": None,
    "birth_date": None,
    "region": None,
    "changed_at": NOW,
    "key_destroy_at": NOW + timedelta(minutes=5),
}
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "wallet": {"balance_fen": 5, "receive_limit_fen": 5_000_000},
    "openplatform": {"api_quota_level": "high"},
    "enterprise": {"api_rights": True},
    "gaming": {"game_guard": True},
}
TRIED: Mapping[str, Mapping[str, Any]] = {
    "identity_shenzhen": {"state": "pending_reclaim"},
    "identity_guiyang": {"state": "pending_reclaim"},
    "gaming": {"suspended": True},
}
CONFIRMED: Mapping[str, Mapping[str, Any]] = {
    "identity_shenzhen": RECLAIMED,
    "identity_guiyang": RECLAIMED,
    "wallet": {"receive_limit_fen": 200_000, "cash_out_paused_until": NOW + timedelta(hours=72)},
    "security": {"login_needs_sms": True},
    "social": {"friend_requests_blocked": True, "moments_per_day": 3},
    "openplatform": {"api_quota_level": "test", "test_calls_per_day": 100},
    "enterprise": {"api_rights": False},
    "merchant": {"records_kept_until": NOW + timedelta(days=30)},
    "gaming": {"suspended": False},
}


@pytest.fixture(params=PARTICIPANTS.databases)
def participant(request: pytest.FixtureRequest, pools: Mapping[str, Pool]) -> DatabaseParticipant:
    return open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))[request.param]


def planned(participant: DatabaseParticipant) -> PlannedOperation:
    """What the product's own pack plans there."""
    return PARTICIPANTS.formerly(participant.name, EFFECTS[participant.name])


async def people(participant: DatabaseParticipant, count: int, **columns: Any) -> list[int]:
    """New accounts with a row at the participant."""
    accounts = list(itertools.islice(_ids, count))
    owner = PARTICIPANTS[participant.name].owner
    await insert_accounts(participant._pool, owner, accounts, **columns)
    for operation in PARTICIPANTS[participant.name].operations:
        await bring(participant, operation, dict.fromkeys(accounts, columns), range(1, 10))
    return accounts


async def row_of(participant: DatabaseParticipant, account: int) -> dict[str, Any]:
    owner = PARTICIPANTS[participant.name].owner
    row = await participant._pool.fetchrow(f"SELECT * FROM {owner}.account WHERE account_id = $1", account)  # noqa: S608 - an owner of ours
    assert row is not None
    return dict(row)


async def one(participant: DatabaseParticipant, op: Op, order: Order) -> tuple[Answer, str | None]:
    (reply,) = await participant.apply(op, [order], planned(participant))
    return reply.answer, reply.code


class TestDatabases(ParticipantSuite):
    """The suite over all nine, on accounts they know."""

    @pytest.fixture
    def subject(self, participant: DatabaseParticipant) -> Subject:
        async def refused(count: int) -> tuple[list[Order], str]:
            return [Order(account, 1, 2) for account in await people(participant, count)], VERSION_CHANGED

        spent = NOT_BOUND if participant.name.startswith("identity") else None
        operation = planned(participant)
        unfit = (
            PlannedOperation(operation.operation, {name: [] for name in operation.effects})
            if operation.effects
            else None
        )
        return Subject(participant, lambda count: people(participant, count), refused, operation, spent, unfit=unfit)


class TestAccountsWithoutARow(ParticipantSuite):
    """The suite over accounts that the participant never heard of: nothing to unbind, but fenced all the same."""

    @pytest.fixture(params=[name for name in PARTICIPANTS.databases if PARTICIPANTS[name].owner != "identity"])
    def participant(self, request: pytest.FixtureRequest, pools: Mapping[str, Pool]) -> DatabaseParticipant:
        return open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))[request.param]

    @pytest.fixture
    def subject(self, participant: DatabaseParticipant) -> Subject:
        async def strangers(count: int) -> list[int]:
            return list(itertools.islice(_ids, count))

        async def refused(count: int) -> tuple[list[Order], str]:
            return [Order(account, 1, 1) for account in await strangers(count)], VERSION_CHANGED

        return Subject(participant, strangers, refused, planned(participant))


async def test_the_statement_writes_exactly_what_the_fence_says(participant: DatabaseParticipant) -> None:
    """Guard in SQL and answer in Python tell one table twice: where they differ, an op is answered PENDING for ever."""
    cells = list(product(NUMBERS, CaseOp, Op, (None, "refused")))
    for where, case_op, op, refusal in cells:
        before = FenceRow(NUMBERS[where], case_op)
        (account,) = await people(participant, 1, case_no=before.case_no, case_op=case_op.value)
        seen = await row_of(participant, account)
        (reply,) = await participant.apply(op, [Order(account, CASE, 2 if refusal else 1)], UNNAMED)
        verdict = fence(before, CASE, op, VERSION_CHANGED if refusal else None)
        cell = f"{where} {case_op}, {op}, {refusal}"
        assert (reply.answer, reply.code, reply.row) == (verdict.answer, verdict.code, verdict.write or before), cell
        after = await row_of(participant, account)
        if verdict.write is None:
            assert after == seen, cell
        else:
            assert FenceRow(after["case_no"], CaseOp(after["case_op"])) == verdict.write, cell


async def test_confirm_applies_the_plan_and_starts_a_new_epoch(participant: DatabaseParticipant) -> None:
    """What a person was told will happen must be what happens, once, however often Confirm is sent."""
    name = participant.name
    (account,) = await people(participant, 1, **BEFORE.get(name, {}))
    before = await row_of(participant, account)
    assert await one(participant, Op.TRY, Order(account, 1, 1)) == (Answer.GRANTED, None)
    tried = {**before, "case_no": 1, "case_op": "tried", **TRIED.get(name, {})}
    assert await row_of(participant, account) == tried
    confirmed = {**tried, "case_op": "confirmed", "epoch": 2, "facts_version": 2, **CONFIRMED[name]}
    for _ in range(2):
        assert await one(participant, Op.CONFIRM, Order(account, 1)) == (Answer.DONE, None)
        assert await row_of(participant, account) == confirmed


async def test_an_effect_left_out_of_the_plan_changes_nothing(participant: DatabaseParticipant) -> None:
    """Another kind of case has another plan: it must not bring the effects of `revoke` along."""
    name = participant.name
    (account,) = await people(participant, 1, **BEFORE.get(name, {}))
    before = await row_of(participant, account)
    await participant.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await participant.apply(Op.CONFIRM, [Order(account, 1)], UNNAMED)
    own = {"case_no": 1, "case_op": "confirmed", "epoch": 2, "facts_version": 2}
    always = {**RECLAIMED, "key_destroy_at": NOW} if name.startswith("identity") else {}
    assert await row_of(participant, account) == {**before, **own, **always}


async def test_cancel_restores_exactly_what_try_changed(participant: DatabaseParticipant) -> None:
    """A rolled back case must leave the person as they were."""
    (account,) = await people(participant, 1, **BEFORE.get(participant.name, {}))
    before = await row_of(participant, account)
    await one(participant, Op.TRY, Order(account, 1, 1))
    assert await one(participant, Op.CANCEL, Order(account, 1)) == (Answer.DONE, None)
    assert await row_of(participant, account) == {**before, "case_no": 1}
    assert await one(participant, Op.TRY, Order(account, 2, 1)) == (Answer.GRANTED, None)


async def test_try_is_granted_at_the_version_that_was_checked_alone(participant: DatabaseParticipant) -> None:
    """Something that changed between check and Try would otherwise slip in unseen."""
    (account,) = await people(participant, 1, facts_version=7)
    before = await row_of(participant, account)
    assert await one(participant, Op.TRY, Order(account, 1, 6)) == (Answer.REFUSED, VERSION_CHANGED)
    assert await row_of(participant, account) == {**before, "case_no": 1}
    assert await one(participant, Op.TRY, Order(account, 2, 7)) == (Answer.GRANTED, None)


async def test_an_op_that_waited_for_another_is_judged_by_what_that_one_left(participant: DatabaseParticipant) -> None:
    """A Try must not be granted on the row as it stood before a later case came in between."""
    await meets_a_later_case(participant, participant.apply, (Answer.REFUSED, "FENCE-LATER-CASE"))


async def test_a_change_between_read_and_write_is_pending_not_a_guess(participant: DatabaseParticipant) -> None:
    """Judged on a row as read that another op changed before the write: only a new look can tell."""
    await meets_a_later_case(participant, participant._judge, (Answer.PENDING, None))


async def meets_a_later_case(
    participant: DatabaseParticipant,
    apply: Callable[[Op, Sequence[Order], PlannedOperation], Awaitable[Sequence[Reply]]],
    expected: tuple[Answer, str | None],
) -> None:
    """Have `apply` try case 1 while case 9 is being committed; demand `expected`; the later case stands."""
    owner = PARTICIPANTS[participant.name].owner
    (account,) = await people(participant, 1)
    async with participant._pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute(
            f"UPDATE {owner}.account SET case_no = 9, case_op = 'cancelled' WHERE account_id = $1",  # noqa: S608 - an owner of ours
            account,
        )
        trying = asyncio.ensure_future(apply(Op.TRY, [Order(account, 1, 1)], planned(participant)))
        await until_waiting(participant._pool, owner)
        await connection.execute("COMMIT")
        [reply] = await trying
        assert (reply.answer, reply.code) == expected
    assert await one(participant, Op.TRY, Order(account, 1, 1)) == (Answer.REFUSED, "FENCE-LATER-CASE")
    assert await participant.look([account]) == {account: FenceRow(9, CaseOp.CANCELLED)}


async def until_waiting(pool: Pool, owner: str) -> None:
    """Wait until a statement on the owner's accounts waits for a lock."""
    async with asyncio.timeout(PATIENCE_S):
        while not await pool.fetchval(  # noqa: ASYNC110 - the event is another server process's
            "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = "
            "current_database() AND query LIKE '%UPDATE ' || $1::text || '.account%'",
            owner,
        ):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("name", ["identity_shenzhen", "identity_guiyang"])
async def test_no_identity_no_unbinding(pools: Mapping[str, Pool], name: str) -> None:
    """A reclaimed or never bound identity cannot be taken back again; the refusal leaves its mark, row or no row."""
    participant = open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))[name]
    (bound, never) = await people(participant, 1), next(_ids)
    for op in (Op.TRY, Op.CONFIRM):
        await participant.apply(op, [Order(bound[0], 1)], UNNAMED)
    for account, case_no in ((bound[0], 2), (never, 1)):
        assert await one(participant, Op.TRY, Order(account, case_no)) == (Answer.REFUSED, NOT_BOUND)
        assert await participant.look([account]) == {account: FenceRow(case_no, CaseOp.CANCELLED)}


async def test_a_wallet_with_an_open_entry_refuses_the_try(pools: Mapping[str, Pool]) -> None:
    """Money between its two steps breaks the case off (domain.md §5, "Money first")."""
    participant = open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))["wallet"]
    (account,) = await people(participant, 1, open_entries=1)
    assert await one(participant, Op.TRY, Order(account, 1, 1)) == (Answer.REFUSED, FUNDS_MOVING)


async def test_a_wallet_closes_only_where_nothing_is_left_in_it(pools: Mapping[str, Pool]) -> None:
    """A closed account that still held money, or had some under way, would leave it without an owner."""
    wallet, close = open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))["wallet"], "close"
    for columns, code in (
        ({"balance_fen": 1}, BALANCE_LEFT),
        ({"open_entries": 1}, FUNDS_MOVING),
        ({"state": "closed"}, PAYMENT_CLOSED),
    ):
        (account,) = await people(wallet, 1, **columns)
        before = await row_of(wallet, account)
        (reply,) = await wallet.apply(Op.TRY, [Order(account, 1, 1)], PlannedOperation(close))
        assert (reply.answer, reply.code) == (Answer.REFUSED, code)
        assert await row_of(wallet, account) == {**before, "case_no": 1}
    (account,) = await people(wallet, 1, receive_limit_fen=7, cash_out_paused_until=NOW)
    before = await row_of(wallet, account)
    for op in (Op.TRY, Op.CONFIRM):
        await wallet.apply(op, [Order(account, 1, 1)], PlannedOperation(close))
    ours = {"case_no": 1, "case_op": "confirmed", "epoch": 2, "facts_version": 2, "state": "closed"}
    assert await row_of(wallet, account) == {**before, **ours}


async def test_effects_give_nothing_that_was_not_there(pools: Mapping[str, Pool]) -> None:
    """Someone who never was a developer must not become one by taking their name back."""
    opened = open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=bytes(32))
    for name, effects, column, value in (
        ("openplatform", {"api_quota_level": "test"}, "api_quota_level", "none"),
        ("enterprise", {"api_rights": True}, "api_rights", False),
    ):
        (account,) = await people(opened[name], 1)
        await opened[name].apply(Op.TRY, [Order(account, 1)], UNNAMED)
        await opened[name].apply(Op.CONFIRM, [Order(account, 1)], PARTICIPANTS.formerly(name, effects))
        assert (await row_of(opened[name], account))[column] == value


async def test_crossing_batches_in_any_order_do_not_lock_each_other_out(participant: DatabaseParticipant) -> None:
    """Workers whose batches overlap crosswise must wait for each other, never deadlock."""
    accounts = await people(participant, 200)
    forwards = [Order(account, 1) for account in accounts]

    async def storm(orders: Sequence[Order]) -> None:
        for op in (Op.TRY, Op.CANCEL):
            await participant.apply(op, orders, UNNAMED)

    await asyncio.gather(*(storm(orders) for orders in (forwards, forwards[::-1], forwards[100:], forwards[::2])))
    assert set((await participant.look(accounts)).values()) == {FenceRow(1, CaseOp.CANCELLED)}
