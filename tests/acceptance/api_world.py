"""The real application over real databases, for the tests of the API: people, tokens, the code a phone would show."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

import asyncpg
import httpx
import uvicorn

from jiebang.api.application import create_app
from jiebang.api.deps import Deps
from jiebang.api.gate.capacity import Capacity
from jiebang.api.gate.uvicorn_protocol import server_config
from jiebang.model.ids import CaseIds
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy.load import load_pack
from jiebang.policy.pack import Pack
from jiebang.remote.tokens import IssuerKeys, TokenVerifier, keys_from_file
from jiebang.saga.coordinator import Timing
from jiebang.sandbox.issuer import SandboxIssuer
from jiebang.sandbox.service import HttpAnswer, HttpCall, ok
from jiebang.sandbox.superapp.answers import AnswerStore
from jiebang.sandbox.superapp.door import Door, SuperApp
from jiebang.sandbox.superapp.login import SendNotices
from jiebang.sandbox.superapp.once import OncePerKey
from jiebang.sandbox.superapp.routers import build_routers
from jiebang.store.cases.idempotency import RepeatPolicy
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.encryption import password_hash
from jiebang.store.operations import outbox
from jiebang.store.timelines.seal_signing_keys import build_seal_keys
from jiebang.usecases.cases.codes import derive_code
from jiebang.usecases.cases.context import Context
from jiebang.usecases.cases.follow import Follower
from jiebang.usecases.checks.check import Checker
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.api.gate.admission import Admission
    from jiebang.store.postgres.pool import Pool

PASSWORD = "246810"
ISSUER, AUDIENCE = "https://issuer.test", "https://api.test"
PEPPER, CODES_KEY, BODIES_KEY, ANSWERS_KEY = b"p" * 32, b"c" * 32, b"b" * 32, b"a" * 32
DOCUMENT = b"\x01" * 32
PATIENT: Final = Capacity(wait=timedelta(seconds=PATIENCE_S), within=timedelta(seconds=PATIENCE_S))
PATIENT_REPEATS: Final = RepeatPolicy(wait=timedelta(seconds=PATIENCE_S), held=timedelta(seconds=PATIENCE_S))
"""Limits for what is no test of limits: on a busy machine an answer is late, but the same.

A test of a limit says which: `Capacity(…)` or `RepeatPolicy(…)` of its own, with what it needs to be reached.
"""


async def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is waited for is another's state, which offers no event
            await asyncio.sleep(0.01)


async def _nothing(_cases: object) -> None:
    """There is one version, and it is known."""


class World:
    """One installation: `now` moves with `later`; `app` is the application; `issuer` mints tokens."""

    def __init__(self, pools: Mapping[str, Pool], home: Path, pack: Pack, capacity: Capacity | None = None) -> None:
        self.pools, self.pack, self.skew = pools, pack, timedelta()
        self.ids = CaseIds(b"i" * 16)
        self.seal_keys = build_seal_keys(b"s" * 32)
        self.participants: dict[str, Any] = {**open_participants(PARTICIPANTS, pools, self.now, pepper=PEPPER)}
        self.wallet = WalletParticipant(pools["wallet"], self.now, pepper=PEPPER)
        self.issuer = SandboxIssuer(home, issuer=ISSUER, audience=AUDIENCE)
        self.checker = Checker(
            registry=PARTICIPANTS,
            pack=lambda: pack,
            participants=self.participants,
            platform=pools["platform"],
            case_ids=self.ids,
            clock=self.now,
            limit=timedelta(seconds=PATIENCE_S),
        )
        self.context = Context(
            platform=pools["platform"],
            participants=self.participants,
            wallet=self.wallet,
            check=self.checker,
            examine=self.checker.examine,
            pack=lambda: pack,
            plan_of=lambda case: pack.plans[case.kind],
            pack_named=lambda _name: pack,
            know=_nothing,
            records=CheckRecordStore(b"r" * 32, lambda: os.urandom(16)),
            clock=self.now,
            new_id=uuid4,
            new_nonce=lambda: os.urandom(16),
            codes_key=CODES_KEY,
            timing=Timing(),
        )
        keys = IssuerKeys(keys_from_file(self.issuer.jwks_path), self.now)
        self.follower = Follower(self.context, beat=timedelta(milliseconds=10))
        self.deps = Deps(
            context=self.context,
            follower=self.follower,
            verifier=TokenVerifier(issuer=ISSUER, audience=AUDIENCE, keys=keys, clock=self.now),
            case_ids=self.ids,
            bodies_key=BODIES_KEY,
            answers_key=ANSWERS_KEY,
            seal_keys=self.seal_keys.public(),
            capacity=capacity or PATIENT,
            repeats=PATIENT_REPEATS,
        )
        self.app: Admission = create_app(self.deps)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def later(self, by: timedelta) -> None:
        """Let time pass."""
        self.skew += by

    def token(self, account_id: int, **claims: Any) -> str:
        return self.issuer.person(account_id, self.now(), str(uuid4()), **{"device": f"phone-{account_id}", **claims})

    def service(self, **claims: Any) -> str:
        return self.issuer.service("back-office", self.now(), str(uuid4()), **claims)

    async def people(self, first: int, count: int = 1, *, balance_fen: int = 0) -> None:
        """Put people everywhere whom nothing stands in the way of, save a balance."""
        ids = list(range(first, first + count))
        salt = bytes(16)
        await self.pools["platform"].execute(
            "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
        )
        for name in PARTICIPANTS.databases:
            await self.pools[name].execute(
                f"INSERT INTO {name.split('_')[0]}.account (account_id) SELECT unnest($1::bigint[])", ids
            )
            if name.startswith("identity"):
                await self.pools[name].execute(
                    """UPDATE identity.account SET state = 'active', level = 2, document_type = 'resident_id',
                           sealed = '\\x00', document_index = $2, birth_date = '1990-01-01', region = NULL,
                           changed_at = '2024-01-01Z' WHERE account_id = ANY ($1::bigint[])""",
                    ids,
                    DOCUMENT,
                )
        await self.pools["security"].execute(
            """UPDATE security.account SET primary_device_id = 'phone-' || account_id,
                   primary_device_since = now() - interval '1 year' WHERE account_id = ANY ($1::bigint[])""",
            ids,
        )
        await self.pools["wallet"].execute(
            """UPDATE wallet.account SET password_salt = $2, password_hash = $3, balance_fen = $4
               WHERE account_id = ANY ($1::bigint[])""",
            ids,
            salt,
            password_hash(PEPPER, salt, PASSWORD),
            balance_fen,
        )
        await self.pools["wallet"].execute(
            """INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at, ended_at)
               SELECT id, gen_random_uuid(), 'opening', '', $2, 'completed', now(), now()
               FROM unnest($1::bigint[]) AS id""",
            ids,
            balance_fen,
        )

    async def code(self, account_id: int) -> str:
        """Return the last code that the account's phone was sent, derived as the gateway derives it."""
        messages = await outbox.load_due(self.pools["platform"], range(256), self.now(), 10_000)
        last = [each for each in messages if each.account_id == account_id and each.template == "sms_code"][-1]
        return derive_code(CODES_KEY, account_id, last.case_no, bytes.fromhex(last.params["nonce"]), 6)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[httpx.AsyncClient]:
        """Serve the application on a port of its own, for what only a real connection shows."""
        server = uvicorn.Server(server_config(self.app))
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
                yield client
        finally:
            server.should_exit = True
            await task


def made(pools: Mapping[str, Pool], home: Path, capacity: Capacity | None = None) -> World:
    """Return a world under the pack that we ship."""
    text = files("jiebang.policy.packs").joinpath("wechat.yaml").read_text(encoding="utf-8")
    return World(pools, home, load_pack(text, "wechat.yaml", PARTICIPANTS), capacity)


@asynccontextmanager
async def on_deck(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Call the application directly, without a port."""
    transport = httpx.ASGITransport(app=cast("Any", world.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        yield client
    await world.follower.aclose()


@asynccontextmanager
async def at_superapp(
    world: World, folder: Path, *, wait: float = 1.0, send: SendNotices | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Call a super-app beside the world directly, without a process of its own; its answers are kept in `folder`.

    `wait`: seconds a repeat waits for the first to be over. `send`: brings codes to phones (None: nothing does).
    """

    async def no_phone(_notices: object) -> None:
        raise ConnectionError

    async def health(call: HttpCall) -> HttpAnswer:
        del call
        return ok({})

    store = AnswerStore(folder / "superapp.sqlite")
    door = Door(world.deps.verifier, OncePerKey(store, world.now, wait=wait))
    app = SuperApp(build_routers(door, world.pools, world.now, send or no_phone), health)
    transport = httpx.ASGITransport(app=cast("Any", app))
    async with httpx.AsyncClient(transport=transport, base_url="http://superapp.test") as client:
        yield client
    store.close()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Hold an answer to be a whole problem of the code given."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"], body["type"]) == (code, status, f"urn:jiebang:problem:{code.lower()}")
    for language in ("zh", "en"):
        assert body[language]["title"]
        assert body[language]["action"]
    assert any("\u4e00" <= letter <= "\u9fff" for letter in body["zh"]["title"])
    assert body["en"]["title"].isascii()
    return body


@asynccontextmanager
async def closed(base: str, database: str) -> AsyncIterator[None]:
    """Take a database away: throw everybody out and let nobody in."""
    connection = await asyncpg.connect(base)
    try:
        await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
        yield
    finally:
        await connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        await connection.close()


class Person:
    """A person with a token, at the API."""

    def __init__(self, client: httpx.AsyncClient, token: str, account_id: int) -> None:
        self._client, self._token, self.account_id = client, token, account_id

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {self._token}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        if method != "GET" and path != "/v1/checks":
            sent["idempotency-key"] = key or str(uuid4())
        return await self._client.request(method, path, json=body, headers=sent)

    def headers(self, key: str) -> dict[str, str]:
        """Return the headers of a mutation, for a body that is no JSON of ours."""
        return {
            "authorization": f"Bearer {self._token}",
            "idempotency-key": key,
            "content-type": "application/json",
        }

    async def submit(self, **kwargs: Any) -> httpx.Response:
        return await self.ask("POST", "/v1/cases", {"account": str(self.account_id), "kind": "revoke"}, **kwargs)

    async def prove(self, case: str, method: str, secret: str, **kwargs: Any) -> httpx.Response:
        return await self.ask("POST", f"/v1/cases/{case}/proofs", {"method": method, "secret": secret}, **kwargs)
