"""Decisions about movements of money, on wallets already read: no I/O, no clock. `money.py` locks, reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import (
    CashOutPausedError,
    IdempotencyReusedError,
    InsufficientFundsError,
    InvalidInputError,
    JiebangError,
    NothingToClearError,
    ReceiveLimitError,
    UnknownAccountError,
    WalletBusyError,
)

_MOST_FEN: Final = (1 << 53) - 1
"""The largest amount; keeps sums of amounts within a bigint."""


class EntryState(StrEnum):
    """The state of a ledger entry."""

    PENDING = "pending"
    COMPLETED = "completed"
    RETURNED = "returned"


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Money from one account to another. `transfer_id`: chosen by the caller; the same id names the same one."""

    transfer_id: UUID
    sender: int
    receiver: int
    amount_fen: int
    title: str = "转账 / Transfer"


class WalletAction(msgspec.Struct, frozen=True, kw_only=True):
    """An immediate action on one wallet. `entry_id`: chosen by the caller; the same id names the same action.

    `items`: the ids of the red packets or contracts that it affects; None: all.
    """

    entry_id: UUID
    account_id: int
    items: tuple[int, ...] | None = None


class MovementOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a movement: its state and amount, or why it was refused (then `state` is None).

    `items`: the ids of the red packets or contracts that it ended.
    """

    entry_id: UUID
    state: EntryState | None = None
    amount_fen: int = 0
    items: tuple[int, ...] = ()
    refusal: JiebangError | None = None


class LedgerEntry(msgspec.Struct, frozen=True):
    """A ledger entry, as read or to be written."""

    account_id: int
    entry_id: UUID
    kind: str
    counterparty_id: int | None
    amount_fen: int
    state: EntryState
    title: str = ""


class Packet(msgspec.Struct, frozen=True):
    """A red packet as read: unclaimed, or ended by the action `ended_by`. `valid`: it has not expired."""

    account_id: int
    packet_id: int
    amount_fen: int
    valid: bool
    claimed: bool
    ended_by: UUID | None


class AutodebitContract(msgspec.Struct, frozen=True):
    """An auto-debit contract as read: live, or ended by the action `ended_by`."""

    account_id: int
    contract_id: int
    ended_by: UUID | None


@dataclass(slots=True)
class Purse:
    """A locked wallet during a batch: later movements of the batch see the effects of earlier ones."""

    account_id: int
    tried: bool
    closed: bool
    balance_fen: int
    open_entries: int
    frozen_fen: int
    receive_limit_fen: int | None
    received_fen: int
    cash_out_paused_until: datetime | None
    changed: bool = False

    @property
    def free_fen(self) -> int:
        """The money that may leave: the balance without frozen funds."""
        return max(self.balance_fen - self.frozen_fen, 0)

    def over_limit(self, amount_fen: int) -> bool:
        """Return whether receiving `amount_fen` more today would exceed the daily limit."""
        return self.receive_limit_fen is not None and self.received_fen + amount_fen > self.receive_limit_fen

    def move(self, balance_fen: int = 0, *, opened: int = 0, received_fen: int = 0) -> None:
        """Change the balance, the number of open entries, and the amount received today."""
        self.balance_fen += balance_fen
        self.open_entries += opened
        self.received_fen += received_fen
        self.changed = True


@dataclass(slots=True)
class MovementBatch:
    """The wallets and entries of a batch, and its pending writes."""

    purses: dict[int, Purse]
    entries: dict[tuple[int, UUID], LedgerEntry]
    new: list[LedgerEntry] = field(default_factory=list)
    ended: list[LedgerEntry] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    contracts: list[AutodebitContract] = field(default_factory=list)

    def add(self, entry: LedgerEntry) -> None:
        """Add a new entry, visible to later movements of the batch."""
        self.new.append(entry)
        self.entries[entry.account_id, entry.entry_id] = entry

    def end(self, entry: LedgerEntry, state: EntryState) -> None:
        """End a pending entry."""
        after = msgspec.structs.replace(entry, state=state)
        self.ended.append(after)
        self.entries[entry.account_id, entry.entry_id] = after


def begin(batch: MovementBatch, one: Transfer) -> MovementOutcome:
    """Decide the first step of a transfer: a pending entry at both sides, the amount out of the sender's balance."""
    known = batch.entries.get((one.sender, one.transfer_id))
    if known is not None:
        if (known.counterparty_id, known.amount_fen) != (one.receiver, -one.amount_fen):
            return MovementOutcome(entry_id=one.transfer_id, refusal=IdempotencyReusedError())
        return MovementOutcome(entry_id=one.transfer_id, state=known.state, amount_fen=one.amount_fen)
    refusal = _find_refusal(batch, one)
    if refusal is not None:
        return MovementOutcome(entry_id=one.transfer_id, refusal=refusal)
    batch.purses[one.sender].move(-one.amount_fen, opened=1)
    batch.purses[one.receiver].move(opened=1, received_fen=one.amount_fen)
    for account, other, amount in (
        (one.sender, one.receiver, -one.amount_fen),
        (one.receiver, one.sender, one.amount_fen),
    ):
        batch.add(LedgerEntry(account, one.transfer_id, "transfer", other, amount, EntryState.PENDING, one.title))
    return MovementOutcome(entry_id=one.transfer_id, state=EntryState.PENDING, amount_fen=one.amount_fen)


def _find_refusal(batch: MovementBatch, one: Transfer) -> JiebangError | None:
    """Return why a transfer may not begin, None if it may.

    What stands in the way at the sender comes first: money that is not there must not ask about others' accounts.
    """
    if not 0 < one.amount_fen <= _MOST_FEN:
        reason = Text("金额须为正整数(分)", "an amount is a positive number of fen")
        return InvalidInputError(field="amount_fen", reason=reason)
    if one.sender == one.receiver:
        return InvalidInputError(field="receiver", reason=Text("不能转给自己", "not to oneself"))
    return _find_sender_refusal(batch, one) or _find_receiver_refusal(batch, one)


def _find_sender_refusal(batch: MovementBatch, one: Transfer) -> JiebangError | None:
    sender = batch.purses.get(one.sender)
    if sender is None:
        return UnknownAccountError(accounts=[str(one.sender)])
    if sender.tried:
        return WalletBusyError()
    return InsufficientFundsError() if sender.free_fen < one.amount_fen else None


def _find_receiver_refusal(batch: MovementBatch, one: Transfer) -> JiebangError | None:
    receiver = batch.purses.get(one.receiver)
    if receiver is None:
        return UnknownAccountError(accounts=[str(one.receiver)])
    if receiver.tried:
        return WalletBusyError()
    return ReceiveLimitError() if receiver.over_limit(one.amount_fen) else None


def complete(batch: MovementBatch, one: Transfer) -> MovementOutcome:
    """Decide the second step: credit the receiver; if its account is closed, return the money to the sender."""
    sides = [batch.entries.get((account, one.transfer_id)) for account in (one.sender, one.receiver)]
    out, into = sides
    if out is None or into is None or out.counterparty_id != one.receiver or out.amount_fen != -one.amount_fen:
        reason = Text("没有这笔转账", "there is no such transfer")
        return MovementOutcome(entry_id=one.transfer_id, refusal=InvalidInputError(field="transfer_id", reason=reason))
    if out.state is EntryState.PENDING:
        sender, receiver = batch.purses[one.sender], batch.purses[one.receiver]
        state = EntryState.RETURNED if receiver.closed else EntryState.COMPLETED
        sender.move(one.amount_fen if receiver.closed else 0, opened=-1)
        receiver.move(0 if receiver.closed else one.amount_fen, opened=-1)
        batch.end(out, state)
        batch.end(into, state)
        return MovementOutcome(entry_id=one.transfer_id, state=state, amount_fen=one.amount_fen)
    return MovementOutcome(entry_id=one.transfer_id, state=out.state, amount_fen=one.amount_fen)


def cash_out(batch: MovementBatch, action: WalletAction, now: datetime) -> MovementOutcome:
    """Pay out all free money. An empty wallet is no error."""
    done = _find_done(batch, action, "cash_out")
    if done is not None:
        return done
    purse = batch.purses.get(action.account_id)
    if purse is None:
        return MovementOutcome(entry_id=action.entry_id, refusal=UnknownAccountError(accounts=[str(action.account_id)]))
    if purse.tried:
        return MovementOutcome(entry_id=action.entry_id, refusal=WalletBusyError())
    if purse.cash_out_paused_until is not None and now < purse.cash_out_paused_until:
        until = purse.cash_out_paused_until.isoformat()
        return MovementOutcome(entry_id=action.entry_id, refusal=CashOutPausedError(until=until))
    amount = purse.free_fen
    if amount:
        purse.move(-amount)
        batch.add(_build_entry(action, "cash_out", -amount, "提现 / Cash-out"))
    return MovementOutcome(entry_id=action.entry_id, state=EntryState.COMPLETED, amount_fen=amount)


def open_packets(
    batch: MovementBatch, action: WalletAction, packets: Sequence[Packet], *, give_back: bool
) -> MovementOutcome:
    """Open red packets of a wallet, or return them to their senders; expired ones are returned either way.

    `packets`: the unclaimed ones of the batch's wallets and those that an action of the batch ended.
    """
    mine = [packet for packet in packets if packet.account_id == action.account_id]
    known = batch.entries.get((action.account_id, action.entry_id))
    before = [packet for packet in mine if packet.ended_by == action.entry_id]
    if known is not None and known.kind != "red_packet":
        return MovementOutcome(entry_id=action.entry_id, refusal=IdempotencyReusedError())
    if before:
        return _build_outcome(action, [packet.packet_id for packet in before], 0 if known is None else known.amount_fen)
    taken = {packet.packet_id for packet in batch.packets if packet.account_id == action.account_id}
    unclaimed = {
        packet.packet_id: packet for packet in mine if packet.ended_by is None and packet.packet_id not in taken
    }
    refusal = _find_action_refusal(batch, action, unclaimed)
    if refusal is not None:
        return MovementOutcome(entry_id=action.entry_id, refusal=refusal)
    chosen = [packet for each, packet in unclaimed.items() if action.items is None or each in action.items]
    opened = [packet for packet in chosen if packet.valid and not give_back]
    amount = sum(packet.amount_fen for packet in opened)
    purse = batch.purses[action.account_id]
    if amount and purse.over_limit(amount):
        return MovementOutcome(entry_id=action.entry_id, refusal=ReceiveLimitError())
    if chosen:
        purse.move(amount, received_fen=amount)
        batch.packets += [
            msgspec.structs.replace(packet, claimed=packet in opened, ended_by=action.entry_id) for packet in chosen
        ]
    if amount:
        batch.add(_build_entry(action, "red_packet", amount, "红包 / Red packets"))
    return _build_outcome(action, [packet.packet_id for packet in chosen], amount)


def end_contracts(
    batch: MovementBatch, action: WalletAction, contracts: Sequence[AutodebitContract]
) -> MovementOutcome:
    """End auto-debit contracts of a wallet. `contracts`: the live ones and those that an action of the batch ended."""
    mine = [contract for contract in contracts if contract.account_id == action.account_id]
    before = [contract.contract_id for contract in mine if contract.ended_by == action.entry_id]
    if before:
        return _build_outcome(action, before)
    taken = {contract.contract_id for contract in batch.contracts if contract.account_id == action.account_id}
    live = {one.contract_id: one for one in mine if one.ended_by is None and one.contract_id not in taken}
    refusal = _find_action_refusal(batch, action, live)
    if refusal is not None:
        return MovementOutcome(entry_id=action.entry_id, refusal=refusal)
    chosen = [contract for each, contract in live.items() if action.items is None or each in action.items]
    if chosen:
        batch.purses[action.account_id].move()
        batch.contracts += [msgspec.structs.replace(contract, ended_by=action.entry_id) for contract in chosen]
    return _build_outcome(action, [contract.contract_id for contract in chosen])


def _find_action_refusal(
    batch: MovementBatch, action: WalletAction, open_items: Collection[int]
) -> JiebangError | None:
    """Return why nothing may be ended, or None: no wallet, a case holds it, or an item named is not open."""
    purse = batch.purses.get(action.account_id)
    if purse is None:
        return UnknownAccountError(accounts=[str(action.account_id)])
    if purse.tried:
        return WalletBusyError()
    missing = sorted(set(action.items or ()) - set(open_items))
    return NothingToClearError(items=[str(each) for each in missing]) if missing else None


def _build_outcome(action: WalletAction, items: Sequence[int], amount_fen: int = 0) -> MovementOutcome:
    return MovementOutcome(
        entry_id=action.entry_id, state=EntryState.COMPLETED, amount_fen=amount_fen, items=tuple(sorted(items))
    )


def _find_done(batch: MovementBatch, action: WalletAction, kind: str) -> MovementOutcome | None:
    known = batch.entries.get((action.account_id, action.entry_id))
    if known is None:
        return None
    if known.kind != kind:
        return MovementOutcome(entry_id=action.entry_id, refusal=IdempotencyReusedError())
    return MovementOutcome(entry_id=action.entry_id, state=known.state, amount_fen=abs(known.amount_fen))


def _build_entry(action: WalletAction, kind: str, amount_fen: int, title: str) -> LedgerEntry:
    return LedgerEntry(action.account_id, action.entry_id, kind, None, amount_fen, EntryState.COMPLETED, title)
