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
from jiebang.model.origin import UNKNOWN, Origin
from jiebang.model.proof import Method
from jiebang.saga import timeline
from jiebang.store.cases import cases, consents, idempotency, proofs
from jiebang.store.cases.allowances import Use
from jiebang.store.cases.cases import NewCase
from jiebang.store.cases.consents import NewConsent
from jiebang.store.cases.proofs import Proof
from jiebang.store.checks.records import PASSED, CheckStep, build_record
from jiebang.store.operations import outbox, recoveries
from jiebang.usecases.cases.codes import make_code_message, make_message
from jiebang.usecases.cases.consent_rules import find_consent_rule, limit_to_shown, list_items, list_shown
from jiebang.usecases.cases.context import CaseDetails, Context, Render
from jiebang.usecases.cases.limits import find_allowance, refuse_beyond_limits, take_up_of_address
from jiebang.usecases.checks.check import list_out_of_service
from jiebang.usecases.checks.quota import Quotas
from jiebang.usecases.checks.request import CheckRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from jiebang.model.check import CheckAnswer
    from jiebang.policy.pack import Pack, Proofs
    from jiebang.policy.record import Evidence
    from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
    from jiebang.store.postgres.pool import Database

REQUESTED: Final = "case_requested"
"""The message that tells a person of the request, at once, so that a thief cannot make one unnoticed."""
_RACES: Final = 3
_TOLD: Final = 2
"""Messages of a case beside its codes: of the request, and of its end."""


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """Whose account, what is asked for, and who asks.

    `consents`: the codes of the rules consented to with it; `shown`: the ids the person had been shown (None: those in
    the check of this very request).
    """

    account_id: int
    kind: Kind
    origin: Origin = UNKNOWN
    consents: tuple[str, ...] = ()
    shown: tuple[str, ...] | None = None


class _RacedError(Exception):
    """The case was not opened: another one of the account was, since the check, or it is beyond the account's limits.

    `use`: what it would have taken up.
    """

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        self.use = use


async def submit(context: Context, submission: Submission, claim: Claim, render: Render) -> MutationResult:
    """Open a case.

    The claim of the key, the case, its proofs, the messages and the answer are one transaction. Raises
    KindNotOfferedError, ConsentNotAskedError, UnknownAccountError, BlockedError with the whole check, TooSoonError (a
    pause or a cap; fields: retry_after_s), IdempotencyReusedError, OutOfServiceError, RecoveringError, and what
    `Quotas.find_document` raises.
    """
    offered = _list_offered(context)
    if submission.kind not in offered:
        raise KindNotOfferedError(kind=submission.kind.value, offered=offered)
    for _ in range(_RACES):
        evidence, agreed = await _check(context, submission)
        check = evidence.answer
        if not check.passes:
            # The blocker may be the case that this very request opened, sent twice at once. Then the quota is not
            # refused, and the answer of the first is kept. If the first opens it only after this, it finds the refusal
            # kept and opens nothing.
            answered = await idempotency.recall(context.platform, claim, context.clock())
            raise BlockedError(await _begin_cooling_off(context, submission, check) if answered is None else check)
        if outages := list_out_of_service(evidence):  # whatever the pack's rules say of it
            raise OutOfServiceError(participants=[item["participant"] for item in outages], since=outages[0]["since"])
        document = await _find_document(context, submission, context.pack_named(check.pack))
        now = context.clock()
        try:
            return await idempotency.run_once(
                context.platform,
                claim,
                now,
                partial(_open, context, submission, evidence, document, agreed, render, now),
            )
        except _RacedError as lost:
            if not await cases.load_live(context.platform, [submission.account_id]):  # else the check names that case
                await refuse_beyond_limits(context, context.platform, lost.use, now, cases=1)
            recovering = await recoveries.read_under_way_since(context.platform)
            if recovering is not None:
                raise RecoveringError(since=recovering.isoformat()) from None
    raise ParticipantUnavailableError(participant="platform")


def _list_offered(context: Context) -> list[str]:
    """Return the kinds that can be submitted here: where nobody verifies documents, none that asks for one."""
    pack = context.pack()
    asking = {kind.value for kind, rules in pack.proofs.items() if Method.DOCUMENT.value in rules.methods}
    return [kind for kind in pack.offered if context.verifier is not None or kind not in asking]


async def _check(context: Context, submission: Submission) -> tuple[Evidence, dict[str, tuple[str, ...]]]:
    """Check, and once more with the consents that come with the request. Returns what is agreed to, by rule.

    Raises ConsentNotAskedError.
    """
    pack = context.pack()
    for code in submission.consents:
        find_consent_rule(pack, code)
    request = CheckRequest(submission.account_id, submission.origin)
    [evidence] = await context.examine([request], submission.kind)
    agreed = limit_to_shown(list_shown(pack, evidence.answer, submission.consents), submission.shown)
    if agreed:
        [evidence] = await context.examine(
            [msgspec.structs.replace(request, agreed=list_items(agreed))], submission.kind
        )
    return evidence, agreed


async def _find_document(context: Context, submission: Submission, pack: Pack) -> bytes | None:
    """Return the blind index of the document whose quota the case will use; None for a kind that uses none."""
    quota = pack.quota
    if quota is None or submission.kind not in quota.kinds:
        return None
    return await Quotas(pack.registry, context.participants, context.platform, context.clock).find_document(
        submission.account_id
    )


async def _begin_cooling_off(context: Context, submission: Submission, check: CheckAnswer) -> CheckAnswer:
    """Begin the cooling-off if the submission meets a used-up quota; return the check as it is after that.

    A check alone never begins one, and a submission during a cooling-off does not make it longer.
    """
    pack = context.pack_named(check.pack)
    quota, raised = pack.quota, {blocker.code for blocker in check.blockers}
    if quota is None or submission.kind not in quota.kinds or quota.used_up not in raised or quota.cooling in raised:
        return check
    await Quotas(pack.registry, context.participants, context.platform, context.clock).refuse(submission.account_id)
    origins = {submission.account_id: submission.origin}
    [after] = await context.check([submission.account_id], submission.kind, origins)
    return after


async def _open(
    context: Context,
    submission: Submission,
    evidence: Evidence,
    document: bytes | None,
    agreed: Mapping[str, tuple[str, ...]],
    render: Render,
    now: datetime,
    db: Database,
) -> KeptAnswer:
    pack = context.pack_named(evidence.answer.pack)  # the version that answered, whatever is in force by now
    plan, rules = pack.plans[submission.kind], pack.proofs[submission.kind]
    codes = sum(Method(method) is Method.SMS_CODE for method in rules.methods)
    use = Use(account_id=submission.account_id, codes=codes, messages=codes + _TOLD)
    new = NewCase(
        account_id=submission.account_id,
        kind=submission.kind,
        plan=plan.name,
        participants=len(plan.participants),
        due_at=now + rules.case_lives,
        device_id=submission.origin.device,
        by_service=submission.origin.service,
        codes=use.codes,
        messages=use.messages,
        document_index=document,
    )
    opened = await cases.insert(db, [new], now, [timeline.first_entry(now)], find_allowance(context, now))
    if submission.account_id not in opened:
        raise _RacedError(use)
    take_up_of_address(context, submission.origin, now, cases=1, codes=use.codes, messages=use.messages)
    case = opened[submission.account_id]
    await context.records.keep(db, [build_record(evidence, case.case_no, CheckStep.SUBMIT, PASSED)])
    asked_for = [_make_proof(context, case, Method(method), rules, now) for method in rules.methods]
    await proofs.insert(db, asked_for)
    if agreed:
        ids = {"account_id": case.account_id, "case_no": case.case_no}
        await consents.give(
            db,
            [NewConsent(**ids, consent_id=context.new_id(), code=code, what=what) for code, what in agreed.items()],
            now,
        )
    messages = [make_message(context, case, REQUESTED, {"kind": case.kind.value}, now)]
    messages.extend(make_code_message(context, case, proof, now) for proof in asked_for if proof.nonce is not None)
    await outbox.insert(db, messages, now)
    return render(CaseDetails(case=case, plan=plan, proofs={proof.method: proof for proof in asked_for}))


def _make_proof(context: Context, case: Case, method: Method, rules: Proofs, now: datetime) -> Proof:
    sent = method is Method.SMS_CODE
    return Proof(
        account_id=case.account_id,
        case_no=case.case_no,
        method=method,
        tries_left=rules.tries,
        nonce=context.new_nonce() if sent else None,
        expires_at=now + rules.code_lives if sent else None,
    )
