"""Another policy in force: the second pack as its own customers and staff meet it, in real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from jiebang.app import App, migrate, open_app
from jiebang.cli.cases.as_person import claim
from jiebang.clock import utc_now
from jiebang.model.case import BUCKETS, Kind
from jiebang.model.errors import TooSoonError
from jiebang.model.notice import Notice
from jiebang.model.origin import SERVICE
from jiebang.settings import Settings
from jiebang.store.cases.idempotency import KeptAnswer
from jiebang.usecases.cases import step_up
from jiebang.usecases.cases.remedy_request import RemedyRequest
from jiebang.usecases.operations.delivery import Delivery
from tests.acceptance.test_cli import CENT, CHINESE, CLEAR, LOGGED, Ran, jiebang, people
from tests.patience import PATIENCE_S


class Shop(msgspec.Struct):
    """An installation under the second pack."""

    home: Path
    more: Mapping[str, str]
    app: App

    async def run(self, *arguments: str, language: str = "en") -> Ran:
        """Run `jiebang …`."""
        return await jiebang(self.home, *arguments, language="zh" if language == "zh" else "en", more=self.more)


@pytest.fixture(scope="module")
async def shop(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> AsyncIterator[Shop]:
    home = new_folder("emoney") / "home"
    more = {"JIEBANG_DATABASES": msgspec.json.encode(databases).decode()}
    settings = Settings(home=home, keys=home / "keys", databases=databases, sandbox=True)
    await migrate(settings)
    async with open_app(settings, pool_size=2) as app:
        await people(app)
        shop = Shop(home, more, app)
        before = await shop.run("explain", "MONEY-LEFT", "--json")
        assert before.code == 2, "not a code of the policy that is in force so far"
        for by in ("Ann", "Ben"):
            ran = await shop.run("policy", "activate", "emoney/2", "--by", by, "--yes")
            assert ran.code == 0, ran.errors
        async with asyncio.timeout(PATIENCE_S):
            while app.context.pack().id != "emoney/2":  # noqa: ASYNC110 - the registry polls; it raises no event
                await asyncio.sleep(0.05)
        yield shop


async def test_checks_answer_under_the_pack_in_force(shop: Shop) -> None:
    clear, cent, other, why = await asyncio.gather(
        shop.run("check", str(CLEAR), "--json"),
        shop.run("check", str(CENT), "--kind", "close_payment"),
        shop.run("check", str(CENT), "--kind", "restore", language="zh"),
        shop.run("check", str(CENT), "--why"),
    )
    assert (clear.code, clear.json()["passes"], clear.json()["pack"]) == (0, True, "emoney/2")
    assert cent.code == why.code == 1
    assert "MONEY-LEFT" in cent.out
    for ran in (cent, why):
        assert "€0.01" in ran.out
        assert "¥" not in ran.out
    assert other.code == 2
    assert CHINESE.search(other.errors)


async def test_codes_are_explained_under_the_pack_in_force(shop: Shop) -> None:
    """Staff of one firm must not be told the rules of another."""
    ours, old, theirs, slip = await asyncio.gather(
        shop.run("explain", "MONEY-LEFT", "--json"),
        shop.run("explain", "E-117", language="zh"),
        shop.run("explain", "30007"),
        shop.run("explain", "MONEY-LEF", "--json"),
    )
    assert (ours.code, ours.json()["pack"]) == (0, "emoney/2")
    assert "账户中还有电子货币" in old.out
    assert theirs.code == 2
    assert "MONEY-LEFT" in slip.json()["error"]["fields"]["near"]


async def test_without_an_installation_the_first_policy_explains(tmp_path: Path) -> None:
    """Who has just installed us asks what 30007 means: no server is started for that."""
    ran = await jiebang(tmp_path / "none", "explain", "30007", "--json")
    assert (ran.code, ran.json()["code"]) == (0, "PAY-AUTODEBIT")
    assert not (tmp_path / "none").exists()


async def test_remedies_go_by_the_codes_of_the_pack_in_force(shop: Shop) -> None:
    """The check says MONEY-LEFT can be cleared on the spot: that very word must do it."""
    strange = await shop.run("remedy", str(CENT), "PAY-BALANCE", language="zh")
    assert (strange.code, "MONEY-LEFT" in strange.errors) == (2, True)
    done = await shop.run("remedy", str(CENT), "MONEY-LEFT")
    assert "€0.01" in done.out
    assert "MONEY-LEFT" not in done.out, "and so it stands in the way no more"
    ended = await shop.run("remedy", str(LOGGED), "MANDATES-ACTIVE", "--item", "7", "--json")
    assert (ended.json()["code"], ended.json()["count"]) == ("MANDATES-ACTIVE", 1)
    asked = await shop.run("remedy", str(LOGGED), "LOGIN-DOUBTFUL", "--json")
    assert asked.json()["code"] == "LOGIN-DOUBTFUL"


class Mailbox:
    """A gateway that keeps what it is handed."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def send(self, notices: Sequence[Notice]) -> None:
        self.notices += notices

    async def aclose(self) -> None:
        """Nothing to let go of."""


async def test_messages_name_the_rule_in_the_words_of_the_pack(shop: Shop) -> None:
    """A person who gets a code for "a system could not accept the request" has been told nothing."""
    app, mailbox = shop.app, Mailbox()
    wanted = RemedyRequest(account_id=LOGGED, kind=Kind.REVOKE, origin=SERVICE)
    with suppress(TooSoonError):  # the test before has asked already
        await step_up.ask_logins(app.context, wanted, claim(app, "logins"), lambda _: KeptAnswer(202, b""))
    delivery = Delivery(
        pool=app.pools["platform"],
        gateway=mailbox,
        pack=app.context.pack,
        pack_named=app.registry.pack,
        know=app.registry.know,
        case_ids=app.case_ids,
        codes_key=app.secrets.codes,
    )
    assert await delivery(frozenset(range(BUCKETS)), utc_now() + timedelta(seconds=1))
    texts = [one.text for one in mailbox.notices if one.account == str(LOGGED)]
    assert texts
    for text in texts:
        assert "近期有可疑登录" in text.zh
        assert "There was a doubtful login recently" in text.en
