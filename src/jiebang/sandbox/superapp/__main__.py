"""Runs the super-app until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from jiebang.remote.stand_ins import AUDIENCE, ISSUER
from jiebang.remote.tokens import IssuerKeys, TokenVerifier, keys_from_file
from jiebang.sandbox.service import Arguments, HttpAnswer, HttpCall, ok, serve
from jiebang.sandbox.superapp import NAME, WALLET_VARIABLE
from jiebang.sandbox.superapp.answers import AnswerStore
from jiebang.sandbox.superapp.door import Door, SuperApp
from jiebang.sandbox.superapp.money import Money, wallet_of
from jiebang.sandbox.superapp.once import OncePerKey
from jiebang.store.postgres.database_clock import DatabaseClock
from jiebang.store.postgres.faults import UNANSWERED
from jiebang.store.postgres.pool import open_pools


def _now() -> datetime:
    return datetime.now(UTC)


async def _health(call: HttpCall) -> HttpAnswer:
    del call
    return ok({"name": NAME, "pid": os.getpid()})


@asynccontextmanager
async def open_superapp(dsn: str, data: Path, jwks: Path) -> AsyncIterator[SuperApp]:
    """Open the super-app over the wallet's database at `dsn`.

    `data`: the file of its answers; `jwks`: the public keys of the issuer whose tokens it takes. Raises sqlite3.Error.
    """
    store = AnswerStore(data)
    async with open_pools({"wallet": dsn}) as pools:
        verifier = TokenVerifier(
            issuer=ISSUER, audience=AUDIENCE, keys=IssuerKeys(keys_from_file(jwks), _now), clock=_now
        )
        door = Door(verifier, OncePerKey(store, _now))
        clock = DatabaseClock()
        with suppress(*UNANSWERED):  # then it is measured later
            await clock.measure(pools["wallet"])
        measuring = asyncio.create_task(clock.run(pools["wallet"]))
        try:
            yield SuperApp([Money(door, wallet_of(pools["wallet"], clock))], _health)
        finally:
            measuring.cancel()
    store.close()


def main() -> None:
    """Run it."""
    arguments = Arguments("模拟超级应用 / the sandbox's super-app", signed=False)
    arguments.add_argument("--jwks", type=Path, required=True, help="签发方公钥 / the issuer's public keys")
    given = arguments.parse_args()
    dsn = os.environ.get(WALLET_VARIABLE)
    if not dsn:
        sys.exit(f"缺少环境变量 / missing in the environment: {WALLET_VARIABLE}")
    given.data.parent.mkdir(parents=True, exist_ok=True)
    serve(open_superapp(dsn, given.data, given.jwks), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
