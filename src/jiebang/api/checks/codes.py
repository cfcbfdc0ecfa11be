"""The route that explains a code of the platform or of an older system."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, get
from litestar.params import PathParameter

from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import GOES_ON
from jiebang.api.gate.guards import require_caller
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model import errors
from jiebang.policy.codes import CodeExplained, explain
from jiebang.remote.tokens import TokenScope

CODE_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


@get(
    "/v1/codes/{code:str}",
    guards=[require_caller],
    opt={"scope": TokenScope.CHECK, "admission": GOES_ON},
    security=security_requirement(TokenScope.CHECK),
    operation_id="explainCode",
    tags=["checks"],
    summary="What a code means 代码释义",
    description="Any code of ours in full: blockers, consequences, alternatives, reasons, errors; and the codes of "
    "older systems, such as 30007. A person's own values are named, not filled. "
    "An unknown code is answered with near ones. "
    "任一代码的完整释义;旧系统的代码(如 30007)同样可查;未知代码会列出相近的代码。",
    responses=refusals(errors.UnknownCodeError),
)
async def explain_code(
    deps: InjectedDeps,
    code: Annotated[
        str, PathParameter(schema_extra={"pattern": CODE_PATTERN}, description="The code 代码", examples=[])
    ],
) -> Response[CodeExplained]:
    """Explain a code."""
    found = explain(deps.context.pack(), code)
    return Response(msgspec.json.encode(found), status_code=200, media_type="application/json")  # type: ignore[arg-type]


CODES: Final = [explain_code]
