"""A case: one person's request, and the one table of its states' transitions.

The rules this file holds (design.md, "A case"):

1. Nothing changes a case's state except along `TRANSITIONS`; `transition` is the only way to change it.
2. `confirming` is the commit point: it is saved before any Confirm is sent, and after it nothing cancels.
3. What each participant was sent and answered is one letter in `marks`, in the order of the case's plan,
   so that a row in the database can be read by eye and refused by a CHECK constraint.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from jiebang.model.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """What a person can ask for (domain.md §1)."""

    REVOKE = "revoke"
    CLOSE_PAYMENT = "close_payment"
    CHANGE_IDENTITY = "change_identity"
    APPEAL = "appeal"
    CHANGE_LEGAL_PERSON = "change_legal_person"
    CLOSE_MERCHANT = "close_merchant"
    RESTORE = "restore"


class State(StrEnum):
    """Where a case stands. The meaning of each is beside its name."""

    OPEN = "open"  # created; proofs outstanding
    IN_REVIEW = "in_review"  # waits for people; never expires
    READY = "ready"  # proven; waits for a worker
    TRYING = "trying"  # Trys out, with a deadline
    CONFIRMING = "confirming"  # every Try granted: the commit point
    CANCELLING = "cancelling"  # being rolled back; still live
    DONE = "done"
    ABORTED = "aborted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.OPEN: frozenset({State.IN_REVIEW, State.READY, State.WITHDRAWN, State.EXPIRED, State.REJECTED}),
    State.IN_REVIEW: frozenset({State.READY, State.REJECTED, State.WITHDRAWN}),
    State.READY: frozenset({State.TRYING, State.WITHDRAWN, State.REJECTED}),
    State.TRYING: frozenset({State.CONFIRMING, State.CANCELLING}),
    State.CONFIRMING: frozenset({State.DONE}),
    State.CANCELLING: frozenset({State.ABORTED}),
    State.DONE: frozenset(),
    State.ABORTED: frozenset(),
    State.REJECTED: frozenset(),
    State.WITHDRAWN: frozenset(),
    State.EXPIRED: frozenset(),
}

ENDED: Final = frozenset(state for state, after in TRANSITIONS.items() if not after)
LIVE: Final = frozenset(TRANSITIONS) - ENDED
BROKEN_OFF: Final = frozenset({State.CANCELLING, *ENDED - {State.DONE}})
"""States of a case that changes nothing in the end: its slot of a quota is given back."""
COUNTED: Final = frozenset({State.TRYING, State.CONFIRMING, State.DONE})
"""States in which a case that uses a document holds a slot of its quota. In `ready` it may hold one."""
WITHDRAWABLE: Final = frozenset({State.OPEN, State.IN_REVIEW, State.READY, State.TRYING, State.CANCELLING})
"""States in which a wish to withdraw can still win (202); in the others it is too late (409)."""


class Mark(StrEnum):
    """What one participant was sent and answered. An op is *saved* as sent before it is sent."""

    UNSENT = "."
    TRY_SENT = "t"
    GRANTED = "g"
    CONFIRM_SENT = "c"
    CONFIRM_REFUSED = "e"  # refused once; the second refusal parks it
    CONFIRM_PARKED = "C"  # waits for an operator
    CONFIRMED = "d"
    CANCEL_SENT = "x"
    CANCEL_REFUSED = "y"
    CANCEL_PARKED = "X"
    CANCELLED = "z"


MARKS_OF: Final[Mapping[State, str]] = {
    State.OPEN: ".",
    State.IN_REVIEW: ".",
    State.READY: ".",
    State.TRYING: "tg",
    State.CONFIRMING: "ceCd",
    State.CANCELLING: "xyXz",
    State.DONE: "d",
    State.ABORTED: "z",
    State.REJECTED: ".",
    State.WITHDRAWN: ".",
    State.EXPIRED: ".",
}
"""The marks a case may carry in each state. The schema holds the same table as a CHECK; a test compares the two."""


Key = tuple[int, int]
"""(account_id, case_no)."""


class Case(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One case as the coordinator and the store see it.

    `account_id` and `case_no` are its key; `case_no` grows per account and is never reused. `plan` names the
    pack version whose plan the case follows (`"wechat/2"`); `marks` and `versions` run in that plan's order of
    participants. `versions` holds the `facts_version` that the re-check read (0 for a participant without facts),
    empty before it. `wallet_version` is the wallet's as of the last proof. `due_at` says when a worker takes up the
    case if nothing arrives first; None: never (it has ended, or all that is left is parked for an operator).
    `revision` guards every save. `document_index`: the blind index (32 bytes) of the document whose yearly quota the
    case uses, None for a kind without one; never shown. `head`: the hash of its timeline so far (`saga.chain`), as
    last read from the store. `device_id`, `by_service`: who opened it (`origin`). Source: design.md, "A case" and
    "The saga".
    """

    account_id: int
    case_no: int
    kind: Kind
    state: State
    plan: str
    marks: str
    revision: int
    created_at: datetime
    due_at: datetime | None = None
    deadline: datetime | None = None
    attempt: int = 0
    versions: tuple[int, ...] = ()
    wallet_version: int | None = None
    withdraw_at: datetime | None = None
    reason: str | None = None
    device_id: str | None = None
    document_index: bytes | None = None
    head: bytes = b""
    by_service: bool = False

    @property
    def origin(self) -> Origin:
        """Who opened it."""
        return Origin(self.device_id, self.by_service)

    @property
    def key(self) -> Key:
        """The case's key: (account_id, case_no)."""
        return (self.account_id, self.case_no)


class PlanFollower(Protocol):
    """What names the plan that it follows: a case in any of its forms."""

    @property
    def plan(self) -> str:
        """The pack, by name and version."""

    @property
    def kind(self) -> Kind:
        """What it asks for."""


class Slot(msgspec.Struct, frozen=True, order=True, gc=False):
    """One use of a document by one case: the `slot`-th of a calendar year (of Shanghai)."""

    document_index: bytes
    year: int
    slot: int
    account_id: int
    case_no: int

    @property
    def of_case(self) -> tuple[int, int]:
        """The key of the case that holds the slot."""
        return (self.account_id, self.case_no)


class IllegalTransitionError(Exception):
    """A transition that the state table does not allow: always a fault of ours, never of a caller."""


def transition(case: Case, state: State, **changes: Any) -> Case:
    """Return the case in `state` with `changes`, one revision on. Raises IllegalTransitionError.

    Staying in the same state is not a transition and is always allowed.
    """
    if state is not case.state and state not in TRANSITIONS[case.state]:
        message = f"case {case.key}: {case.state} may not become {state}"
        raise IllegalTransitionError(message)
    return msgspec.structs.replace(case, state=state, revision=case.revision + 1, **changes)


BUCKETS: Final = 256
"""How many hash buckets the accounts fall into; workers lease them."""


def bucket_of(account_id: int) -> int:
    """Return the bucket of an account, 0 to 255, by Fibonacci hashing, which spreads neighbouring ids."""
    return (account_id * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 56
