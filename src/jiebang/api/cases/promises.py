"""The route of a case's promises."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, get

from jiebang.api.cases.cases import CaseIdInPath, require_own_case
from jiebang.api.cases.promise_shapes import PromisesAnswer, promises_shape
from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import GOES_ON
from jiebang.api.gate.guards import CallerRequest, require_caller
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model import errors
from jiebang.remote.tokens import TokenScope
from jiebang.usecases.promises.read import read_promises


@get(
    "/v1/cases/{case_id:str}/promises",
    guards=[require_caller],
    opt={"scope": TokenScope.CASE_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.CASE_READ),
    operation_id="readPromises",
    tags=["cases"],
    summary="The promises of a case 承诺是否兑现",
    description="Every consequence as the person was told it, and what those who keep it answer now: kept since when, "
    "due until when, or broken. 当时告知的每项后果,以及各系统此刻的应答:已兑现、待兑现或未兑现。",
    responses=refusals(errors.UnknownCaseError),
)
async def read_case_promises(
    request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath
) -> Response[PromisesAnswer]:
    """Read the promises of a case."""
    found = await read_promises(deps.context, require_own_case(request, deps, case_id))
    shape = promises_shape(found, deps.case_ids)
    return Response(msgspec.json.encode(shape), status_code=200, media_type="application/json")  # type: ignore[arg-type]


PROMISES: Final = [read_case_promises]
