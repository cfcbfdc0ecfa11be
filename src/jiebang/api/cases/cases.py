"""Routes of a case: submit, read, withdraw, prove, follow. Each declares its scope, answers and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, PathParameter, SkipValidation
from litestar.response import ServerSentEvent
from litestar.response.sse import ServerSentEventMessage

from jiebang.api import shapes
from jiebang.api.cases.idempotency import KeyedMutation, encode_refusal, mutation_options, respond
from jiebang.api.deps import Deps, InjectedDeps
from jiebang.api.gate.capacity import GOES_ON, LEAVES, OPENS_CASE
from jiebang.api.gate.guards import CallerRequest, origin_of, require_caller
from jiebang.api.gate.shares import Streams
from jiebang.api.openapi import refusals, security_requirement
from jiebang.model import errors
from jiebang.model.case import ENDED, Key
from jiebang.model.proof import Method
from jiebang.remote.bodies import convert_strictly, parse_account
from jiebang.remote.tokens import TokenScope
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.usecases.cases.bring_identity import BroughtIdentity, bring_identity
from jiebang.usecases.cases.context import CaseDetails, Render
from jiebang.usecases.cases.find import find, find_with_timeline
from jiebang.usecases.cases.prove import Attempt, prove, send_code
from jiebang.usecases.cases.submit import Submission, submit
from jiebang.usecases.cases.withdraw import withdraw

CaseIdInPath = Annotated[
    str, PathParameter(schema_extra={"pattern": shapes.CASE_PATTERN}, description="Public case id 申请编号")
]
LastEventId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID",
        pattern="^[0-9]{0,9}$",
        required=False,
        description="Revision after which to go on; none, or empty (as before the first event): from the beginning "
        "断线续传位置;无或为空则从头开始",
    ),
]
_LOCATION: Final = ResponseHeader(
    name="Location", description="Where the case is read 申请地址", documentation_only=True
)


def _require_own_case(request: CallerRequest, deps: Deps, case_id: str) -> Key:
    """Return the key of a case that the caller may access. Raises UnknownCaseError, for another person's case too."""
    key = deps.case_ids.decode(case_id)
    if key is None or not request.user.reaches(key[0]):
        raise errors.UnknownCaseError
    return key


def _make_render(request: CallerRequest, deps: Deps, status: int) -> Render:
    """Return what turns an outcome into the answer kept for repeats; `status`: of one that is no refusal."""

    def render(outcome: CaseDetails | errors.JiebangError) -> KeptAnswer:
        if isinstance(outcome, errors.JiebangError):
            return encode_refusal(outcome, request)
        shape = shapes.case_shape(outcome, deps.case_ids, deps.context.clock())
        return KeptAnswer(status, msgspec.json.encode(shape))

    return render


@post(
    "/v1/cases",
    **mutation_options(
        TokenScope.CASE_WRITE,
        errors.UnknownAccountError,
        errors.BlockedError,
        errors.KindNotOfferedError,
        errors.ConsentNotAskedError,
        errors.TooSoonError,
        admission=OPENS_CASE,
        headers=[_LOCATION],
    ),
    operation_id="submit",
    tags=["cases"],
    summary="Submit a case 提交申请",
    description="Checks, and opens the case if nothing stands in the way; else answers 409 with the whole check. "
    "The person's phone and e-mail hear of it at once, and a code is sent. Between two there is a pause, and policy "
    "limits how many an account and an address may open; 429 says when to come again. "
    "检查通过即受理,并通知本人;否则返回完整检查结果。",
)
async def submit_case(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.SubmitBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.CaseAnswer]:
    """Submit a case."""
    asked = convert_strictly(data, shapes.SubmitBody)
    account_id = parse_account(asked.account)
    request.user.require_account(account_id)
    submission = Submission(
        account_id=account_id,
        kind=asked.kind,
        origin=origin_of(request),
        consents=tuple(dict.fromkeys(asked.consents)),
        shown=None if asked.shown is None else tuple(asked.shown),
    )
    render = _make_render(request, deps, 201)
    answered = await mutation.once(lambda claim: submit(deps.context, submission, claim, render))
    return respond(answered, location=lambda kept: f"/v1/cases/{msgspec.json.decode(kept.answer)['id']}")


@get(
    "/v1/cases/{case_id:str}",
    guards=[require_caller],
    opt={"scope": TokenScope.CASE_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.CASE_READ),
    operation_id="readCase",
    tags=["cases"],
    summary="Read a case 查看申请",
    description="Where the case stands, the proofs it waits for, and where each database and network stands. "
    "申请状态、所需验证及各系统状态。",
    responses=refusals(errors.UnknownCaseError),
)
async def read_case(request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath) -> Response[shapes.CaseAnswer]:
    """Read a case."""
    found = await find(deps.context, _require_own_case(request, deps, case_id))
    shape = shapes.case_shape(found, deps.case_ids, deps.context.clock())
    return Response(msgspec.json.encode(shape), status_code=200, media_type="application/json")  # type: ignore[arg-type]


@delete(
    "/v1/cases/{case_id:str}",
    **mutation_options(
        TokenScope.CASE_WRITE,
        errors.UnknownCaseError,
        errors.WrongDeviceError,
        errors.TooLateToWithdrawError,
        admission=LEAVES,
        body=False,
    ),
    status_code=202,
    operation_id="withdrawCase",
    tags=["cases"],
    summary="Withdraw a case 撤回申请",
    description="Records the wish: 202 while it can still win, 409 once the case is past its commit point. "
    "撤回申请;过提交点后返回 409。",
)
async def withdraw_case(
    request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath, mutation: KeyedMutation
) -> Response[shapes.CaseAnswer]:
    """Withdraw a case."""
    key = _require_own_case(request, deps, case_id)
    return await mutation.respond(
        lambda claim: withdraw(deps.context, key, origin_of(request), claim, _make_render(request, deps, 202))
    )


@post(
    "/v1/cases/{case_id:str}/proofs",
    **mutation_options(
        TokenScope.CASE_WRITE, errors.UnknownCaseError, errors.WrongDeviceError, errors.ProofRefusedError
    ),
    status_code=200,
    operation_id="prove",
    tags=["cases"],
    summary="Prove that it is you 验证身份",
    description="A payment password or the code that was sent. A wrong one costs a try. With the last proof the "
    "case is `ready`, and money that moves from then on breaks it off. 支付密码或短信验证码;最后一项通过后开始解绑。",
)
async def prove_case(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.ProofBody]],
    deps: InjectedDeps,
    case_id: CaseIdInPath,
    mutation: KeyedMutation,
) -> Response[shapes.CaseAnswer]:
    """Offer a proof."""
    asked = convert_strictly(data, shapes.ProofBody)
    key = _require_own_case(request, deps, case_id)
    attempt = Attempt(method=Method(asked.method), secret=asked.secret)
    return await mutation.respond(
        lambda claim: prove(deps.context, key, origin_of(request), attempt, claim, _make_render(request, deps, 200))
    )


@post(
    "/v1/cases/{case_id:str}/identity",
    **mutation_options(
        TokenScope.CASE_WRITE,
        errors.UnknownCaseError,
        errors.WrongDeviceError,
        errors.ProofRefusedError,
        errors.IdentityRefusedError,
        errors.BlockedError,
    ),
    status_code=200,
    operation_id="bringIdentity",
    tags=["cases"],
    summary="Bring the new identity 提交新的身份",
    description="For kinds that ask for a document. A verifier confirms it; then it is sealed and laid ready in both "
    "data centres, and takes effect only with the case. One that is not confirmed costs a try. While the verifier "
    "does not answer: 503, and nothing has changed. 由核验方确认后加密备妥,随申请一并生效;核验不符计一次错误。",
)
async def bring_new_identity(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.IdentityBody]],
    deps: InjectedDeps,
    case_id: CaseIdInPath,
    mutation: KeyedMutation,
) -> Response[shapes.CaseAnswer]:
    """Bring an identity."""
    asked = convert_strictly(data, shapes.IdentityBody)
    key = _require_own_case(request, deps, case_id)
    brought = BroughtIdentity(name=asked.name, document_type=asked.document_type, number=asked.number)
    render = _make_render(request, deps, 200)
    return await mutation.respond(
        lambda claim: bring_identity(deps.context, key, origin_of(request), brought, claim, render)
    )


@post(
    "/v1/cases/{case_id:str}/codes",
    **mutation_options(
        TokenScope.CASE_WRITE,
        errors.UnknownCaseError,
        errors.WrongDeviceError,
        errors.ProofRefusedError,
        errors.TooSoonError,
        body=False,
    ),
    status_code=202,
    operation_id="sendCode",
    tags=["cases"],
    summary="Send a new code 重发验证码",
    description="The code before it is dead. Wrong tries count on. 旧验证码即失效,错误次数不重置。",
)
async def send_new_code(
    request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath, mutation: KeyedMutation
) -> Response[shapes.CaseAnswer]:
    """Send a new code."""
    key = _require_own_case(request, deps, case_id)
    return await mutation.respond(
        lambda claim: send_code(deps.context, key, origin_of(request), claim, _make_render(request, deps, 202))
    )


@get(
    "/v1/cases/{case_id:str}/events",
    guards=[require_caller],
    opt={"scope": TokenScope.CASE_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.CASE_READ),
    media_type="text/event-stream",
    operation_id="followCase",
    tags=["cases"],
    summary="Follow a case 跟踪申请",
    description="Server-sent events `change` with the case's timeline as it grows; the id is the revision, so that "
    "`Last-Event-ID` goes on where a broken connection left off. Ends with the event `end` when the case has ended; "
    "204 when nothing is left to tell. "
    "服务器推送时间线,可断线续传。",
    responses={
        204: ResponseSpec(None, description="The case has ended and all was told 已无更多"),
        **refusals(errors.InvalidInputError, errors.UnknownCaseError, errors.TooSoonError),
    },
)
async def follow_case(
    request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath, last_event_id: LastEventId = "0"
) -> ServerSentEvent | Response[None]:
    """Follow a case."""
    key = _require_own_case(request, deps, case_id)
    seen = int(last_event_id or 0)
    found = await find(deps.context, key)
    if found.case.state in ENDED and seen >= found.case.revision:
        return Response(None, status_code=204)
    streams: Streams = request.app.state.streams
    streams.hold(request.scope, request.user)
    return ServerSentEvent(_events(request, deps, key, seen))


@get(
    "/v1/cases/{case_id:str}/timeline",
    guards=[require_caller],
    opt={"scope": TokenScope.CASE_READ, "admission": GOES_ON},
    security=security_requirement(TokenScope.CASE_READ),
    operation_id="readTimeline",
    tags=["cases"],
    summary="The timeline as it was recorded 时间线原文",
    description="What the case's receipt proves, row by row and exactly as it was hashed; how anybody checks it: "
    "docs/receipts.md. 回执所证明的原文,任何人可据此核验。",
    responses=refusals(errors.UnknownCaseError),
)
async def read_timeline(
    request: CallerRequest, deps: InjectedDeps, case_id: CaseIdInPath
) -> Response[shapes.RecordedTimeline]:
    """Return a timeline as it was recorded, with its receipt."""
    shape = shapes.timeline_shape(*await find_with_timeline(deps.context, _require_own_case(request, deps, case_id)))
    return Response(msgspec.json.encode(shape), status_code=200, media_type="application/json")  # type: ignore[arg-type]


async def _events(request: CallerRequest, deps: Deps, key: Key, seen: int) -> AsyncIterator[ServerSentEventMessage]:
    """Yield the timeline as events, until the case has ended or the token that opened the stream expires."""
    async for item in deps.follower.follow(key, seen):
        if deps.context.clock() >= request.user.expires_at:
            return
        if item is None:
            yield ServerSentEventMessage(comment="still here")
            continue
        data = shapes.event_data(item.entries, item.revision, item.at)
        yield ServerSentEventMessage(data=data.decode(), event="change", id=item.revision)
    yield ServerSentEventMessage(data="{}", event="end")


CASES: Final = [
    submit_case,
    read_case,
    withdraw_case,
    prove_case,
    bring_new_identity,
    send_new_code,
    follow_case,
    read_timeline,
]
