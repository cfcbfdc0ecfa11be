"""The catalogue of commands: each one, its exit code and the shape of its JSON, for scripts that rely on them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from jiebang import __version__
from jiebang.app import migrate
from jiebang.cli.commands import cli, main
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.sandbox.processes import sandbox
from jiebang.settings import Settings


class Call(msgspec.Struct, frozen=True):
    """A command as it is typed, `--json` apart: the code it exits with, and the keys of what it answers.

    `keys` None: a list. `@case`, `@people`, `@pack`, `@facts`: what earlier calls and the fixture made.
    """

    typed: str
    code: int
    keys: str | None


CATALOGUE: Final = (
    Call("version", 0, "version"),
    Call("config check", 0, "complete problems stand_ins installed servers"),
    Call("config show", 0, "home keys anchor databases networks gateway_url issuer sandbox stand_ins saga http"),
    Call("migrate", 0, "platform keys wallet social"),
    Call("accounts load @people", 0, "loaded people rows lines bad_lines faults bindings bindings_skipped"),
    Call("accounts export-facts @facts", 0, "file accounts unread"),
    Call(
        "check @blocked", 1, "account kind pack checked_at passes offered blockers consequences alternatives consents"
    ),
    Call("check @blocked --why", 1, "check why"),
    Call("check 999999", 2, "error"),
    Call("limits @blocked", 0, "account pack read_at limits unread"),
    Call("limits 999999", 2, "error"),
    Call("explain 30007", 0, ""),
    Call("remedy @blocked PAY-AUTODEBIT --agree", 1, "agreed check"),
    Call("remedy @blocked NO-SUCH", 2, "error"),
    Call("submit @blocked --no-prove", 2, "error"),
    Call("submit @clear --no-prove", 0, "id state kind account"),
    Call("prove @case --password 000000", 2, "error"),
    Call("case @case", 0, None),
    Call("case case_no", 2, "error"),
    Call("cases stuck", 0, None),
    Call("cases show @case", 0, "case state kind plan reason revision attempt participants timeline tasks"),
    Call("cases retry @case --by Ann", 1, ""),
    Call("cases confirming", 0, None),
    Call("cases correct wechat/2 revoke social moments_per_day 3 --why x --by Ann", 2, "error"),
    Call("cases approve 1 --by Ben", 2, "error"),
    Call("cases corrections", 0, None),
    Call("tasks list", 0, None),
    Call("tasks ack @case --by Ann", 1, "done nothing"),
    Call("tasks close @case --by Ann --note x", 1, "done nothing"),
    Call("workers list", 0, None),
    Call("workers pause nobody --by Ann", 1, "wish workers unknown"),
    Call("workers resume nobody --by Ann", 1, "wish workers unknown"),
    Call("workers drain nobody --by Ann", 1, "wish workers unknown"),
    Call("workers free nobody --by Ann", 2, "error"),
    Call("workers freed", 0, None),
    Call("participants list", 0, "participants history"),
    Call("participants out wallet --by Ann --reason x", 0, "participants history"),
    Call("participants in wallet --by Ann", 0, "participants history"),
    Call("participant new wallet --language yaml", 2, "error"),
    Call("participant test http://127.0.0.1:9 --name nobody", 2, "error"),
    Call("report pipl", 0, "report open file"),
    Call("policy list", 0, ""),
    Call("policy show emoney/2", 0, ""),
    Call("policy show emoney/2 --code MONEY-LEFT", 0, ""),
    Call("policy export emoney/2", 0, "pack text"),
    Call("policy validate @pack", 0, "pack rules added warnings"),
    Call("policy add @pack --by Ann", 0, "pack rules added warnings"),
    Call("policy diff wechat/2 emoney/2", 0, "before after differences"),
    Call("policy shadow emoney/2 --by Ann", 0, "shadow"),
    Call("policy activate emoney/2 --by Ann", 0, ""),
    Call("policy rollback --by Ann", 2, "error"),
    Call("policy replay @case", 0, None),
    Call("policy backtest wechat --population @facts", 0, "report set"),
    Call("retention due", 0, "days undetermined overdue_keys overdue_retentions"),
    Call("retention read @blocked --by Ann --purpose x", 2, "error"),
    Call("retention hold @blocked --by Ann --purpose x", 2, "error"),
    Call("retention purge", 0, "ended"),
    Call("retention report", 0, "kept bases undetermined acts"),
    Call("keys rotate retention", 0, "key finished rewrapped unopened"),
    Call("keys rotate retention --finish", 0, "key finished rewrapped unopened"),
    Call("seals status", 0, "seal"),
    Call("seals resume --by Ann", 1, "seal"),
    Call("seals rotate", 0, "keys"),
    Call("verify", 0, "accounts cases violations detail"),
    Call("recover --restored wallet --by Ann --dry-run", 0, "complete found"),
)
WITHOUT: Final = {
    "completion": "prints a script",
    "serve": "runs until it is stopped; tests/acceptance/test_start.py",
    "worker": "likewise",
    "demo": "tests/acceptance/test_demo.py",
    "accounts generate": "prints people, a line of JSON each",
}
"""Commands that the catalogue does not call, and why."""


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner: Mapping[str, Any] | None = getattr(command, "commands", None)
    if inner is None:
        yield path
    for name, each in (inner or {}).items():
        yield from _commands(each, (*path, name))


COMMANDS: Final = tuple(_commands(typer.main.get_command(cli)))


def test_every_command_stands_in_the_catalogue() -> None:
    """A command that nobody listed changes its codes and its shape unseen, and scripts break."""
    called = {" ".join(each) for each in COMMANDS for one in CATALOGUE if one.typed.split()[: len(each)] == list(each)}
    assert called | WITHOUT.keys() == {" ".join(each) for each in COMMANDS}
    assert not called & WITHOUT.keys()


@pytest.fixture(scope="module")
async def names(databases: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    home: Path = tmp_path_factory.mktemp("catalogue")
    pack = home / "emoney.yaml"
    people = home / "people.jsonl"
    made = CliRunner().invoke(cli, ["accounts", "generate", "40", "--seed", "7"])
    people.write_text(made.stdout, encoding="utf-8")
    pack.write_text(packs.text("emoney")[0].replace("version: 2", "version: 3", 1), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JIEBANG_HOME", str(home))
        patch.setenv("JIEBANG_DATABASES", json.dumps(dict(databases)))
        patch.setenv("JIEBANG_SANDBOX", "true")
        await migrate(Settings(home=home, keys=home / "keys", databases=databases))
        async with sandbox(home, names=PARTICIPANTS.networks):
            yield {"@people": str(people), "@facts": str(home / "facts.parquet"), "@pack": str(pack)}


def test_each_answers_with_its_code_and_shape(names: dict[str, str]) -> None:
    """One walk through the catalogue, in order; every fault is told, not the first alone."""
    faults = list[str]()
    for call in CATALOGUE:
        if "@blocked" in call.typed and "@blocked" not in names:
            names |= _find_people()
        ran = CliRunner().invoke(cli, [names.get(part, part) for part in [*call.typed.split(), "--json"]])
        try:
            answer = json.loads(ran.stdout)
        except ValueError:
            faults.append(f"{call.typed}: {ran.exit_code}, no JSON: {ran.output[-300:]}")
            continue
        if "@clear" in call.typed:
            names["@case"] = answer.get("id", "")
        lacking = set() if call.keys is None else set(call.keys.split()) - set(answer)
        if ran.exit_code != call.code or lacking or isinstance(answer, list) != (call.keys is None):
            faults.append(f"{call.typed}: {ran.exit_code}, lacks {lacking}: {ran.stdout[:400]}")
        faults += [f"{call.typed}: {where} is a number" for where in _number_ids(answer)]
    assert not faults, "\n".join(faults)


def _find_people() -> dict[str, str]:
    """Find somebody whom nothing stands in the way of, and somebody with contracts that are charged by themselves."""
    found = dict[str, str]()
    for account in map(str, range(1, 41)):
        ran = CliRunner().invoke(cli, ["check", account, "--json"])
        codes = {blocker["code"] for blocker in json.loads(ran.stdout)["blockers"]}
        if ran.exit_code == 0:
            found.setdefault("@clear", account)
        elif "PAY-AUTODEBIT" in codes and len(codes) > 1:
            found.setdefault("@blocked", account)
        if len(found) == len(("@clear", "@blocked")):
            return found
    raise AssertionError(found)


def _number_ids(value: Any, where: str = "") -> Iterator[str]:
    """Find ids that are numbers: a program that reads numbers as floats changes those above 2^53."""
    if isinstance(value, dict):
        for name, one in value.items():
            if (name in ("id", "account") or name.endswith("_id")) and type(one) is int:
                yield f"{where}.{name}"
            yield from _number_ids(one, f"{where}.{name}")
    for one in value if isinstance(value, list) else ():
        yield from _number_ids(one, f"{where}[]")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_wrong_usage_is_json_where_json_was_asked_for(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that mistypes an option must not get a drawing of a box."""
    monkeypatch.setattr(sys, "argv", ["jiebang", *path, "--no-such-option", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = json.loads(capsys.readouterr().out)["error"]
    assert (ended.value.code, error["code"]) == (2, "WRONG-USAGE")
    assert error["title"]["zh"] != error["title"]["en"]


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=" ".join)
def test_h_is_help_everywhere(path: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(cli, [*path, "-h"])
    assert ran.exit_code == 0
    assert "--help" in ran.output


def test_the_version_is_told_in_every_way_people_ask() -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout.strip() == __version__
    assert CliRunner().invoke(cli, ["version"]).stdout.strip() == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str) -> None:
    """The script asks us by a variable; what it asks must be answered."""
    script = CliRunner().invoke(cli, ["completion", shell])
    assert script.exit_code == 0
    assert "_JIEBANG_COMPLETE" in script.stdout
