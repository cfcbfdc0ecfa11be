"""The OpenAPI document beside the schemas: problem responses, scopes, examples, texts in both languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import MediaType
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Contact, Example, License, SecurityScheme, Tag

from jiebang import __version__
from jiebang.api import problems, shapes
from jiebang.api.cases import remedy_shapes
from jiebang.api.checks import limit_shapes
from jiebang.model import errors
from jiebang.model.plain import PLAIN_PATTERN
from jiebang.policy.codes import CodeExplained
from jiebang.remote import problem_details
from jiebang.remote.tokens import KeysUnavailableError, TokenScope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from litestar import Request

BEARER: Final = "bearer"

_ALWAYS: Final[tuple[type[errors.JiebangError], ...]] = (
    errors.NotAuthenticatedError,
    errors.NotAllowedError,
    errors.ParticipantUnavailableError,
    KeysUnavailableError,
    errors.JiebangError,
)
_GATE: Final = (
    errors.HeaderRepeatedError,
    errors.RateExceededError,
    errors.HeadersTooLargeError,
    errors.PlatformFullError,
)
_BODY: Final = (
    errors.InvalidInputError,
    problem_details.BodyNotJsonError,
    errors.RequestTooSlowError,
    errors.BodyTooLargeError,
    problem_details.MediaTypeError,
)
_RETRY_AFTER: Final = "Whole seconds after which it is worth asking again 建议等待的秒数"
_KEYED: Final = (errors.IdempotencyMissingError, errors.IdempotencyInUseError, errors.IdempotencyReusedError)


def refusals(
    *kinds: type[errors.JiebangError], body: bool = False, keyed: bool = False, open_to_all: bool = False
) -> dict[int, ResponseSpec]:
    """Return the problem responses of a route: what it, its guards and the gate can raise. `kinds`: by the route."""
    every = (*(() if open_to_all else _ALWAYS), *_GATE, *(_BODY if body else ()), *(_KEYED if keyed else ()), *kinds)
    by_status: dict[int, list[type[errors.JiebangError]]] = {}
    for kind in dict.fromkeys(every):
        by_status.setdefault(
            next(problems.STATUS[base] for base in kind.__mro__ if base in problems.STATUS), []
        ).append(kind)
    return {
        status: ResponseSpec(
            problems.Problem,
            generate_examples=False,
            media_type=problem_details.PROBLEM_JSON,
            description=" · ".join(f"`{kind.code}` {kind.title.zh} {kind.title.en}" for kind in found),
            examples=[
                Example(id=kind.code, summary=kind.title.en, value=_make_example(kind, status)) for kind in found
            ],
        )
        for status, found in sorted(by_status.items())
    }


def _make_example(kind: type[errors.JiebangError], status: int) -> Any:
    bare = errors.JiebangError()  # `kind` itself needs the values of its fields
    vars(bare).update(code=kind.code, title=kind.title, action=kind.action)
    return msgspec.to_builtins(msgspec.structs.replace(problems.problem_of(bare, "en"), status=status))


class OpenApiDocument(JsonRenderPlugin):
    """Litestar's document, with the schemas by which msgspec validates requests."""

    _rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document as JSON, rendered once."""
        if self._rendered is None:
            self._rendered = self.render_json(request, complete_document(openapi_schema))
        return self._rendered


_SHAPES: Final = (
    problems.Problem,
    shapes.CheckBody,
    shapes.SubmitBody,
    shapes.IdentityBody,
    shapes.ProofBody,
    remedy_shapes.RemedyBody,
    remedy_shapes.RedPacketsBody,
    remedy_shapes.AutoDebitsBody,
    remedy_shapes.LoginsBody,
    remedy_shapes.LoginsProofBody,
    remedy_shapes.UnlockProofBody,
    remedy_shapes.ApprovalBody,
    remedy_shapes.ConsentBody,
    limit_shapes.LimitsBody,
    limit_shapes.LimitsOfAccounts,
    limit_shapes.LimitsOfAccount,
    shapes.Checks,
    CodeExplained,
    shapes.CaseAnswer,
    remedy_shapes.Remedied,
    remedy_shapes.Awaited,
    remedy_shapes.ConsentAnswer,
    shapes.Health,
    shapes.Readiness,
    shapes.PublicKeys,
    shapes.RecordedTimeline,
)


def complete_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return Litestar's document with exact schemas, described headers and no invalid members."""
    _, exact = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    renamed = _component_names(whole["components"]["schemas"])
    whole = _replace_references(whole, renamed)
    whole["components"]["schemas"] = exact
    for name, schema in exact.items():
        if name.endswith("Body"):
            _declare_plain(schema)
    for operation in _iterate_operations(whole):
        bad_input = operation["responses"].get("400", {}).get("content", {})
        if bad_input and problem_details.PROBLEM_JSON not in bad_input:
            del operation["responses"]["400"]  # Litestar's guess, for path parameters that cannot fail here
        for status, answer in operation["responses"].items():
            waits = status in ("429", "503") or errors.IdempotencyInUseError.code in answer["description"]
            if waits and problem_details.PROBLEM_JSON in answer.get("content", {}):
                answer.setdefault("headers", {})["Retry-After"] = {
                    "description": _RETRY_AFTER,
                    "schema": {"type": "string", "pattern": "^[0-9]+$"},
                }
            for content in answer.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    example.pop("id", None)  # Litestar's own name for it, no member of the standard
            for header in answer.get("headers", {}).values():
                header.setdefault("schema", {"type": "string"})
    return whole


def _declare_plain(schema: Any) -> None:
    """Say of the texts in a body's schema that they hold no acting characters, as `bodies.require_plain` demands."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and not {"pattern", "enum", "format"} & schema.keys():
            schema["pattern"] = PLAIN_PATTERN
        for each in schema.values():
            _declare_plain(each)
    for each in schema if isinstance(schema, list) else ():
        _declare_plain(each)


def _component_names(schemas: Mapping[str, Any]) -> dict[str, str]:
    """Return Litestar's names of components (a module path where two are alike) by the names that msgspec gives."""
    return {name: name.rpartition("_")[2] for name in schemas}


def _replace_references(node: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: _replace_reference(value, renamed)
            if key == "$ref" and isinstance(value, str)
            else _replace_references(value, renamed)
            for key, value in node.items()
        }
    return [_replace_references(item, renamed) for item in node] if isinstance(node, list) else node


def _replace_reference(reference: str, renamed: Mapping[str, str]) -> str:
    place, _, name = reference.rpartition("/")
    return f"{place}/{renamed.get(name, name)}"


def _iterate_operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from (path[method] for method in ("get", "post", "delete") if method in path)


def openapi_config() -> OpenAPIConfig:
    """Return how the document is made and where it is served."""
    return OpenAPIConfig(
        title="Jiebang 解绑",
        version=__version__,
        summary="Take a real name back from every database and clearing network, all or nothing. "
        "撤销实名认证,要么全部解绑,要么全部不变。",
        description=(
            "Every blocker at once, proof that it is you, then one all-or-nothing move.\n\n"
            "一次列出全部阻碍,验证本人,然后一次性全部解绑。\n\n"
            "* Account ids are decimal strings; money is integer fen; time is UTC. "
            "账户号为十进制字符串,金额单位为分,时间为 UTC。\n"
            "* Every mutation takes an `Idempotency-Key`. 所有变更请求需带幂等键。\n"
            "* Errors are RFC 9457 problem details with a stable `code` and both languages. 错误遵循 RFC "
            "9457,附稳定错误码与中英文说明。\n"
            "* Tokens are OAuth 2.0 bearer tokens (RFC 9068). Scopes: `check` 检查, `case:read` 查看申请, `case:write` "
            "提交与撤回申请, "
            "`transfer` remedies that move money 动用资金的当场处理, `limits:read` limits in force 生效中的限制, "
            "`service` many accounts 多账户服务。"
        ),
        contact=Contact(name="Jiebang"),
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        tags=[
            Tag(name="remedies", description="Clear a blocker on the spot, and consents 当场处理与同意"),
            Tag(name="checks", description="What stands in the way 检查阻碍事项"),
            Tag(name="limits", description="What restricts an account, why, and how it is lifted 生效中的限制"),
            Tag(name="cases", description="Ask, prove, follow, withdraw 申请、验证、跟踪、撤回"),
            Tag(name="operation", description="For whoever runs it 运维"),
        ],
        components=Components(
            security_schemes={
                BEARER: SecurityScheme(
                    type="http",
                    scheme="bearer",
                    bearer_format="JWT",
                    description="OAuth 2.0 access token as RFC 9068 describes it (`typ: at+jwt`); each operation names "
                    "its scope. "
                    "OAuth 2.0 访问令牌;各操作注明所需权限。",
                )
            }
        ),
        # A path of its own: at the root Litestar's router would answer all unknown addresses with a page of HTML.
        path="/openapi.json",
        render_plugins=[OpenApiDocument(path=["/", "/openapi.json"], media_type=MediaType.JSON)],
    )


def security_requirement(scope: TokenScope) -> list[dict[str, list[str]]]:
    """Return the security requirement of a route: a bearer token with `scope`."""
    return [{BEARER: [scope.value]}]
