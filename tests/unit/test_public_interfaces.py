"""The interfaces that docs/participants-sdk.md calls public: there, and documented where they are defined."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "participants-sdk.md"
ROWS = re.findall(r"^\| `(jiebang\.[\w.]+)` \| (.+) \|$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
NAMES = [(module, name) for module, row in ROWS for name in re.findall(r"`(\w+)`", row)]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda each: each)
def test_a_public_name_is_there_and_documented(module: str, name: str) -> None:
    """A team that writes against the page would find nothing, or nothing said."""
    found = getattr(import_module(module), name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert inspect.getdoc(found), "no docstring"
        for method, each in inspect.getmembers(found, inspect.isfunction):
            if not method.startswith("_") and each.__module__.startswith("jiebang"):
                assert inspect.getdoc(each), f"{method} has no docstring"


def test_the_page_lists_interfaces() -> None:
    assert len(NAMES) > 20
    for module, _ in ROWS:
        assert import_module(module).__doc__


def test_what_the_page_imports_can_be_imported() -> None:
    """The first thing that is copied."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    exec(compile(block, PAGE.name, "exec"), {})  # noqa: S102 - our own page
