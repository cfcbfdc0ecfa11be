"""Receipts: what a person was shown can be proven to anybody, with the few lines that the documentation gives them."""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature

from jiebang.model.notice import Channel, Notice, Refusals
from jiebang.usecases.operations.delivery import Delivery
from jiebang.usecases.timelines.seal import Sealer, SealPace
from tests.acceptance.api_world import CODES_KEY, Person, World, made, on_deck

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PAGE = Path(__file__).parents[2] / "docs" / "receipts.md"


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(1001, 9)
    return world


@pytest.fixture(scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with on_deck(world) as client:
        yield client


@pytest.fixture(scope="module")
def check() -> Any:
    """The check as the page gives it."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page's own example, to see that it works
    return names["check"]


async def sealed(world: World) -> None:
    pace = SealPace(grace=timedelta(microseconds=1))
    turn = Sealer(pool=world.pools["platform"], keys=world.seal_keys, anchor_at=None, pace=pace)
    assert await turn.turn(world.now())


async def read(one: Person, case: str) -> Any:
    return (await one.ask("GET", f"/v1/cases/{case}")).json()


async def rows(one: Person, case: str) -> list[Any]:
    """The timeline as it was recorded."""
    told = (await one.ask("GET", f"/v1/cases/{case}/timeline")).json()
    assert told["receipt"] == (await read(one, case))["receipt"]
    return list(told["rows"])


async def test_anybody_can_check_a_receipt(world: World, client: httpx.AsyncClient, check: Any) -> None:
    """A person who was told "withdrawn" proves it in court, with standard tools and the platform's public key."""
    found = {}
    for account in range(1001, 1006):
        one = Person(client, world.token(account), account)
        case = (await one.submit()).json()
        assert "seal" not in case["receipt"], "nothing is sealed that has not ended"
        after = await one.ask("DELETE", f"/v1/cases/{case['id']}")
        assert after.json()["receipt"]["head"] != case["receipt"]["head"], "every row changes the head"
        found[account] = (one, case["id"])
    await sealed(world)
    answer = await client.get("/.well-known/jwks.json")
    assert answer.headers["content-type"].startswith("application/jwk-set+json")
    keys = answer.json()
    for account, (one, case) in found.items():
        shown, told = await read(one, case), await rows(one, case)
        receipt = shown["receipt"]
        signed = check(shown["account"], receipt, told, keys)
        assert (signed["seal"], signed["ended"], receipt["revision"]) == (1, 5, 2)
        assert (receipt["seal"]["number"], shown["state"], account) == (1, "withdrawn", int(shown["account"]))
        for wrong in ("code", "state", "at"):
            forged = copy.deepcopy(told)
            forged[-1]["entries"][-1][wrong] = "other"
            with pytest.raises(ValueError, match="rows"):
                check(shown["account"], receipt, forged, keys)
        with pytest.raises(ValueError, match="rows"):
            check(shown["account"], receipt, told[:-1], keys)
        other = copy.deepcopy(receipt)
        other["seal"]["path"] = other["seal"]["path"][1:]
        with pytest.raises(ValueError, match="seal"):
            check(shown["account"], other, told, keys)
        other["seal"]["statement"] = receipt["seal"]["statement"][:-4] + "AAAA"
        with pytest.raises(InvalidSignature):
            check(shown["account"], other, told, keys)


async def test_a_timeline_is_told_to_nobody_else(world: World, client: httpx.AsyncClient) -> None:
    """It says which systems hold what of whom: a stranger must learn not even that the case is there."""
    case = (await Person(client, world.token(1006), 1006).submit()).json()["id"]
    answer = await Person(client, world.token(1001), 1001).ask("GET", f"/v1/cases/{case}/timeline")
    assert (answer.status_code, answer.json()["code"]) == (404, "UNKNOWN-CASE")


async def test_a_seal_over_another_head_is_not_shown_as_this_ones(world: World, client: httpx.AsyncClient) -> None:
    """Once the database was tampered with, a receipt that cannot be checked must not be handed out."""
    one = Person(client, world.token(1007), 1007)
    case = (await one.submit()).json()["id"]
    await one.ask("DELETE", f"/v1/cases/{case}")
    await sealed(world)
    assert (await read(one, case))["receipt"]["seal"]["number"] == 2
    await world.pools["platform"].execute("UPDATE platform.cases SET head = sha256('x') WHERE account_id = 1007")
    assert "seal" not in (await read(one, case))["receipt"]


class Mailbox:
    """A gateway that keeps what it is given."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def send(self, notices: Sequence[Notice]) -> Refusals:
        self.notices += notices
        return {}

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_the_message_of_the_end_holds_the_head(world: World, client: httpx.AsyncClient) -> None:
    """Whoever loses their phone still has it in their mailbox, and nobody can say that it was never given."""
    one = Person(client, world.token(1008), 1008)
    case = (await one.submit()).json()["id"]
    head = (await one.ask("DELETE", f"/v1/cases/{case}")).json()["receipt"]["head"]
    mailbox = Mailbox()
    deliver = Delivery(
        pool=world.pools["platform"],
        gateway=mailbox,
        pack=lambda: world.pack,
        pack_named=lambda _name: world.pack,
        know=world.context.know,
        case_ids=world.ids,
        codes_key=CODES_KEY,
    )
    await deliver(frozenset(range(256)), world.now())
    mails = [each.text for each in mailbox.notices if each.account == "1008" and each.channel is Channel.EMAIL]
    assert [(head in mail.zh, head in mail.en) for mail in mails].count((True, True)) == 1
    for template in ("case_done", "case_aborted", "case_rejected", "case_withdrawn", "case_expired"):
        assert "receipt" in str(msgspec.to_builtins(world.pack.messages[template].body)), template
