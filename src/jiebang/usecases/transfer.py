"""Move the sandbox's money: transfers, and what clears a blocker on the spot. All of it is in the wallet's database.

No transaction spans the two databases. So the key is claimed and committed first, the movement is done under an id
that is derived from the key, and the answer is kept last: whoever repeats a request that was cut off anywhere meets the
first one in the wallet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

import asyncpg
import msgspec

from jiebang.model.errors import ParticipantUnavailableError
from jiebang.model.plan import WALLET
from jiebang.participants.movements import Action, Outcome, Transfer
from jiebang.store import idempotency
from jiebang.usecases.context import Context

if TYPE_CHECKING:
    from jiebang.store.idempotency import Answered, Claim, Kept

Render = Callable[[Outcome], "Kept"]
_NAMESPACE: Final = UUID("6a7c2f0e-5d6b-4d43-9a55-3f6f0f2f7c11")


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Money from one account to another, in fen."""

    sender: int
    receiver: int
    amount_fen: int


async def transfer(context: Context, asked: Payment, claim: Claim, render: Render) -> Answered:
    """Carry out a transfer. Raises what `Wallet.begin_transfers` refuses with, and ParticipantUnavailableError."""

    async def move(movement_id: UUID) -> list[Outcome]:
        one = Transfer(
            transfer_id=movement_id, sender=asked.sender, receiver=asked.receiver, amount_fen=asked.amount_fen
        )
        return await context.wallet.transfer([one])

    return await _moved(context, claim, render, move)


async def cash_out(context: Context, account_id: int, claim: Claim, render: Render) -> Answered:
    """Pay out all that is free in a wallet. Raises what `Wallet.cash_out` refuses with."""
    return await _moved(
        context, claim, render, lambda at: context.wallet.cash_out([Action(entry_id=at, account_id=account_id)])
    )


async def open_red_packets(context: Context, account_id: int, claim: Claim, render: Render) -> Answered:
    """Open every unclaimed red packet of a wallet. Raises what `Wallet.open_red_packets` refuses with."""
    return await _moved(
        context, claim, render, lambda at: context.wallet.open_red_packets([Action(entry_id=at, account_id=account_id)])
    )


async def _moved(
    context: Context, claim: Claim, render: Render, move: Callable[[UUID], Awaitable[list[Outcome]]]
) -> Answered:
    """Claim the key, move, keep the answer. A refusal is not kept: once its reason is gone the request may pass."""
    now = context.clock()
    kept = await idempotency.take(context.platform, claim, now)
    if kept is not None:
        return idempotency.Answered(kept, replayed=True)
    try:
        [outcome] = await move(uuid5(_NAMESPACE, f"{claim.caller}\n{claim.route}\n{claim.key}"))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise ParticipantUnavailableError(participant=WALLET) from None
    if outcome.refusal is not None:
        raise outcome.refusal
    kept = render(outcome)
    await idempotency.keep(context.platform, claim, kept)
    return idempotency.Answered(kept, replayed=False)
