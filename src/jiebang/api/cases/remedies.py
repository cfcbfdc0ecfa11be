"""Routes that clear a blocker on the spot, and consents. Each answer holds the new check."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from litestar import Response, delete, post
from litestar.params import JSONBody, PathParameter, SkipValidation

from jiebang.api.cases import remedy_shapes as shapes
from jiebang.api.cases.idempotency import (
    KeyedMutation,
    encode_refusal,
    is_refusal,
    mutation_options,
    respond,
)
from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import LEAVES
from jiebang.api.gate.guards import CallerRequest, origin_of
from jiebang.api.shapes import RULE_PATTERN
from jiebang.model import errors
from jiebang.model.case import Kind
from jiebang.remote.bodies import convert_strictly, parse_account
from jiebang.remote.tokens import TokenScope
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.usecases.cases import codes, consent, remedy, remedy_request, step_up, unlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.usecases.cases.remedy import ClearedBlocker

RuleInPath = Annotated[
    str,
    PathParameter(schema_extra={"pattern": RULE_PATTERN}, description="Code of a rule 规则代码"),
]
_COMMON: Final = (errors.UnknownAccountError, errors.KindNotOfferedError)
_WALLET: Final = (*_COMMON, errors.WrongDeviceError, errors.WalletBusyError)


def _make_request(
    request: CallerRequest, account: str, kind: Kind = Kind.REVOKE, items: Sequence[str] | None = None
) -> remedy_request.RemedyRequest:
    """Return the remedy request of an account. Raises InvalidInputError and NotAllowedError."""
    account_id = parse_account(account)
    request.user.require_account(account_id)
    return remedy_request.RemedyRequest(
        account_id=account_id,
        kind=kind,
        origin=origin_of(request),
        items=None if items is None else tuple(dict.fromkeys(int(each) for each in items)),
    )


def _encode_remedy(cleared: ClearedBlocker) -> KeptAnswer:
    return KeptAnswer(200, msgspec.json.encode(shapes.remedy_shape(cleared)))


def _encode_pending(waiting: step_up.PendingStepUp) -> KeptAnswer:
    return KeptAnswer(202, msgspec.json.encode(shapes.pending_remedy_shape(waiting)))


def _encode_consent(standing: consent.ConsentStatus) -> KeptAnswer:
    return KeptAnswer(200, msgspec.json.encode(shapes.consent_shape(standing)))


def _make_render(request: CallerRequest) -> Callable[[ClearedBlocker | errors.ProofRefusedError], KeptAnswer]:
    def render(outcome: ClearedBlocker | errors.ProofRefusedError) -> KeptAnswer:
        return (
            encode_refusal(outcome, request)
            if isinstance(outcome, errors.ProofRefusedError)
            else _encode_remedy(outcome)
        )

    return render


@post(
    "/v1/remedies/cash-out",
    **mutation_options(TokenScope.TRANSFER, *_WALLET, errors.CashOutPausedError, admission=LEAVES),
    status_code=200,
    tags=["remedies"],
    operation_id="cashOut",
    summary="Cash out everything 全部提现",
    description="Pays the whole free balance out to the person's card: clears `PAY-BALANCE`. "
    "将可用余额全部提现到本人银行卡。",
)
async def cash_out(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """Cash out everything."""
    asked = convert_strictly(data, shapes.RemedyBody)
    wanted = _make_request(request, asked.account, asked.kind)
    return await mutation.respond(lambda claim: remedy.cash_out(deps.context, wanted, claim, _encode_remedy))


@post(
    "/v1/remedies/red-packets",
    **mutation_options(TokenScope.TRANSFER, *_WALLET, errors.ReceiveLimitError, errors.NothingToClearError),
    status_code=200,
    tags=["remedies"],
    operation_id="clearRedPackets",
    summary="Open or return red packets 拆开或退回红包",
    description="Opens or returns unclaimed red packets, all or those named: clears `PAY-RED-PACKET`. Expired ones go "
    "back to their senders either way. All of those named or none. 拆开或退回未领取红包,可逐个或全部;过期者退回。",
)
async def clear_red_packets(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RedPacketsBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """Open or return red packets."""
    asked = convert_strictly(data, shapes.RedPacketsBody)
    wanted = _make_request(request, asked.account, asked.kind, asked.packets)
    give_back = asked.action is shapes.PacketAction.RETURN
    return await mutation.respond(
        lambda claim: remedy.settle_red_packets(deps.context, wanted, claim, _encode_remedy, give_back=give_back)
    )


@post(
    "/v1/remedies/auto-debits",
    **mutation_options(TokenScope.TRANSFER, *_WALLET, errors.NothingToClearError),
    status_code=200,
    tags=["remedies"],
    operation_id="endAutoDebits",
    summary="End auto-debit contracts 终止自动扣费",
    description="Ends all of them with one tap, or those named: clears `PAY-AUTODEBIT`. All of those named or none. To "
    "let the case end them instead, see `POST /v1/consents`. 一键或逐项终止自动扣费签约。",
)
async def end_autodebits(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.AutoDebitsBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """End auto-debit contracts."""
    asked = convert_strictly(data, shapes.AutoDebitsBody)
    wanted = _make_request(request, asked.account, asked.kind, asked.contracts)
    return await mutation.respond(lambda claim: remedy.end_autodebits(deps.context, wanted, claim, _encode_remedy))


@post(
    "/v1/remedies/logins",
    **mutation_options(
        TokenScope.CASE_WRITE,
        *_COMMON,
        errors.WrongDeviceError,
        errors.NothingToClearError,
        errors.TooSoonError,
        errors.ProofRefusedError,
    ),
    status_code=202,
    tags=["remedies"],
    operation_id="askLogins",
    summary="Say that logins were mine 确认登录系本人",
    description="Sends a code to the person's phone. `POST /v1/remedies/logins/confirmation` with that code and the "
    "payment password then clears `SEC-ABNORMAL-LOGIN`. The one asked for before is dead. "
    "发送验证码;再以验证码与支付密码确认。",
)
async def ask_logins(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.LoginsBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Awaited]:
    """Ask to confirm logins."""
    asked = convert_strictly(data, shapes.LoginsBody)
    wanted = _make_request(request, asked.account, asked.kind, asked.logins)
    return await mutation.respond(lambda claim: step_up.ask_logins(deps.context, wanted, claim, _encode_pending))


@post(
    "/v1/remedies/logins/confirmation",
    **mutation_options(
        TokenScope.CASE_WRITE,
        *_COMMON,
        errors.UnknownRemedyError,
        errors.WrongDeviceError,
        errors.ProofRefusedError,
        errors.NothingToClearError,
        errors.AccountBusyError,
    ),
    status_code=200,
    tags=["remedies"],
    operation_id="confirmLogins",
    summary="Prove that logins were mine 验证后确认登录",
    description="Both proofs at once; which of them was wrong is not told. A wrong try counts, and counts for the "
    "account's cases too. 同时提交两项验证;错误次数与申请合并计算。",
)
async def confirm_logins(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.LoginsProofBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """Confirm logins."""
    asked = convert_strictly(data, shapes.LoginsProofBody)
    wanted = _make_request(request, asked.account)
    secrets = step_up.PasswordAndCode(password=asked.password, code=asked.code)
    return await mutation.respond(
        lambda claim: step_up.prove_logins(deps.context, wanted, asked.remedy, secrets, claim, _make_render(request))
    )


@post(
    "/v1/remedies/device-handover",
    **mutation_options(
        TokenScope.CASE_WRITE, *_COMMON, errors.NothingToClearError, errors.TooSoonError, errors.ProofRefusedError
    ),
    status_code=202,
    tags=["remedies"],
    operation_id="askHandOver",
    summary="Continue on the primary device 转到主设备继续",
    description="On a device that is not the primary one: answers the one-time code to show (as a QR code). The "
    "primary device scans it and calls `POST /v1/remedies/device-handover/approval`. "
    "在非主设备上获取一次性代码,由主设备扫码继续。",
)
async def ask_hand_over(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Awaited]:
    """Ask to continue on the primary device."""
    asked = convert_strictly(data, shapes.RemedyBody)
    wanted = _make_request(request, asked.account, asked.kind)
    answered = await mutation.once(lambda claim: step_up.ask_hand_over(deps.context, wanted, claim, _encode_pending))
    if is_refusal(answered):
        return respond(answered)
    # The code is added here, after the answer was kept, so that it is never stored.
    awaited = msgspec.json.decode(answered.kept.answer, type=shapes.Awaited)
    code = codes.derive_hand_over_code(deps.context.codes_key, wanted.account_id, awaited.id)
    shown = KeptAnswer(answered.kept.status, msgspec.json.encode(msgspec.structs.replace(awaited, show=code)))
    return respond(msgspec.structs.replace(answered, kept=shown))


@post(
    "/v1/remedies/device-handover/approval",
    **mutation_options(TokenScope.CASE_WRITE, *_COMMON, errors.UnknownRemedyError, errors.ProofRefusedError),
    status_code=200,
    tags=["remedies"],
    operation_id="approveHandOver",
    summary="Take over on the primary device 主设备接手",
    description="On the primary device, with the code that the other one shows. The check in the answer is the primary "
    "device's: the request goes on there. 主设备扫码后接手;答复为主设备的检查。",
)
async def approve_hand_over(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.ApprovalBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """Approve a hand-over."""
    asked = convert_strictly(data, shapes.ApprovalBody)
    wanted = _make_request(request, asked.account, asked.kind)
    return await mutation.respond(
        lambda claim: step_up.approve_hand_over(deps.context, wanted, asked.code, claim, _make_render(request))
    )


@post(
    "/v1/remedies/proof-lock",
    **mutation_options(
        TokenScope.CASE_WRITE,
        *_COMMON,
        errors.WrongDeviceError,
        errors.NothingToClearError,
        errors.TooSoonError,
        errors.ProofRefusedError,
    ),
    status_code=202,
    tags=["remedies"],
    operation_id="askUnlock",
    summary="Free locked proofs 解除验证锁定",
    description="After too many wrong tries, on the primary device alone and some time after the last of them: sends a "
    "code. `POST /v1/remedies/proof-lock/confirmation` with that code and the payment password then frees the proofs. "
    "错误次数过多后,仅限主设备,且距最后一次错误须满规定时间:发送验证码,再以验证码与支付密码解除。",
)
async def ask_unlock(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.RemedyBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Awaited]:
    """Ask to free locked proofs."""
    asked = convert_strictly(data, shapes.RemedyBody)
    wanted = _make_request(request, asked.account, asked.kind)
    return await mutation.respond(lambda claim: unlock.ask_unlock(deps.context, wanted, claim, _encode_pending))


@post(
    "/v1/remedies/proof-lock/confirmation",
    **mutation_options(
        TokenScope.CASE_WRITE, *_COMMON, errors.UnknownRemedyError, errors.WrongDeviceError, errors.ProofRefusedError
    ),
    status_code=200,
    tags=["remedies"],
    operation_id="confirmUnlock",
    summary="Prove that the proofs are yours 验证后解除锁定",
    description="Both proofs at once; which of them was wrong is not told. Wrong tries here are few and counted apart. "
    "同时提交两项验证;此处可错次数很少,单独计算。",
)
async def confirm_unlock(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.UnlockProofBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.Remedied]:
    """Free locked proofs."""
    asked = convert_strictly(data, shapes.UnlockProofBody)
    wanted = _make_request(request, asked.account)
    secrets = step_up.PasswordAndCode(password=asked.password, code=asked.code)
    return await mutation.respond(
        lambda claim: unlock.prove_unlock(deps.context, wanted, asked.remedy, secrets, claim, _make_render(request))
    )


@post(
    "/v1/consents",
    **mutation_options(
        TokenScope.CASE_WRITE,
        *_COMMON,
        errors.WrongDeviceError,
        errors.ConsentNotAskedError,
        errors.NothingToClearError,
    ),
    status_code=200,
    tags=["remedies"],
    operation_id="giveConsent",
    summary="Agree that a case ends something 同意由申请终止",
    description="Agrees to what a blocker of severity `needs_consent` lists: it no longer blocks and becomes a "
    "consequence. Covers exactly the ids shown; what comes later blocks again. "
    "同意检查所列事项由申请终止;其后新增的仍会阻碍。",
)
async def give_consent(
    request: CallerRequest,
    data: JSONBody[SkipValidation[shapes.ConsentBody]],
    deps: InjectedDeps,
    mutation: KeyedMutation,
) -> Response[shapes.ConsentAnswer]:
    """Give consent."""
    asked = convert_strictly(data, shapes.ConsentBody)
    wanted = _make_request(request, asked.account, asked.kind)
    return await mutation.respond(
        lambda claim: consent.give(deps.context, wanted, asked.code, asked.shown, claim, _encode_consent)
    )


@delete(
    "/v1/consents/{code:str}",
    **mutation_options(
        TokenScope.CASE_WRITE,
        *_COMMON,
        errors.WrongDeviceError,
        errors.ConsentNotAskedError,
        errors.TooLateToWithdrawError,
        admission=LEAVES,
        body=False,
    ),
    status_code=200,
    operation_id="withdrawConsent",
    tags=["remedies"],
    summary="Take a consent back 撤回同意",
    description="As easily as it was given, by the person alone. A case that rests on it and has not passed its commit "
    "point is withdrawn with it; past it, 409. 撤回同意;尚未过提交点的相关申请一并撤回。",
)
async def withdraw_consent(
    request: CallerRequest, deps: InjectedDeps, code: RuleInPath, mutation: KeyedMutation
) -> Response[shapes.ConsentAnswer]:
    """Take a consent back."""
    wanted = _make_own_request(request)
    return await mutation.respond(lambda claim: consent.take_back(deps.context, wanted, code, claim, _encode_consent))


def _make_own_request(request: CallerRequest) -> remedy_request.RemedyRequest:
    """Return a request for the caller's own account: nobody else may take a consent back. Raises NotAllowedError."""
    if request.user.account_id is None:
        raise errors.NotAllowedError(account="")
    return _make_request(request, str(request.user.account_id))


REMEDIES: Final = [
    cash_out,
    clear_red_packets,
    end_autodebits,
    ask_logins,
    confirm_logins,
    ask_hand_over,
    approve_hand_over,
    ask_unlock,
    confirm_unlock,
    give_consent,
    withdraw_consent,
]
