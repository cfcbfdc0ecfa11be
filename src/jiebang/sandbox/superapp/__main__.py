"""Runs the super-app until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.model.notice import Notice
from jiebang.remote.gateway import GATEWAY, HttpGateway
from jiebang.remote.stand_ins import AUDIENCE, ISSUER, read_links
from jiebang.remote.tokens import IssuerKeys, TokenVerifier, keys_from_file
from jiebang.sandbox.service import Arguments, HttpAnswer, HttpCall, ok, serve
from jiebang.sandbox.superapp import CALLED, DATABASES_VARIABLE, NAME
from jiebang.sandbox.superapp.answers import AnswerStore
from jiebang.sandbox.superapp.door import Door, SuperApp
from jiebang.sandbox.superapp.once import OncePerKey
from jiebang.sandbox.superapp.routers import build_routers
from jiebang.store.postgres.database_clock import DatabaseClock
from jiebang.store.postgres.faults import UNANSWERED
from jiebang.store.postgres.pool import open_pools


def _now() -> datetime:
    return datetime.now(UTC)


async def _health(call: HttpCall) -> HttpAnswer:
    del call
    return ok({"name": NAME, "pid": os.getpid()})


async def _send(home: Path, notices: Sequence[Notice]) -> None:
    """Bring notices to phones through the gateway that the sandbox in `home` runs now. Raises OSError."""
    link = (await asyncio.to_thread(read_links, home, (GATEWAY,))).get(GATEWAY)
    if link is None:
        raise ConnectionError("no gateway runs")
    gateway = HttpGateway(link)
    try:
        await gateway.send(notices)
    finally:
        await gateway.aclose()


@asynccontextmanager
async def open_superapp(databases: Mapping[str, str], data: Path, jwks: Path, home: Path) -> AsyncIterator[SuperApp]:
    """Open the super-app over the databases of the participants whose gates it calls, DSNs by name.

    `data`: the file of its answers; `jwks`: the public keys of the issuer whose tokens it takes; `home`: where the
    sandbox says how its phones are reached. Raises sqlite3.Error.
    """
    store = AnswerStore(data)
    async with open_pools(databases) as pools:
        verifier = TokenVerifier(
            issuer=ISSUER, audience=AUDIENCE, keys=IssuerKeys(keys_from_file(jwks), _now), clock=_now
        )
        door = Door(verifier, OncePerKey(store, _now))
        clock = DatabaseClock()
        with suppress(*UNANSWERED):  # then it is measured later
            await clock.measure(pools["wallet"])
        measuring = asyncio.create_task(clock.run(pools["wallet"]))
        try:
            yield SuperApp(build_routers(door, pools, clock, partial(_send, home)), _health)
        finally:
            measuring.cancel()
    store.close()


def _read_databases() -> dict[str, str]:
    """Return the DSNs of the participants called; ends the process where the environment lacks one."""
    try:
        databases = decode(os.environ.get(DATABASES_VARIABLE, "").encode(), dict[str, str])
    except InvalidInputError:
        databases = {}
    if missing := [name for name in CALLED if name not in databases]:
        sys.exit(
            f"环境变量缺少数据库 / databases missing in the environment: {DATABASES_VARIABLE}: {', '.join(missing)}"
        )
    return databases


def main() -> None:
    """Run it."""
    arguments = Arguments("模拟超级应用 / the sandbox's super-app", signed=False)
    arguments.add_argument("--jwks", type=Path, required=True, help="签发方公钥 / the issuer's public keys")
    arguments.add_argument("--home", type=Path, required=True, help="沙箱的主目录 / the sandbox's home")
    given = arguments.parse_args()
    databases = _read_databases()
    given.data.parent.mkdir(parents=True, exist_ok=True)
    serve(open_superapp(databases, given.data, given.jwks, given.home), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
