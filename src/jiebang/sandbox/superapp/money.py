"""Money: people send it to each other and cash it out, through the wallet's own service, which is its gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.clock import utc_now
from jiebang.model.errors import (
    JiebangError,
    ReceiveLimitError,
    ReceiverUnavailableError,
    UnknownAccountError,
)
from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import EntryState, MovementOutcome, Transfer, WalletAction
from jiebang.remote.bodies import parse_account
from jiebang.remote.tokens import TokenScope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jiebang.sandbox.service import Handler, HttpAnswer, HttpCall
    from jiebang.sandbox.superapp.door import Door
    from jiebang.store.postgres.pool import Pool

LIMIT_FEN: Final = 100_000_000_00
"""A sanity limit on one transfer (100 million yuan), far above any the wallet's own limits allow."""

Account = Annotated[str, Meta(pattern=ACCOUNT_PATTERN)]


class TransferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer. `from` is the sender's account; amounts are in fen (1 yuan = 100 fen)."""

    sender: Account = msgspec.field(name="from")
    to: Account
    amount_fen: Annotated[int, Meta(ge=1, le=LIMIT_FEN)]


class CashOutBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cash-out of all free money to the account's own card."""

    account: Account


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """A movement of money. `id`: of its ledger entry, at the sender and the receiver alike.

    `state`: `completed`; `returned` (the receiver's account is closed); `pending` (it will complete by itself).
    """

    id: UUID
    account: str
    state: EntryState
    amount_fen: int


def wallet_of(pool: Pool, clock: Callable[[], datetime] = utc_now) -> WalletParticipant:
    """Return the wallet's service on its database. It knows no payment passwords: nobody is asked for one here.

    `clock`: by which movements are stamped; the platform's worker judges by them which were left behind.
    """
    return WalletParticipant(pool, clock, pepper=b"")


class Money:
    """The routes about money."""

    def __init__(self, door: Door, wallet: WalletParticipant) -> None:
        """Take the door, and the wallet's service, which moves the money."""
        self._door, self._wallet = door, wallet

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {("POST", "/v1/transfers"): self.send, ("POST", "/v1/cash-outs"): self.cash_out}

    async def send(self, call: HttpCall) -> HttpAnswer:
        """Send money from the caller's own account.

        Refused as `transfer` says; PARTICIPANT-UNAVAILABLE while the wallet's database is silent. Both WALLET-BUSY and
        that are no answer yet: the same key may come again.
        """
        caller, asked = await self._door.enter(call, TokenScope.TRANSFER, TransferBody)
        sender, receiver = parse_account(asked.sender, "from"), parse_account(asked.to, "to")
        caller.require_account(sender)

        async def work(transfer_id: UUID) -> Movement:
            one = Transfer(transfer_id=transfer_id, sender=sender, receiver=receiver, amount_fen=asked.amount_fen)
            return await transfer(self._wallet, one)

        return await self._door.once(call, caller, work, gate=self._wallet.name)

    async def cash_out(self, call: HttpCall) -> HttpAnswer:
        """Cash out all free money of the caller's own account.

        Refused with UnknownAccountError, CashOutPausedError (until when), WalletBusyError, and
        ParticipantUnavailableError while the wallet's database is silent.
        """
        caller, asked = await self._door.enter(call, TokenScope.TRANSFER, CashOutBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)

        async def work(entry_id: UUID) -> Movement:
            [outcome] = await self._wallet.cash_out([WalletAction(entry_id=entry_id, account_id=account_id)])
            if outcome.refusal is not None:
                raise outcome.refusal
            return _describe(outcome, account_id)

        return await self._door.once(call, caller, work, gate=self._wallet.name)


async def transfer(wallet: WalletParticipant, one: Transfer) -> Movement:
    """Carry a transfer out. Raises what `WalletParticipant.begin_transfers` refuses with, and UNANSWERED.

    Whatever is the matter with the receiver is one refusal, ReceiverUnavailableError: a stranger must learn neither who
    has an account nor whose receiving limit was lowered.
    """
    [outcome] = await wallet.transfer([one])
    if outcome.refusal is not None:
        raise ReceiverUnavailableError if _is_of_receiver(outcome.refusal, one) else outcome.refusal
    return _describe(outcome, one.sender)


def _describe(outcome: MovementOutcome, account_id: int) -> Movement:
    return Movement(
        id=outcome.entry_id,
        account=str(account_id),
        state=outcome.state or EntryState.PENDING,
        amount_fen=abs(outcome.amount_fen),
    )


def _is_of_receiver(refusal: JiebangError, one: Transfer) -> bool:
    """Whether a refusal tells something about the receiver's account."""
    unknown = isinstance(refusal, UnknownAccountError) and refusal.fields["accounts"] == [str(one.receiver)]
    return unknown or isinstance(refusal, ReceiveLimitError)
