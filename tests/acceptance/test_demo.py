"""The demo, as a new user runs it: the main job end to end, with real servers, networks, phone, API and worker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.data_directory import remove

EVERYBODY = {*PARTICIPANTS.databases, *PARTICIPANTS.networks}


@pytest.fixture
def home(new_folder: Callable[[str], Path]) -> Iterator[Path]:
    folder = new_folder("demo")
    yield folder / "home"
    remove(folder / "home")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_four_stories_end_as_told_and_the_audit_finds_nothing(home: Path) -> None:
    """Else the first thing a new user sees of us is broken, and so is the main job."""
    ran = subprocess.run(
        [sys.executable, "-m", "jiebang", "demo", "--once", "--json", "--people", "60"],
        env={**os.environ, "JIEBANG_HOME": str(home), "JIEBANG_HTTP_PORT": "0", "LANG": "C.UTF-8"},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3_000:]
    summary = msgspec.json.decode(ran.stdout)
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
