"""The compliance officer at the terminal: real processes, both languages, a server that runs on meanwhile."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
import yaml

from jiebang.app import migrate, open_app
from jiebang.clock import utc_now
from jiebang.policy import packs
from jiebang.sandbox.issuer import SandboxIssuer
from jiebang.sandbox.processes import SandboxProcess
from jiebang.settings import Settings
from tests.acceptance.test_cli import CENT, CHINESE, CLEAR, LOGGED, Ran, jiebang, people
from tests.patience import PATIENCE_S, PATIENT_PROCESS

TEXT, _ = packs.text("wechat")
FREE: Final = ("when: balance_fen > 0", "when: balance_fen > 1")
"""Who has one cent left is stopped by version 2, and no more by version 3."""


def version(number: int, *changes: tuple[str, str]) -> str:
    """The text of a later version of our pack."""
    text = TEXT
    for old, new in (("\nversion: 2\n", f"\nversion: {number}\n"), *changes):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Desk(msgspec.Struct):
    """An installation with three people, and a server that runs in it."""

    folder: Path
    more: Mapping[str, str]
    api: httpx.AsyncClient

    async def policy(self, *arguments: str, **how: Any) -> Ran:
        """Run `jiebang policy …`."""
        return await self.run("policy", *arguments, **how)

    async def run(self, *arguments: str, **how: Any) -> Ran:
        """Run `jiebang …`."""
        return await jiebang(self.folder / "home", *arguments, more=self.more, **how)

    def file(self, name: str, text: str) -> str:
        """Write a pack to a file."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    async def answers(self, account: int) -> tuple[str, list[str]]:
        """Ask the server: under which version, and what stands in the way."""
        asked = {"accounts": [str(account)], "kind": "revoke"}
        (check,) = (await self.api.post("/v1/checks", json=asked)).json()["checks"]
        return check["pack"], [blocker["code"] for blocker in check["blockers"]]

    async def answered_by(self, pack: str, account: int) -> list[str]:
        """Wait until the server, which nobody restarts, answers under a version; return what stands in the way."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                by, codes = await self.answers(account)
                if by == pack:
                    return codes
                await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
async def desk(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> AsyncIterator[Desk]:
    folder = new_folder("policy")
    home = folder / "home"
    more = {
        **PATIENT_PROCESS,
        "JIEBANG_DATABASES": msgspec.json.encode(databases).decode(),
        "JIEBANG_HTTP_PORT": "0",
        "JIEBANG_SANDBOX": "true",
    }
    settings = Settings(home=home, keys=home / "keys", databases=databases, sandbox=True)
    await migrate(settings)
    async with open_app(settings, pool_size=2) as app:
        await people(app)
        token = SandboxIssuer(home).service("support", utc_now(), "one")
    server = SandboxProcess(
        "api", ["jiebang", "serve"], folder / "api.log", environment=os.environ | more | {"JIEBANG_HOME": str(home)}
    )
    await server.start()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as api:
        yield Desk(folder, more, api)
    await server.stop()


async def test_a_bad_pack_is_told_with_its_place_in_both_languages(desk: Desk) -> None:
    """A compliance officer is no programmer: what is wrong, and where, or they cannot mend it."""
    path = desk.file("bad.yaml", version(3, ("when: balance_fen > 0", "when: balance_fan > 0")))
    line = 1 + TEXT[: TEXT.index("when: balance_fen > 0")].count("\n")
    column = 1 + len("    when: ")
    zh, en, added, missing, nothing = await asyncio.gather(
        desk.policy("validate", path, language="zh"),
        desk.policy("validate", path),
        desk.policy("add", path, "--by", "Ann", "--json"),
        desk.policy("validate", str(desk.folder / "none.yaml"), language="zh"),
        desk.policy("activate", "wechat/9", "--by", "Ann", language="zh"),
    )
    assert {one.code for one in (zh, en, added, missing, nothing)} == {2}
    assert "没有这个文件" in missing.errors
    for ran in (zh, en):
        assert f"bad.yaml:{line}:{column}: " in ran.errors
        assert "balance_fan" in ran.errors
    assert CHINESE.search(zh.errors)
    assert not CHINESE.search(en.errors)
    (problem,) = added.json()["error"]["fields"]["problems"]
    assert (problem["line"], problem["column"]) == (line, column)
    assert "wechat/2" in nothing.errors, "those there are"


async def test_a_version_lives_without_a_restart(desk: Desk) -> None:
    """The whole life in the order the docs tell; a server answers all the while, each time under one version."""
    path = desk.file("two.yaml", version(3, FREE))
    assert await desk.answers(CENT) == ("wechat/2", ["PAY-BALANCE"])
    valid, differs, added = await asyncio.gather(
        desk.policy("validate", path, "--json"),
        desk.policy("diff", "wechat/2", path, "--json"),
        desk.policy("add", path, "--by", "Ann", "--json"),
    )
    assert (valid.code, valid.json()["pack"], valid.json()["warnings"]) == (0, "wechat/3", [])
    assert {one["path"] for one in differs.json()["differences"]} == {"version", "rules[PAY-BALANCE].when"}
    assert added.json()["added"]

    assert (await desk.policy("shadow", "wechat/3", "--by", "Ann")).code == 0
    await asyncio.sleep(1)  # until the server must have read it
    assert await desk.answers(CENT) == ("wechat/2", ["PAY-BALANCE"]), "a shadow changes no answer"
    proposed, case = await asyncio.gather(
        desk.policy("activate", "wechat/3", "--by", "Ann", "--json"),
        desk.run("submit", str(CLEAR), "--no-prove", "--json"),
    )
    assert (proposed.code, proposed.json()["in_force_since"]) == (0, None)
    same, report = await asyncio.gather(
        desk.policy("activate", "wechat/3", "--by", " ANN", language="zh"), desk.policy("shadow", "--json")
    )
    assert (same.code, (await desk.answers(CENT))[0]) == (2, "wechat/2")
    assert CHINESE.search(same.errors)
    only_live = {(one["code"], one["segment"]): one["only_live"] for one in report.json()["counts"]}
    assert {code for (code, _), count in only_live.items() if count} == {"", "PAY-BALANCE"}

    unseen = await asyncio.gather(
        desk.policy("activate", "wechat/3", "--by", "Ben"),
        desk.policy("activate", "wechat/3", "--by", "Ben", "--json", language="zh"),
    )
    assert [(ran.code, "--yes" in ran.errors + ran.out) for ran in unseen] == [(2, True)] * 2, "nobody was asked"
    asked = await at_terminal(desk, "n", "policy", "activate", "wechat/3", "--by", "Ben")
    assert asked.code == 1
    assert "rules[PAY-BALANCE].when" in asked.out
    assert "- balance_fen > 0" in asked.out
    assert "+ balance_fen > 1" in asked.out
    assert asked.out.index("balance_fen > 1") < asked.out.index("Approve wechat/3?"), "seen first, then asked"
    assert (await desk.answers(CENT))[0] == "wechat/2", "who says no has changed nothing"
    approved = await desk.policy("activate", "wechat/3", "--by", "Ben", "--yes")
    assert approved.code == 0, approved.errors
    assert await desk.answered_by("wechat/3", CENT) == []
    listed, replayed = await asyncio.gather(desk.policy("list"), desk.policy("replay", case.json()["id"], "--json"))
    (in_force,) = (
        line for line in listed.out.splitlines() if "wechat/3" in line and "Ann" in line and "Ben" not in line
    )
    assert "in force" in in_force, "though it still is the one named for shadow"
    (again,) = replayed.json()
    assert (again["step"], again["pack"], again["same"]) == ("submit", "wechat/2", True)
    assert "facts" not in again, "personal, unless asked for"

    back = await desk.policy("rollback", "--by", "Ben", "--json")
    assert (back.code, back.json()["pack"]) == (0, "wechat/2")
    assert await desk.answered_by("wechat/2", CENT) == ["PAY-BALANCE"]
    shown = await desk.policy("replay", case.json()["id"], "--facts", language="zh")
    assert (shown.code, "一字不差" in shown.out, "identity_state" in shown.out) == (0, True, True)


async def at_terminal(desk: Desk, answer: str, *arguments: str) -> Ran:
    """Run `jiebang …` with a terminal at its input, at which somebody types `answer`."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JIEBANG_", "LC_"))}
    environment |= {"LANG": "en_US.UTF-8", "COLUMNS": "200", "JIEBANG_HOME": str(desk.folder / "home"), **desk.more}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jiebang", *arguments,
        env=environment, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        out, told = await process.communicate()
    os.close(ours)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), told.decode())


def spoken(value: Any) -> list[str]:
    """Return every text in both languages within a part of a pack."""
    if isinstance(value, dict):
        own = [each for name, each in value.items() if name in ("zh", "en")]
        return own + [text for each in value.values() for text in spoken(each)]
    return [text for each in value for text in spoken(each)] if isinstance(value, list) else []


async def test_a_version_is_shown_and_exported_whole(desk: Desk) -> None:
    """Who must answer for a policy reads all of it: what is in force, every text in both languages, and its file."""
    text = TEXT.replace("\nversion: 2\n", "\nversion: 7\n")
    start = TEXT.index("  - code: PAY-BALANCE")
    rule = TEXT[start : TEXT.index("\n  - code: ", start + 1)] + "\n"
    with_new = text.replace(
        rule, rule + rule.replace("PAY-BALANCE", "PAY-NEW").replace("balance_fen > 0", "balance_fen > 7")
    )
    path = desk.file("seven.yaml", with_new)
    live, exported, file, one, absent, differs = await asyncio.gather(
        desk.policy("export", "wechat/2"),
        desk.policy("export", "--json"),
        desk.policy("show", path),
        desk.policy("show", "wechat/2", "--code", "pay-balance", language="zh"),
        desk.policy("show", "--code", "NO-SUCH", language="zh"),
        desk.policy("diff", "wechat/2", path, language="zh"),
    )
    assert live.out == exported.json()["text"] == TEXT
    assert exported.json()["pack"] == "wechat/2"
    assert absent.code == 2
    texts = spoken(yaml.safe_load(rule))
    assert len(texts) >= 12
    for shown in (file, one, differs):
        assert shown.code == 0, shown.errors
        assert [said for said in texts if said not in shown.out] == [], "whole, in both languages, nothing cut"
    assert "balance_fen > 7" in differs.out


async def test_everybody_is_backtested_and_one_person_explained(desk: Desk) -> None:
    """What a threshold does to everybody, and why one person was told what they were told."""
    population, page = desk.folder / "people.parquet", desk.folder / "page.html"
    exported, why = await asyncio.gather(
        desk.run("accounts", "export-facts", str(population), "--json"),
        desk.run("check", str(CENT), "--why", "--json"),
    )
    assert (exported.json()["accounts"], exported.json()["unread"]) == (3, {})
    assert population.stat().st_mode & 0o777 == 0o600
    assert why.code == 1
    reasons = {one["code"]: one for one in why.json()["why"]}
    balance = reasons["PAY-BALANCE"]
    assert (balance["verdict"], balance["filled"], balance["facts"]) == ("raised", "1 > 0", {"balance_fen": 1})
    assert {one["verdict"] for code, one in reasons.items() if code != "PAY-BALANCE"} == {"passed"}

    run = ("backtest", "wechat", "--population", str(population))
    tried, live, folder, kind = await asyncio.gather(
        desk.policy(*run, "--set", "abnormal_login_days=0", "--html", str(page), "--json"),
        desk.policy("backtest", "wechat", "--json"),
        desk.policy(*run, "--html", str(desk.folder), language="zh"),
        desk.policy("backtest", "emoney", *run[2:], "--kind", "restore", language="zh"),
    )
    report = tried.json()["report"]
    stops = {stop["code"]: stop["accounts"] for stop in report["outcome"]["stops"]}
    passing = sum(not codes for _, codes in [await desk.answers(account) for account in (CLEAR, CENT, LOGGED)])
    assert (report["outcome"]["accounts"], report["outcome"]["passes"]) == (3, passing), "as their own checks say"
    assert (stops["PAY-BALANCE"], stops["SEC-ABNORMAL-LOGIN"], stops["PAY-AUTODEBIT"]) == (1, 1, 1)
    assert "abnormal_login_days" in page.read_text(encoding="utf-8")
    assert live.json()["report"]["outcome"] == report["outcome"]
    for ran in (folder, kind):
        assert ran.code == 2
        assert CHINESE.search(ran.errors)


async def test_who_starts_us_is_told_of_an_edit_in_vain(desk: Desk) -> None:
    """Somebody edits the file of a pack and raises no version: they must not wonder why nothing changed."""
    home = desk.folder / "home"
    settings = Settings(home=home, keys=home / "keys", databases=_databases(desk), sandbox=True)
    async with open_app(settings) as app:
        await app.pools["platform"].execute(
            "UPDATE platform.policy_pack SET text = text || '#', sha256 = sha256(convert_to(text || '#', 'UTF8'))"
            " WHERE pack = 'emoney/2'"
        )
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        zh, en = await asyncio.gather(
            desk.run("serve", "--port", port, language="zh"), desk.run("serve", "--port", port)
        )
    assert zh.code == en.code == 2
    assert "emoney/2 早已加入" in zh.errors
    assert "emoney/2 was added before" in en.errors
    assert "wechat" not in zh.errors + en.errors


def _databases(desk: Desk) -> dict[str, str]:
    return msgspec.json.decode(desk.more["JIEBANG_DATABASES"], type=dict[str, str])
