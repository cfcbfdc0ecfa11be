"""Idempotency-Key at the door: every mutation carries one, and a repeat gets the answer that was given."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
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
from jiebang.remote.problem_details import PROBLEM_JSON, Said, language_of
from jiebang.store.idempotency import Answered, Claim, Kept
from jiebang.usecases.repeats import answered

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
        "gets the same answer, a refusal too, with `Idempotency-Replayed: true`; 429 and 503 are no answer yet. "
        "幂等键:同一请求重试时保持不变,并得到原答复(包括拒绝);429 与 503 不算答复,可用同一键重试。"
        "要重新申请,请换新的键。",
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


async def once(request: CallerRequest, deps: Deps, mutate: Callable[[Claim], Awaitable[Answered]]) -> Answered:
    """Carry out a mutation under the key of this request; what was answered first under it, if it was.

    Raises IdempotencyInUseError, and what `mutate` raises that the same request may come again after.
    """
    claim = await claim_of(request, deps)
    return await answered(
        deps.context,
        claim,
        deps.repeats.wait,
        lambda: mutate(claim),
        lambda error: kept_problem(error, request),
    )


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
        expires_at=deps.context.clock() + deps.repeats.kept,
        holder=deps.context.new_id(),
        held=deps.repeats.held,
    )


def kept_problem(error: JiebangError, request: CallerRequest) -> Kept:
    """Return a refusal that is kept for repeats."""
    problem = problems.problem_of(error, request.headers.get("accept-language"))
    return Kept(problem.status, msgspec.json.encode(problem))


class _Titled(msgspec.Struct):
    title: str
    en: Said


def respond(told: Answered, *, location: Callable[[Kept], str] | None = None) -> Response[Any]:
    """Return the answer of a mutation, said to be a repeat where it is one. `location`: of what was made."""
    headers = {"idempotency-replayed": "true"} if told.replayed else {}
    if refused(told):
        headers |= language_of(msgspec.json.decode(told.kept.answer, type=_Titled))
    elif location is not None:
        headers["location"] = location(told.kept)
    return Response(
        told.kept.answer,
        status_code=told.kept.status,
        media_type=PROBLEM_JSON if refused(told) else "application/json",
        headers=headers,
    )


def refused(told: Answered) -> bool:
    """Whether what was answered is a problem."""
    return told.kept.status >= 400  # noqa: PLR2004 - statuses read best as numbers
