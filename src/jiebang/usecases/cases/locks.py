"""The lock that wrong tries put on an account's proofs. They count over cases and remedies, by when each was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.model.proof import Method
from jiebang.policy.protection import WRONG_TRIES
from jiebang.store.cases import wrong_tries
from jiebang.store.cases.wrong_tries import TriedProof, WrongTry
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage
from jiebang.usecases.cases.codes import NO_CASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from jiebang.policy.pack import Proofs
    from jiebang.store.cases.wrong_tries import TriesMade
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.cases.context import Context

_NEVER_TOLD: Final = (1 << 31) - 1
"""More tries than any window admits: of a policy that tells owners nothing."""


def list_locked(made: Mapping[TriedProof, TriesMade], rules: Proofs) -> frozenset[Method]:
    """Return the methods whose wrong tries are used up. A wrong try at a remedy counts for every method."""

    def count(proof: TriedProof) -> int:
        return made[proof].made if proof in made else 0

    of_all = count(TriedProof.REMEDY)
    return frozenset(method for method in Method if count(TriedProof(method.value)) + of_all >= rules.tries_a_day)


async def are_locked(db: Database, account_id: int, methods: Iterable[Method], rules: Proofs, now: datetime) -> bool:
    """Whether one of `methods` is locked.

    All cases and remedies of the account count together: else withdrawing and asking again would give unlimited tries.
    """
    made = (await wrong_tries.count(db, [account_id], now - rules.tries_window)).get(account_id, {})
    return not list_locked(made, rules).isdisjoint(methods)


async def count_wrong_try(
    context: Context, db: Database, account_id: int, proof: TriedProof, kind: str, rules: Proofs, now: datetime
) -> None:
    """Record a wrong try made now. At the one that policy names, once in a window, the owner is told.

    `kind`: of what the proof was for, as the message words it.
    """
    protection = context.pack().protection
    made = WrongTry(account_id=account_id, try_id=context.new_id(), proof=proof)
    since = now - rules.tries_window
    tell_after = _NEVER_TOLD if protection is None else protection.tell_after
    told = await wrong_tries.add(db, [made], now, since, since - rules.tries_window, tell_after)
    messages = [
        OutboxMessage(
            account_id=each,
            message_id=context.new_id(),
            case_no=NO_CASE,
            template=WRONG_TRIES,
            params={"kind": kind},
            created_at=now,
        )
        for each in told
    ]
    if messages:
        await outbox.insert(db, messages, now)
