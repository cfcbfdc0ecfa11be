"""Remedies on the spot: clear a blocker at once. Each is done once under its key, recorded, and followed by a check.

No transaction spans our own store and a participant's. So the key is claimed and the remedy recorded as begun first;
the participant does it under an id derived from the key and answers a repeat as it did the first time; the result and
the answer are saved last. A repeat of a request that was cut off at any point continues it; while the first is under
way, it holds the key.
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
from jiebang.participants.wallet.movements import EntryState, WalletAction
from jiebang.policy.devices import Act
from jiebang.policy.remedies import AUTODEBIT, BALANCE, RED_PACKET, cleared_by
from jiebang.store.cases import idempotency, remedies
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.store.cases.remedies import RemedyRecord
from jiebang.store.operations import outbox
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.devices import require_device_of_live_case
from jiebang.usecases.cases.remedy_request import RemedyRequest, check_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.participants.wallet.movements import MovementOutcome
    from jiebang.store.cases.idempotency import Claim, LaterWork, MutationResult, WriteRecord
    from jiebang.store.operations.outbox import OutboxMessage
    from jiebang.store.postgres.pool import Database

_NAMESPACE: Final = UUID("6a7c2f0e-5d6b-4d43-9a55-3f6f0f2f7c11")


class ClearedBlocker(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy that was carried out: the ids it cleared, the amount it moved, and the check after it."""

    account_id: int
    remedy_id: UUID
    code: str
    at: datetime
    items: tuple[str, ...]
    check: CheckAnswer
    amount_fen: int | None = None
    state: EntryState = EntryState.COMPLETED


Render = Callable[[ClearedBlocker], KeptAnswer]
"""Turns the result of a remedy into the answer kept for repeats."""
WorkDone = tuple[tuple[str, ...], int | None, EntryState]
"""What a participant has done: ids, amount in fen, state."""


async def cash_out(context: Context, request: RemedyRequest, claim: Claim, render: Render) -> MutationResult:
    """Pay out the free balance of a wallet. Raises what `Wallet.cash_out` refuses with."""

    async def work(remedy_id: UUID) -> WorkDone:
        return _unpack(await context.wallet.cash_out([WalletAction(entry_id=remedy_id, account_id=request.account_id)]))

    return await _once(context, request, (BALANCE, "cash_out"), claim, work, render)


async def settle_red_packets(
    context: Context, request: RemedyRequest, claim: Claim, render: Render, *, give_back: bool
) -> MutationResult:
    """Open red packets or give them back. Raises what `Wallet.open_red_packets` refuses with."""

    async def work(remedy_id: UUID) -> WorkDone:
        action = WalletAction(entry_id=remedy_id, account_id=request.account_id, items=request.items)
        return _unpack(await context.wallet.open_red_packets([action], give_back=give_back))

    what = "return_red_packets" if give_back else "open_red_packets"
    return await _once(context, request, (RED_PACKET, what), claim, work, render)


async def end_autodebits(context: Context, request: RemedyRequest, claim: Claim, render: Render) -> MutationResult:
    """End auto-debit contracts. Raises what `Wallet.end_autodebits` refuses with."""

    async def work(remedy_id: UUID) -> WorkDone:
        action = WalletAction(entry_id=remedy_id, account_id=request.account_id, items=request.items)
        items, _, state = _unpack(await context.wallet.end_autodebits([action]))
        return items, None, state

    return await _once(context, request, (AUTODEBIT, "end_autodebits"), claim, work, render)


def _unpack(outcomes: Sequence[MovementOutcome]) -> WorkDone:
    [outcome] = outcomes
    if outcome.refusal is not None:
        raise outcome.refusal
    return tuple(map(str, outcome.items)), abs(outcome.amount_fen), outcome.state or EntryState.PENDING


async def _once(
    context: Context,
    request: RemedyRequest,
    rule_and_action: tuple[str, str],
    claim: Claim,
    work: Callable[[UUID], Awaitable[WorkDone]],
    render: Render,
) -> MutationResult:
    """Claim the key, record the remedy, do it, record the result. A refusal leaves no record: a later try may succeed.

    `rule_and_action`: code and action. Raises UnknownAccountError, KindNotOfferedError and WrongDeviceError before it
    does anything.
    """
    await check_request(context, request)
    act = Act.CASH_OUT if rule_and_action[0] == BALANCE else Act.REMEDY
    await require_device_of_live_case(context, context.platform, act, request.account_id, request.origin)
    now, remedy_id = context.clock(), uuid5(_NAMESPACE, f"{claim.caller}\n{claim.route}\n{claim.key}")
    remedy = RemedyRecord(
        account_id=request.account_id,
        remedy_id=remedy_id,
        code=rule_and_action[0],
        action=rule_and_action[1],
        begun_at=now,
    )

    async def begin(db: Database) -> LaterWork:
        await remedies.begin(db, [remedy])
        return partial(carry_out, context, request, remedy, work, render, participant=WALLET)

    return await idempotency.run_once(context.platform, claim, now, begin)


async def carry_out(
    context: Context,
    request: RemedyRequest,
    remedy: RemedyRecord,
    work: Callable[[UUID], Awaitable[WorkDone]],
    render: Render,
    *,
    participant: str,
    message: OutboxMessage | None = None,
) -> tuple[KeptAnswer, WriteRecord]:
    """Carry out a remedy recorded as begun; return its answer, and the function that records its result.

    `message`: sent to the person once it is done. Raises what `work` raises; ParticipantUnavailableError if the
    participant does not answer. The record then stays: whether it was done is unknown until a repeat asks again.
    """
    try:
        items, amount_fen, state = await work(remedy.remedy_id)
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=participant) from None
    except JiebangError:
        await remedies.drop(context.platform, [remedy.key])
        raise
    cleared = await _make_result(context, request, remedy, (items, amount_fen, state))

    async def record_it(db: Database) -> None:
        await record(db, remedy, items, amount_fen, cleared.at)
        if message is not None:
            await outbox.insert(db, [message], message.created_at)

    return render(cleared), record_it


async def _make_result(
    context: Context, request: RemedyRequest, remedy: RemedyRecord, done: WorkDone
) -> ClearedBlocker:
    items, amount_fen, state = done
    check, now = await check_request(context, request), context.clock()
    return ClearedBlocker(
        account_id=request.account_id,
        remedy_id=remedy.remedy_id,
        code=cleared_by(context.pack(), remedy.code),
        at=now,
        items=items,
        amount_fen=amount_fen,
        state=state,
        check=check,
    )


async def record(
    db: Database, remedy: RemedyRecord, items: tuple[str, ...], amount_fen: int | None, now: datetime
) -> None:
    """Record the result of a remedy; one that had nothing to do leaves no record."""
    if not items and not amount_fen:
        await remedies.drop(db, [remedy.key])
        return
    outcome: dict[str, Any] = {"items": items}
    await remedies.finish(
        db, {remedy.key: outcome if amount_fen is None else {**outcome, "amount_fen": amount_fen}}, now
    )
