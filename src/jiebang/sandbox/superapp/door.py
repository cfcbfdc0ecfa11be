"""What every route of the super-app does: authenticate, require a scope and a key, decode the body, answer errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeVar
from uuid import UUID

import msgspec

from jiebang.model import errors
from jiebang.participants.base import UNANSWERED
from jiebang.remote.bodies import convert_strictly, decode_body, fingerprint
from jiebang.remote.problem_details import (
    PROBLEM_JSON,
    MediaTypeError,
    MethodError,
    Said,
    headers_of,
    language_of,
    prefers_english,
)
from jiebang.sandbox.service import HttpAnswer, Service
from jiebang.sandbox.superapp.answers import RequestKey, StoredAnswer

if TYPE_CHECKING:
    from jiebang.remote.signing import SignedRequest
    from jiebang.remote.tokens import Caller, TokenScope, TokenVerifier
    from jiebang.sandbox.service import Handler, HttpCall
    from jiebang.sandbox.superapp.once import OncePerKey

Shape = TypeVar("Shape", bound=msgspec.Struct)
_KEY: Final = re.compile("[!-~]{1,128}")
_REFUSED: Final = 400
"""Statuses from here on are problems."""
_STATUS: Final[Mapping[type[errors.JiebangError], int]] = {
    errors.NotAuthenticatedError: 401,
    errors.NotAllowedError: 403,
    errors.UnknownAccountError: 404,
    errors.NoSuchRouteError: 404,
    MethodError: 405,
    errors.IdempotencyInUseError: 409,
    errors.BodyTooLargeError: 413,
    MediaTypeError: 415,
    errors.IdempotencyReusedError: 422,
    errors.ApiKeyEndedError: 403,
    errors.ApiQuotaUsedError: 429,
    errors.TooSoonError: 429,
    # The base classes, for errors that are not listed above.
    errors.CallerError: 400,
    errors.PolicyRefusalError: 409,
    errors.OtherSystemError: 503,
    errors.JiebangError: 500,
}


class _ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details with the same members as the platform's."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    zh: Said
    en: Said
    fields: dict[str, object] = {}


class Router(Protocol):
    """One subject of the super-app."""

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return its handlers by method and path."""


class SuperApp(Service):
    """All routers of the super-app as one ASGI application."""

    max_body = 64 * 1024

    def __init__(self, routers: list[Router], health: Handler) -> None:
        """`health`: answers `GET /health`."""
        routes: dict[tuple[str, str], Handler] = {("GET", "/health"): health}
        for router in routers:
            routes |= router.routes()
        super().__init__(None, {}, routes)
        self._methods: dict[str, list[str]] = {}
        for method, path in sorted(routes):
            self._methods.setdefault(path, []).append(method)

    def problem(self, error: errors.JiebangError, sent: SignedRequest) -> HttpAnswer:
        """Return an error as problem details in the language preferred."""
        found = problem_of(error, sent)
        return HttpAnswer(msgspec.json.encode(found), found.status, PROBLEM_JSON, headers_of(error, found))

    def refuse_route(self, path: str) -> NoReturn:
        """Raise MethodError where the path takes other methods, else NoSuchRouteError."""
        if path in self._methods:
            raise MethodError(allow=self._methods[path])
        super().refuse_route(path)


def problem_of(error: errors.JiebangError, sent: SignedRequest) -> _ProblemBody:
    """Return an error as problem details in the language that the request prefers."""
    english = prefers_english(sent.headers.get("accept-language"))
    title, action = error.title, error.action
    return _ProblemBody(
        type=f"urn:jiebang:problem:{error.code.lower()}",
        title=title.en if english else title.zh,
        status=next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS),
        detail=action.en if english else action.zh,
        code=error.code,
        zh=Said(title.zh, action.zh),
        en=Said(title.en, action.en),
        fields=error.fields,
    )


class Door:
    """Authenticates calls and carries mutations out once."""

    def __init__(self, verifier: TokenVerifier, once: OncePerKey) -> None:
        """`verifier`: of tokens; `once`: carries mutations out once a key."""
        self._verifier, self._read_single = verifier, once

    async def enter(self, call: HttpCall, scope: TokenScope, shape: type[Shape]) -> tuple[Caller, Shape]:
        """Return who calls and what is in the body of a mutation.

        Raises NotAuthenticatedError, NotAllowedError (fields: scope), KeysUnavailableError, IdempotencyMissingError,
        MediaTypeError, BodyNotJsonError, InvalidInputError.
        """
        headers = call.sent.headers
        caller = await self._verifier.caller(headers.get("authorization"))
        caller.require(scope)
        if not _KEY.fullmatch(headers.get("idempotency-key", "")):
            raise errors.IdempotencyMissingError
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise MediaTypeError
        return caller, convert_strictly(decode_body(call.body), shape)

    async def once(
        self, call: HttpCall, caller: Caller, work: Callable[[UUID], Awaitable[msgspec.Struct]], *, gate: str
    ) -> HttpAnswer:
        """Carry a mutation out under the call's key, or return the first answer under it.

        `work` is given the id to act under, and goes through the participant `gate`. Raises what `OncePerKey.answer`
        raises, and ParticipantUnavailableError while that participant is silent: no answer yet, the same key may come
        again.
        """
        asked = RequestKey(
            caller=caller.name,
            route=f"{call.sent.method} {call.path}",
            key=call.sent.headers["idempotency-key"],
            body_hash=hashlib.sha256(fingerprint(call.body)).digest(),
            sent_hash=hashlib.sha256(call.body).digest(),
        )

        async def done(action_id: UUID) -> StoredAnswer:
            return StoredAnswer(200, msgspec.json.encode(await work(action_id)))

        def refused(error: errors.JiebangError) -> StoredAnswer:
            found = problem_of(error, call.sent)
            return StoredAnswer(found.status, msgspec.json.encode(found))

        try:
            stored, replayed = await self._read_single.answer(asked, done, refused)
        except UNANSWERED:
            raise errors.ParticipantUnavailableError(participant=gate) from None
        headers = {"idempotency-replayed": "true"} if replayed else {}
        if stored.status < _REFUSED:
            return HttpAnswer(stored.body, stored.status, headers=headers)
        headers |= language_of(msgspec.json.decode(stored.body, type=_ProblemBody))
        return HttpAnswer(stored.body, stored.status, PROBLEM_JSON, headers)
