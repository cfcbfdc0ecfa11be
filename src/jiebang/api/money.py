"""The route that moves the sandbox's money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from litestar import Response, post
from litestar.params import JSONBody, SkipValidation

from jiebang.api import shapes
from jiebang.api.auth import Scope
from jiebang.api.deps import Joined
from jiebang.api.door import CallerRequest, account_in, strict
from jiebang.api.mutations import KeyedMutation, mutating
from jiebang.model import errors
from jiebang.store.idempotency import Kept
from jiebang.usecases.transfer import Payment, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiebang.participants.wallet.movements import Outcome

_REFUSALS: Final = (errors.UnknownAccountError, errors.WalletBusyError)


def _rendering(account_id: int) -> Callable[[Outcome], Kept]:
    def render(outcome: Outcome) -> Kept:
        return Kept(200, msgspec.json.encode(shapes.movement_shape(outcome, account_id)))

    return render


@post(
    "/v1/transfers",
    **mutating(Scope.TRANSFER, *_REFUSALS, errors.InsufficientFundsError, errors.ReceiveLimitError),
    status_code=200,
    operation_id="transfer",
    tags=["money"],
    summary="Send money 转账",
    description="Sends the sandbox's money from the caller's own account. While a case stands between the wallet's "
    "Try and its Confirm or "
    "Cancel the wallet answers 503 WALLET-BUSY for a moment. 从本人账户转账;解绑提交瞬间钱包会短暂繁忙。",
)
async def send_money(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.TransferBody]],
    deps: Joined,
    mutation: KeyedMutation,
) -> Response[shapes.Movement]:
    """Send money."""
    asked = strict(data, shapes.TransferBody)
    sender, receiver = account_in(asked.sender, "from"), account_in(asked.to, "to")
    request.user.require_account(sender)
    payment = Payment(sender=sender, receiver=receiver, amount_fen=asked.amount_fen)
    return await mutation.respond(lambda claim: transfer(deps.context, payment, claim, _rendering(sender)))


MONEY: Final = [send_money]
