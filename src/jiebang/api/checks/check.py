"""The route of the check: what stands in the way of 1 to 1,000 accounts."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, post
from litestar.params import JSONBody, SkipValidation

from jiebang.api import shapes
from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import ASKS_ANEW
from jiebang.api.gate.guards import CallerRequest, require_caller, require_json
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model import errors
from jiebang.remote.bodies import convert_strictly, parse_account
from jiebang.remote.tokens import TokenScope


@post(
    "/v1/checks",
    guards=[require_caller, require_json],
    opt={"scope": TokenScope.CHECK, "admission": ASKS_ANEW},
    security=security_requirement(TokenScope.CHECK),
    status_code=200,
    operation_id="check",
    tags=["checks"],
    summary="What stands in the way 检查",
    description="Everything that stands in the way of a kind of case, all of it at once, with values and remedies; "
    "everything that follows; and what else would do, with its cost. Changes nothing. "
    "A person checks their own account; many need the scope `service`. 一次列出全部阻碍、后果与其他办法;不作任何更改。",
    responses=refusals(errors.UnknownAccountError, errors.KindNotOfferedError, body=True),
)
async def check(
    request: CallerRequest, data: JSONBody[SkipValidation[shapes.CheckBody]], deps: InjectedDeps
) -> Response[shapes.Checks]:
    """Check 1 to 1,000 accounts."""
    asked = convert_strictly(data, shapes.CheckBody)
    accounts = list(dict.fromkeys(parse_account(text) for text in asked.accounts))
    for account_id in accounts:
        request.user.require_account(account_id)
    origins = dict.fromkeys(accounts, request.user.origin)
    answers = await deps.context.check(accounts, asked.kind, origins)
    body = shapes.Checks(checks=[shapes.check_shape(answer) for answer in answers])
    return Response(msgspec.json.encode(body), status_code=200, media_type="application/json")  # type: ignore[arg-type]


CHECKS: Final = [check]
