"""The door of a route: who calls, with which scope, and whether the body is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from jiebang.api.findings import in_both
from jiebang.api.problems import MediaTypeError
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.model.ids import account_of
from jiebang.remote.tokens import Caller

if TYPE_CHECKING:
    from jiebang.api.admission import Callers
    from jiebang.api.deps import Deps

Shape = TypeVar("Shape", bound=msgspec.Struct)
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


def strict(body: object, shape: type[Shape]) -> Shape:
    """Return a body of JSON in its shape. Raises InvalidInputError.

    Routes leave the conversion to this: Litestar's own is lenient and would take "1" for 1.
    """
    if isinstance(body, dict):
        # In JSON 1.0 is the integer 1 (JSON Schema says so too); for msgspec it is a float.
        body = {key: int(one) if isinstance(one, float) and one.is_integer() else one for key, one in body.items()}
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise InvalidInputError(field=place.rstrip("`").lstrip(".") or "body", reason=in_both(what)) from None


def account_in(text: str, field: str = "account") -> int:
    """Return the account that a field of a body names. Raises InvalidInputError."""
    account_id = account_of(text)
    if account_id is None:
        raise InvalidInputError(field=field, reason=Text("须为账户号", "must be an account id"))
    return account_id
