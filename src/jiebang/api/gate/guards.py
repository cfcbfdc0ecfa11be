"""Guards of a route: caller, scope, and the content type of the body.

Bodies are validated by `remote.bodies.strict`: Litestar's own conversion is lenient and would take "1" for 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from jiebang.model.origin import Origin
from jiebang.remote.bodies import decode_body
from jiebang.remote.problem_details import MediaTypeError
from jiebang.remote.tokens import Caller

if TYPE_CHECKING:
    from jiebang.api.deps import Deps
    from jiebang.api.gate.admission import Callers

CallerRequest = Request[Caller, Any, State]


class StrictRequest(Request[Any, Any, Any]):
    """Every request to the API: its body is decoded as everything from outside is."""

    async def json(self) -> Any:
        """Return the decoded body. Raises BodyNotJsonError, InvalidInputError."""
        return decode_body(await self.body())


Connection = ASGIConnection[Any, Any, Any, Any]


def origin_of(request: CallerRequest) -> Origin:
    """Return where a request comes from: who its token says, and the address of the connection."""
    client = request.client
    return msgspec.structs.replace(request.user.origin, address=None if client is None else client.host)


async def require_caller(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard: verify the token, charge the caller's rate, require the route's scope."""
    deps: Deps = connection.app.state.deps
    callers: Callers = connection.app.state.callers
    authorization = connection.headers.get("authorization")
    caller = await deps.verifier.caller(authorization)
    callers.proven(connection.scope, authorization, caller)
    caller.require(handler.opt["scope"])
    connection.scope["user"] = caller


async def require_json(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: require the content type JSON. Async like all guards: a sync one would run in a thread."""
    if connection.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError
