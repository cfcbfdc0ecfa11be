"""The routes that tell what restricts accounts: of one, and of up to 1,000 for the platform's other services."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody, PathParameter, SkipValidation

from jiebang.api.checks.limit_shapes import LimitsBody, LimitsOfAccount, LimitsOfAccounts, limits_shape
from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import GOES_ON
from jiebang.api.gate.guards import CallerRequest, require_caller, require_json
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model import errors
from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.remote.bodies import convert_strictly, parse_account
from jiebang.remote.tokens import TokenScope
from jiebang.usecases.checks.limits import read_limits

AccountInPath = Annotated[
    str, PathParameter(schema_extra={"pattern": ACCOUNT_PATTERN}, description="Account id 账户号", examples=[])
]


@get(
    "/v1/accounts/{account:str}/limits",
    guards=[require_caller],
    opt={"scope": TokenScope.LIMITS_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.LIMITS_READ),
    operation_id="readLimits",
    tags=["limits"],
    summary="What restricts an account 生效中的限制",
    description="Every limit in force: why (the case, the law and its article), since and until when, and how it is "
    "lifted. A person reads their own; a service needs the scope `service` too. "
    "全部生效中的限制:原因、依据、起止与解除办法。",
    responses=refusals(errors.InvalidInputError, errors.UnknownAccountError),
)
async def read_limits_of_account(
    request: CallerRequest, deps: InjectedDeps, account: AccountInPath
) -> Response[LimitsOfAccount]:
    """Tell the limits of one account."""
    account_id = parse_account(account)
    request.user.require_account(account_id)
    [found] = await read_limits(deps.context, [account_id])
    shape = limits_shape(found, deps.case_ids)
    return Response(msgspec.json.encode(shape), status_code=200, media_type="application/json")  # type: ignore[arg-type]


@post(
    "/v1/limits",
    guards=[require_caller, require_json],
    opt={"scope": TokenScope.LIMITS_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.LIMITS_READ),
    status_code=200,
    operation_id="readLimitsOfMany",
    tags=["limits"],
    summary="What restricts 1 to 1,000 accounts 批量查询限制",
    description="The same for many accounts at once, for the platform's other services. Changes nothing. "
    "供平台其他服务批量查询;不作任何更改。",
    responses=refusals(errors.UnknownAccountError, body=True),
)
async def read_limits_of_many(
    request: CallerRequest, data: JSONBody[SkipValidation[LimitsBody]], deps: InjectedDeps
) -> Response[LimitsOfAccounts]:
    """Tell the limits of 1 to 1,000 accounts."""
    asked = convert_strictly(data, LimitsBody)
    accounts = list(dict.fromkeys(parse_account(text) for text in asked.accounts))
    for account_id in accounts:
        request.user.require_account(account_id)
    found = await read_limits(deps.context, accounts)
    body = LimitsOfAccounts(accounts=[limits_shape(each, deps.case_ids) for each in found])
    return Response(msgspec.json.encode(body), status_code=200, media_type="application/json")  # type: ignore[arg-type]


LIMITS: Final = [read_limits_of_account, read_limits_of_many]
