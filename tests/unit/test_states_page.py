"""docs/states.md is drawn from the state table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_as_new_as_the_table() -> None:
    """A reader would otherwise plan with transitions that the code refuses. Run docs/make_state_diagram.py."""
    spec = importlib.util.spec_from_file_location("make_state_diagram", DOCS / "make_state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert (DOCS / "states.md").read_text(encoding="utf-8") == drawing.page()
