"""Errors as RFC 9457 problem details: the only place where errors are mapped to HTTP.

`title` and `detail` (what to do) come in the language that Accept-Language prefers, Chinese unless it says otherwise;
the members `zh` and `en` always hold both. `code` is stable; `fields` holds the error's values; `check` the whole check
of a refused case, each blocker with its remedy.
"""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Final

import asyncpg
import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.routes import HTTPRoute

from jiebang.api.shapes import Check, check_shape
from jiebang.model import errors
from jiebang.model.decoding import translate_finding
from jiebang.remote.problem_details import (
    PROBLEM_JSON,
    MediaTypeError,
    MethodError,
    Said,
    headers_of,
    prefers_english,
)
from jiebang.store.postgres.faults import SILENCE, Fault, fault_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.types import ExceptionHandlersMap

_log = structlog.get_logger(__name__)

STATUS: Final[Mapping[type[errors.JiebangError], int]] = {
    errors.NotAuthenticatedError: 401,
    errors.NotAllowedError: 403,
    errors.UnknownAccountError: 404,
    errors.UnknownCaseError: 404,
    errors.UnknownCodeError: 404,
    errors.UnknownRemedyError: 404,
    errors.NoSuchRouteError: 404,
    MethodError: 405,
    errors.RequestTooSlowError: 408,
    errors.BodyTooLargeError: 413,
    MediaTypeError: 415,
    errors.KindNotOfferedError: 422,
    errors.ConsentNotAskedError: 422,
    errors.IdempotencyInUseError: 409,
    errors.IdempotencyReusedError: 422,
    errors.RateExceededError: 429,
    errors.TooSoonError: 429,
    errors.HeadersTooLargeError: 431,
    # The base classes, for errors that are not listed above.
    errors.CallerError: 400,
    errors.PolicyRefusalError: 409,
    errors.OtherSystemError: 503,
    errors.OverloadedError: 503,
    errors.JiebangError: 500,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem, as RFC 9457 describes it 问题详情."""

    type: Annotated[
        str, msgspec.Meta(description="urn:jiebang:problem:<code>", examples=["urn:jiebang:problem:blocked"])
    ]
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    detail: str
    code: Annotated[str, msgspec.Meta(description="Stable code 稳定的错误码", examples=["BLOCKED"])]
    zh: Said
    en: Said
    fields: dict[str, Any] = {}
    check: Check | None = None
    instance: str | None = None


def status_of(error: errors.JiebangError) -> int:
    """Return the HTTP status of an error: its own, else that of the nearest class it derives from."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_of(error: errors.JiebangError, accept_language: str | None, instance: str | None = None) -> Problem:
    """Return an error as a problem in the language preferred."""
    english = prefers_english(accept_language)
    title, action = error.title, error.action
    return Problem(
        type=f"urn:jiebang:problem:{error.code.lower()}",
        title=title.en if english else title.zh,
        status=status_of(error),
        detail=action.en if english else action.zh,
        code=error.code,
        zh=Said(title.zh, action.zh),
        en=Said(title.en, action.en),
        fields=error.fields,
        check=check_shape(error.check) if isinstance(error, errors.BlockedError) else None,
        instance=instance,
    )


def answer(error: errors.JiebangError, request: Request[Any, Any, Any], instance: str | None = None) -> Response[bytes]:
    """Return an error as a response, with the headers its status asks for."""
    problem = problem_of(error, request.headers.get("accept-language"), instance)
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=PROBLEM_JSON,
        headers=headers_of(error, problem),
    )


def _answer_own(request: Request[Any, Any, Any], error: errors.JiebangError) -> Response[bytes]:
    if isinstance(error, errors.OurFaultError) or status_of(error) == 500:  # noqa: PLR2004
        return _answer_unexpected(request, error)
    return answer(error, request)


def _answer_invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Turn Litestar's validation errors into one InvalidInputError that names the first field."""
    found = [item for item in error.extra if isinstance(item, dict)] if isinstance(error.extra, list) else []
    first = found[0] if found else {"message": error.detail}
    field = str(first.get("key", first.get("source", "body")))
    return answer(
        errors.InvalidInputError(field=field, reason=translate_finding(str(first.get("message", "")))), request
    )


def _answer_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Translate an HTTPException that Litestar raises itself."""
    if isinstance(error, NotFoundException):
        return answer(errors.NoSuchRouteError(), request)
    if isinstance(error, MethodNotAllowedException):
        return answer(MethodError(allow=methods_at(request.app, request.scope["path"])), request)
    if error.status_code == 413:  # noqa: PLR2004
        return answer(errors.BodyTooLargeError(), request)
    if isinstance(error, ClientException):
        return answer(errors.InvalidInputError(field="request", reason=translate_finding(error.detail)), request)
    return _answer_unexpected(request, error)


def methods_at(app: Litestar, path: str) -> list[str]:
    """Return the methods that a path takes, sorted; Litestar names them in part (OPTIONS) or not at all (405)."""
    return sorted(
        method
        for route in app.routes
        if isinstance(route, HTTPRoute)
        and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", route.path_format), path.rstrip("/"))
        for method in route.methods
    )


def _answer_silent(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer that the platform's database is silent. The transaction that was open rolled back: nothing was lost."""
    _log.warning("platform_silent", error=type(error).__name__)
    return answer(errors.ParticipantUnavailableError(participant="platform"), request)


def _answer_database(request: Request[Any, Any, Any], error: asyncpg.PostgresError) -> Response[bytes]:
    """Answer an error of the platform's database by whose fault it is, an SQLSTATE unknown to asyncpg too."""
    silent = fault_of(error) is Fault.SILENCE
    return _answer_silent(request, error) if silent else _answer_unexpected(request, error)


def _answer_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer 500 and log the type and the frames only, because messages of errors quote values."""
    instance = request.scope.get("state", {}).get("request_id", "")
    _log.error(
        "unexpected_error",
        error=type(error).__name__,
        request_id=instance,
        places=[
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno}:{frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)[-12:]
        ],
    )
    return answer(errors.JiebangError(), request, f"urn:uuid:{instance}" if instance else None)


HANDLERS: Final[ExceptionHandlersMap] = {
    errors.JiebangError: _answer_own,
    ValidationException: _answer_invalid,
    HTTPException: _answer_litestar,
    **dict.fromkeys(SILENCE, _answer_silent),
    asyncpg.PostgresError: _answer_database,
    Exception: _answer_unexpected,
}
