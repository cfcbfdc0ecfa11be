"""docs/images/rooms.svg is drawn from the imports."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_is_as_new_as_the_imports() -> None:
    """A newcomer would otherwise look for things in rooms that are not there. Run docs/draw_rooms.py."""
    spec = importlib.util.spec_from_file_location("draw_rooms", DOCS / "draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert (DOCS / "images" / "rooms.svg").read_text(encoding="utf-8") == drawing.picture()
