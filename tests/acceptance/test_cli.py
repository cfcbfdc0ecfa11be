"""The command line as a new user meets it: real processes, a home of its own, both languages, exit codes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import msgspec
import pytest

from jiebang.app import App, open_app
from jiebang.clock import utc_now
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.processes import Sandbox, SandboxProcess, sandbox
from jiebang.settings import Settings
from jiebang.store.encryption import SALT_BYTES, password_hash
from jiebang.store.postgres.data_directory import remove
from jiebang.store.postgres.embedded import wait_until_stopped
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.cli.language import Language

PASSWORD, SALT = "246810", bytes(SALT_BYTES)
CLEAR, CENT, LOGGED, STRANGER = 21, 22, 23, 404
LOCALES: Mapping[Language, str] = {"zh": "zh_CN.UTF-8", "en": "en_US.UTF-8"}
CHINESE = re.compile("[\u4e00-\u9fff]")


class Ran(msgspec.Struct):
    """What a command left: exit code, and what it said."""

    code: int
    out: str
    errors: str

    def json(self) -> Any:
        """Its standard output, which must be one JSON document."""
        return msgspec.json.decode(self.out)


async def jiebang(
    home: Path | None, *arguments: str, language: Language = "en", more: Mapping[str, str] = MappingProxyType({})
) -> Ran:
    """Run the command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JIEBANG_", "LC_"))}
    environment |= {"LANG": LOCALES[language], "COLUMNS": "200", "PYTHONUTF8": "1"} | dict(more)
    if home is not None:
        environment |= {"JIEBANG_HOME": str(home), "JIEBANG_SANDBOX": "true"} | dict(more)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "jiebang",
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, errors = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in errors.decode(), errors.decode()
    return Ran(process.returncode, out.decode(), errors.decode())


async def people(app: App) -> None:
    """Three people: one whom nothing stands in the way of, one with a cent left, one with an abnormal login."""
    ids = [CLEAR, CENT, LOGGED]
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
    )
    mark = password_hash(app.secrets.passwords, SALT, PASSWORD)
    own = {"wallet": {"password_salt": SALT, "password_hash": mark}}
    await asyncio.gather(
        *(
            insert_accounts(app.pools[name], PARTICIPANTS.owner_of(name), ids, **own.get(name, {}))
            for name in PARTICIPANTS.databases
        )
    )
    await app.pools["wallet"].execute(
        """WITH e AS (INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at, ended_at)
               VALUES ($1, $2, 'opening', '', 1, 'completed', $3, $3))
           UPDATE wallet.account SET balance_fen = 1 WHERE account_id = $1""",
        CENT,
        UUID(int=1),
        utc_now(),
    )
    await app.pools["security"].execute(
        """INSERT INTO security.login (account_id, login_id, device_id, place, at, anomaly)
           VALUES ($1, 5, 'phone-x', '三亚', $2, 'far_place')""",
        LOGGED,
        utc_now(),
    )
    await app.pools["wallet"].execute(
        """INSERT INTO wallet.autodebit_contract (account_id, contract_id, merchant, service, signed_at)
           VALUES ($1, 7, '美团', '会员', $2), ($1, 8, '滴滴', '出行', $2)""",
        LOGGED,
        utc_now(),
    )


@pytest.fixture(scope="module")
async def outside(new_folder: Callable[[str], Path]) -> AsyncIterator[Sandbox]:
    """An installation with two people, its networks and phone, and a worker, all in a path with spaces."""
    folder = new_folder("cli")
    home = folder / "my home 家"
    settings = Settings(home=home, keys=home / "keys", sandbox=True)
    async with open_app(settings) as app:
        await people(app)
        async with sandbox(home) as running:
            environment = os.environ | {"JIEBANG_HOME": str(home), "JIEBANG_SANDBOX": "true"}
            worker = SandboxProcess(
                "worker", ["jiebang", "worker"], home / "logs" / "worker.log", environment=environment
            )
            await worker.start()
            yield running
            await worker.stop()
    await wait_until_stopped(home)
    remove(home)
    remove(folder)


@pytest.fixture(scope="module")
def home(outside: Sandbox) -> Path:
    return outside.home


async def test_help_teaches_in_the_persons_language() -> None:
    """The first thing anybody types. Every command must stand there, in the language of the terminal."""
    zh, en = await asyncio.gather(jiebang(None, "--help", language="zh"), jiebang(None, "--help", language="en"))
    for ran in (zh, en):
        assert ran.code == 0
        for command in (
            "check",
            "submit",
            "prove",
            "case",
            "remedy",
            "serve",
            "worker",
            "migrate",
            "verify",
            "demo",
            "accounts",
        ):
            assert re.search(rf"^\W*{command}\b", ran.out, re.MULTILINE), command
    assert "解绑" in zh.out
    assert "Take a real name back" in en.out
    assert not CHINESE.search(en.out)


@pytest.mark.parametrize("command", ["check", "case"])
async def test_each_command_teaches_itself(command: str) -> None:
    """`--json` and what the command is for must be found without a manual."""
    zh, en = await asyncio.gather(
        jiebang(None, command, "--help", language="zh"), jiebang(None, command, "--help", language="en")
    )
    assert (zh.code, en.code) == (0, 0)
    assert "--json" in zh.out
    assert CHINESE.search(zh.out)
    assert not CHINESE.search(en.out)


async def test_a_check_says_everything_and_scripts_can_tell(home: Path) -> None:
    """Exit code 0: nothing stands in the way; 1: something does; what it is, for people and for programs."""
    clear, cent, shown = await asyncio.gather(
        jiebang(home, "check", str(CLEAR), "--json"),
        jiebang(home, "check", str(CENT), "--json"),
        jiebang(home, "check", str(CENT), language="zh"),
    )
    assert (clear.code, clear.json()["passes"], clear.json()["account"]) == (0, True, str(CLEAR))
    assert cent.code == shown.code == 1
    (blocker,) = cent.json()["blockers"]
    assert blocker["code"] == "PAY-BALANCE"
    assert blocker["explanation"]["zh"] in shown.out.replace("\n", "")
    assert "0.01" in shown.out


async def test_an_unknown_account_is_told_in_both_languages(home: Path) -> None:
    """A slip of the finger must not read like a fault of the system."""
    zh, en = await asyncio.gather(
        jiebang(home, "check", str(STRANGER), language="zh"), jiebang(home, "check", str(STRANGER))
    )
    assert zh.code == en.code == 2
    assert "账户不存在" in zh.errors
    assert "There is no such account" in en.errors
    assert str(STRANGER) in zh.errors
    assert str(STRANGER) in en.errors
    assert zh.out == en.out == ""


async def test_what_is_no_account_number_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """No server is started, and no folder made, for a typing error."""
    home = tmp_path / "home"
    for ran in await asyncio.gather(
        *(jiebang(home, "check", "--json", "--", account) for account in ("abc", "-1", "12345678901234567", "１２"))
    ):
        assert ran.code == 2
        assert ran.json()["error"]["fields"]["field"] == "account"
    assert not home.exists()


async def test_a_refused_submit_shows_what_stands_in_the_way(home: Path) -> None:
    """Being told "no" without the reason is what people complain about today."""
    shown, machine = await asyncio.gather(
        jiebang(home, "submit", str(CENT), "--no-prove"), jiebang(home, "submit", str(CENT), "--no-prove", "--json")
    )
    assert shown.code == machine.code == 2
    assert "PAY-BALANCE" in shown.errors
    assert machine.json()["error"]["code"] == "BLOCKED"
    assert [blocker["code"] for blocker in machine.json()["error"]["check"]["blockers"]] == ["PAY-BALANCE"]


async def sent_code(outside: Sandbox, account: int) -> str:
    """Read the code off the person's phone, where the worker has it brought."""
    async with (
        httpx.AsyncClient(base_url=outside.addresses["phone"], trust_env=False) as phone,
        asyncio.timeout(PATIENCE_S),
    ):
        while True:
            for message in (await phone.get(f"/phones/{account}")).json()["messages"]:
                found = re.search(r"\b\d{6}\b", message["text"]["en"])
                if found and message["channel"] == "sms":
                    return found[0]
            await asyncio.sleep(0.05)


async def test_a_person_is_unbound_from_the_terminal(home: Path, outside: Sandbox) -> None:
    """The main job, as the README shows it: submit, prove, follow, and an audit that finds nothing wrong."""
    submitted = await jiebang(home, "submit", str(CLEAR), "--no-prove", "--json")
    assert submitted.code == 0, submitted
    case = submitted.json()["id"]
    assert submitted.json()["state"] == "open"
    wrong = await jiebang(home, "prove", case, "--password", "000000", "--json")
    assert (wrong.code, wrong.json()["error"]["code"]) == (2, "PROOF-REFUSED")
    assert wrong.json()["error"]["fields"]["tries_left"] > 0
    assert "000000" not in wrong.out + wrong.errors
    code = await sent_code(outside, CLEAR)
    follows = asyncio.create_task(jiebang(home, "case", case, "--follow", "--json"))
    proven = await jiebang(home, "prove", case, "--password", PASSWORD, "--code", code, "--json")
    assert (proven.code, proven.json()["id"]) == (0, case)
    assert proven.json()["state"] != "open"
    followed = await follows
    assert followed.code == 0
    rows = followed.json()
    assert [row["revision"] for row in rows] == list(range(1, len(rows) + 1))
    states = [entry["state"] for row in rows for entry in row["entries"] if entry["what"] == "state"]
    assert states == ["open", "ready", "trying", "confirming", "done"]
    shown, audited = await asyncio.gather(jiebang(home, "case", case, language="zh"), jiebang(home, "verify", "--json"))
    assert shown.code == 0
    for word in (case, "已完成", *PARTICIPANTS.databases, "unionpay", "netsunion"):
        assert word in shown.out, word
    assert audited.code == 0
    assert {name: audited.json()[name] for name in ("accounts", "cases", "violations")} == {
        "accounts": 3,
        "cases": 1,
        "violations": 0,
    }


async def test_a_case_that_is_not_ours_is_told(home: Path) -> None:
    """A mistyped id, or somebody else's guess."""
    ran = await jiebang(home, "case", "case_aaaaaaaaaaaaaaaaaaaaaaaaaa", "--json")
    assert (ran.code, ran.json()["error"]["code"]) == (2, "UNKNOWN-CASE")


async def test_migrating_again_does_nothing(home: Path) -> None:
    """Operators run it on every deployment."""
    machine, shown = await asyncio.gather(jiebang(home, "migrate", "--json"), jiebang(home, "migrate", language="zh"))
    assert machine.code == shown.code == 0
    assert set(machine.json()) == {"platform", "keys", *PARTICIPANTS.databases}
    assert not any(machine.json().values())
    assert "已是最新" in shown.out


async def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    """Else they are found one by one, a restart each."""
    wrong = {"JIEBANG_HTTP_PORT": "many", "JIEBANG_SAGA_TRY_LIMIT": "-1", "JIEBANG_NO_SUCH": "1"}
    zh, en, machine = await asyncio.gather(
        jiebang(tmp_path, "check", "1", language="zh", more=wrong),
        jiebang(tmp_path, "check", "1", more=wrong),
        jiebang(tmp_path, "check", "1", "--json", more=wrong),
    )
    assert zh.code == en.code == machine.code == 2
    for place in ("http.port", "saga.try_limit", "JIEBANG_NO_SUCH"):
        assert place in zh.errors
        assert place in en.errors
    assert "没有此项设置" in zh.errors
    assert "there is no such setting" in en.errors
    assert not CHINESE.search(en.errors)
    assert len(machine.json()["error"]["fields"]["problems"]) == 3


async def test_a_taken_port_is_told(home: Path) -> None:
    """The usual first obstacle: something else listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = await jiebang(home, "serve", "--port", port, language="zh")
    assert ran.code == 2
    assert "PORT-TAKEN" in ran.errors
    assert port in ran.errors
    assert "--port" in ran.errors


async def test_what_stands_in_the_way_is_cleared_from_the_terminal(home: Path, outside: Sandbox) -> None:
    """Contract by contract, by consent, and a login with the code that the phone brings: then nothing stands there."""
    account = str(LOGGED)
    one = await jiebang(home, "remedy", account, "PAY-AUTODEBIT", "--item", "7", "--json")
    assert (one.code, one.json()["items"]) == (1, ["7"])
    agreed = await jiebang(home, "remedy", account, "PAY-AUTODEBIT", "--agree", language="zh")
    assert "已同意终止:8" in agreed.out
    asked = await jiebang(home, "remedy", account, "SEC-ABNORMAL-LOGIN", "--json")
    assert asked.code == 0
    proofs = ("--password", PASSWORD, "--sms", await sent_code(outside, LOGGED), "--remedy", asked.json()["id"])
    wrong = await jiebang(home, "remedy", account, "SEC-ABNORMAL-LOGIN", *proofs[:3], "no", *proofs[4:], "--json")
    assert (wrong.code, wrong.json()["error"]["fields"]["tries_left"]) == (2, 4)
    done = await jiebang(home, "remedy", account, "SEC-ABNORMAL-LOGIN", *proofs, "--json")
    assert (done.code, done.json()["check"]["passes"]) == (0, True)
    back = await jiebang(home, "remedy", account, "PAY-AUTODEBIT", "--take-back", "--json")
    assert (back.code, back.json()["agreed"]) == (1, None)
    nothing = await jiebang(home, "remedy", account, "ID-RECENT-CHANGE", "--json")
    assert (nothing.code, nothing.json()["error"]["fields"]["field"]) == (2, "code")


async def test_people_made_here_can_be_loaded_and_audited(home: Path, tmp_path: Path) -> None:
    """How an adopter brings their own test data: a file in our format; one bad line, and nothing is loaded."""
    made, again = await asyncio.gather(
        *(
            jiebang(None, "accounts", "generate", "3", "--seed", "5", "--first", "5001", "--as-of", "2026-04-01")
            for _ in "12"
        )
    )
    assert made.code == 0
    assert made.out == again.out, "the same seed makes the same people"
    file = tmp_path / "people 人.jsonl"
    file.write_text(made.out + '{"account_id": 1}\n', encoding="utf-8")
    zh, machine = await asyncio.gather(
        jiebang(home, "accounts", "load", str(file), language="zh"),
        jiebang(home, "accounts", "load", str(file), "--json"),
    )
    assert zh.code == machine.code == 1
    assert "4" in zh.errors
    assert CHINESE.search(zh.errors)
    assert (machine.json()["loaded"], machine.json()["faults"][0]["line"]) == (False, 4)
    loaded = await jiebang(home, "accounts", "load", str(file), "--skip-bad", "--json")
    assert (loaded.json()["people"], loaded.json()["bad_lines"]) == (3, 1)
    checked, audited = await asyncio.gather(jiebang(home, "check", "5001", "--json"), jiebang(home, "verify", "--json"))
    assert checked.code in (0, 1)
    assert checked.json()["account"] == "5001"
    assert audited.json()["violations"] == 0, audited.json()


async def test_sealing_is_told_and_goes_on_after_a_restore(home: Path) -> None:
    """Nothing is sealed until somebody says that a backup was restored; then it goes on, and every audit names it."""
    anchor = home / "timeline-anchor.jsonl"
    anchor.write_text('{"seal":7,"hash":"%s","at":"2026-04-01T08:00:00.000000Z"}\n' % ("ab" * 32))
    told = await jiebang(home, "seals", "status")
    assert (told.code, "chain_ends_before_the_anchor" in told.out) == (1, True)
    assert "jiebang seals resume" in told.out
    resumed = await jiebang(home, "seals", "resume", "--by", "梅 Mei", "--json")
    assert (resumed.code, resumed.json()) == (0, {"seal": 8})
    audited = await jiebang(home, "verify")
    assert (audited.code, "acknowledged by 梅 Mei" in audited.out) == (0, True), audited.out
