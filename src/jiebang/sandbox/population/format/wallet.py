"""A person's payment account."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from jiebang.sandbox.population.format.fields import (
    Fen,
    Id,
    Instant,
    PopulationRecord,
    PositiveFen,
    ShortText,
    SignedFen,
)


class EntryRecord(PopulationRecord):
    """A movement of money, signed. The pending and completed ones add up to the balance as wallet.entry says."""

    entry_id: UUID
    made_at: Instant
    kind: Literal["opening", "transfer", "payment", "refund", "red_packet", "cash_in", "cash_out"]
    title: ShortText
    amount_fen: SignedFen
    state: Literal["pending", "completed", "returned"]
    ended_at: Instant | None = None
    expected_at: Instant | None = None
    counterparty_id: Id | None = None


class RedPacketRecord(PopulationRecord):
    """A red packet sent to the person; `entry_id` is the entry that claimed it."""

    packet_id: Id
    sender: ShortText
    amount_fen: PositiveFen
    state: Literal["unclaimed", "claimed", "returned"]
    sent_at: Instant
    expires_at: Instant
    entry_id: UUID | None = None
    ended_at: Instant | None = None


class BankCardRecord(PopulationRecord):
    """A bank card. Of `number` (12 to 19 digits) only the last four are stored."""

    card_id: Id
    bound_at: Instant
    bank: ShortText
    kind: Literal["debit", "credit"]
    number: Annotated[str, Meta(min_length=12, max_length=19)]
    unbound_at: Instant | None = None


class ContractRecord(PopulationRecord):
    """An auto-debit contract; without `ended_at` it is active. `amount_fen` null: varies."""

    contract_id: Id
    signed_at: Instant
    merchant: ShortText
    service: ShortText
    amount_fen: PositiveFen | None
    next_charge_at: Instant | None = None
    ended_at: Instant | None = None


class CreditProductRecord(PopulationRecord):
    """A credit product; open until `closed_at`, and then nothing is owed."""

    product_id: Id
    product: ShortText
    owed_fen: Fen
    opened_at: Instant
    closed_at: Instant | None = None


class ArrearsRecord(PopulationRecord):
    """Something owed outside credit products."""

    arrears_id: Id
    title: ShortText
    owed_fen: PositiveFen
    due_at: Instant
    repaid_at: Instant | None = None


class FreezeRecord(PopulationRecord):
    """Frozen funds."""

    freeze_id: Id
    authority: ShortText
    contact: ShortText
    amount_fen: PositiveFen
    frozen_at: Instant
    lifted_at: Instant | None = None


class WalletRecord(PopulationRecord):
    """The payment account. `payment_password`: six digits in clear, hashed on loading; null: none set."""

    balance_fen: Fen
    payment_password: Annotated[str, Meta(min_length=6, max_length=6)] | None = None
    receive_limit_fen: Fen | None = None
    entries: list[EntryRecord] = []
    red_packets: list[RedPacketRecord] = []
    bank_cards: list[BankCardRecord] = []
    autodebit_contracts: list[ContractRecord] = []
    credit_products: list[CreditProductRecord] = []
    arrears: list[ArrearsRecord] = []
    freezes: list[FreezeRecord] = []
