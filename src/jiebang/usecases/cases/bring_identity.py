"""Bring an identity to a case: a verifier confirms the document, and what it confirms is sealed and staged.

The document is one of the case's proofs: with the last of them the case is `ready`. The identity is sealed under a data
key of its own, for the epoch in which it will be in force, and staged in both data centres before the proof counts as
given; neither name nor number is stored anywhere else, and no timeline, message or answer holds them.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import (
    BlockedError,
    IdentityRefusedError,
    InvalidInputError,
    ParticipantUnavailableError,
    ProofRefusedError,
)
from jiebang.model.proof import Method
from jiebang.model.verification import DocumentQuestion, VerificationOutcome
from jiebang.participants.base import SILENCE, UNANSWERED
from jiebang.participants.core.staging import GivenValues
from jiebang.participants.identity.documents import IdentityParticipant
from jiebang.policy.calendar import local_date
from jiebang.policy.coarse import coarsen_birth_date
from jiebang.policy.devices import Act
from jiebang.policy.documents import BROUGHT_DOCUMENTS, IdentityDocument, read_document
from jiebang.remote.verifier import VERIFIER
from jiebang.store.cases import cases, idempotency, proofs
from jiebang.store.cases.wrong_tries import TriedProof
from jiebang.store.encryption import SealedIdentity
from jiebang.usecases.cases.context import CaseDetails, Context, Render
from jiebang.usecases.cases.locks import are_locked, count_wrong_try
from jiebang.usecases.cases.proof_refusals import REASONS, RefusalCause, make_refusal
from jiebang.usecases.cases.prove import find_answerable, lock_proofs, make_ready, read_wallet_version
from jiebang.usecases.checks.request import CheckRequest

if TYPE_CHECKING:
    from jiebang.model.case import Case, Key
    from jiebang.model.origin import Origin
    from jiebang.policy.pack import Pack, QuotaRule
    from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
    from jiebang.store.postgres.pool import Database

LONGEST_NAME: Final = 100
"""Most characters of a name on a document."""
_IDENTITY: Final = "identity"
_NAME: Final = Text("姓名须为 1 至 100 个可见字符", "a name has 1 to 100 visible characters")
_DOCUMENTS: Final = Text("此处可用的证件:{known}", "documents that can be used here: {known}")
_TOO_YOUNG: Final = Text("证件持有人未满 {age} 周岁", "the document's holder is under {age}")
_UNDATED: Final = Text("证件号码未写明出生日期", "the document's number does not tell the birth date")


class BroughtIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The identity that a person says is theirs. Never logged; stored only as sealed bytes."""

    name: str
    document_type: str
    number: str

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "BroughtIdentity(…)"


class _Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out before the case is touched. `level`: None where the verifier did not confirm the document."""

    document: IdentityDocument
    born: date
    index: bytes
    level: int | None

    def __repr__(self) -> str:
        return "_Checked(…)"


async def bring_identity(
    context: Context, key: Key, origin: Origin, brought: BroughtIdentity, claim: Claim, render: Render
) -> MutationResult:
    """Verify an identity, stage it, and accept it as the case's proof.

    One that the verifier does not confirm costs a try, as a wrong password does. Raises UnknownCaseError,
    WrongDeviceError, IdentityRefusedError (fields: cause, reason), BlockedError with the whole check
    (the document's quota is used up, or it is in its cooling-off), ProofRefusedError,
    ParticipantUnavailableError (the verifier, the wallet or a data centre does not answer, or the two data centres
    differ), IdempotencyReusedError. Nothing has changed then, save what a later attempt replaces.
    """
    now = context.clock()
    version = await read_wallet_version(context, key[0])
    checked = await _check(context, key, origin, brought, now)
    return await idempotency.run_once(
        context.platform,
        claim,
        now,
        lambda db: _accept(context, db, key, origin, brought, checked, version, render, now),
    )


async def _check(context: Context, key: Key, origin: Origin, brought: BroughtIdentity, now: datetime) -> _Checked:
    """Find out everything that needs no lock: a verifier may take seconds."""
    _, case, _ = await lock_proofs(context, context.platform, key, origin, Act.PROOF, now, lock=False)
    pack = context.pack_named(case.plan)
    document, born = _read(brought, pack, local_date(now))
    if context.identities is None or context.quotas is None or context.verifier is None:
        raise ParticipantUnavailableError(participant=VERIFIER)
    index = context.identities.find_index(document.type.value, document.key)
    if pack.quota is not None and case.kind in pack.quota.kinds:
        await _require_quota(context, case, index, origin, pack.quota)
    level = await _verify(context, brought, document)
    return _Checked(document=document, born=born, index=index, level=level)


def _read(brought: BroughtIdentity, pack: Pack, today: date) -> tuple[IdentityDocument, date]:
    """Read the document, and hold it against what the policy lets a case bring."""
    if not brought.name.strip() or len(brought.name) > LONGEST_NAME or not brought.name.isprintable():
        raise IdentityRefusedError(cause="name", reason=_NAME)
    allowed = BROUGHT_DOCUMENTS if pack.identity is None else pack.identity.documents
    if brought.document_type not in allowed:
        known = ", ".join(allowed)
        reason = Text(_DOCUMENTS.zh.format(known=known), _DOCUMENTS.en.format(known=known))
        raise IdentityRefusedError(cause="document_type", reason=reason)
    try:
        document = read_document(brought.document_type, brought.number, today)
    except InvalidInputError as unread:
        raise IdentityRefusedError(cause="number", reason=unread.fields["reason"]) from None
    born = document.birth_date
    if born is None:
        raise IdentityRefusedError(cause="number", reason=_UNDATED)
    if pack.identity is not None and _age(born, today) < pack.identity.least_age:
        age = pack.identity.least_age
        reason = Text(_TOO_YOUNG.zh.format(age=age), _TOO_YOUNG.en.format(age=age))
        raise IdentityRefusedError(cause="too_young", reason=reason)
    return document, born


def _age(born: date, today: date) -> int:
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


async def _require_quota(context: Context, case: Case, index: bytes, origin: Origin, quota: QuotaRule) -> None:
    """Check the case with the document that it brings. One whose changes are used up begins its cooling-off.

    What else stands in the way by now is told when the case is taken up. Raises BlockedError.
    """
    request = CheckRequest(case.account_id, origin, case.case_no, index)
    [evidence] = await context.examine([request], case.kind)
    raised = {blocker.code for blocker in evidence.answer.blockers} & {quota.used_up, quota.cooling}
    if quota.used_up in raised and quota.cooling not in raised and context.quotas is not None:
        await context.quotas.refuse_document(index, case.account_id)
        [evidence] = await context.examine([request], case.kind)
    if raised:
        raise BlockedError(evidence.answer)


async def _verify(context: Context, brought: BroughtIdentity, document: IdentityDocument) -> int | None:
    """Ask the verifier; return the level of what it confirms, None where it does not."""
    if context.verifier is None:
        raise ParticipantUnavailableError(participant=VERIFIER)
    question = DocumentQuestion(
        question_id=context.new_id(),
        document_type=document.type.value,
        number=document.number,
        name=brought.name.strip(),
    )
    try:
        [answer] = await context.verifier.verify([question])
    except (OSError, TimeoutError):
        raise ParticipantUnavailableError(participant=VERIFIER) from None
    return answer.level if answer.outcome is VerificationOutcome.CONFIRMED else None


async def _accept(
    context: Context,
    db: Database,
    key: Key,
    origin: Origin,
    brought: BroughtIdentity,
    checked: _Checked,
    version: int,
    render: Render,
    now: datetime,
) -> KeptAnswer:
    """Judge, seal, stage and accept. The proofs' lock and the case's keep every other attempt out meanwhile."""
    by_method, case, rules = await lock_proofs(context, db, key, origin, Act.PROOF, now)
    proof = find_answerable(by_method, Method.DOCUMENT, now)
    if await are_locked(db, case.account_id, [Method.DOCUMENT], rules, now):
        raise make_refusal(Method.DOCUMENT, RefusalCause.LOCKED, 0)
    if checked.level is None:
        wrong = msgspec.structs.replace(proof, tries_left=proof.tries_left - 1)
        await proofs.save(db, [wrong])
        await count_wrong_try(context, db, case.account_id, TriedProof.DOCUMENT, case.kind.value, rules, now)
        return render(make_refusal(Method.DOCUMENT, RefusalCause.WRONG, wrong.tries_left))
    if key not in await cases.set_documents(db, {key: checked.index}):
        raise ProofRefusedError(cause=RefusalCause.NOT_AWAITED.value, reason=REASONS[RefusalCause.NOT_AWAITED])
    await _stage(context, case, brought, checked, checked.level, now)
    accepted = msgspec.structs.replace(proof, proven_at=now)
    await proofs.save(db, [accepted])
    by_method = {**by_method, Method.DOCUMENT: accepted}
    case = msgspec.structs.replace(case, document_index=checked.index)
    if all(one.proven_at is not None for one in by_method.values()):
        case = await make_ready(context, db, case, version, now)
    return render(CaseDetails(case=case, plan=context.plan_of(case), proofs=by_method))


async def _stage(
    context: Context, case: Case, brought: BroughtIdentity, checked: _Checked, level: int, now: datetime
) -> None:
    """Seal the identity for the epoch that the case begins, and stage it in both data centres.

    What an earlier attempt of the case left, in one of them or both, is replaced: it was never accepted.
    """
    areas = [one for one in context.participants.values() if isinstance(one, IdentityParticipant)]
    operation = {context.plan_of(case).operations[one.name].operation for one in areas}
    if context.identities is None or len(operation) != 1:
        raise ParticipantUnavailableError(participant=_IDENTITY)
    try:
        epochs = {
            one.get(case.account_id) for one in await asyncio.gather(*(a.read_epochs([case.account_id]) for a in areas))
        }
        epoch = epochs.pop()
        if epoch is None or epochs:
            raise ParticipantUnavailableError(participant=_IDENTITY)
        identity = SealedIdentity(brought.name.strip(), checked.document.number, checked.born, checked.document.issuer)
        sealed = await context.identities.seal(case.account_id, epoch + 1, identity, now)
        values = {
            "epoch": epoch + 1,
            "level": level,
            "document_type": checked.document.type.value,
            "document_index": checked.index,
            "document_doubt": "" if checked.document.doubt is None else checked.document.doubt.value,
            "birth_date": coarsen_birth_date(checked.born, now),
            "sealed": sealed,
            "verified_at": int(now.timestamp()),
        }
        given = GivenValues(account_id=case.account_id, case_no=case.case_no, values=values)
        for area in areas:
            if area.staging is None:
                raise ParticipantUnavailableError(participant=area.name)
            await area.staging.drop([case.key])
            for refused in (await area.staging.stage(next(iter(operation)), [given])).values():
                raise refused
    except (*SILENCE, *UNANSWERED):
        raise ParticipantUnavailableError(participant=_IDENTITY) from None
