"""Draws docs/states.md from the state table in `jiebang.model.case`, so that the picture cannot lie.

Run `python docs/make_state_diagram.py`; a test fails when the page is older than the table.
"""

from __future__ import annotations

from pathlib import Path

from jiebang.model.case import ENDED, MARKS_OF, TRANSITIONS, Mark, State

_HEAD = """# States of a case

Drawn from `src/jiebang/model/case.py` by `docs/make_state_diagram.py`; do not edit. `confirming` is the commit point.

```mermaid
stateDiagram-v2
"""


def page() -> str:
    """Return the page as Markdown."""
    lines = [f"    [*] --> {State.OPEN}"]
    for before, after in TRANSITIONS.items():
        lines += [f"    {before} --> {state}" for state in State if state in after]
        if before in ENDED:
            lines.append(f"    {before} --> [*]")
    marks = ["", "## Marks", "", "What a participant of a case was sent and answered is one letter.", ""]
    marks += ["| mark | meaning |", "|---|---|"]
    marks += [f"| `{mark.value}` | {mark.name.lower().replace('_', ' ')} |" for mark in Mark]
    marks += ["", "| state | marks it may carry |", "|---|---|"]
    marks += [f"| `{state}` | `{allowed}` |" for state, allowed in MARKS_OF.items()]
    return _HEAD + "\n".join(lines) + "\n```\n" + "\n".join(marks) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("states.md").write_text(page(), encoding="utf-8")
