"""What the API is built over, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from jiebang.api.gate.capacity import Capacity
from jiebang.model.ids import CaseIds
from jiebang.remote.tokens import TokenVerifier
from jiebang.store.cases.idempotency import RepeatPolicy
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.follow import Follower

BODY_LIMIT: Final = 64 * 1024
"""Bytes of the largest body: 1,000 accounts take 20 KB."""


class Deps(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the routes work with. `bodies_key`: 32 secret bytes; request bodies are hashed with it."""

    context: Context
    follower: Follower
    verifier: TokenVerifier
    case_ids: CaseIds
    bodies_key: bytes
    seal_keys: dict[str, list[dict[str, Any]]]
    """The public keys that timelines are sealed with: a JWK Set."""
    capacity: Capacity = Capacity()
    repeats: RepeatPolicy = RepeatPolicy()
    joined: Callable[[], bool] = lambda: True
    """Whether the platform's database and policy have been reached since the start; no request is served before."""
    ready_within: timedelta = timedelta(seconds=1)
    """How long a participant may take to answer before `/ready` counts it as silent."""
    streams: int = 4096
    """How many event streams one process holds open."""


InjectedDeps = NamedDependency[SkipValidation[Deps]]
"""The type of a route's parameter `deps`: injected, not parsed."""
