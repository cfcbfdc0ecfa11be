"""Health, readiness, metrics and the public seal keys. Open to all: they reveal nothing about accounts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from jiebang.api.deps import InjectedDeps
from jiebang.api.gate.capacity import GOES_ON, MONITORS
from jiebang.api.shapes import Health, HeldUp, PublicKeys, Readiness

_ALWAYS: Final[dict[str, Any]] = {"admission": MONITORS}


@get("/health", opt=_ALWAYS, operation_id="health", tags=["operation"], summary="Alive 存活检查")
async def health() -> Health:
    """Answer that the process is alive."""
    return Health("alive")


@get(
    "/ready",
    opt=_ALWAYS,
    operation_id="ready",
    tags=["operation"],
    summary="Ready 就绪检查",
    description="200 while the platform's own database answers and can be written; participants that do not answer are "
    "named, and their facts are unknown meanwhile. `clock_off_ms` tells of a host whose clock is off: all that is "
    "stamped goes by the database's clock, but it must be set right. "
    "平台数据库可用且可写即为就绪;未应答的系统会列出。`clock_off_ms` 表示本机时钟偏差:时间以数据库为准,但仍须校准。",
    responses={503: ResponseSpec(Readiness, generate_examples=False, description="Not ready 未就绪")},
)
async def ready(deps: InjectedDeps, request: Request[None, None, State]) -> Response[Readiness]:
    """Answer whether requests can be served."""
    found = dict(await request.app.state.readiness.ask(None, None))
    up = found.pop("platform") and deps.joined()
    off = deps.clock_off()
    off_ms = None if off is None else off // timedelta(milliseconds=1)
    error = None if deps.joined() else deps.held_up()
    why = None if error is None else HeldUp(code=error.code, zh=error.title.zh, en=error.title.en)
    body = Readiness(ready=up, participants=found, clock_off_ms=off_ms, held_up=why, stand_ins=list(deps.stand_ins))
    return Response(msgspec.json.encode(body), status_code=200 if up else 503, media_type="application/json")  # type: ignore[arg-type]


_METRICS_TYPE = CONTENT_TYPE_LATEST.partition("; charset=")[0]
"""Without its charset: Litestar adds one to every text."""


@get(
    "/metrics",
    opt=_ALWAYS,
    media_type="text/plain",
    operation_id="metrics",
    tags=["operation"],
    summary="Metrics 指标",
)
async def metrics() -> Response[str]:
    """Return the metrics of this process for Prometheus."""
    return Response(generate_latest(REGISTRY).decode(), media_type=_METRICS_TYPE)


@get(
    "/.well-known/jwks.json",
    opt={"admission": GOES_ON},
    media_type="application/jwk-set+json",
    operation_id="sealKeys",
    tags=["operation"],
    summary="Public keys of the seals 封印公钥",
    description="With these anybody checks a receipt: docs/receipts.md. 任何人可用其核验回执。",
)
async def seal_keys(deps: InjectedDeps) -> Response[PublicKeys]:
    """Return the public keys that timelines are sealed with, as a JWK Set."""
    body = msgspec.json.encode(deps.seal_keys)
    return Response(body, media_type="application/jwk-set+json")  # type: ignore[arg-type]


OPERATION = [health, ready, metrics, seal_keys]
