"""The route that moves the sandbox's money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from litestar import Response, post
from litestar.params import JSONBody, SkipValidation

from jiebang.api import shapes
from jiebang.api.deps import Joined
from jiebang.api.documented import refusals, secured
from jiebang.api.door import CallerRequest, account_in, authenticated, json_only, strict
from jiebang.api.mutations import REPLAYED, IdempotencyKey, keyed, once, respond
from jiebang.model import errors
from jiebang.remote.tokens import Scope
from jiebang.store.idempotency import Kept
from jiebang.usecases.transfer import Payment, transfer

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
    return respond(await once(request, deps, lambda claim: transfer(deps.context, payment, claim, _rendering(sender))))


MONEY: Final = [send_money]
