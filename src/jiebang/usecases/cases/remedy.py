"""Remedies on the spot: what clears a blocker at once. Each is done once under its key, recorded, and checked anew.

No transaction spans our own store and a participant's. So the key is claimed and the remedy recorded as begun first;
the participant does it under an id that is derived from the key and answers a repeat as it did the first time; what
was done, and the answer, are kept last. Whoever repeats a request that was cut off anywhere meets the first one; while
that one is under way it holds the key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import msgspec

from jiebang.model.check import CheckAnswer
from jiebang.model.errors import JiebangError, ParticipantUnavailableError
from jiebang.model.plan import WALLET
from jiebang.participants.base import UNANSWERED
from jiebang.participants.wallet.movements import Action, EntryState
from jiebang.policy.remedies import AUTODEBIT, BALANCE, RED_PACKET, cleared_by
from jiebang.store.cases import idempotency, remedies
from jiebang.store.cases.idempotency import Kept
from jiebang.store.cases.remedies import Remedy
from jiebang.store.operations import outbox
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.remedy_request import Wanted, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.participants.wallet.movements import Outcome
    from jiebang.store.cases.idempotency import Answered, Claim, Elsewhere, Record
    from jiebang.store.operations.outbox import Message
    from jiebang.store.postgres.pool import Database

_NAMESPACE: Final = UUID("6a7c2f0e-5d6b-4d43-9a55-3f6f0f2f7c11")


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy that was carried out: what it cleared (ids), what it moved, and what a check says now."""

    account_id: int
    remedy_id: UUID
    code: str
    at: datetime
    items: tuple[str, ...]
    check: CheckAnswer
    amount_fen: int | None = None
    state: EntryState = EntryState.COMPLETED


Render = Callable[[Cleared], Kept]
"""Turns a remedy that was carried out into the answer kept for repeats."""
Done = tuple[tuple[str, ...], int | None, EntryState]
"""What a participant did: ids, amount in fen, state."""


async def cash_out(context: Context, asked: Wanted, claim: Claim, render: Render) -> Answered:
    """Pay out all that is free in a wallet. Raises what `Wallet.cash_out` refuses with."""

    async def work(remedy_id: UUID) -> Done:
        return _moved(await context.wallet.cash_out([Action(entry_id=remedy_id, account_id=asked.account_id)]))

    return await _once(context, asked, (BALANCE, "cash_out"), claim, work, render)


async def red_packets(context: Context, asked: Wanted, claim: Claim, render: Render, *, give_back: bool) -> Answered:
    """Open red packets or give them back. Raises what `Wallet.open_red_packets` refuses with."""

    async def work(remedy_id: UUID) -> Done:
        action = Action(entry_id=remedy_id, account_id=asked.account_id, items=asked.items)
        return _moved(await context.wallet.open_red_packets([action], give_back=give_back))

    what = "return_red_packets" if give_back else "open_red_packets"
    return await _once(context, asked, (RED_PACKET, what), claim, work, render)


async def end_autodebits(context: Context, asked: Wanted, claim: Claim, render: Render) -> Answered:
    """End auto-debit contracts. Raises what `Wallet.end_autodebits` refuses with."""

    async def work(remedy_id: UUID) -> Done:
        action = Action(entry_id=remedy_id, account_id=asked.account_id, items=asked.items)
        items, _, state = _moved(await context.wallet.end_autodebits([action]))
        return items, None, state

    return await _once(context, asked, (AUTODEBIT, "end_autodebits"), claim, work, render)


def _moved(outcomes: Sequence[Outcome]) -> Done:
    [outcome] = outcomes
    if outcome.refusal is not None:
        raise outcome.refusal
    return tuple(map(str, outcome.items)), abs(outcome.amount_fen), outcome.state or EntryState.PENDING


async def _once(
    context: Context,
    asked: Wanted,
    named: tuple[str, str],
    claim: Claim,
    work: Callable[[UUID], Awaitable[Done]],
    render: Render,
) -> Answered:
    """Claim the key, record, do it, record what was done. A refusal leaves no record: later it may pass.

    `named`: the rule's code and the action. Raises UnknownAccountError and KindNotOfferedError before anything is done.
    """
    await checked(context, asked)
    now, remedy_id = context.clock(), uuid5(_NAMESPACE, f"{claim.caller}\n{claim.route}\n{claim.key}")
    begun = Remedy(account_id=asked.account_id, remedy_id=remedy_id, code=named[0], action=named[1], begun_at=now)

    async def begin(db: Database) -> Elsewhere:
        await remedies.begin(db, [begun])
        return partial(carried_out, context, asked, begun, work, render, participant=WALLET)

    return await idempotency.once(context.platform, claim, now, begin)


async def carried_out(
    context: Context,
    asked: Wanted,
    begun: Remedy,
    work: Callable[[UUID], Awaitable[Done]],
    render: Render,
    *,
    participant: str,
    message: Message | None = None,
) -> tuple[Kept, Record]:
    """Carry out a remedy that was recorded as begun; return its answer, and how what it came to is recorded.

    `message`: told to the person once it was done. Raises what `work` raises; ParticipantUnavailableError when its
    participant does not answer, and then the record stays: nobody knows whether it was done, and a repeat finds out.
    """
    try:
        items, amount_fen, state = await work(begun.remedy_id)
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=participant) from None
    except JiebangError:
        await remedies.drop(context.platform, [begun.key])
        raise
    cleared = await _cleared(context, asked, begun, (items, amount_fen, state))

    async def recorded(db: Database) -> None:
        await record(db, begun, items, amount_fen, cleared.at)
        if message is not None:
            await outbox.insert(db, [message], message.created_at)

    return render(cleared), recorded


async def _cleared(context: Context, asked: Wanted, begun: Remedy, done: Done) -> Cleared:
    items, amount_fen, state = done
    check, now = await checked(context, asked), context.clock()
    return Cleared(
        account_id=asked.account_id,
        remedy_id=begun.remedy_id,
        code=cleared_by(context.pack(), begun.code),
        at=now,
        items=items,
        amount_fen=amount_fen,
        state=state,
        check=check,
    )


async def record(db: Database, begun: Remedy, items: tuple[str, ...], amount_fen: int | None, now: datetime) -> None:
    """Record what a remedy did; one that found nothing to do leaves no record."""
    if not items and not amount_fen:
        await remedies.drop(db, [begun.key])
        return
    outcome: dict[str, Any] = {"items": items}
    await remedies.finish(
        db, {begun.key: outcome if amount_fen is None else {**outcome, "amount_fen": amount_fen}}, now
    )
