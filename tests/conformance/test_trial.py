"""`jiebang participant test`: the suite as a command, against a real service, for a team that has only the command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jiebang.participants.conformance.suite import PROPERTIES
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault
from jiebang.sandbox.processes import Sandbox

SOURCE = Path(__file__).parents[2] / "src"


async def typed(*arguments: str, language: str = "en_GB.UTF-8") -> tuple[int, str]:
    """Type a command in a terminal of its own; return its exit code and what it printed."""
    environ = {**os.environ, "LC_ALL": language, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1", "COLUMNS": "100"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "jiebang",
        "participant",
        "test",
        *arguments,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def of_unionpay(world: Sandbox) -> list[str]:
    link = world.link("unionpay")
    return [link.base_url, "--name", "unionpay", "--keys", str(world.home / "keys"), "--operation", "release"]


def finding(told: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in told["report"]["findings"] if each["property"] == name)
    assert isinstance(found, dict)
    return found


async def test_a_network_that_keeps_the_protocol_passes(world: Sandbox) -> None:
    """A team that did everything right must be told so, and what could not be examined."""
    code, out = await typed(*of_unionpay(world), "--effects", '{"release_bindings": true}', "--json")
    told = json.loads(out)
    assert (code, told["conforms"], told["report"]["failed"]) == (0, True, 0), out
    assert [each["property"] for each in told["report"]["findings"]] == [each.name for each in PROPERTIES]
    unexamined = {each["property"] for each in told["report"]["findings"] if each["result"] == "not_applicable"}
    assert unexamined == {"marks_a_refused_try", "keeps_cases_of_a_batch_apart", "refuses_effects_it_cannot_apply"}
    assert told["report"]["ignored"] == {}


async def test_accounts_that_the_team_names_are_those_that_are_used(
    world: Sandbox, control: Control, tmp_path: Path
) -> None:
    """A service that knows its own customers alone refuses made-up accounts; then nothing could be examined."""
    refused = [str(8_100_000 + at) for at in range(4)]
    await control.set_faults([NetworkFault(FaultKind.REFUSE, accounts=tuple(refused), code="NETWORK-HOLD")])
    (tmp_path / "free 可用.txt").write_text("".join(f"{8_200_000 + at}\n" for at in range(6)), "utf-8")
    (tmp_path / "held.txt").write_text("".join(f"{account} NETWORK-HOLD\n" for account in refused), "utf-8")
    files = ["--accounts", str(tmp_path / "free 可用.txt"), "--refused", str(tmp_path / "held.txt")]
    only = ["--only", "marks_a_refused_try", "--only", "keeps_cases_of_a_batch_apart", "--only", "tells_every_mark"]
    code, out = await typed(*of_unionpay(world), *files, *only, "--json")
    told = json.loads(out)
    assert code == 0, out
    assert finding(told, "marks_a_refused_try")["result"] == "passed"
    assert finding(told, "keeps_cases_of_a_batch_apart")["result"] == "passed"
    marks = finding(told, "tells_every_mark")
    assert marks["result"] == "not_applicable"
    assert "1 more" in marks["reason"]["en"]


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en_GB.UTF-8", ("sent: POST /confirm", "answered:", "wanted: granted", "else:", "do not")),
        ("zh_CN.UTF-8", ("发送: POST /confirm", "应答:", "要求: granted", "否则:", "不符合")),
    ],
)
async def test_a_failure_says_what_was_sent_answered_and_wanted(
    world: Sandbox, control: Control, language: str, words: tuple[str, ...]
) -> None:
    """Without it a team knows that it is wrong, and not where: it would ask us instead of mending it."""
    await control.set_faults([NetworkFault(FaultKind.DENY, ops=(FaultOp.CONFIRM,))])
    code, out = await typed(*of_unionpay(world), "--only", "serves_whole_plans", language=language)
    assert code == 1, out
    assert [word for word in ("✗ serves_whole_plans", *words) if word not in out] == [], out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["http://127.0.0.1:9", "--name", "nobody"], 2, "LINK-UNUSABLE"),
        (["http://somewhere.example", "--name", "unionpay", "--keys", "@keys"], 2, "LINK-UNUSABLE"),
        (["http://127.0.0.1:9", "--name", "unionpay", "--keys", "@keys"], 3, "PARTICIPANT-SILENT"),
        (["@url", "--name", "unionpay", "--keys", "@keys", "--effects", "[1]"], 2, "INVALID-INPUT"),
        (["@url", "--name", "unionpay", "--keys", "@keys", "--effects", "{"], 2, "INVALID-INPUT"),
        (["@url", "--name", "unionpay", "--keys", "@keys", "--only", "nothing"], 2, "INVALID-INPUT"),
        (["@url", "--name", "unionpay", "--keys", "@keys", "--accounts", "/nowhere"], 2, "INVALID-INPUT"),
    ],
)
async def test_what_cannot_be_run_is_said_before_anything_is_sent(
    world: Sandbox, arguments: list[str], code: int, said: str
) -> None:
    """A wrong address or key that looked like thirty failures would send a team searching in its own code."""
    stand = {"@keys": str(world.home / "keys"), "@url": world.link("unionpay").base_url}
    given = [stand.get(each, each) for each in arguments]
    exit_code, out = await typed(*given, "--json")
    error = json.loads(out)["error"]
    assert (exit_code, error["code"]) == (code, said), out
    assert error["title"]["zh"] != error["title"]["en"]


async def test_a_party_without_the_right_key_is_told_of_its_signature(world: Sandbox, tmp_path: Path) -> None:
    """Keys that were mixed up are the first thing that goes wrong between two teams."""
    for file in (world.home / "keys").glob("unionpay-*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = (world.home / "keys" / "netsunion-reply.pub.pem").read_bytes()
    (tmp_path / "unionpay-reply.pub.pem").write_bytes(other)
    url = world.link("unionpay").base_url
    code, out = await typed(url, "--name", "unionpay", "--keys", str(tmp_path), "--only", "signs_its_answers", "--json")
    assert code == 1
    failed = finding(json.loads(out), "signs_its_answers")
    assert "not signed as the protocol says" in failed["answered"]["en"]
    assert "signed" in failed["wanted"]["en"]
