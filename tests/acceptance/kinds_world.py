"""A whole installation for the stories of the kinds: its API, a worker, both clearing networks and the phone."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

import httpx
import msgspec

from jiebang.app import App, migrate, open_app
from jiebang.model.case import ENDED
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.control import Control
from jiebang.sandbox.ledger import Binding
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.settings import Settings
from jiebang.store.encryption import SALT_BYTES, password_hash
from jiebang.usecases.cases.codes import derive_code
from tests.acceptance.api_world import Person
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PASSWORD: Final = "246810"
SALT: Final = bytes(SALT_BYTES)


class KindsWorld:
    """The installation `app`, what stands outside it, and people who have a card at both networks."""

    def __init__(self, app: App, outside: Sandbox, client: httpx.AsyncClient) -> None:
        self.app, self.outside, self.client = app, outside, client
        self._ids = itertools.count(8_100_001)

    def pool(self, name: str) -> Pool:
        return self.app.pools[name]

    async def somebody(self, *, balance_fen: int = 0, **columns: Mapping[str, Any]) -> Person:
        """A person in every database whom nothing stands in the way of; `columns`: of their row, by owner."""
        account = next(self._ids)
        await self.pool("platform").execute(
            "INSERT INTO platform.account (account_id, created_at) VALUES ($1, now())", account
        )
        own: dict[str, dict[str, Any]] = {
            "wallet": {
                "password_salt": SALT,
                "password_hash": password_hash(self.app.secrets.passwords, SALT, PASSWORD),
                "balance_fen": balance_fen,
            },
            "identity": {"document_index": account.to_bytes(32, "big")},
        }
        for name in PARTICIPANTS.databases:
            owner = PARTICIPANTS.owner_of(name)
            await insert_accounts(self.pool(name), owner, [account], **own.get(owner, {}), **columns.get(owner, {}))
        await self.pool("security").execute(
            """UPDATE security.account SET primary_device_id = 'phone-' || account_id,
                   primary_device_since = now() - interval '1 year' WHERE account_id = $1""",
            account,
        )
        if balance_fen:
            await self.pool("wallet").execute(
                """INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at, ended_at)
                   VALUES ($1, $2, 'opening', '', $3, 'completed', now(), now())""",
                account,
                uuid4(),
                balance_fen,
            )
        await self.pool("wallet").execute(
            """INSERT INTO wallet.bank_card (account_id, card_id, bank, kind, tail, bound_at)
               VALUES ($1, 1, '招商银行', 'debit', '1234', now())""",
            account,
        )
        for network in PARTICIPANTS.networks:
            control = Control(self.outside.link(network))
            await control.bind([Binding(str(account), "card-1", "card", "招商银行 1234")])
            await control.aclose()
        await self.pool("keys").execute(
            """INSERT INTO keys.data_key (account_id, epoch, wrapped, retained, made_at)
               VALUES ($1, 1, $2, $2, now())""",
            account,
            bytes(60),
        )
        token = self.outside.issuer.person(account, self.app.clock(), str(uuid4()), device=f"phone-{account}")
        return Person(self.client, token, account)

    async def row(self, name: str, account: int) -> dict[str, Any]:
        owner = PARTICIPANTS.owner_of(name)
        row = await self.pool(name).fetchrow(f"SELECT * FROM {owner}.account WHERE account_id = $1", account)  # noqa: S608 - names of ours
        assert row is not None
        return dict(row)

    async def rows(self, account: int) -> dict[str, dict[str, Any]]:
        """The account's row at every database."""
        return {name: await self.row(name, account) for name in PARTICIPANTS.databases}

    async def bindings(self, network: str, account: int) -> list[str]:
        """The states of what a network holds of the account."""
        control = Control(self.outside.link(network))
        found = await control.state([account])
        await control.aclose()
        return [one.state.value for one in found[account].bindings]

    async def code(self, account: int) -> str:
        """The last code that the account's phone was sent, derived as the gateway derives it."""
        rows = await self.pool("platform").fetch(
            "SELECT case_no, params::text FROM platform.outbox WHERE account_id = $1 AND template = 'sms_code'"
            " ORDER BY created_at DESC LIMIT 1",
            account,
        )
        nonce = bytes.fromhex(msgspec.json.decode(rows[0]["params"])["nonce"])
        return derive_code(self.app.secrets.codes, account, rows[0]["case_no"], nonce, 6)

    async def ask_for(self, one: Person, kind: str, **body: Any) -> dict[str, Any]:
        """Submit a case, which must be opened."""
        answer = await one.ask("POST", "/v1/cases", {"account": str(one.account_id), "kind": kind, **body})
        assert answer.status_code == 201, answer.text
        return cast("dict[str, Any]", answer.json())

    async def prove(self, one: Person, case: str) -> None:
        """Prove it with password and code."""
        for method, secret in (("payment_password", PASSWORD), ("sms_code", await self.code(one.account_id))):
            answer = await one.prove(case, method, secret)
            assert answer.status_code == 200, answer.text

    async def ended(self, one: Person, case: str) -> dict[str, Any]:
        """Wait until a case has ended, and return it as its person reads it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                shown = (await one.ask("GET", f"/v1/cases/{case}")).json()
                if shown["state"] in {state.value for state in ENDED}:
                    return cast("dict[str, Any]", shown)
                await asyncio.sleep(0.05)

    async def go_through(self, one: Person, kind: str, **body: Any) -> dict[str, Any]:
        """Ask for a kind, prove it, and wait for its end."""
        case = await self.ask_for(one, kind, **body)
        await self.prove(one, case["id"])
        return await self.ended(one, case["id"])

    async def heard(self, one: Person, word: str) -> str:
        """Wait for a short message whose English text holds `word`, and return that text."""
        async with httpx.AsyncClient() as client, asyncio.timeout(PATIENCE_S):
            while True:
                answer = await client.get(f"{self.outside.addresses['phone']}/phones/{one.account_id}")
                for message in answer.json()["messages"]:
                    if message["channel"] == "sms" and word in message["text"]["en"]:
                        return str(message["text"]["en"])
                await asyncio.sleep(0.05)


@asynccontextmanager
async def kinds_world(databases: Mapping[str, str], home: Path) -> AsyncIterator[KindsWorld]:
    """Open an installation on the databases given, with a worker at work."""
    settings = Settings(home=home, keys=home / "keys", databases=databases, sandbox=True)
    await migrate(settings)
    async with sandbox(home) as outside, open_app(settings) as app:
        threshold = gc.get_threshold()
        worker = app.worker()
        run = asyncio.create_task(worker.run())
        transport = httpx.ASGITransport(app=cast("Any", app.api()))
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", timeout=PATIENCE_S) as client:
            yield KindsWorld(app, outside, client)
        worker.stop()
        await run
        gc.set_threshold(*threshold)
        gc.unfreeze()
