"""The request for a remedy or a consent, and the check that comes with it."""

from __future__ import annotations

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer
from jiebang.model.origin import UNKNOWN, Origin
from jiebang.usecases.cases.context import Context


class RemedyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose blocker to clear, and who asks. `items`: ids (None: all); `kind`: what the checks are for."""

    account_id: int
    kind: Kind
    origin: Origin = UNKNOWN
    items: tuple[int, ...] | None = None


async def check_request(context: Context, request: RemedyRequest) -> CheckAnswer:
    """Check the account for the request's kind and device. Raises UnknownAccountError and KindNotOfferedError."""
    [check] = await context.check([request.account_id], request.kind, {request.account_id: request.origin})
    return check
