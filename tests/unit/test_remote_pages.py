"""The page on remote participants exists in both languages, and both say the same."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def parts(name: str) -> tuple[list[str], list[str], list[int]]:
    """Levels of the headings, blocks of code without their comments, and rows of each table."""
    text = (DOCS / name).read_text(encoding="utf-8")
    blocks = [
        re.sub(r" *#.*", "", block) for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    tables = [table.count("\n") for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE)]
    return re.findall(r"^(#+) ", prose, re.MULTILINE), blocks, tables


def test_both_languages_tell_the_same() -> None:
    """An operator who reads the one must not lack a setting or a rule that stands in the other."""
    assert parts("remote-participants.md") == parts("remote-participants.zh-CN.md")
