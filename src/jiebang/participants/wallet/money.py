"""Movements of money in the wallet: transfers in two steps, cash-outs and red packets in one, and the ledger's audit.

Every function takes a batch: one transaction locks the wallets in key order, reads what the movement depends on,
decides in plain Python (`movements.py`), and writes in batches. A movement is refused while a case is between the
wallet's Try and its Confirm or Cancel, and every movement raises the wallets' `facts_version`, so that a case never
commits over a movement (design.md, "The saga").

Every movement carries an id from its caller and is done once under it: a repeat gets the first answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.wallet import DECLARATION
from jiebang.participants.wallet.movements import (
    AutodebitContract,
    EntryState,
    LedgerEntry,
    MovementBatch,
    MovementOutcome,
    Packet,
    Purse,
    Transfer,
    WalletAction,
    begin,
    cash_out,
    complete,
    end_contracts,
    open_packets,
)
from jiebang.policy.calendar import local_date
from jiebang.store.encryption import SALT_BYTES, password_hash
from jiebang.store.postgres.halving import ask_in_halves
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    from jiebang.store.postgres.pool import Pool

    Connection = PoolConnectionProxy[asyncpg.Record]

_SQL: Final = load("jiebang.participants.wallet", "money.sql")
_NO_SALT: Final = bytes(SALT_BYTES)


class MoneyAudit(msgspec.Struct, frozen=True):
    """The audit of a batch of accounts against their ledgers.

    `wrong`: accounts whose balance or number of open entries differs from their ledger's sums. `balance_fen`: the sum
    of their balances.
    """

    wrong: Sequence[int]
    balance_fen: int


class WalletParticipant(DatabaseParticipant):
    """The participant `wallet`, with movements of money.

    All methods raise OSError, TimeoutError or asyncpg's errors when the database does not answer; then nothing changed.
    """

    def __init__(self, pool: Pool, clock: Callable[[], datetime], *, pepper: bytes) -> None:
        """`pepper`: the secret in the hashes of payment passwords, which is in no database."""
        super().__init__("wallet", DECLARATION, pool, clock)
        self._pepper = pepper

    async def transfer(self, transfers: Sequence[Transfer]) -> list[MovementOutcome]:
        """Carry out both steps of transfers. Outcomes in the order given; refused ones moved nothing."""
        begun = await self.begin_transfers(transfers)
        pending = [one for one, outcome in zip(transfers, begun, strict=True) if outcome.state is EntryState.PENDING]
        if not pending:
            return begun
        ended = {outcome.entry_id: outcome for outcome in await self.complete_transfers(pending)}
        return [outcome if outcome.refusal else ended.get(outcome.entry_id, outcome) for outcome in begun]

    async def begin_transfers(self, transfers: Sequence[Transfer]) -> list[MovementOutcome]:
        """Carry out the first step: a pending entry at both accounts, the amount out of the sender's balance.

        Refused with InvalidInputError, UnknownAccountError, WalletBusyError (either wallet is tried),
        InsufficientFundsError, ReceiveLimitError, or IdempotencyReusedError (the id names another transfer).
        """
        return await self._in_batch(
            [account for one in transfers for account in (one.sender, one.receiver)],
            [(one.sender, one.transfer_id) for one in transfers],
            lambda batch: [begin(batch, one) for one in transfers],
        )

    async def complete_transfers(self, transfers: Sequence[Transfer]) -> list[MovementOutcome]:
        """Carry out the second step: credit the receiver, or return the money where it is closed."""
        return await self._in_batch(
            [account for one in transfers for account in (one.sender, one.receiver)],
            [(account, one.transfer_id) for one in transfers for account in (one.sender, one.receiver)],
            lambda batch: [complete(batch, one) for one in transfers],
        )

    async def complete_pending(self, older_than: datetime, limit: int = 1024) -> int:
        """Complete transfers begun before `older_than` that lack their second step; return how many were completed.

        One that cannot be completed, such as at a receiver whose balance is at its limit, holds up no other.
        """
        rows = await self._pool.fetch(_SQL["left_behind"], older_than, limit)
        left = [
            Transfer(transfer_id=entry_id, sender=sender, receiver=receiver, amount_fen=amount, title=title)
            for entry_id, sender, receiver, amount, title in rows
        ]
        answers = await ask_in_halves(left, self.complete_transfers, what="transfers left behind")
        return sum(outcome.refusal is None for _, outcomes in answers.parts for outcome in outcomes)

    async def cash_out(self, actions: Sequence[WalletAction]) -> list[MovementOutcome]:
        """Pay out all free money of each wallet to the person's card.

        Refused with UnknownAccountError, WalletBusyError or CashOutPausedError.
        """
        now = self._clock()
        return await self._in_batch(
            [action.account_id for action in actions],
            [(action.account_id, action.entry_id) for action in actions],
            lambda batch: [cash_out(batch, action, now) for action in actions],
        )

    async def open_red_packets(
        self, actions: Sequence[WalletAction], *, give_back: bool = False
    ) -> list[MovementOutcome]:
        """Open each wallet's red packets, or give them back; expired ones return to their senders either way.

        Refused with UnknownAccountError, WalletBusyError, ReceiveLimitError, or NothingToClearError (a packet named
        is not unclaimed); then none of the action's packets changes.
        """
        now = self._clock()
        accounts = sorted({action.account_id for action in actions})
        ids = [action.entry_id for action in actions]

        async def decide(batch: MovementBatch, connection: Connection) -> list[MovementOutcome]:
            packets = [Packet(*row) for row in await connection.fetch(_SQL["packets"], accounts, ids, now)]
            return [open_packets(batch, action, packets, give_back=give_back) for action in actions]

        return await self._in_transaction(accounts, [(one.account_id, one.entry_id) for one in actions], decide)

    async def end_autodebits(self, actions: Sequence[WalletAction]) -> list[MovementOutcome]:
        """End each wallet's live auto-debit contracts, all or those named. To have none is no error.

        Refused with UnknownAccountError, WalletBusyError, or NothingToClearError (a contract named is not live); then
        none of the action's contracts changes.
        """
        accounts = sorted({action.account_id for action in actions})
        ids = [action.entry_id for action in actions]

        async def decide(batch: MovementBatch, connection: Connection) -> list[MovementOutcome]:
            contracts = [AutodebitContract(*row) for row in await connection.fetch(_SQL["contracts"], accounts, ids)]
            return [end_contracts(batch, action, contracts) for action in actions]

        return await self._in_transaction(accounts, (), decide)

    async def verify_payment_password(self, attempts: Sequence[tuple[int, str]]) -> list[bool]:
        """Return whether each (account, password) is right. The caller limits wrong tries."""
        accounts = sorted({account for account, _ in attempts})
        rows = await self._pool.fetch(_SQL["passwords"], accounts)
        hashes: Mapping[int, tuple[bytes, bytes]] = {account: (salt, digest) for account, salt, digest in rows}
        results = []
        for account, password in attempts:
            salt, digest = hashes.get(account, (_NO_SALT, b""))
            results.append(hmac.compare_digest(password_hash(self._pepper, salt, password), digest))
        return results

    async def audit_money(self, accounts: Sequence[int]) -> MoneyAudit:
        """Compare balances and open entries of `accounts` with their ledgers, in one query."""
        rows = await self._pool.fetch(_SQL["audit"], sorted(set(accounts)))
        return MoneyAudit([account for account, _, right in rows if not right], sum(row[1] for row in rows))

    async def transfers_fen(self) -> int:
        """Sum both sides of all transfers in one snapshot: 0 unless money was created or lost. Reads all entries."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "SET LOCAL enable_seqscan = on"
            )  # the one statement here that reads the whole table
            return int(await connection.fetchval(_SQL["transfers"]))

    async def _in_batch(
        self,
        accounts: Iterable[int],
        keys: Sequence[tuple[int, UUID]],
        decide: Callable[[MovementBatch], list[MovementOutcome]],
    ) -> list[MovementOutcome]:
        async def decide_in_memory(batch: MovementBatch, _connection: Connection) -> list[MovementOutcome]:
            return decide(batch)

        return await self._in_transaction(accounts, keys, decide_in_memory)

    async def _in_transaction(
        self,
        accounts: Iterable[int],
        keys: Sequence[tuple[int, UUID]],
        decide: Callable[[MovementBatch, Connection], Awaitable[list[MovementOutcome]]],
    ) -> list[MovementOutcome]:
        """Lock the wallets, read them and the entries of `keys`, call `decide`, and write what it decided."""
        ids, now = sorted(set(accounts)), self._clock()
        if not ids:
            return []
        today = local_date(now)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_SQL["lock"], ids)
            purses = await connection.fetch(_SQL["purses"], ids, today)
            known = await connection.fetch(_SQL["entries"], [key[0] for key in keys], [key[1] for key in keys])
            batch = MovementBatch(
                {row["account_id"]: Purse(**row) for row in purses},
                {(row["account_id"], row["entry_id"]): msgspec.convert(dict(row), LedgerEntry) for row in known},
            )
            outcomes = await decide(batch, connection)
            await _save(connection, batch, now, today)
        return outcomes


async def _save(connection: Connection, batch: MovementBatch, now: datetime, today: date) -> None:
    """Write what a batch decided, in one statement per table and kind of change."""
    changed = [purse for purse in batch.purses.values() if purse.changed]
    if changed:
        await connection.execute(
            _SQL["save_purses"],
            [purse.account_id for purse in changed],
            [purse.balance_fen for purse in changed],
            [purse.open_entries for purse in changed],
            [purse.received_fen for purse in changed],
            today,
        )
    if batch.new:
        await connection.execute(
            _SQL["insert_entries"],
            [entry.account_id for entry in batch.new],
            [entry.entry_id for entry in batch.new],
            [entry.kind for entry in batch.new],
            [entry.counterparty_id for entry in batch.new],
            [entry.title for entry in batch.new],
            [entry.amount_fen for entry in batch.new],
            [entry.state.value for entry in batch.new],
            now,
        )
    if batch.ended:
        await connection.execute(
            _SQL["end_entries"],
            [entry.account_id for entry in batch.ended],
            [entry.entry_id for entry in batch.ended],
            [entry.state.value for entry in batch.ended],
            now,
        )
    if batch.packets:
        await connection.execute(
            _SQL["end_packets"],
            [packet.account_id for packet in batch.packets],
            [packet.packet_id for packet in batch.packets],
            [packet.claimed for packet in batch.packets],
            [packet.ended_by for packet in batch.packets],
            now,
        )
    if batch.contracts:
        await connection.execute(
            _SQL["end_contracts"],
            [contract.account_id for contract in batch.contracts],
            [contract.contract_id for contract in batch.contracts],
            [contract.ended_by for contract in batch.contracts],
            now,
        )
