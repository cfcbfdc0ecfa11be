"""One-time codes: how they are derived, under which rules, and the message that brings one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from jiebang.model.case import Case
from jiebang.store.cases.proofs import Proof
from jiebang.store.operations.outbox import OutboxMessage
from jiebang.usecases.cases.context import Context

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.policy.pack import Pack, Proofs

NO_CASE: Final = 0
"""The case number of what belongs to no case."""
_HAND_OVER: Final = b"hand-over"


def find_proof_rules(pack: Pack, kind: str) -> Proofs:
    """Return the rules of proof for a remedy requested for `kind`; a kind without any takes those of another kind."""
    by_kind = {each.value: rules for each, rules in pack.proofs.items()}
    return by_kind.get(kind) or by_kind[min(by_kind)]


def derive_hand_over_code(key: bytes, account_id: int, remedy_id: UUID) -> str:
    """Return the code that the new device shows: 16 letters, 80 bits, bound to the account and the remedy."""
    mark = hmac.digest(key, _HAND_OVER + account_id.to_bytes(8, "big") + remedy_id.bytes, hashlib.sha256)
    return base64.b32encode(mark[:10]).decode()


def derive_code(key: bytes, account_id: int, case_no: int, nonce: bytes, digits: int) -> str:
    """Return the code that belongs to a nonce: an HMAC bound to the account and the case, cut down to `digits`."""
    bound = account_id.to_bytes(8, "big") + case_no.to_bytes(8, "big") + nonce
    number = int.from_bytes(hmac.digest(key, bound, hashlib.sha256), "big")
    return str(number % 10**digits).zfill(digits)


CODE: Final = "sms_code"
"""The message that brings a code. Its parameters hold the nonce; the gateway derives the code as it sends it."""


def make_message(context: Context, case: Case, template: str, params: dict[str, Any], now: datetime) -> OutboxMessage:
    """Return a message about a case to the person it belongs to."""
    return OutboxMessage(
        account_id=case.account_id,
        message_id=context.new_id(),
        case_no=case.case_no,
        template=template,
        params=params,
        created_at=now,
    )


def make_code_message(context: Context, case: Case, proof: Proof, now: datetime) -> OutboxMessage:
    """Return the message that brings the code of `proof`; the code itself is derived when it is sent."""
    if proof.nonce is None or proof.expires_at is None:
        raise ValueError("a proof without a nonce has no code")
    params = {"nonce": proof.nonce.hex(), "expires_at": proof.expires_at.isoformat()}
    return make_message(context, case, CODE, params, now)
