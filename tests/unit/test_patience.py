"""Every other test: on a busy machine, beside a running demo, in whatever order, it says the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from jiebang.settings import HttpSettings
from tests.patience import PATIENCE_S

TESTS = Path(__file__).parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if "chaos" not in path.parts)
WAITS = {"timeout": 0, "wait_for": 1}
"""Calls of asyncio that give up, and which argument says when."""


def _limits(tree: ast.AST) -> list[tuple[int, float]]:
    """Return each number of seconds that a test gives up after: where, and how many."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name in WAITS and len(call.args) > WAITS[name]:
            limit = call.args[WAITS[name]]
            if isinstance(limit, ast.Constant) and isinstance(limit.value, int | float):
                found.append((call.lineno, limit.value))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_gives_up_before_its_time(path: Path) -> None:
    """A limit that an idle machine keeps fails for somebody on every busy one: they wait `PATIENCE_S`."""
    assert [at for at in _limits(ast.parse(path.read_text("utf-8"))) if at[1] < PATIENCE_S] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_names_a_port_of_the_product(path: Path) -> None:
    """`make test` failed while `make demo` was up: whatever a test starts listens where the system says."""
    assert not re.search(rf"\b{HttpSettings().port}\b", path.read_text("utf-8"))
