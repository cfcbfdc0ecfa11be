"""Idempotency-Key: every mutation carries one, and a repeat gets the answer that the first request got."""

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
from litestar.utils import normalize_path

from jiebang.api import problems
from jiebang.api.deps import Deps, InjectedDeps
from jiebang.api.gate.capacity import GOES_ON, AdmissionClass
from jiebang.api.gate.guards import CallerRequest, require_caller, require_json
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model.errors import IdempotencyMissingError, JiebangError
from jiebang.remote.bodies import fingerprint
from jiebang.remote.problem_details import PROBLEM_JSON, Said, language_of
from jiebang.remote.tokens import TokenScope
from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
from jiebang.usecases.cases.idempotency import answer_once

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
_REPLAYED_HEADER: Final = ResponseHeader(
    name="Idempotency-Replayed",
    description="`true` for an answer given before 重复请求的原答复",
    documentation_only=True,
)


def mutation_options(
    scope: TokenScope,
    *refused: type[JiebangError],
    admission: AdmissionClass = GOES_ON,
    body: bool = True,
    headers: Sequence[ResponseHeader] = (),
) -> dict[str, Any]:
    """Return the options that all mutating routes share: guards, scope, problem responses and headers.

    `refused`: what the route itself raises; `admission`: how the gate treats it; `body`: whether it takes one;
    `headers`: further ones of its answer.
    """
    return {
        "guards": [require_caller, require_key, *([require_json] if body else ())],
        "opt": {"scope": scope, "admission": admission},
        "security": security_requirement(scope),
        "responses": refusals(*refused, body=body, keyed=True),
        "response_headers": [_REPLAYED_HEADER, *headers],
    }


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a mutation without a usable Idempotency-Key."""
    if not _KEY.fullmatch(connection.headers.get("idempotency-key", "")):
        raise IdempotencyMissingError


class Mutation:
    """A request that changes something, under its Idempotency-Key."""

    def __init__(self, request: CallerRequest, deps: Deps, key: str) -> None:
        """Take the request; its body is not read yet."""
        self._request, self._deps, self._key = request, deps, key

    async def once(self, mutate: Callable[[Claim], Awaitable[MutationResult]]) -> MutationResult:
        """Carry it out, or return the answer already kept under its key.

        Raises IdempotencyInUseError, and errors of `mutate` that are not kept, so the same request may be sent again.
        """
        claim = await self._claim()
        return await answer_once(
            self._deps.context,
            claim,
            self._deps.repeats.wait,
            lambda: mutate(claim),
            lambda error: encode_refusal(error, self._request),
        )

    async def respond(
        self,
        mutate: Callable[[Claim], Awaitable[MutationResult]],
        *,
        location: Callable[[KeptAnswer], str] | None = None,
    ) -> Response[Any]:
        """Carry it out like `once` and return the response. `location`: path of the resource created."""
        return respond(await self.once(mutate), location=location)

    async def _claim(self) -> Claim:
        """Return the caller's claim on the key.

        The route is the method and the path as the router found it, ids included: a key for one case is another for
        the next. The hash is of what the body says, in whatever order, and keyed: a body may hold a password or a code,
        which a plain hash would let one guess.
        """
        request, deps = self._request, self._deps
        body = await request.body()
        return Claim(
            caller=request.user.name,
            route=f"{request.method} {normalize_path(request.scope['path'])}",
            key=self._key,
            body_hash=hmac.digest(deps.bodies_key, fingerprint(body), hashlib.sha256),
            sent_hash=hmac.digest(deps.bodies_key, body, hashlib.sha256),
            answers_key=deps.answers_key,
            expires_at=deps.context.clock() + deps.repeats.kept,
            holder=deps.context.new_id(),
            held=deps.repeats.held,
        )


def provide_mutation(request: CallerRequest, deps: InjectedDeps, idempotency_key: IdempotencyKey) -> Mutation:
    """Return the request as a mutation. Injected as `mutation`; a route that takes it documents the key header."""
    return Mutation(request, deps, idempotency_key)


KeyedMutation = NamedDependency[SkipValidation[Mutation]]
"""The type of a route's parameter `mutation`."""


def encode_refusal(error: JiebangError, request: CallerRequest) -> KeptAnswer:
    """Return a refusal encoded as the answer kept for repeats."""
    problem = problems.problem_of(error, request.headers.get("accept-language"))
    return KeptAnswer(problem.status, msgspec.json.encode(problem))


class _EnglishTitle(msgspec.Struct):
    title: str
    en: Said


def respond(answered: MutationResult, *, location: Callable[[KeptAnswer], str] | None = None) -> Response[Any]:
    """Return the response of a mutation, marked where it is a repeat. `location`: path of the resource created."""
    headers = {"idempotency-replayed": "true"} if answered.replayed else {}
    if is_refusal(answered):
        headers |= language_of(msgspec.json.decode(answered.kept.answer, type=_EnglishTitle))
    elif location is not None:
        headers["location"] = location(answered.kept)
    return Response(
        answered.kept.answer,
        status_code=answered.kept.status,
        media_type=PROBLEM_JSON if is_refusal(answered) else "application/json",
        headers=headers,
    )


def is_refusal(answered: MutationResult) -> bool:
    """Whether the answer is a problem."""
    return answered.kept.status >= 400  # noqa: PLR2004 - statuses read best as numbers
