"""Move the sandbox's money: transfers, which are in the wallet's database.

No transaction spans the two databases. So the key is claimed and committed first, the movement is done under an id
that is derived from the key, and the answer is kept last: whoever repeats a request that was cut off anywhere meets the
first one in the wallet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

import asyncpg
import msgspec

from jiebang.model.errors import ParticipantUnavailableError
from jiebang.model.plan import WALLET
from jiebang.participants.wallet.movements import Outcome, Transfer
from jiebang.store import idempotency
from jiebang.usecases.context import Context

if TYPE_CHECKING:
    from jiebang.store.idempotency import Answered, Claim, Kept

_NAMESPACE: Final = UUID("6a7c2f0e-5d6b-4d43-9a55-3f6f0f2f7c11")


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Money from one account to another, in fen."""

    sender: int
    receiver: int
    amount_fen: int


async def transfer(context: Context, asked: Payment, claim: Claim, render: Callable[[Outcome], Kept]) -> Answered:
    """Carry out a transfer. Raises what `Wallet.begin_transfers` refuses with, and ParticipantUnavailableError."""

    async def work(movement_id: UUID) -> Kept:
        one = Transfer(
            transfer_id=movement_id, sender=asked.sender, receiver=asked.receiver, amount_fen=asked.amount_fen
        )
        return render(_granted(await context.wallet.transfer([one])))

    return await _once(context, claim, work)


def _granted(outcomes: Sequence[Outcome]) -> Outcome:
    [outcome] = outcomes
    if outcome.refusal is not None:
        raise outcome.refusal
    return outcome


async def _once(context: Context, claim: Claim, work: Callable[[UUID], Awaitable[Kept]]) -> Answered:
    """Claim the key, move, keep the answer."""
    now = context.clock()
    kept = await idempotency.take(context.platform, claim, now)
    if kept is not None:
        return idempotency.Answered(kept, replayed=True)
    async with idempotency.held(context.platform, claim):
        try:
            kept = await work(uuid5(_NAMESPACE, f"{claim.caller}\n{claim.route}\n{claim.key}"))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            raise ParticipantUnavailableError(participant=WALLET) from None
        await idempotency.keep(context.platform, claim, kept)
    return idempotency.Answered(kept, replayed=False)
