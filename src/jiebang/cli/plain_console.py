"""The terminal as the commands write to it: whatever is printed, nothing in it acts on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment

from jiebang.model.plain import make_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType


class PlainConsole(Console):
    """A console that shows acting characters of texts as pictures; its own control codes are its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, each piece of text made plain."""
        for segment in super().render(renderable, options):
            plain = segment.text if segment.control else make_plain(segment.text)
            yield segment if plain is segment.text else Segment(plain, segment.style, segment.control)
