"""Health, readiness, metrics and the public seal keys. Open to all: they reveal nothing about accounts."""

from __future__ import annotations

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.openapi import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from jiebang.api.deps import InjectedDeps
from jiebang.api.shapes import Health, PublicKeys, Readiness


@get("/health", operation_id="health", tags=["operation"], summary="Alive 存活检查")
async def health() -> Health:
    """Answer that the process is alive."""
    return Health("alive")


@get(
    "/ready",
    operation_id="ready",
    tags=["operation"],
    summary="Ready 就绪检查",
    description="200 while the platform's own database answers; participants that do not are named, and their "
    "facts are unknown meanwhile. "
    "平台数据库可用即为就绪;未应答的系统会列出。",
    responses={503: ResponseSpec(Readiness, generate_examples=False, description="Not ready 未就绪")},
)
async def ready(deps: InjectedDeps, request: Request[None, None, State]) -> Response[Readiness]:
    """Answer whether requests can be served."""
    found = dict(await request.app.state.readiness.ask(None, None))
    up = found.pop("platform") and deps.joined()
    body = Readiness(ready=up, participants=found)
    return Response(msgspec.json.encode(body), status_code=200 if up else 503, media_type="application/json")  # type: ignore[arg-type]


@get("/metrics", media_type="text/plain", operation_id="metrics", tags=["operation"], summary="Metrics 指标")
async def metrics() -> Response[str]:
    """Return the metrics of this process for Prometheus."""
    return Response(generate_latest(REGISTRY).decode(), media_type=CONTENT_TYPE_LATEST)


@get(
    "/.well-known/jwks.json",
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
