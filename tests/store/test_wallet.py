"""Money in the wallet: none is made or lost, none moves under a case, and everything is done once under its id."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from jiebang.model.errors import (
    CashOutPausedError,
    IdempotencyReusedError,
    InsufficientFundsError,
    InvalidInputError,
    ReceiveLimitError,
    UnknownAccountError,
    WalletBusyError,
)
from jiebang.model.plan import UNNAMED
from jiebang.participants.wallet import FUNDS_MOVING
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import EntryState, MovementOutcome, Transfer, WalletAction
from jiebang.saga.fence import Answer, Op
from jiebang.saga.orders import Order
from jiebang.store.encryption import password_hash
from tests.rows import AT, insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PEPPER = b"p" * 32
_ids: Iterator[int] = itertools.count(1_001)


class Clock:
    """A clock that a test can put forward."""

    def __init__(self) -> None:
        self.now = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wallet(pools: Mapping[str, Pool], clock: Clock) -> WalletParticipant:
    return WalletParticipant(pools["wallet"], clock, pepper=PEPPER)


async def people(wallet: WalletParticipant, *balances: int, **columns: Any) -> list[int]:
    """New wallets with these balances, each with its opening entry."""
    accounts = list(itertools.islice(_ids, len(balances)))
    for account, balance in zip(accounts, balances, strict=True):
        await insert_accounts(wallet._pool, "wallet", [account], balance_fen=balance, **columns)
    opening = {"kind": "opening", "title": "期初", "state": "completed", "made_at": AT, "ended_at": AT}
    await insert(
        wallet._pool,
        "wallet.entry",
        [
            {"account_id": account, "entry_id": uuid4(), "amount_fen": balance, **opening}
            for account, balance in zip(accounts, balances, strict=True)
        ],
    )
    return accounts


async def balances(wallet: WalletParticipant, *accounts: int) -> list[int]:
    batch = await wallet.facts(accounts)
    found = dict(zip(batch.accounts, batch.columns["balance_fen"], strict=True))
    return [found[account] for account in accounts]


async def versions(wallet: WalletParticipant, *accounts: int) -> list[int]:
    batch = await wallet.facts(accounts)
    found = dict(zip(batch.accounts, batch.versions, strict=True))
    return [found[account] for account in accounts]


async def sound(wallet: WalletParticipant, *accounts: int) -> bool:
    """Say whether the books balance."""
    return not (await wallet.audit_money(accounts)).wrong and await wallet.transfers_fen() == 0


def transfer(sender: int, receiver: int, amount_fen: int, transfer_id: UUID | None = None) -> Transfer:
    return Transfer(transfer_id=transfer_id or uuid4(), sender=sender, receiver=receiver, amount_fen=amount_fen)


def said(outcomes: list[MovementOutcome]) -> list[Any]:
    """What became of each: its state, or the type of its refusal."""
    return [outcome.state or type(outcome.refusal) for outcome in outcomes]


async def tried(wallet: WalletParticipant, account: int, case_no: int = 1) -> Answer:
    (reply,) = await wallet.apply(Op.TRY, [Order(account, case_no)], UNNAMED)
    return reply.answer


async def test_a_transfer_moves_money_and_raises_both_versions(wallet: WalletParticipant) -> None:
    """A case of either side must notice."""
    one, two = await people(wallet, 1000, 50)
    assert said(await wallet.transfer([transfer(one, two, 300)])) == [EntryState.COMPLETED]
    assert await balances(wallet, one, two) == [700, 350]
    assert min(await versions(wallet, one, two)) > 1
    assert await sound(wallet, one, two)


async def test_between_its_two_steps_a_transfer_is_open_at_both_sides(wallet: WalletParticipant) -> None:
    """The wallet's Try refuses while money is on its way, at the sender and at the receiver."""
    one, two = await people(wallet, 1000, 0)
    moving = transfer(one, two, 1000)
    assert said(await wallet.begin_transfers([moving])) == [EntryState.PENDING]
    assert await balances(wallet, one, two) == [0, 0]
    assert (await wallet.facts([one, two])).columns["open_transactions"] == (1, 1)
    replies = await wallet.apply(Op.TRY, [Order(one, 1), Order(two, 1)], UNNAMED)
    assert [(reply.answer, reply.code) for reply in replies] == [(Answer.REFUSED, FUNDS_MOVING)] * 2
    assert await sound(wallet, one, two)
    assert said(await wallet.complete_transfers([moving])) == [EntryState.COMPLETED]
    assert await balances(wallet, one, two) == [0, 1000]
    assert await tried(wallet, one, 2) is Answer.GRANTED


async def test_no_money_moves_between_try_and_its_end(wallet: WalletParticipant) -> None:
    """All-or-nothing rests on it: a wallet that moved after its Try could not be rolled back."""
    one, two, three = await people(wallet, 500, 500, 500)
    assert await tried(wallet, one) is Answer.GRANTED
    moves = [transfer(one, two, 1), transfer(two, one, 1), transfer(two, three, 1)]
    assert said(await wallet.transfer(moves)) == [WalletBusyError, WalletBusyError, EntryState.COMPLETED]
    assert said(await wallet.cash_out([WalletAction(entry_id=uuid4(), account_id=one)])) == [WalletBusyError]
    assert said(await wallet.open_red_packets([WalletAction(entry_id=uuid4(), account_id=one)])) == [WalletBusyError]
    assert await versions(wallet, one) == [1]
    await wallet.apply(Op.CANCEL, [Order(one, 1)], UNNAMED)
    assert said(await wallet.transfer(moves[:2])) == [EntryState.COMPLETED] * 2
    assert await sound(wallet, one, two, three)


async def test_a_transfer_is_done_once_under_its_id(wallet: WalletParticipant) -> None:
    """A repeated request must not pay twice, and an id must not stand for two things."""
    one, two = await people(wallet, 1000, 0)
    moving = transfer(one, two, 400)
    for _ in range(2):
        assert said(await wallet.transfer([moving, moving])) == [EntryState.COMPLETED] * 2
    assert await balances(wallet, one, two) == [600, 400]
    other = transfer(one, two, 401, moving.transfer_id)
    assert said(await wallet.transfer([other])) == [IdempotencyReusedError]
    assert said(await wallet.complete_transfers([other])) == [InvalidInputError]
    assert await sound(wallet, one, two)


async def test_a_batch_sees_its_own_movements(wallet: WalletParticipant) -> None:
    """Each transfer of a batch must be judged on what the ones before it left, or a balance is spent twice."""
    one, two, three = await people(wallet, 100, 0, 0)
    moves = [transfer(one, two, 60), transfer(one, three, 60), transfer(one, three, 40)]
    expected = [EntryState.COMPLETED, InsufficientFundsError, EntryState.COMPLETED]
    assert said(await wallet.transfer(moves)) == expected
    assert await balances(wallet, one, two, three) == [0, 60, 40]


@pytest.mark.parametrize("amount", [0, -5, 1 << 53, 1 << 80])
async def test_impossible_amounts_are_refused(wallet: WalletParticipant, amount: int) -> None:
    """A negative transfer would take money from the receiver."""
    one, two = await people(wallet, 1000, 1000)
    assert said(await wallet.transfer([transfer(one, two, amount)])) == [InvalidInputError]
    assert await balances(wallet, one, two) == [1000, 1000]


async def test_strangers_and_oneself_are_refused(wallet: WalletParticipant) -> None:
    """Money sent to nobody would be lost."""
    (one,) = await people(wallet, 1000)
    moves = [transfer(one, one, 1), transfer(one, 999_999_999, 1), transfer(999_999_998, one, 1)]
    outcomes = await wallet.transfer(moves)
    assert said(outcomes) == [InvalidInputError, UnknownAccountError, UnknownAccountError]
    assert await balances(wallet, one) == [1000]
    assert await wallet.transfer([]) == []


async def test_frozen_funds_do_not_move(wallet: WalletParticipant) -> None:
    """What an authority froze must still be there when it comes for it."""
    one, two = await people(wallet, 1000, 0)
    frozen = {"freeze_id": 1, "authority": "法院", "contact": "12368", "amount_fen": 900, "frozen_at": AT}
    await insert(wallet._pool, "wallet.freeze", [{"account_id": one, **frozen}])
    assert said(await wallet.transfer([transfer(one, two, 101)])) == [InsufficientFundsError]
    (paid,) = await wallet.cash_out([WalletAction(entry_id=uuid4(), account_id=one)])
    assert paid.amount_fen == 100
    assert await balances(wallet, one) == [900]


async def test_the_daily_receiving_limit_holds_for_one_shanghai_day(wallet: WalletParticipant, clock: Clock) -> None:
    """The downgrade after a revoke must be enforced, and be over at midnight where the person lives."""
    one, two = await people(wallet, 10_000, 0, receive_limit_fen=500)
    moves = [transfer(one, two, 300), transfer(one, two, 201), transfer(one, two, 200)]
    expected = [EntryState.COMPLETED, ReceiveLimitError, EntryState.COMPLETED]
    assert said(await wallet.transfer(moves)) == expected
    clock.now = datetime(2026, 4, 1, 15, 59, tzinfo=UTC)
    assert said(await wallet.transfer([transfer(one, two, 1)])) == [ReceiveLimitError]
    clock.now = datetime(2026, 4, 1, 16, 0, tzinfo=UTC)
    assert said(await wallet.transfer([transfer(one, two, 500)])) == [EntryState.COMPLETED]


async def test_what_a_closed_account_cannot_take_returns_to_its_sender(wallet: WalletParticipant) -> None:
    """Credits to a closed account must not vanish."""
    one, two = await people(wallet, 100, 0, receive_limit_fen=None)
    await wallet._pool.execute("UPDATE wallet.account SET state = 'closed' WHERE account_id = $1", two)
    (outcome,) = await wallet.transfer([transfer(one, two, 30)])
    assert outcome.state is EntryState.RETURNED
    assert await balances(wallet, one, two) == [100, 0]
    assert (await wallet.facts([one, two])).columns["open_transactions"] == (0, 0)
    assert await sound(wallet, one, two)


async def test_the_sweeper_completes_what_a_dead_process_left(wallet: WalletParticipant, clock: Clock) -> None:
    """A pending entry that nobody ends would block its two people for ever."""
    one, two = await people(wallet, 100, 0)
    await wallet.begin_transfers([transfer(one, two, 10)])
    left = clock.now
    clock.now += timedelta(seconds=5)
    await wallet.begin_transfers([transfer(one, two, 20)])
    assert await wallet.complete_pending(left + timedelta(seconds=1)) == 1
    assert await balances(wallet, one, two) == [70, 10]
    assert await wallet.complete_pending(clock.now + timedelta(seconds=1)) == 1
    assert await wallet.complete_pending(clock.now + timedelta(seconds=1)) == 0
    assert await balances(wallet, one, two) == [70, 30]
    assert await sound(wallet, one, two)


async def test_a_transfer_that_cannot_be_completed_is_no_work_done(wallet: WalletParticipant, clock: Clock) -> None:
    """Half a transfer, loaded from somebody's file, would keep the sweeper running in circles without a pause."""
    one, two = await people(wallet, 100, 10)
    half = {"kind": "transfer", "title": "半笔", "state": "pending", "made_at": AT}
    await insert(
        wallet._pool,
        "wallet.entry",
        [{"account_id": one, "entry_id": uuid4(), "counterparty_id": two, "amount_fen": -5, **half}],
    )
    try:
        assert await wallet.complete_pending(clock.now) == 0
    finally:
        await wallet._pool.execute("DELETE FROM wallet.entry WHERE account_id = $1 AND state = 'pending'", one)


async def test_cash_out_empties_the_wallet_once_unless_paused(wallet: WalletParticipant, clock: Clock) -> None:
    """One tap clears PAY-BALANCE; after a revoke it waits for the pause to end."""
    one, empty = await people(wallet, 1, 0)
    (paused,) = await people(wallet, 70, cash_out_paused_until=clock.now + timedelta(hours=1))
    actions = [WalletAction(entry_id=uuid4(), account_id=account) for account in (one, empty, paused)]
    for _ in range(2):
        outcomes = await wallet.cash_out(actions)
        assert said(outcomes) == [EntryState.COMPLETED, EntryState.COMPLETED, CashOutPausedError]
        assert [outcome.amount_fen for outcome in outcomes] == [1, 0, 0]
    assert await balances(wallet, one, empty, paused) == [0, 0, 70]
    assert await versions(wallet, one, empty, paused) == [2, 1, 1]
    clock.now += timedelta(hours=1)
    assert said(await wallet.cash_out(actions[2:])) == [EntryState.COMPLETED]
    assert said(await wallet.cash_out([WalletAction(entry_id=uuid4(), account_id=999_999_999)])) == [
        UnknownAccountError
    ]
    assert await sound(wallet, one, empty, paused)


async def test_red_packets_are_opened_once_and_expired_ones_returned(wallet: WalletParticipant, clock: Clock) -> None:
    """A packet opened twice is money made; an expired one is the sender's again."""
    one, two = await people(wallet, 0, 0)
    packet = {"sender": "王芳", "state": "unclaimed", "sent_at": AT}
    ends = [clock.now + timedelta(hours=1), clock.now + timedelta(hours=2), clock.now - timedelta(hours=1)]
    await insert(
        wallet._pool,
        "wallet.red_packet",
        [
            {"account_id": one, "packet_id": number, "amount_fen": 10**number, "expires_at": end, **packet}
            for number, end in enumerate(ends, 1)
        ],
    )
    actions = [WalletAction(entry_id=uuid4(), account_id=account) for account in (one, two, one)]
    outcomes = await wallet.open_red_packets(actions)
    assert [outcome.amount_fen for outcome in outcomes] == [110, 0, 0]
    again = await wallet.open_red_packets(actions)
    assert [outcome.amount_fen for outcome in again] == [110, 0, 0]
    assert await balances(wallet, one, two) == [110, 0]
    assert await versions(wallet, one, two) == [2, 1]
    states = await wallet._pool.fetch(
        "SELECT packet_id, state, entry_id FROM wallet.red_packet WHERE account_id = $1 ORDER BY 1", one
    )
    claimed = ("claimed", actions[0].entry_id)
    assert [tuple(row) for row in states] == [(1, *claimed), (2, *claimed), (3, "returned", None)]
    assert said(await wallet.cash_out(actions[:1])) == [IdempotencyReusedError]
    assert await sound(wallet, one, two)


async def test_the_payment_password_is_checked_under_the_pepper(wallet: WalletParticipant, clock: Clock) -> None:
    """A leaked database must not be enough to try passwords, and no password must never mean any password."""
    salt = b"s" * 16
    (one,) = await people(wallet, 0, password_salt=salt, password_hash=password_hash(PEPPER, salt, "246813"))
    (unset,) = await people(wallet, 0)
    attempts = [(one, "246813"), (one, "246814"), (one, ""), (unset, ""), (999_999_999, "246813")]
    assert await wallet.verify_payment_password(attempts) == [True, False, False, False, False]
    elsewhere = WalletParticipant(wallet._pool, clock, pepper=b"q" * 32)
    assert await elsewhere.verify_payment_password([(one, "246813")]) == [False]


async def test_the_audit_finds_money_that_its_ledger_does_not_know(wallet: WalletParticipant) -> None:
    """An audit that cannot fail proves nothing."""
    one, two = await people(wallet, 100, 100)
    assert (await wallet.audit_money([one, two, 999_999_999])).balance_fen == 200
    await wallet._pool.execute("UPDATE wallet.account SET balance_fen = 101 WHERE account_id = $1", one)
    await wallet._pool.execute("UPDATE wallet.account SET open_entries = 1 WHERE account_id = $1", two)
    assert (await wallet.audit_money([one, two])).wrong == [one, two]
    await wallet._pool.execute(
        "UPDATE wallet.account SET balance_fen = 100, open_entries = 0 WHERE account_id >= $1", one
    )
    moving = transfer(one, two, 5)
    await wallet.transfer([moving])
    await wallet._pool.execute("UPDATE wallet.entry SET amount_fen = 6 WHERE account_id = $1 AND amount_fen = 5", two)
    assert await wallet.transfers_fen() == 1
    await wallet._pool.execute("UPDATE wallet.entry SET amount_fen = 5 WHERE account_id = $1 AND amount_fen = 6", two)


async def test_transfers_and_cases_crossing_each_other_lose_nothing(wallet: WalletParticipant, clock: Clock) -> None:
    """The heart of it, in a crowd: money always adds up, nobody deadlocks, and no wallet moves while it is tried."""
    crowd = await people(wallet, *[1_000] * 12)
    chance = random.Random(11)  # noqa: S311 - a reproducible crowd
    granted_at: list[tuple[int, int, int]] = []

    async def trade() -> None:
        for _ in range(12):
            pairs = [chance.sample(crowd, 2) for _ in range(6)]
            await wallet.transfer([transfer(one, two, chance.randint(1, 400)) for one, two in pairs])

    async def cases(first: int) -> None:
        for case_no in range(first, first + 40, 2):
            orders = [Order(account, case_no) for account in chance.sample(crowd, 6)]
            replies = await wallet.apply(Op.TRY, orders, UNNAMED)
            held = [reply.account_id for reply in replies if reply.answer is Answer.GRANTED]
            before = await wallet._pool.fetch(
                "SELECT account_id, balance_fen, facts_version FROM wallet.account WHERE account_id = ANY ($1)", held
            )
            await asyncio.sleep(0.002)
            after = await wallet._pool.fetch(
                "SELECT account_id, balance_fen, facts_version FROM wallet.account WHERE account_id = ANY ($1)", held
            )
            assert sorted(map(tuple, before)) == sorted(map(tuple, after))
            granted_at.extend(tuple(row) for row in before)
            await wallet.apply(Op.CANCEL, orders, UNNAMED)

    await asyncio.gather(trade(), trade(), trade(), cases(1))
    await wallet.complete_pending(clock.now + timedelta(seconds=1))
    assert granted_at
    assert sum(await balances(wallet, *crowd)) == 12_000
    assert await sound(wallet, *crowd)
