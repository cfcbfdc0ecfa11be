"""The demo, as a new user runs it: the main job end to end, with real servers, networks, phone, API and worker."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from jiebang.cli import language
from jiebang.cli.sandbox.demo import show_what_next
from jiebang.participants import PARTICIPANTS
from jiebang.settings import Settings
from jiebang.store.postgres.data_directory import remove
from tests.patience import PATIENT_PROCESS

EVERYBODY = {*PARTICIPANTS.databases, *PARTICIPANTS.networks}
MOST_LINES = 150
ADDRESSES = {
    name: f"http://127.0.0.1:{30_000 + number}"
    for number, name in enumerate(("api", "phone", "superapp", *PARTICIPANTS.networks))
}


@pytest.fixture
def home(new_folder: Callable[[str], Path]) -> Iterator[Path]:
    folder = new_folder("demo")
    yield folder / "home"
    remove(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


def demo(home: Path, locale: str) -> tuple[Mapping[str, Any], str]:
    """Run the demo in a terminal of 80 columns, sealing timelines at once; return its summary and what it printed."""
    seals = {"JIEBANG_SEALS_GRACE": "0.2", "JIEBANG_SEALS_EVERY": "0.1"}
    more = {"JIEBANG_HOME": str(home), "LANG": locale, "COLUMNS": "80", "PYTHONUTF8": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "jiebang", "demo", "--once", "--json", "--people", "60"],
        env={**os.environ, **PATIENT_PROCESS, **seals, **more},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3_000:]
    return msgspec.json.decode(ran.stdout), ran.stderr.decode()


def last_words(monkeypatch: pytest.MonkeyPatch, chosen: language.Language) -> str:
    """Return what the demo prints when it is up, in 80 columns."""
    monkeypatch.setattr(language, "LANGUAGE", chosen)
    screen = Console(file=io.StringIO(), width=80)
    show_what_next(screen, ADDRESSES, Settings(home=Path("/some/where/else"), keys=Path("keys")))
    told: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return told


def test_the_four_stories_end_as_told_and_the_audit_finds_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first thing a new user sees of us is broken, and so is the main job.

    Twice in one home, since nobody runs it once: what the first left behind must not be a violation in the second.
    And in few enough lines that somebody reads them.
    """
    summary, told = demo(home, "en_US.UTF-8")
    as_told(summary)
    assert (home / "timeline-anchor.jsonl").exists(), "the first has sealed, else the second proves nothing"
    shown = told + last_words(monkeypatch, "en")
    assert shown.count("\n") <= MOST_LINES
    assert shown.count("Your bank cards are unbound") == 1, "consequences are told once"
    again, told = demo(home, "zh_CN.UTF-8")
    as_told(again)
    shown = told + last_words(monkeypatch, "zh")
    assert shown.count("\n") <= MOST_LINES
    assert "0 处违例" in shown
    assert "已被占用" not in shown, "any free port was asked for"


def as_told(summary: Mapping[str, Any]) -> None:
    stories = {story["name"]: story for story in summary["stories"]}
    assert {name: story["ended"] for name, story in stories.items()} == {
        "clear": "done",
        "blocked": "done",
        "moving": "aborted",
        "silent": "aborted",
    }
    assert all(story["ok"] and story["ms"] > 0 for story in stories.values())
    for name in ("clear", "blocked"):
        assert stories[name]["participants"] == dict.fromkeys(EVERYBODY, "confirmed")
    for name in ("moving", "silent"):
        assert stories[name]["participants"] == dict.fromkeys(EVERYBODY, "cancelled")
    assert summary["verify"] == {"accounts": 60, "cases": 18, "violations": 0}


@pytest.mark.parametrize("chosen", ["zh", "en"])
def test_the_demo_says_what_to_try_next(monkeypatch: pytest.MonkeyPatch, chosen: language.Language) -> None:
    """Whoever tries `submit` is asked for a code, and must know on which phone it is, whole and ready to copy."""
    told = last_words(monkeypatch, chosen)
    assert "curl -s http://127.0.0.1:30001/phones/20" in told
    assert "export JIEBANG_HOME='/some/where/else'" in told
    for command in ("jiebang check 21", "jiebang submit 20", "jiebang explain 30007", "jiebang verify"):
        assert command in told
