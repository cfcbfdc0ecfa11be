"""Routes that move the sandbox's money: transfers, and the remedies that clear a blocker on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from litestar import Response, post
from litestar.params import JSONBody, SkipValidation

from jiebang.api import shapes
from jiebang.api.auth import Scope
from jiebang.api.deps import Joined
from jiebang.api.documented import refusals, secured
from jiebang.api.door import CallerRequest, account_in, authenticated, json_only, strict
from jiebang.api.mutations import REPLAYED, IdempotencyKey, claim_of, keyed, respond
from jiebang.model import errors
from jiebang.store.idempotency import Kept
from jiebang.usecases.transfer import Payment, cash_out, end_autodebits, open_red_packets, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiebang.participants.movements import Outcome

_REFUSALS: Final = (errors.UnknownAccountError, errors.WalletBusyError)


def _rendering(account_id: int) -> Callable[[Outcome], Kept]:
    def render(outcome: Outcome) -> Kept:
        return Kept(200, msgspec.json.encode(shapes.movement_shape(outcome, account_id)))

    return render


@post(
    "/v1/transfers",
    guards=[authenticated, keyed, json_only],
    opt={"scope": Scope.TRANSFER},
    security=secured(Scope.TRANSFER),
    status_code=200,
    operation_id="transfer",
    tags=["money"],
    summary="Send money 转账",
    description="Sends the sandbox's money from the caller's own account. While a case stands between the wallet's "
    "Try and its Confirm or "
    "Cancel the wallet answers 503 WALLET-BUSY for a moment. 从本人账户转账;解绑提交瞬间钱包会短暂繁忙。",
    responses=refusals(*_REFUSALS, errors.InsufficientFundsError, errors.ReceiveLimitError, body=True, keyed=True),
    response_headers=[REPLAYED],
)
async def send_money(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.TransferBody]],
    deps: Joined,
    idempotency_key: IdempotencyKey,
) -> Response[shapes.Movement]:
    """Send money."""
    asked = strict(data, shapes.TransferBody)
    del idempotency_key
    sender, receiver = account_in(asked.sender, "from"), account_in(asked.to, "to")
    request.user.require_account(sender)
    payment = Payment(sender=sender, receiver=receiver, amount_fen=asked.amount_fen)
    return respond(await transfer(deps.context, payment, await claim_of(request, deps), _rendering(sender)))


@post(
    "/v1/remedies/cash-out",
    guards=[authenticated, keyed, json_only],
    opt={"scope": Scope.TRANSFER},
    security=secured(Scope.TRANSFER),
    status_code=200,
    operation_id="cashOut",
    tags=["money"],
    summary="Cash out everything 全部提现",
    description="Pays the whole free balance out to the person's card: clears `PAY-BALANCE`. "
    "将可用余额全部提现到本人银行卡。",
    responses=refusals(*_REFUSALS, errors.CashOutPausedError, body=True, keyed=True),
    response_headers=[REPLAYED],
)
async def cash_everything_out(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: Joined,
    idempotency_key: IdempotencyKey,
) -> Response[shapes.Movement]:
    """Cash out everything."""
    asked = strict(data, shapes.RemedyBody)
    del idempotency_key
    account_id = account_in(asked.account)
    request.user.require_account(account_id)
    return respond(await cash_out(deps.context, account_id, await claim_of(request, deps), _rendering(account_id)))


@post(
    "/v1/remedies/red-packets",
    guards=[authenticated, keyed, json_only],
    opt={"scope": Scope.TRANSFER},
    security=secured(Scope.TRANSFER),
    status_code=200,
    operation_id="openRedPackets",
    tags=["money"],
    summary="Open every red packet 拆开全部红包",
    description="Opens every unclaimed red packet; expired ones go back to their senders: clears `PAY-RED-PACKET`. "
    "拆开全部未领取红包。",
    responses=refusals(*_REFUSALS, errors.ReceiveLimitError, body=True, keyed=True),
    response_headers=[REPLAYED],
)
async def open_every_red_packet(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: Joined,
    idempotency_key: IdempotencyKey,
) -> Response[shapes.Movement]:
    """Open every red packet."""
    asked = strict(data, shapes.RemedyBody)
    del idempotency_key
    account_id = account_in(asked.account)
    request.user.require_account(account_id)
    claim = await claim_of(request, deps)
    return respond(await open_red_packets(deps.context, account_id, claim, _rendering(account_id)))


@post(
    "/v1/remedies/auto-debits",
    guards=[authenticated, keyed, json_only],
    opt={"scope": Scope.TRANSFER},
    security=secured(Scope.TRANSFER),
    status_code=200,
    operation_id="endAutoDebits",
    tags=["money"],
    summary="End every auto-debit contract 终止全部自动扣费",
    description="Ends all of them with one tap: clears `PAY-AUTODEBIT`. 一键终止全部自动扣费签约。",
    responses=refusals(*_REFUSALS, body=True, keyed=True),
    response_headers=[REPLAYED],
)
async def end_every_autodebit(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: Joined,
    idempotency_key: IdempotencyKey,
) -> Response[shapes.Cleared]:
    """End every auto-debit contract."""
    asked = strict(data, shapes.RemedyBody)
    del idempotency_key
    account_id = account_in(asked.account)
    request.user.require_account(account_id)

    def render(count: int) -> Kept:
        return Kept(200, msgspec.json.encode(shapes.Cleared(account=str(account_id), count=count)))

    return respond(await end_autodebits(deps.context, account_id, await claim_of(request, deps), render))


MONEY: Final = [send_money, cash_everything_out, open_every_red_packet, end_every_autodebit]
