"""`jiebang participant new`: what it writes runs as it is, and passes the suite."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jiebang.cli.commands import cli
from jiebang.participants import PARTICIPANTS
from jiebang.participants.conformance.suite import PROPERTIES, FindingResult
from jiebang.participants.conformance.trial import Trial, run_trial
from jiebang.participants.declarative.load import load_declaration
from jiebang.participants.serving import FenceFile
from tests.conformance.test_examples import running


def new(name: str, language: str, place: Path) -> tuple[int, dict[str, object]]:
    arguments = ["participant", "new", name, "--language", language, "--in", str(place), "--json"]
    ran = CliRunner().invoke(cli, arguments)
    return ran.exit_code, json.loads(ran.stdout)


@pytest.mark.parametrize("name", ["tea_house", "a" * 24])
async def test_a_service_in_python_runs_and_passes(name: str, tmp_path: Path) -> None:
    """The first thing that a team runs: if it did not pass, they would look for the fault in their own work."""
    code, told = new(name, "python", tmp_path)
    assert (code, told["files"]) == (0, ["README.md", "service.py"])
    held = [(9_000_000 + at, f"{name}-in-use".replace("_", "-").upper()) for at in range(4)]
    schema = (
        "CREATE TABLE holding (account_id INTEGER PRIMARY KEY, amount DEFAULT 0, in_use DEFAULT 0, reserved DEFAULT 0);"
    )
    file = FenceFile(tmp_path / "data", schema)
    file.db.executemany("INSERT INTO holding (account_id, in_use) VALUES (?, 1)", [(account,) for account, _ in held])
    file.close()
    async with running([sys.executable, str(tmp_path / name / "service.py")], tmp_path, name) as service:
        trial = Trial(
            name=name,
            url=service.link.base_url,
            keys=tmp_path / "keys",
            operation="close",
            effects={"kept": 5},
            unfit={"kept": -1},
            refused=held,
            first_account=1 << 52,
            seed=7,
        )
        report = await run_trial(trial, PROPERTIES, lambda _: None)
    assert [each for each in report.findings if each.result is not FindingResult.PASSED] == []


@pytest.mark.parametrize("name", ["tea_house", "a" * 24])
def test_a_declarative_one_can_be_loaded(name: str, tmp_path: Path) -> None:
    """tests/newcomer/test_declarative.py takes it the whole way."""
    code, told = new(name, "yaml", tmp_path)
    assert (code, told["files"]) == (0, ["README.md", f"{name}.yaml"])
    text = (tmp_path / name / f"{name}.yaml").read_text("utf-8")
    found, problems = load_declaration(text, "x.yaml", PARTICIPANTS.names, PARTICIPANTS.facts)
    assert not problems
    assert found is not None
    assert found.owner == name


@pytest.mark.parametrize("name", ["wallet", "platform", "Tea", "1st", "a" * 25, "../x", "identity"])
def test_a_name_that_cannot_be_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    """The platform would refuse it later, with the work done."""
    code, told = new(name, "python", tmp_path / "within")
    assert code == 2
    error = told["error"]
    assert isinstance(error, dict)
    assert error["code"] == "INVALID-INPUT"
    assert not (tmp_path / "within").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """Somebody's work of a week stands there."""
    assert new("tea", "yaml", tmp_path)[0] == 0
    (tmp_path / "tea" / "tea.yaml").write_text("mine", "utf-8")
    assert new("tea", "yaml", tmp_path)[0] == 2
    assert (tmp_path / "tea" / "tea.yaml").read_text("utf-8") == "mine"
