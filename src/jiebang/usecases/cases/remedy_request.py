"""What a remedy or a consent is asked for, and the check that comes with it."""

from __future__ import annotations

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer
from jiebang.usecases.cases.context import Context


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Whose blocker to clear. `items`: ids (None: all there are); `kind` and `device`: what is checked after it."""

    account_id: int
    kind: Kind
    device: str | None = None
    items: tuple[int, ...] | None = None


async def check_request(context: Context, request: Wanted) -> CheckAnswer:
    """Check what was asked for. Raises UnknownAccountError and KindNotOfferedError."""
    [check] = await context.check([request.account_id], request.kind, {request.account_id: request.device})
    return check
