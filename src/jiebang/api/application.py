"""The application: the gate, the routes and the error handlers. No globals, no settings: it is built over `deps`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Final, cast

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import Method
from litestar.utils import normalize_path

from jiebang.api.cases.cases import CASES
from jiebang.api.cases.idempotency import provide_mutation
from jiebang.api.cases.remedies import REMEDIES
from jiebang.api.checks.check import CHECKS
from jiebang.api.checks.codes import CODES
from jiebang.api.checks.limits import LIMITS
from jiebang.api.deps import BODY_LIMIT, Deps
from jiebang.api.gate.admission import Admission, Callers
from jiebang.api.gate.capacity import STRICTEST, AdmissionClass
from jiebang.api.gate.guards import StrictRequest
from jiebang.api.gate.middleware import RequestLog, add_security_headers
from jiebang.api.gate.shares import Streams
from jiebang.api.openapi import openapi_config
from jiebang.api.operations.health import OPERATION
from jiebang.api.problems import HANDLERS
from jiebang.usecases.checks.coalesce import Coalescer
from jiebang.usecases.operations.backlog import Backlog
from jiebang.usecases.operations.readiness import check_readiness

_READY_WINDOW: Final = timedelta(milliseconds=100)
"""Requests for `/ready` that come within this time share one round of questions."""


def create_app(deps: Deps) -> Admission:
    """Return the API behind its gate, over objects already built; whoever built them closes them."""
    context, capacity = deps.context, deps.capacity
    callers = Callers(capacity, context.clock, monotonic)
    backlog = Backlog(
        context.platform,
        context.clock,
        most=capacity.backlog,
        overdue=capacity.overdue,
        every=capacity.backlog_every,
    )
    routes = _routes(deps, callers)
    return Admission(
        routes,
        capacity=capacity,
        callers=callers,
        backlog=backlog,
        joined=deps.joined,
        classify=lambda method, path: classify(routes, method, path),
    )


def classify(app: Litestar, method: str, path: str) -> AdmissionClass:
    """Return the class of the route that the application will choose for a method and path."""
    try:
        _, handler, *_ = app.asgi_router.handle_routing(path=normalize_path(path), method=cast("Method", method))
    except HTTPException:
        return STRICTEST
    declared = handler.opt.get("admission", STRICTEST)
    return declared if isinstance(declared, AdmissionClass) else STRICTEST


def _routes(deps: Deps, callers: Callers) -> Litestar:

    async def end_streams(_: Litestar) -> None:
        await deps.follower.aclose()

    async def ask_all(_topic: None, questions: Sequence[None]) -> list[dict[str, bool]]:
        return [await check_readiness(context, deps.ready_within)] * len(questions)

    context = deps.context
    state = {
        "deps": deps,
        "callers": callers,
        "streams": Streams(deps.capacity),
        "readiness": Coalescer(ask_all, window=_READY_WINDOW, limit=2),
    }
    return Litestar(
        route_handlers=[*CHECKS, *CASES, *CODES, *LIMITS, *REMEDIES, *OPERATION],
        dependencies={
            "deps": Provide(lambda: deps, sync_to_thread=False),
            "mutation": Provide(provide_mutation, sync_to_thread=False),
        },
        request_class=StrictRequest,
        exception_handlers=HANDLERS,
        middleware=[RequestLog()],
        before_send=[add_security_headers],
        on_shutdown=[end_streams],
        openapi_config=openapi_config(),
        request_max_body_size=BODY_LIMIT,
        state=State(state, deep_copy=False),
        logging_config=None,
        debug=False,
    )
