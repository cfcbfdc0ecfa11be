"""Prove a case: judge a payment password or a code; the last accepted proof makes the case `ready`."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, State
from jiebang.model.check import Text
from jiebang.model.errors import (
    InvalidInputError,
    ParticipantUnavailableError,
    ProofRefusedError,
    TooSoonError,
    UnknownCaseError,
)
from jiebang.model.plan import WALLET
from jiebang.model.proof import SECRETS, Method
from jiebang.participants.base import UNANSWERED
from jiebang.policy.devices import Act
from jiebang.saga import timeline
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Proven, step
from jiebang.store.cases import cases, idempotency, proofs
from jiebang.store.cases.proofs import Proof
from jiebang.store.cases.wrong_tries import TriedProof
from jiebang.store.operations import outbox
from jiebang.usecases.cases.codes import derive_code, make_code_message
from jiebang.usecases.cases.context import CaseDetails, Context, Render
from jiebang.usecases.cases.devices import require_device
from jiebang.usecases.cases.limits import take_up
from jiebang.usecases.cases.locks import are_locked, count_wrong_try
from jiebang.usecases.cases.proof_refusals import REASONS, RefusalCause, make_refusal

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.case import Key
    from jiebang.model.origin import Origin
    from jiebang.policy.pack import Proofs
    from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
    from jiebang.store.postgres.pool import Database


_NO_SECRET: Final = Text(
    "证件须以 POST /v1/cases/{case_id}/identity 提交", "a document is brought by POST /v1/cases/{case_id}/identity"
)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What a person offers as proof. Never logged, never stored."""

    method: Method
    secret: str


async def prove(
    context: Context, key: Key, origin: Origin, attempt: Attempt, claim: Claim, render: Render
) -> MutationResult:
    """Judge a proof. A wrong one costs a try, saved with the answer, so that a repeat of the request costs none.

    Raises UnknownCaseError, WrongDeviceError, ProofRefusedError (fields: method, cause, reason, tries_left),
    ParticipantUnavailableError, IdempotencyReusedError.
    """
    now = context.clock()
    # Read before any proof is accepted: a movement of money after this breaks the case off.
    version = await read_wallet_version(context, key[0])
    return await idempotency.run_once(
        context.platform, claim, now, lambda db: _judge(context, db, key, origin, attempt, version, render, now)
    )


async def _judge(
    context: Context,
    db: Database,
    key: Key,
    origin: Origin,
    attempt: Attempt,
    version: int,
    render: Render,
    now: datetime,
) -> KeptAnswer:
    if attempt.method not in SECRETS:
        raise InvalidInputError(field="method", reason=_NO_SECRET)
    by_method, case, rules = await lock_proofs(context, db, key, origin, Act.PROOF, now)
    proof = find_answerable(by_method, attempt.method, now)
    if await are_locked(db, case.account_id, [attempt.method], rules, now):
        raise make_refusal(attempt.method, RefusalCause.LOCKED, 0)
    if not await _is_right(context, proof, attempt, rules):
        wrong = msgspec.structs.replace(proof, tries_left=proof.tries_left - 1)
        await proofs.save(db, [wrong])
        tried = TriedProof(attempt.method.value)
        await count_wrong_try(context, db, case.account_id, tried, case.kind.value, rules, now)
        return render(make_refusal(attempt.method, RefusalCause.WRONG, wrong.tries_left))
    # A code is single-use: its nonce goes with it.
    accepted = msgspec.structs.replace(proof, proven_at=now, nonce=None, expires_at=None)
    await proofs.save(db, [accepted])
    by_method = {**by_method, attempt.method: accepted}
    if all(one.proven_at is not None for one in by_method.values()):
        case = await make_ready(context, db, case, version, now)
    return render(CaseDetails(case=case, plan=context.plan_of(case), proofs=by_method))


async def lock_proofs(
    context: Context, db: Database, key: Key, origin: Origin, act: Act, now: datetime, *, lock: bool = True
) -> tuple[dict[Method, Proof], Case, Proofs]:
    """Lock the case's proofs, then read the case: a concurrent attempt waits here. Returns both and the rules.

    Without `lock` they are only read, to find out beforehand what would be refused.

    Raises UnknownCaseError, WrongDeviceError, and ProofRefusedError where the case waits for no proof.
    """
    by_method = (await proofs.load_of_cases(db, [key], lock=lock)).get(key, {})
    case = (await cases.load_many(db, [key])).get(key)
    if case is None:
        raise UnknownCaseError
    await context.know([case])
    await require_device(context, act, case.account_id, origin, case.origin)
    late = case.due_at is not None and now >= case.due_at
    if case.state is not State.OPEN or case.withdraw_at is not None or late:
        raise ProofRefusedError(
            cause=RefusalCause.NOT_AWAITED.value, reason=REASONS[RefusalCause.NOT_AWAITED], state=case.state.value
        )
    return by_method, case, context.pack_named(case.plan).proofs[case.kind]


def find_answerable(by_method: dict[Method, Proof], method: Method, now: datetime) -> Proof:
    """Return the proof that an attempt by `method` would answer. Raises ProofRefusedError; costs no try."""
    proof = by_method.get(method)
    if proof is None:
        raise make_refusal(method, RefusalCause.NOT_ASKED, 0)
    cause = (
        RefusalCause.ACCEPTED
        if proof.proven_at is not None
        else RefusalCause.USED_UP
        if proof.tries_left == 0
        else RefusalCause.EXPIRED
        if proof.expires_at is not None and now >= proof.expires_at
        else None
    )
    if cause is not None:
        raise make_refusal(method, cause, proof.tries_left)
    return proof


async def _is_right(context: Context, proof: Proof, attempt: Attempt, rules: Proofs) -> bool:
    if proof.nonce is not None:
        code = derive_code(context.codes_key, proof.account_id, proof.case_no, proof.nonce, rules.code_digits)
        return hmac.compare_digest(code.encode(), attempt.secret.encode())
    try:
        [right] = await context.wallet.verify_payment_password([(proof.account_id, attempt.secret)])
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=WALLET) from None
    return bool(right)


async def read_wallet_version(context: Context, account_id: int) -> int:
    """Return the wallet's version, before a proof is accepted. Raises ParticipantUnavailableError."""
    try:
        batch = await context.wallet.facts([account_id])
    except UNANSWERED:
        raise ParticipantUnavailableError(participant=WALLET) from None
    if batch is None or not batch.versions:
        raise ParticipantUnavailableError(participant=WALLET)
    return batch.versions[0]


async def make_ready(context: Context, db: Database, case: Case, version: int, now: datetime) -> Case:
    """Make a case `ready`: all its proofs are given. Raises ProofRefusedError where it no longer waits for one."""
    decision = step(case, context.plan_of(case), Proven(version), now, context.timing)
    new_entries = timeline.entries(case, decision.case, decision.sends, (), now)
    saved = (await cases.save(db, [Save(cases=[decision.case], entries=new_entries)], now)).kept()
    if case.key not in saved:
        raise ProofRefusedError(cause=RefusalCause.NOT_AWAITED.value, reason=REASONS[RefusalCause.NOT_AWAITED])
    return saved[case.key]


async def send_code(context: Context, key: Key, origin: Origin, claim: Claim, render: Render) -> MutationResult:
    """Send a new code, which replaces the one before. Wrong tries stay counted: a new code gives no new tries.

    Raises UnknownCaseError, WrongDeviceError, ProofRefusedError, TooSoonError (fields: retry_after_s),
    IdempotencyReusedError.
    """
    now = context.clock()
    return await idempotency.run_once(
        context.platform, claim, now, lambda db: _renew_code(context, db, key, origin, render, now)
    )


async def _renew_code(
    context: Context, db: Database, key: Key, origin: Origin, render: Render, now: datetime
) -> KeptAnswer:
    by_method, case, rules = await lock_proofs(context, db, key, origin, Act.CODE, now)
    proof = by_method.get(Method.SMS_CODE)
    if proof is None or proof.expires_at is None:
        raise make_refusal(
            Method.SMS_CODE,
            RefusalCause.ACCEPTED if proof else RefusalCause.NOT_ASKED,
            proof.tries_left if proof else 0,
        )
    if proof.tries_left == 0:
        raise make_refusal(Method.SMS_CODE, RefusalCause.USED_UP, 0)
    wait = proof.expires_at - rules.code_lives + rules.code_pause - now
    if wait.total_seconds() > 0:
        raise TooSoonError(retry_after_s=int(wait.total_seconds()) + 1)
    fresh = msgspec.structs.replace(proof, nonce=context.new_nonce(), expires_at=now + rules.code_lives)
    await take_up(context, db, case.account_id, origin, now, codes=1, messages=1)
    await proofs.save(db, [fresh])
    await outbox.insert(db, [make_code_message(context, case, fresh, now)], now)
    return render(CaseDetails(case=case, plan=context.plan_of(case), proofs={**by_method, Method.SMS_CODE: fresh}))
