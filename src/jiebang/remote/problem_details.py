"""Problem details (RFC 9457): the language and headers that every HTTP service here has in common."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import CallerError, JiebangError

PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 1


class BodyNotJsonError(CallerError):
    """The body is not JSON at all. fields: reason."""

    code = "BODY-NOT-JSON"
    title = Text("请求体不是有效的 JSON", "The body is not JSON")
    action = Text("请发送 UTF-8 编码的 JSON 对象。", "Send a JSON object in UTF-8.")


class MediaTypeError(CallerError):
    """The content type is not JSON."""

    code = "MEDIA-TYPE"
    title = Text("不支持的内容类型", "The content type is not supported")
    action = Text("请使用 Content-Type: application/json。", "Send Content-Type: application/json.")


class MethodError(CallerError):
    """The path exists, the method does not. fields: allow."""

    code = "METHOD-NOT-ALLOWED"
    title = Text("不支持的请求方法", "This address does not take that method")
    action = Text("请改用 Allow 响应头列出的方法。", "Use a method that the Allow header lists.")


class Said(msgspec.Struct, frozen=True):
    """Title and action of a problem in one language."""

    title: str
    action: str


def prefers_english(accept_language: str | None) -> bool:
    """Return whether Accept-Language prefers English to Chinese. Anything unreadable means Chinese."""
    best = {"zh": 0.0, "en": 0.0}
    for part in (accept_language or "")[:256].split(","):
        tag, _, weight = part.strip().partition(";")
        language = tag.split("-")[0].strip().lower()
        if language in best:
            try:
                quality = float(weight.partition("=")[2]) if weight else 1.0
            except ValueError:
                continue
            best[language] = max(best[language], quality)
    return best["en"] > best["zh"]


class TitledProblem(Protocol):
    """A problem whose language can be told from its titles."""

    @property
    def title(self) -> str:
        """What is wrong, in the preferred language."""

    @property
    def en(self) -> Said:
        """The same in English."""


class StatusProblem(TitledProblem, Protocol):
    """A problem with all that its headers depend on."""

    @property
    def status(self) -> int:
        """Its HTTP status."""


def language_of(problem: TitledProblem) -> dict[str, str]:
    """Return the headers that state the language of a problem."""
    return {
        "content-language": "en" if problem.title == problem.en.title else "zh-CN",
        "vary": "accept-language, authorization",
    }


def headers_of(error: JiebangError, problem: StatusProblem) -> dict[str, str]:
    """Return the headers of a problem's response besides its content type."""
    headers = language_of(problem)
    if problem.status == 401:  # noqa: PLR2004 - statuses read best as numbers
        cause = error.fields.get("cause", "missing")
        headers["www-authenticate"] = (
            "Bearer" if cause == "missing" else f'Bearer error="invalid_token", error_description="{cause}"'
        )
    elif problem.status == 403 and "scope" in error.fields:  # noqa: PLR2004
        headers["www-authenticate"] = f'Bearer error="insufficient_scope", scope="{error.fields["scope"]}"'
    elif problem.status == 405:  # noqa: PLR2004
        headers["allow"] = ", ".join(error.fields.get("allow", ()))
    elif problem.status in (429, 503) or "retry_after_s" in error.fields:
        headers["retry-after"] = str(error.fields.get("retry_after_s", _RETRY_AFTER_S))
    return headers
