"""People who take their name back through the API, driven to the end over real databases and networks.

What the tests of gates begin with: afterwards they go on in the super-app.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from jiebang.model.case import ENDED
from jiebang.participants import PARTICIPANTS
from jiebang.participants.http import HttpParticipant
from jiebang.remote.gateway import GATEWAY, HttpGateway
from jiebang.saga.coordinator import Timing
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.store.cases import cases as store
from jiebang.usecases.driving.advance import Driver, Limits
from tests.acceptance.api_world import PASSWORD, Person, World, at_superapp, made, on_deck
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


class Town:
    """A world with its API, its super-app, both networks, and what a worker does."""

    def __init__(self, world: World, api: httpx.AsyncClient, superapp: httpx.AsyncClient, networks: Sandbox) -> None:
        self.world, self.api, self.superapp, self.networks = world, api, superapp, networks
        remote = {name: HttpParticipant(networks.link(name)) for name in PARTICIPANTS.networks}
        self.driver = Driver(
            pool=world.pools["platform"],
            participants={**world.participants, **remote},
            plan_of=lambda case: world.pack.plans[case.kind],
            recheck=world.checker.recheck,
            records=world.context.records,
            clock=world.now,
            timing=Timing(),
            limits=Limits(round=timedelta(seconds=PATIENCE_S), call=timedelta(seconds=PATIENCE_S)),
        )
        self.remote = remote

    def at_api(self, account_id: int, **claims: Any) -> Person:
        return Person(self.api, self.world.token(account_id, **claims), account_id)

    def at_superapp(self, account_id: int, **claims: Any) -> Person:
        return Person(self.superapp, self.world.token(account_id, **claims), account_id)

    async def open(self, account_id: int) -> str:
        """Ask for the name back and prove it; return the case, which now waits for a worker."""
        one = self.at_api(account_id)
        asked = await one.submit()
        assert asked.status_code == 201, asked.text
        case = str(asked.json()["id"])
        await one.prove(case, "payment_password", PASSWORD)
        proven = await one.prove(case, "sms_code", await self.world.code(account_id))
        assert proven.json()["state"] == "ready", proven.text
        return case

    async def finish(self, case: str) -> str:
        """Drive a case to its end, as a worker does; return how it ended."""
        key = self.world.ids.decode(case)
        assert key is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = (await store.load_many(self.world.pools["platform"], [key]))[key]
                if found.state in ENDED:
                    return found.state.value
                late, self.driver.late = self.driver.late, []
                due = [found] if found.due_at is not None and found.due_at <= self.world.now() else []
                await self.driver.drive(due, late)
                await asyncio.sleep(0.01)

    async def revoke(self, account_id: int) -> str:
        """Take a name back, from the request to `done`; return the case."""
        case = await self.open(account_id)
        assert await self.finish(case) == "done"
        return case

    async def phone(self, account_id: int) -> list[str]:
        """Return the messages on an account's phone, the newest last."""
        url = f"{self.networks.addresses[GATEWAY]}/phones/{account_id}"
        async with httpx.AsyncClient(trust_env=False) as client:
            return [one["text"]["zh"] for one in (await client.get(url)).json()["messages"]]

    async def limits(self, account_id: int) -> dict[str, dict[str, Any]]:
        """Return what the person themselves reads of what restricts them, by name."""
        answer = await self.at_api(account_id).ask("GET", f"/v1/accounts/{account_id}/limits")
        assert answer.status_code == 200, answer.text
        assert answer.json()["unread"] == []
        return {one["name"]: one for one in answer.json()["limits"]}


@asynccontextmanager
async def closing(gateway: HttpGateway) -> AsyncIterator[HttpGateway]:
    """Close it on the way out."""
    yield gateway
    await gateway.aclose()


@asynccontextmanager
async def open_town(pools: Mapping[str, Pool], folder: Path) -> AsyncIterator[Town]:
    """Open the world with everything in it."""
    (folder / "issuer").mkdir()
    (folder / "superapp").mkdir()
    world = made(pools, folder / "issuer")
    async with (
        sandbox(folder / "networks", names=(*PARTICIPANTS.networks, GATEWAY)) as networks,
        on_deck(world) as api,
        closing(HttpGateway(networks.link(GATEWAY))) as gateway,
        at_superapp(world, folder / "superapp", send=gateway.send) as superapp,
    ):
        town = Town(world, api, superapp, networks)
        yield town
        await town.driver.aclose()
        for each in town.remote.values():
            await each.aclose()
