"""The door of a route: who calls, with which scope, and whether the body is said to be JSON.

What is in the body is `remote.bodies.strict`'s: Litestar's own conversion is lenient and would take "1" for 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from jiebang.remote.problem_details import MediaTypeError
from jiebang.remote.tokens import Caller

if TYPE_CHECKING:
    from jiebang.api.deps import Deps
    from jiebang.api.gate.admission import Callers

CallerRequest = Request[Caller, Any, State]
Connection = ASGIConnection[Any, Any, Any, Any]


async def authenticated(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard: find out who calls, and hold them to their rate and the route's scope."""
    deps: Deps = connection.app.state.deps
    callers: Callers = connection.app.state.callers
    authorization = connection.headers.get("authorization")
    caller = await deps.verifier.caller(authorization)
    callers.proven(connection.scope, authorization, caller)
    caller.require(handler.opt["scope"])
    connection.scope["user"] = caller


async def json_only(connection: Connection, _: BaseRouteHandler) -> None:
    """Guard: refuse a body that is not said to be JSON. Async, as all guards are: a sync one would cost a thread."""
    if connection.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError
