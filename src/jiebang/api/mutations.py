"""Idempotency-Key at the door: every mutation carries one, and a repeat gets the answer that was given."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.connection import ASGIConnection
from litestar.datastructures import ResponseHeader
from litestar.handlers import BaseRouteHandler
from litestar.params import HeaderParameter

from jiebang.api import problems
from jiebang.api.door import CallerRequest
from jiebang.model.errors import IdempotencyMissingError, JiebangError
from jiebang.store.idempotency import Answered, Claim, Kept

if TYPE_CHECKING:
    from jiebang.api.deps import Deps

KEY_PATTERN: Final = "^[!-~]{1,128}$"
_KEY: Final = re.compile(KEY_PATTERN.strip("^$"))

IdempotencyKey = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=KEY_PATTERN,
        description="1 to 128 printable characters, new for each new request. A repeat with the same key and body "
        "gets the "
        "same answer, with `Idempotency-Replayed: true`. 幂等键:同一请求重试时保持不变。",
    ),
]
REPLAYED: Final = ResponseHeader(
    name="Idempotency-Replayed",
    description="`true` for an answer given before 重复请求的原答复",
    documentation_only=True,
)


async def keyed(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a mutation without a usable Idempotency-Key."""
    if not _KEY.fullmatch(connection.headers.get("idempotency-key", "")):
        raise IdempotencyMissingError


async def claim_of(request: CallerRequest, deps: Deps) -> Claim:
    """Return the caller's claim on the key of this request.

    The route is the method and the path as called, ids included: a key for one case is another for the next. The hash
    of the body is keyed, for a body may hold a password or a code and has few possibilities.
    """
    path = request.url.path
    digest = hmac.digest(deps.bodies_key, await request.body(), hashlib.sha256)
    return Claim(
        caller=request.user.name,
        route=f"{request.method} {path}",
        key=request.headers["idempotency-key"],
        body_hash=digest,
        expires_at=deps.context.clock() + deps.answers_live,
    )


def kept_problem(error: JiebangError, request: CallerRequest) -> Kept:
    """Return a refusal that is kept for repeats."""
    problem = problems.problem_of(error, request.headers.get("accept-language"))
    return Kept(problem.status, msgspec.json.encode(problem))


def respond(answered: Answered, *, location: str | None = None) -> Response[Any]:
    """Return the answer of a mutation, said to be a repeat where it is one."""
    refused = answered.kept.status >= 400  # noqa: PLR2004 - statuses read best as numbers
    headers = {"idempotency-replayed": "true"} if answered.replayed else {}
    if location is not None and not refused:
        headers["location"] = location
    return Response(
        answered.kept.answer,
        status_code=answered.kept.status,
        media_type=problems.PROBLEM_JSON if refused else "application/json",
        headers=headers,
    )
