"""The operator on duty at the terminal: every command on real databases and networks, as a person and as a program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner

from jiebang.app import migrate
from jiebang.cli.commands import cli
from jiebang.keys import read_keys
from jiebang.model.case import Case, Kind, State
from jiebang.model.ids import CaseIds
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.processes import sandbox
from jiebang.settings import Settings
from jiebang.store.operations import recoveries
from jiebang.store.postgres.pool import open_pools

if TYPE_CHECKING:
    from pathlib import Path

HERE, NOW = 7, datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
PARKED = Case(
    account_id=HERE,
    case_no=3,
    kind=Kind.REVOKE,
    state=State.CONFIRMING,
    plan="wechat/2",
    marks="d" * 10 + "C",
    revision=1,
    created_at=NOW,
    versions=(0,) * 11,
)


class Desk(msgspec.Struct):
    """One installation, and the id of the one case in it, whose wallet refused its Confirm twice."""

    case: str

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run `jiebang …` and return what it printed."""
        ran = CliRunner().invoke(cli, arguments)
        assert ran.exit_code == code, ran.output
        return ran.output

    def asked(self, *arguments: str, code: int = 0) -> Any:
        """Run it for a program."""
        return json.loads(self.run(*arguments, "--json", code=code))


@pytest.fixture(scope="module")
async def desk(databases: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    home: Path = tmp_path_factory.mktemp("operator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JIEBANG_HOME", str(home))
        patch.setenv("JIEBANG_DATABASES", json.dumps(dict(databases)))
        patch.setenv("JIEBANG_SANDBOX", "true")
        await migrate(Settings(home=home, keys=home / "keys", databases=databases))
        async with open_pools({"platform": databases["platform"]}, size=1) as pools:
            await recoveries.raise_numbers(pools["platform"], {HERE: 3}, NOW)
            assert await recoveries.recreate_cases(pools["platform"], {PARKED: [{"at": NOW, "what": "state"}]}, NOW)
        async with sandbox(home, names=PARTICIPANTS.networks):
            yield Desk(CaseIds(read_keys(home / "keys").case_ids).encode(*PARKED.key))


def test_a_stuck_case_is_listed_shown_and_tried_again(desk: Desk) -> None:
    [stuck] = desk.asked("cases", "stuck", code=1)
    assert (stuck["case"], stuck["why"], stuck["waits_for"]) == (desk.case, "parked", ["wallet"])
    shown = desk.asked("cases", "show", desk.case)
    assert {party["participant"]: party["mark"] for party in shown["participants"]}["wallet"] == "C"
    assert all(party["answers"] for party in shown["participants"])
    assert desk.asked("cases", "retry", desk.case, "--by", "Ann") == {desk.case: "retried"}
    desk.run("cases", "retry", desk.case, "--by", " ", code=2)


def test_a_recovery_leaves_to_people_what_it_cannot_decide(desk: Desk) -> None:
    """The account is in no participant any more: a proven commit, and nobody who still could confirm it."""
    foreseen = desk.asked("recover", "--restored", "platform", "--by", "Ann", "--dry-run")
    assert foreseen["found"]["sent"]["try"] > 0
    desk.run("recover", "--restored", "walet", "--by", "Ann", code=2)
    told = desk.asked("recover", "--restored", "platform", "--restored", "wallet", "--by", "Ann", code=1)
    assert (told["complete"], told["found"]["undecided"]) == (True, {"cannot_try": 1})
    [task] = desk.asked("tasks", "list", code=1)
    assert (task["case"], task["kind"], task["why"]) == (desk.case, "undecided", "cannot_try")
    assert desk.asked("tasks", "ack", desk.case, "--by", "Ben") == {"done": [desk.case], "nothing": []}
    desk.run("tasks", "close", desk.case, "--by", "Ben", "--note", "closed by court order")
    assert "Nothing is open" in desk.run("tasks", "list")
    assert "closed by court order" in desk.run("cases", "show", desk.case)


def test_a_participant_goes_out_of_service_and_comes_back(desk: Desk) -> None:
    told = desk.asked("participants", "out", "wallet", "gaming", "--by", "Ann", "--reason", "new racks")
    out = {each["participant"] for each in told["participants"] if not each["in_service"]}
    assert out == {"wallet", "gaming"}
    told = desk.run("participants", "in", "wallet", "gaming", "--by", "Ben")
    assert "in service" in told
    assert "out since" not in told
    desk.run("participants", "out", "nobody", "--by", "Ann", "--reason", "x", code=2)


def test_workers_are_named_or_all_of_them(desk: Desk) -> None:
    assert desk.asked("workers", "list") == []
    for wish in ("pause", "resume", "drain"):
        desk.run("workers", wish, "--by", "Ann", code=2)
    assert desk.asked("workers", "drain", "nobody", "--by", "Ann", code=1)["unknown"] == ["nobody"]


def test_buckets_of_nobody_cannot_be_freed(desk: Desk) -> None:
    """An operator who mistyped an id must not believe that a dead worker's people are looked after."""
    assert desk.asked("workers", "freed") == []
    desk.run("workers", "free", "nobody", "--by", "Ann", code=2)
    desk.run("workers", "free", "nobody", code=2)


@pytest.mark.parametrize(
    "arguments",
    [["cases"], ["tasks"], ["workers"], ["participants"], ["recover"], ["cases", "retry"], ["participants", "out"]],
)
def test_every_command_teaches_itself(arguments: Sequence[str]) -> None:
    told = CliRunner().invoke(cli, [*arguments, "--help"])
    assert told.exit_code == 0
    assert len(told.output.split()) > 30


async def park_again(databases: Mapping[str, str]) -> None:
    async with open_pools({"platform": databases["platform"]}, size=1) as pools:
        await pools["platform"].execute(
            "UPDATE platform.cases SET marks = $2, due_at = NULL, rests_until = NULL WHERE account_id = $1",
            HERE,
            PARKED.marks,
        )


def test_two_people_set_right_an_effect_that_a_case_waits_for(desk: Desk, databases: Mapping[str, str]) -> None:
    """Whoever is woken at night must find the case, type what is shown, and have a colleague agree to it."""
    asyncio.run(park_again(databases))
    [confirming] = desk.asked("cases", "confirming", code=1)
    assert (confirming["case"], confirming["kind"]) == (desk.case, "revoke")
    plan = confirming["plan"]
    place = ("cases", "correct", plan, "revoke", "wallet", "cash_out_pause_hours")
    audited = desk.asked("verify", code=1)
    assert [one["plan"] for one in audited["detail"]["confirming"]] == [plan]
    assert confirming["waits_for"] == ["wallet"]
    refused = desk.run(*place, "999999999", "--why", "too long", "--by", "Ann", code=2)
    assert "0 to 876600" in refused or "0 至 876600" in refused
    made = desk.asked(*place, "48", "--why", "asked for by the wallet", "--by", "Ann")
    assert (made["value"], made["approved_by"]) == (48, None)
    desk.run("cases", "approve", str(made["correction_no"]), "--by", "Аnn", code=2)
    done = desk.asked("cases", "approve", str(made["correction_no"]), "--by", "Ben")
    assert (done["correction"]["approved_by"], list(done["cases"])) == ("Ben", [desk.case])
    assert "asked for by the wallet" in desk.run("cases", "corrections")
