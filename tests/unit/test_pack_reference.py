"""docs/pack-reference.md is written from the schema, the language of conditions and the declarations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from jiebang.participants import PARTICIPANTS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def writing() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("write_pack_reference", DOCS / "write_pack_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_as_new_as_what_it_describes(writing: ModuleType) -> None:
    """An officer writes what stands there and is refused, or never learns of a fact that a rule could use.

    Run docs/write_pack_reference.py.
    """
    assert (DOCS / "pack-reference.md").read_text(encoding="utf-8") == writing.page()


def test_the_reference_names_every_fact_and_every_effect(writing: ModuleType) -> None:
    """Whatever the tables are made of: what a pack may name stands in them."""
    page = writing.page()
    effects = {
        effect for each in PARTICIPANTS.declarations for one in each.operations.values() for effect in one.effects or ()
    }
    assert [name for name in (*PARTICIPANTS.facts, *effects, *PARTICIPANTS.databases) if f"`{name}`" not in page] == []
