"""A participant is declared in its folder, and known nowhere else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

import pytest

import jiebang
from jiebang.participants import PARTICIPANTS

ROOT: Final = Path(jiebang.__file__).parent
COPIES: Final = sorted(
    name for declared in PARTICIPANTS.declarations if len(declared.databases) > 1 for name in declared.databases
)


@pytest.mark.parametrize("name", COPIES)
def test_who_keeps_a_copy_is_said_once(name: str) -> None:
    """A third data centre must be one line, not a search through the house."""
    folder = Path(str(importlib.import_module(PARTICIPANTS[name].package).__file__)).parent
    where = [
        path.relative_to(ROOT).as_posix()
        for path in sorted([*ROOT.rglob("*.py"), *ROOT.rglob("*.sql")])
        if folder not in path.parents and re.search(rf"\b{name}\b", path.read_text("utf-8"))
    ]
    assert where == []


@pytest.mark.parametrize("owner", [declared.owner for declared in PARTICIPANTS.declarations if declared.databases])
def test_a_database_participant_is_one_folder(owner: str) -> None:
    """Whoever looks for something of a participant must find it in one place."""
    declared = PARTICIPANTS.of_owner(owner)
    assert declared is not None
    folder = ROOT / "participants" / owner
    assert declared.package == f"jiebang.participants.{owner}"
    assert declared.facts_sql == (folder / "facts.sql").read_text("utf-8")
    assert (folder / "migrations" / "0001_init.sql").is_file()


@pytest.mark.parametrize("name", PARTICIPANTS.databases)
def test_an_operation_undoes_what_it_tries(name: str) -> None:
    """A column that a Try writes and no Cancel knows of would stay as it is when a case is rolled back."""
    for operation in PARTICIPANTS[name].operations.values():
        assert operation.on_try.keys() <= operation.on_cancel.keys()
