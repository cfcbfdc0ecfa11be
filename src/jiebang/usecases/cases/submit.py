"""Submit a case: check, then open it with everything that follows from it in one transaction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Kind
from jiebang.model.errors import (
    BlockedError,
    KindNotOfferedError,
    OutOfServiceError,
    ParticipantUnavailableError,
    RecoveringError,
)
from jiebang.model.proof import Method
from jiebang.saga import timeline
from jiebang.store.cases import cases, consents, idempotency, proofs
from jiebang.store.cases.cases import NewCase
from jiebang.store.cases.consents import Given
from jiebang.store.cases.proofs import Proof
from jiebang.store.checks.records import PASSED, Step, record_of
from jiebang.store.operations import outbox, recoveries
from jiebang.usecases.cases.codes import code_message, message
from jiebang.usecases.cases.consent_rules import items_of, limited_to, rule_of, shown_by
from jiebang.usecases.cases.context import Context, Found, Render
from jiebang.usecases.checks.check import out_of_service
from jiebang.usecases.checks.quota import Quotas
from jiebang.usecases.checks.request import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jiebang.model.check import CheckAnswer
    from jiebang.policy.pack import Pack, Proofs
    from jiebang.policy.record import Evidence
    from jiebang.store.cases.idempotency import Answered, Claim, Kept
    from jiebang.store.postgres.pool import Database

REQUESTED: Final = "case_requested"
"""The message that tells a person that a request was made: at once, so that no thief can do it quietly."""
_RACES: Final = 3


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what, and from which device (None: a service).

    `consents`: the rules whose consent comes with it; `shown`: the ids the person had been shown (None: what the check
    of this very request shows).
    """

    account_id: int
    kind: Kind
    device: str | None = None
    consents: tuple[str, ...] = ()
    shown: tuple[str, ...] | None = None


class _RacedError(Exception):
    """Between the check and the insert another case of the account was opened."""


async def submit(context: Context, asked: Submission, claim: Claim, render: Render) -> Answered:
    """Open a case.

    The claim of the key, the case, its proofs, the messages and the answer are one transaction. Raises
    KindNotOfferedError, ConsentNotAskedError, UnknownAccountError, BlockedError with the whole check,
    IdempotencyReusedError, OutOfServiceError, RecoveringError, and what `Quotas.document_of` raises.
    """
    offered = context.pack().offered
    if asked.kind not in offered:
        raise KindNotOfferedError(kind=asked.kind.value, offered=offered)
    for _ in range(_RACES):
        evidence, agreed = await _checked(context, asked)
        check = evidence.answer
        if not check.passes:
            # What stands in the way may be the case that this very request opened, sent twice at once: no quota is
            # refused for that, and whoever keeps the refusal meets that answer. One that opens it after this finds the
            # refusal kept and opens nothing.
            answered = await idempotency.recall(context.platform, claim, context.clock())
            raise BlockedError(await _refused(context, asked, check) if answered is None else check)
        if out := out_of_service(evidence):  # whatever the pack's rules say of it
            raise OutOfServiceError(participants=[item["participant"] for item in out], since=out[0]["since"])
        document = await _document(context, asked, context.pack_named(check.pack))
        now = context.clock()
        try:
            return await idempotency.once(
                context.platform, claim, now, partial(_open, context, asked, evidence, document, agreed, render, now)
            )
        except _RacedError:
            recovering = await recoveries.under_way_since(context.platform)
            if recovering is not None:
                raise RecoveringError(since=recovering.isoformat()) from None
    raise ParticipantUnavailableError(participant="platform")


async def _checked(context: Context, asked: Submission) -> tuple[Evidence, dict[str, tuple[str, ...]]]:
    """Check, and where consents come with the request check again as agreed. Returns what is agreed to, by rule.

    Raises ConsentNotAskedError.
    """
    pack = context.pack()
    for code in asked.consents:
        rule_of(pack, code)
    request = CheckRequest(asked.account_id, asked.device)
    [evidence] = await context.examine([request], asked.kind)
    agreed = limited_to(shown_by(pack, evidence.answer, asked.consents), asked.shown)
    if agreed:
        [evidence] = await context.examine([msgspec.structs.replace(request, agreed=items_of(agreed))], asked.kind)
    return evidence, agreed


async def _document(context: Context, asked: Submission, pack: Pack) -> bytes | None:
    """Return the document whose quota the case will use; None for a kind that uses none."""
    quota = pack.quota
    if quota is None or asked.kind not in quota.kinds:
        return None
    return await Quotas(pack.registry, context.participants, context.platform, context.clock).document_of(
        asked.account_id
    )


async def _refused(context: Context, asked: Submission, check: CheckAnswer) -> CheckAnswer:
    """Begin the cooling-off where a submission meets a used-up quota, and say so at once: return the check after it.

    A check alone never does this, and what is asked for during a cooling-off does not make it longer.
    """
    pack = context.pack_named(check.pack)
    quota, standing = pack.quota, {blocker.code for blocker in check.blockers}
    if quota is None or asked.kind not in quota.kinds or quota.used_up not in standing or quota.cooling in standing:
        return check
    await Quotas(pack.registry, context.participants, context.platform, context.clock).refuse(asked.account_id)
    [after] = await context.check([asked.account_id], asked.kind, {asked.account_id: asked.device})
    return after


async def _open(
    context: Context,
    asked: Submission,
    evidence: Evidence,
    document: bytes | None,
    agreed: Mapping[str, tuple[str, ...]],
    render: Render,
    now: datetime,
    db: Database,
) -> Kept:
    pack = context.pack_named(evidence.answer.pack)  # the version that answered, whatever is in force by now
    plan, rules = pack.plans[asked.kind], pack.proofs[asked.kind]
    new = NewCase(
        account_id=asked.account_id,
        kind=asked.kind,
        plan=plan.name,
        participants=len(plan.participants),
        due_at=now + rules.case_lives,
        device_id=asked.device,
        document_index=document,
    )
    opened = await cases.insert(db, [new], now, [timeline.opened(now)])
    if asked.account_id not in opened:
        raise _RacedError
    case = opened[asked.account_id]
    await context.records.keep(db, [record_of(evidence, case.case_no, Step.SUBMIT, PASSED)])
    wanted = [_proof(context, case, Method(method), rules, now) for method in rules.methods]
    await proofs.insert(db, wanted)
    if agreed:
        ids = {"account_id": case.account_id, "case_no": case.case_no}
        await consents.give(
            db, [Given(**ids, consent_id=context.new_id(), code=code, what=what) for code, what in agreed.items()], now
        )
    told = [message(context, case, REQUESTED, {"kind": case.kind.value}, now)]
    told.extend(code_message(context, case, proof, now) for proof in wanted if proof.nonce is not None)
    await outbox.insert(db, told, now)
    return render(Found(case=case, plan=plan, proofs={proof.method: proof for proof in wanted}))


def _proof(context: Context, case: Case, method: Method, rules: Proofs, now: datetime) -> Proof:
    sent = method is Method.SMS_CODE
    return Proof(
        account_id=case.account_id,
        case_no=case.case_no,
        method=method,
        tries_left=rules.tries,
        nonce=context.new_nonce() if sent else None,
        expires_at=now + rules.code_lives if sent else None,
    )
