"""What the API is built over, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from jiebang.api.gate.capacity import Capacity
from jiebang.model.errors import JiebangError
from jiebang.model.ids import CaseIds
from jiebang.remote.tokens import TokenVerifier
from jiebang.store.cases.idempotency import RepeatPolicy
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.follow import Follower

BODY_LIMIT: Final = 64 * 1024
"""Bytes of the largest body: 1,000 accounts take 20 KB."""


class Deps(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the routes work with.

    `bodies_key`: 32 secret bytes; request bodies are hashed with it. `answers_key`: kept answers are encrypted with it.
    """

    context: Context
    follower: Follower
    verifier: TokenVerifier
    case_ids: CaseIds
    bodies_key: bytes
    answers_key: bytes
    seal_keys: dict[str, list[dict[str, Any]]]
    """The public keys that timelines are sealed with: a JWK Set."""
    capacity: Capacity = Capacity()
    repeats: RepeatPolicy = RepeatPolicy()
    joined: Callable[[], bool] = lambda: True
    """Whether the platform's database and policy have been reached since the start; no request is served before."""
    clock_off: Callable[[], timedelta | None] = lambda: None
    """By how much this process's own clock is ahead of the database's, where that is too much; None: it is right."""
    held_up: Callable[[], JiebangError | None] = lambda: None
    """Why they have not been reached yet."""
    stand_ins: tuple[str, ...] = ()
    """For which outside parties the sandbox stands in."""
    ready_within: timedelta = timedelta(seconds=1)
    """How long a participant may take to answer before `/ready` counts it as silent."""


InjectedDeps = NamedDependency[SkipValidation[Deps]]
"""The type of a route's parameter `deps`: injected, not parsed."""
