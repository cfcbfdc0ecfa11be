"""Free the proofs of an account that wrong tries have locked: a way out that the owner has and a thief has not.

It is open on the primary device alone, with payment password and code at once, a while after the last wrong try, and
few wrong tries at it are allowed, counted apart. So whoever locks an account elsewhere cannot keep its owner out.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from jiebang.model.errors import NothingToClearError, ProofRefusedError, TooSoonError, WrongDeviceError
from jiebang.policy.devices import DeviceRule
from jiebang.policy.protection import PROOF_LOCK
from jiebang.store.cases import idempotency, remedies, wrong_tries
from jiebang.store.cases.wrong_tries import TriedProof
from jiebang.store.operations import outbox
from jiebang.usecases.cases.devices import read_primary_device
from jiebang.usecases.cases.locks import list_locked
from jiebang.usecases.cases.proof_refusals import REASONS, RefusalCause
from jiebang.usecases.cases.remedy import ClearedBlocker, record
from jiebang.usecases.cases.remedy_request import check_request
from jiebang.usecases.cases.step_up import (
    DONE,
    PasswordAndCode,
    RenderPending,
    RenderResult,
    are_right,
    ask_for,
    find_answerable,
    make_remedy,
    make_step_up_message,
    refuse_wrong_try,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.policy.pack import Proofs
    from jiebang.store.cases.idempotency import Claim, KeptAnswer, MutationResult
    from jiebang.store.cases.wrong_tries import TriesMade
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.cases.context import Context
    from jiebang.usecases.cases.remedy_request import RemedyRequest

_WHAT = ("proofs",)


async def ask_unlock(context: Context, request: RemedyRequest, claim: Claim, render: RenderPending) -> MutationResult:
    """Ask to free locked proofs; a code is sent to the person's phone.

    Raises WrongDeviceError (not the primary device), NothingToClearError (nothing is locked, or policy has no such way
    out), TooSoonError (the pause after the last wrong try), ProofRefusedError (no tries at this are left),
    UnknownAccountError, KindNotOfferedError, ParticipantUnavailableError, IdempotencyReusedError.
    """
    await check_request(context, request)
    await _require_primary_device(context, request)
    protection = context.pack().protection
    if protection is None:
        raise NothingToClearError(items=[])

    async def admit(db: Database, account_id: int, rules: Proofs, now: datetime) -> None:
        made = await _count(db, account_id, rules, now)
        if not list_locked(made, rules):
            raise NothingToClearError(items=[])
        _require_tries(made, protection.unlock_tries)
        wait = max(tries.last_at for tries in made.values()) + protection.unlock_pause - now
        if wait.total_seconds() > 0:
            raise TooSoonError(retry_after_s=int(wait.total_seconds()) + 1)

    return await ask_for(context, request, PROOF_LOCK, _WHAT, claim, render, admit)


async def prove_unlock(
    context: Context,
    request: RemedyRequest,
    remedy_id: UUID,
    secrets: PasswordAndCode,
    claim: Claim,
    render: RenderResult,
) -> MutationResult:
    """Free the proofs if payment password and code are both right. A wrong try is counted.

    Raises UnknownRemedyError, WrongDeviceError, ProofRefusedError, UnknownAccountError, ParticipantUnavailableError,
    IdempotencyReusedError.
    """
    check, now = await check_request(context, request), context.clock()
    await _require_primary_device(context, request)
    protection = context.pack().protection

    async def admit(db: Database, account_id: int, rules: Proofs, now: datetime) -> None:
        _require_tries(await _count(db, account_id, rules, now), 0 if protection is None else protection.unlock_tries)

    async def work(db: Database) -> KeptAnswer:
        step_up, rules = await find_answerable(context, db, request.account_id, PROOF_LOCK, remedy_id, now, admit)
        if not await are_right(context, step_up, secrets, rules):
            return render(await refuse_wrong_try(context, db, step_up, rules, now))
        begun = make_remedy(step_up, "unlock", now)
        await remedies.save_step_ups(db, [msgspec.structs.replace(step_up, used_at=now)])
        await remedies.begin(db, [begun])
        await record(db, begun, step_up.what, None, now)
        await wrong_tries.free(db, [request.account_id], now)
        await outbox.insert(db, [make_step_up_message(context, step_up, DONE, {}, now)], now)
        return render(
            ClearedBlocker(
                account_id=request.account_id,
                remedy_id=step_up.remedy_id,
                code=PROOF_LOCK,
                at=now,
                items=step_up.what,
                check=check,
            )
        )

    return await idempotency.run_once(context.platform, claim, now, work)


async def _require_primary_device(context: Context, request: RemedyRequest) -> None:
    """Raise WrongDeviceError unless a person asks on the primary device; a service asks for one who is before it."""
    if request.origin.service:
        return
    primary = await read_primary_device(context, request.account_id)
    if not request.origin.device or request.origin.device != primary:
        raise WrongDeviceError(wanted=DeviceRule.PRIMARY.value)


async def _count(db: Database, account_id: int, rules: Proofs, now: datetime) -> Mapping[TriedProof, TriesMade]:
    return (await wrong_tries.count(db, [account_id], now - rules.tries_window)).get(account_id, {})


def _require_tries(made: Mapping[TriedProof, TriesMade], allowed: int) -> None:
    """Raise ProofRefusedError where the wrong tries at freeing proofs are used up."""
    if TriedProof.UNLOCK in made and made[TriedProof.UNLOCK].made >= allowed:
        raise ProofRefusedError(cause=RefusalCause.LOCKED.value, reason=REASONS[RefusalCause.LOCKED], tries_left=0)
