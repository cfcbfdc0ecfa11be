"""Codes of administrative divisions (GB/T 2260): which provinces there are, and which codes were ever in force.

`gb2260.txt` beside this file holds every code that the yearly lists of 1980 to 2024 ever held, whatever became of it: a
document keeps the code of the place and day on which it was issued. Read once.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

CENTRAL: Final = "10"
"""In a credit code, in place of a province: registered with a body of the central government."""

_PROVINCE: Final = 2
_PREFECTURE: Final = 4


def is_province(code: str) -> bool:
    """Whether a code begins with a province on whose behalf resident numbers are issued."""
    return code[:_PROVINCE] in _provinces()


def is_listed_prefecture(code: str) -> bool:
    """Whether the first four digits of a code were ever those of a prefecture, or of what stands in place of one."""
    return code[:_PREFECTURE] in _listed()


def is_listed(code: str) -> bool:
    """Whether a code of six digits was ever in force."""
    return code[_PREFECTURE:] in _listed().get(code[:_PREFECTURE], ())


@cache
def _provinces() -> frozenset[str]:
    return frozenset(code[:_PROVINCE] for code in _listed() if code[0] != "8")  # 81 and 82 issue documents of their own


@cache
def _listed() -> dict[str, frozenset[str]]:
    """Read the table: the last two digits of the codes, by their first four."""
    text = resources.files(__name__).joinpath("gb2260.txt").read_text(encoding="utf-8")
    rows = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return {code: frozenset(_spread(ends)) for code, ends in rows}


def _spread(ends: str) -> list[str]:
    """Return two-digit numbers written as `00-01,21`."""
    found = list[str]()
    for part in ends.split(","):
        first, _, last = part.partition("-")
        found += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
    return found
