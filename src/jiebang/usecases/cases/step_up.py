"""Step-up: remedies that need a proof first ("this login was me", handing a request over to the primary device).

A one-time code is derived from a nonce under the platform's key and never stored. It is single-use, expires, and is
bound to one remedy. Wrong tries are limited per remedy, and per account over a window in which tries on its cases count
too. Only the newest remedy of a rule can be proven.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.errors import (
    NotAllowedError,
    NothingToClearError,
    ParticipantUnavailableError,
    ProofRefusedError,
    TooSoonError,
    UnknownAccountError,
    UnknownRemedyError,
)
from jiebang.model.proof import SECRETS
from jiebang.participants.base import UNANSWERED
from jiebang.participants.security.logins import LoginConfirmation, SecurityParticipant
from jiebang.participants.wallet.movements import EntryState
from jiebang.policy.devices import Act
from jiebang.policy.protection import PROOF_LOCK
from jiebang.policy.remedies import ABNORMAL_LOGIN, DEVICE, cleared_by
from jiebang.store.cases import idempotency, remedies
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.store.cases.remedies import RemedyRecord, StepUp
from jiebang.store.cases.wrong_tries import TriedProof
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage
from jiebang.usecases.cases.codes import NO_CASE, derive_code, derive_hand_over_code, find_proof_rules
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.devices import require_device, require_device_of_live_case
from jiebang.usecases.cases.limits import take_up
from jiebang.usecases.cases.locks import are_locked, count_wrong_try
from jiebang.usecases.cases.proof_refusals import REASONS, RefusalCause
from jiebang.usecases.cases.remedy import ClearedBlocker, carry_out, record
from jiebang.usecases.cases.remedy_request import RemedyRequest, check_request

if TYPE_CHECKING:
    from typing import Any

    from jiebang.policy.pack import Proofs
    from jiebang.store.cases.idempotency import Claim, LaterWork, MutationResult
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.cases.remedy import WorkDone

SECURITY: Final = "security"
CODE: Final = "remedy_code"
"""The message that brings the code of a remedy. Its parameters hold the nonce."""
DONE: Final = "remedy_done"
"""The message that tells a person what was done in their name."""
_NOT_PRIMARY: Final = Text("只有主设备可以批准", "Only the primary device can approve it")


class PasswordAndCode(msgspec.Struct, frozen=True, kw_only=True):
    """The two proofs of a step-up, offered together. Never logged, never stored."""

    password: str
    code: str


class PendingStepUp(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy that waits for its proof. `code`: that of the rule it clears, in the policy in force."""

    step_up: StepUp
    code: str
    tries_left: int


Admit = Callable[["Database", int, "Proofs", datetime], Awaitable[None]]
RenderPending = Callable[[PendingStepUp], KeptAnswer]
RenderResult = Callable[["ClearedBlocker | ProofRefusedError"], KeptAnswer]


async def ask_logins(context: Context, request: RemedyRequest, claim: Claim, render: RenderPending) -> MutationResult:
    """Ask to confirm abnormal logins (`items`; None: all) as the person's own; a code is sent to their phone.

    Raises NothingToClearError, TooSoonError, WrongDeviceError, ProofRefusedError (too many wrong tries of late),
    UnknownAccountError, KindNotOfferedError, ParticipantUnavailableError, IdempotencyReusedError.
    """
    await check_request(context, request)
    await require_device_of_live_case(context, context.platform, Act.REMEDY, request.account_id, request.origin)
    facts = await _read_security_facts(context, request.account_id)
    pending = {str(item["id"]) for item in facts["abnormal_login_items"]}
    named = pending if request.items is None else set(map(str, request.items))
    if not named or named - pending:
        raise NothingToClearError(items=sorted(named - pending))
    return await ask_for(context, request, ABNORMAL_LOGIN, tuple(sorted(named)), claim, render)


async def ask_hand_over(
    context: Context, request: RemedyRequest, claim: Claim, render: RenderPending
) -> MutationResult:
    """Ask to continue a request on the primary device; `request.origin.device` is the one that shows the code.

    Raises NotAllowedError (no device), NothingToClearError (it is the primary device), and what `ask_logins` raises.
    """
    if request.origin.device is None:
        raise NotAllowedError(account=str(request.account_id))
    await check_request(context, request)
    primary = (await _read_security_facts(context, request.account_id))["primary_device_id"]
    if primary in (None, request.origin.device):
        raise NothingToClearError(items=[])
    return await ask_for(context, request, DEVICE, (request.origin.device,), claim, render)


async def ask_for(
    context: Context,
    request: RemedyRequest,
    code: str,
    what: tuple[str, ...],
    claim: Claim,
    render: RenderPending,
    admit: Admit | None = None,
) -> MutationResult:
    """Record a step-up, and send its code unless the asking device shows it.

    `admit`: raises where it may not be asked for now; by default, while proofs are locked. Raises TooSoonError.
    """
    rules, now = find_proof_rules(context.pack(), request.kind.value), context.clock()

    async def work(db: Database) -> KeptAnswer:
        before = await _lock_and_list(db, request.account_id, code, rules, now)
        wait = before[0].created_at + rules.code_pause - now if before else None
        if wait is not None and wait.total_seconds() > 0:
            raise TooSoonError(retry_after_s=int(wait.total_seconds()) + 1)
        await (_require_unlocked if admit is None else admit)(db, request.account_id, rules, now)
        coded = code != DEVICE
        if coded:  # the code, and what was done
            await take_up(context, db, request.account_id, request.origin, now, codes=1, messages=2)
        step_up = StepUp(
            account_id=request.account_id,
            remedy_id=context.new_id(),
            code=code,
            kind=request.kind.value,
            what=what,
            nonce=context.new_nonce(),
            device_id=request.origin.device,
            by_service=request.origin.service,
            created_at=now,
            expires_at=now + rules.code_lives,
        )
        await remedies.insert_step_ups(db, [step_up], now)
        if coded:
            params = {"nonce": step_up.nonce.hex(), "expires_at": step_up.expires_at.isoformat()}
            await outbox.insert(db, [make_step_up_message(context, step_up, CODE, params, now)], now)
        named = cleared_by(context.pack(), code)
        return render(PendingStepUp(step_up=step_up, code=named, tries_left=rules.tries))

    return await idempotency.run_once(context.platform, claim, now, work)


async def prove_logins(
    context: Context,
    request: RemedyRequest,
    remedy_id: UUID,
    secrets: PasswordAndCode,
    claim: Claim,
    render: RenderResult,
) -> MutationResult:
    """Confirm the logins that a remedy names, if payment password and code are both right. A wrong try is counted.

    The refusal does not say which of the two was wrong. Raises UnknownRemedyError, WrongDeviceError, ProofRefusedError,
    AccountBusyError, NothingToClearError, ParticipantUnavailableError, IdempotencyReusedError.
    """
    now = context.clock()

    async def confirm(remedy: UUID, logins: tuple[int, ...]) -> WorkDone:
        confirmation = LoginConfirmation(remedy_id=remedy, account_id=request.account_id, logins=logins)
        [confirmed] = await _get_security(context).confirm_logins([confirmation])
        if confirmed.refusal is not None:
            raise confirmed.refusal
        return tuple(map(str, confirmed.logins)), None, EntryState.COMPLETED

    async def work(db: Database) -> KeptAnswer | LaterWork:
        step_up, rules = await find_answerable(context, db, request.account_id, ABNORMAL_LOGIN, remedy_id, now)
        await require_device(context, Act.CONFIRMATION, request.account_id, request.origin, step_up.origin)
        if step_up.used_at is None and not await are_right(context, step_up, secrets, rules):
            return render(await refuse_wrong_try(context, db, step_up, rules, now))
        begun = make_remedy(step_up, "confirm_logins", now)
        await remedies.save_step_ups(db, [msgspec.structs.replace(step_up, used_at=step_up.used_at or now)])
        await remedies.begin(db, [begun])
        return partial(
            carry_out,
            context,
            msgspec.structs.replace(request, kind=Kind(step_up.kind)),
            begun,
            partial(confirm, logins=tuple(map(int, step_up.what))),
            render,
            participant=SECURITY,
            message=make_step_up_message(context, step_up, DONE, {}, now),
        )

    return await idempotency.run_once(context.platform, claim, now, work)


async def approve_hand_over(
    context: Context, request: RemedyRequest, secret: str, claim: Claim, render: RenderResult
) -> MutationResult:
    """On the primary device (`request.origin.device`): take over the request whose code another device shows.

    The check in the answer is for the primary device. Raises UnknownRemedyError, ProofRefusedError,
    UnknownAccountError, ParticipantUnavailableError, IdempotencyReusedError.
    """
    primary = (await _read_security_facts(context, request.account_id))["primary_device_id"]
    if request.origin.device is None or request.origin.device != primary:
        raise ProofRefusedError(cause="not_primary_device", reason=_NOT_PRIMARY, tries_left=None)
    check, now = await check_request(context, request), context.clock()

    async def work(db: Database) -> KeptAnswer:
        step_up, rules = await find_answerable(context, db, request.account_id, DEVICE, None, now)
        if step_up.used_at is not None:
            raise _make_refusal(RefusalCause.ACCEPTED, 0)
        code = derive_hand_over_code(context.codes_key, step_up.account_id, step_up.remedy_id)
        if not hmac.compare_digest(code.encode(), secret.strip().upper().encode()):
            return render(await refuse_wrong_try(context, db, step_up, rules, now))
        await take_up(context, db, request.account_id, request.origin, now, messages=1)
        begun = make_remedy(step_up, "device_hand_over", now)
        await remedies.save_step_ups(db, [msgspec.structs.replace(step_up, used_at=now)])
        await remedies.begin(db, [begun])
        await record(db, begun, step_up.what, None, now)
        cleared = ClearedBlocker(
            account_id=request.account_id,
            remedy_id=step_up.remedy_id,
            code=cleared_by(context.pack(), DEVICE),
            at=now,
            items=step_up.what,
            check=check,
        )
        await outbox.insert(db, [make_step_up_message(context, step_up, DONE, {}, now)], now)
        return render(cleared)

    return await idempotency.run_once(context.platform, claim, now, work)


async def _lock_and_list(db: Database, account_id: int, code: str, rules: Proofs, now: datetime) -> list[StepUp]:
    """Lock the account; return its remedies of one rule asked for within the window, the newest first."""
    if account_id not in await remedies.lock(db, [account_id]):
        raise UnknownAccountError(accounts=[str(account_id)])
    since = now - max(rules.tries_window, rules.code_pause, rules.code_lives)
    return (await remedies.load_step_ups(db, [account_id], code, since)).get(account_id, [])


async def find_answerable(
    context: Context,
    db: Database,
    account_id: int,
    code: str,
    remedy_id: UUID | None,
    now: datetime,
    admit: Admit | None = None,
) -> tuple[StepUp, Proofs]:
    """Return the remedy that a proof answers (`remedy_id` None: the newest), locked, with the rules of proof.

    One already proven is returned only if it was not carried out: the request that proved it was cut off. `admit`: as
    in `ask_for`.
    """
    pack = context.pack()
    widest = max(pack.proofs.values(), key=lambda rules: rules.tries_window)
    newest_first = await _lock_and_list(db, account_id, code, widest, now)
    step_up = next((one for one in newest_first if remedy_id in (None, one.remedy_id)), None)
    if step_up is None:
        raise UnknownRemedyError
    rules = find_proof_rules(pack, step_up.kind)
    left = max(rules.tries - step_up.wrong, 0)
    if step_up.used_at is not None:
        done = {
            one.remedy_id
            for one in (await remedies.load_of_accounts(db, [account_id])).get(account_id, ())
            if one.done_at
        }
        if step_up.remedy_id in done:
            raise _make_refusal(RefusalCause.ACCEPTED, left)
        return step_up, rules
    if left == 0:
        raise _make_refusal(RefusalCause.USED_UP, 0)
    if step_up.ended_at is not None or now >= step_up.expires_at:
        raise _make_refusal(RefusalCause.EXPIRED, left)
    await (_require_unlocked if admit is None else admit)(db, account_id, rules, now)
    return step_up, rules


async def _require_unlocked(db: Database, account_id: int, rules: Proofs, now: datetime) -> None:
    """Raise ProofRefusedError if the account's cases and remedies have used up the wrong tries of the window."""
    if await are_locked(db, account_id, SECRETS, rules, now):
        raise _make_refusal(RefusalCause.LOCKED, 0)


async def are_right(context: Context, step_up: StepUp, secrets: PasswordAndCode, rules: Proofs) -> bool:
    """Judge both, always, so that the time taken does not reveal which was wrong."""
    code = derive_code(context.codes_key, step_up.account_id, NO_CASE, step_up.nonce, rules.code_digits)
    code_right = hmac.compare_digest(code.encode(), secrets.code.encode())
    try:
        [password_right] = await context.wallet.verify_payment_password([(step_up.account_id, secrets.password)])
    except UNANSWERED:
        raise ParticipantUnavailableError(participant="wallet") from None
    return code_right and password_right


async def refuse_wrong_try(
    context: Context, db: Database, step_up: StepUp, rules: Proofs, now: datetime
) -> ProofRefusedError:
    """Count a wrong try at a step-up; return the refusal."""
    counted = msgspec.structs.replace(step_up, wrong=step_up.wrong + 1)
    await remedies.save_step_ups(db, [counted])
    tried = TriedProof.UNLOCK if step_up.code == PROOF_LOCK else TriedProof.REMEDY
    await count_wrong_try(context, db, step_up.account_id, tried, step_up.kind, rules, now)
    return _make_refusal(RefusalCause.WRONG, max(rules.tries - counted.wrong, 0))


def _make_refusal(cause: RefusalCause, tries_left: int) -> ProofRefusedError:
    return ProofRefusedError(cause=cause.value, reason=REASONS[cause], tries_left=tries_left)


def make_remedy(step_up: StepUp, action: str, now: datetime) -> RemedyRecord:
    """Return the record of a remedy that was proven."""
    return RemedyRecord(
        account_id=step_up.account_id, remedy_id=step_up.remedy_id, code=step_up.code, action=action, begun_at=now
    )


def make_step_up_message(
    context: Context, step_up: StepUp, template: str, params: dict[str, Any], now: datetime
) -> OutboxMessage:
    """Return a message about a step-up to the person it belongs to."""
    return OutboxMessage(
        account_id=step_up.account_id,
        message_id=context.new_id(),
        case_no=NO_CASE,
        template=template,
        params={**params, "kind": step_up.kind, "remedy": step_up.code},
        created_at=now,
    )


def _get_security(context: Context) -> SecurityParticipant:
    security = context.participants[SECURITY]
    if not isinstance(security, SecurityParticipant):
        raise TypeError("the participant security must take confirmations")
    return security


async def _read_security_facts(context: Context, account_id: int) -> dict[str, Any]:
    """Read the account's security facts; an account unknown there has none."""
    try:
        batch = await _get_security(context).facts([account_id])
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=SECURITY) from None
    known = bool(batch.accounts)
    return {"abnormal_login_items": [], "primary_device_id": None} | {
        name: column[0] for name, column in batch.columns.items() if known and column[0] is not None
    }
