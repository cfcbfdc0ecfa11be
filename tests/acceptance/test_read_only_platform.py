"""A platform whose database takes no writes, and a host whose clock is wrong, as callers see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from jiebang.api.application import create_app
from tests.acceptance.api_world import PASSWORD, Person, World, made, on_deck, problem
from tests.store.test_read_only import read_only

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(3001, 3)
    return world


async def test_it_answers_503_to_what_it_cannot_write_and_reads_on(
    world: World, pools: Mapping[str, Pool], databases: Mapping[str, str]
) -> None:
    """A 500 says that we are broken and nobody tries again; and a check needs no write, so nobody need go without."""
    async with on_deck(world) as client:
        one, other = (Person(client, world.token(who), who) for who in (3001, 3002))
        case = (await one.submit()).json()["id"]
        async with read_only(pools["platform"], databases["platform"]):
            for answer in (
                await other.submit(),
                await one.prove(case, "payment_password", PASSWORD),
                await one.prove(case, "sms_code", "000000"),
                await one.ask("DELETE", f"/v1/cases/{case}"),
            ):
                assert problem(answer, 503, "PARTICIPANT-UNAVAILABLE")["fields"] == {"participant": "platform"}
                assert int(answer.headers["retry-after"]) > 0
            assert (await other.ask("POST", "/v1/checks", {"accounts": ["3002"]})).json()["checks"][0]["passes"]
            assert (await one.ask("GET", f"/v1/cases/{case}")).json()["state"] == "open"
            ready = await client.get("/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert (await client.get("/ready")).status_code == 200
        assert (await other.submit()).status_code == 201
        assert (await one.prove(case, "payment_password", PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("off", "told"), [(None, None), (timedelta(seconds=15), 15_000), (timedelta(minutes=-1), -60_000)]
)
async def test_ready_tells_of_a_clock_that_is_wrong(world: World, off: timedelta | None, told: int | None) -> None:
    """Whoever looks after the host must learn of it before its tokens and signatures are refused."""
    app = create_app(msgspec.structs.replace(world.deps, clock_off=lambda: off))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.test") as client:  # type: ignore[arg-type]
        ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["clock_off_ms"]) == (200, told)
