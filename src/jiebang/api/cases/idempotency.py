"""Idempotency-Key at the door: every mutation carries one, and a repeat gets the answer that was given."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.connection import ASGIConnection
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import HeaderParameter, SkipValidation

from jiebang.api import problems
from jiebang.api.deps import Deps, Joined
from jiebang.api.gate.guards import CallerRequest, authenticated, json_only
from jiebang.api.openapi import refusals, secured
from jiebang.model.errors import IdempotencyMissingError, JiebangError
from jiebang.remote.problem_details import PROBLEM_JSON, Said, language_of
from jiebang.remote.tokens import Scope
from jiebang.store.cases.idempotency import Answered, Claim, Kept
from jiebang.usecases.cases.idempotency import answered

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
_REPLAYED: Final = ResponseHeader(
    name="Idempotency-Replayed",
    description="`true` for an answer given before 重复请求的原答复",
    documentation_only=True,
)


def mutating(
    scope: Scope, *refused: type[JiebangError], body: bool = True, headers: Sequence[ResponseHeader] = ()
) -> dict[str, Any]:
    """Return what all routes that change something say alike: who may call, and with what they may be refused.

    `body`: whether they take one; `headers`: of the answer, beside the one of a repeat.
    """
    return {
        "guards": [authenticated, keyed, *([json_only] if body else ())],
        "opt": {"scope": scope},
        "security": secured(scope),
        "responses": refusals(*refused, body=body, keyed=True),
        "response_headers": [_REPLAYED, *headers],
    }


async def keyed(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a mutation without a usable Idempotency-Key."""
    if not _KEY.fullmatch(connection.headers.get("idempotency-key", "")):
        raise IdempotencyMissingError


class Mutation:
    """A request that changes something, under its Idempotency-Key."""

    def __init__(self, request: CallerRequest, deps: Deps, key: str) -> None:
        """Take the request; nothing is looked at yet."""
        self._request, self._deps, self._key = request, deps, key

    async def once(self, mutate: Callable[[Claim], Awaitable[Answered]]) -> Answered:
        """Carry it out; or return what was answered first under its key, if it was.

        Raises IdempotencyInUseError, and what `mutate` raises that the same request may come again after.
        """
        claim = await self._claim()
        return await answered(
            self._deps.context,
            claim,
            self._deps.repeats.wait,
            lambda: mutate(claim),
            lambda error: kept_problem(error, self._request),
        )

    async def respond(
        self, mutate: Callable[[Claim], Awaitable[Answered]], *, location: Callable[[Kept], str] | None = None
    ) -> Response[Any]:
        """Do the same, and return the response. `location`: of what was made."""
        return respond(await self.once(mutate), location=location)

    async def _claim(self) -> Claim:
        """Return the caller's claim on the key.

        The route is the method and the path as called, ids included: a key for one case is another for the next. The
        hash of the body is keyed, for a body may hold a password or a code and has few possibilities.
        """
        request, deps = self._request, self._deps
        digest = hmac.digest(deps.bodies_key, await request.body(), hashlib.sha256)
        return Claim(
            caller=request.user.name,
            route=f"{request.method} {request.url.path}",
            key=self._key,
            body_hash=digest,
            expires_at=deps.context.clock() + deps.repeats.kept,
            holder=deps.context.new_id(),
            held=deps.repeats.held,
        )


def mutation(request: CallerRequest, deps: Joined, idempotency_key: IdempotencyKey) -> Mutation:
    """Return what a route carries its mutation out with; whoever asks for it documents the key."""
    return Mutation(request, deps, idempotency_key)


KeyedMutation = NamedDependency[SkipValidation[Mutation]]
"""How a route asks for it, under the name `mutation`."""


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
