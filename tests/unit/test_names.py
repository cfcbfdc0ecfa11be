"""A name has one meaning: what the glossary promises of words, held for the classes of the product."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import jiebang

ROOT = Path(jiebang.__file__).parent


def test_a_class_name_has_one_meaning() -> None:
    """Two classes of one name in two rooms make an engineer read the wrong one; 33 names had two to four once."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) > 400
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_module_is_named_for_nothing() -> None:
    """In a module called helpers anything may stand, so nobody finds anything."""
    stems = {path.stem for path in ROOT.rglob("*.py")}
    assert not stems & {"utils", "common", "helpers", "manager", "misc"}
