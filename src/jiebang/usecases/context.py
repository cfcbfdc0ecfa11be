"""What the verbs of the API work with: objects already built by `app`, passed as one argument."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from jiebang.model.case import Case, Kind
from jiebang.model.check import CheckAnswer
from jiebang.model.errors import JiebangError
from jiebang.model.plan import Plan
from jiebang.participants.base import Participant
from jiebang.saga.coordinator import Timing
from jiebang.store.idempotency import Kept
from jiebang.store.proofs import Method, Proof

Check = Callable[[Sequence[int], Kind, Mapping[int, str | None]], Awaitable[Sequence[CheckAnswer]]]
"""The check of a batch for one kind; the mapping names the device a request for an account comes from.

Answers in the order asked. Raises UnknownAccountError."""


class ProofRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a case of one kind asks for before it is proven: policy, from the pack."""

    methods: tuple[Method, ...]
    case_lives: timedelta
    """How long a case waits for its proofs before it expires."""
    code_digits: int
    code_lives: timedelta
    code_pause: timedelta
    """Least time between two codes of one case."""
    tries: int
    """Wrong tries a case allows for each method."""
    tries_a_day: int
    """Wrong tries that all cases of an account together allow for each method in `tries_window`."""
    tries_window: timedelta = timedelta(days=1)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of case that can be asked for now: the plan it follows and what it asks for as proof."""

    plan: Plan
    proofs: ProofRules


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its proofs and the plan it follows."""

    case: Case
    plan: Plan
    proofs: Mapping[Method, Proof]


Render = Callable[[Found | JiebangError], Kept]
"""Turns what a mutation came to into the answer that is kept for repeats."""


class Wallet(Participant):
    """What the verbs need of the wallet beside its part in the saga. Raises OSError and asyncpg's errors when silent."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The objects the verbs work with. `codes_key`: 32 secret bytes, from which codes are derived."""

    platform: asyncpg.Pool[asyncpg.Record]
    participants: Mapping[str, Participant]
    check: Check
    offers: Mapping[Kind, Offer]
    plan_of: Callable[[Case], Plan]
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    new_nonce: Callable[[], bytes]
    codes_key: bytes
    timing: Timing
