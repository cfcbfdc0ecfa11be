"""Floors and bounds of a pack's numbers: what no policy may go below or beyond, whoever agreed to it.

A number that falls short keeps a pack from being added or activated. Of a version that an earlier jiebang admitted, the
numbers of proofs are held at their bound instead (`hold`), so that the cases that follow it go on, and protected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.participants import Weaker
from jiebang.policy.shape import Unit

MOST_DAYS: Final = 36_525
"""A hundred years: no period of policy is longer, so that every time it leads to can be computed and read."""
_DAY: Final = 86_400
_SQL_INTEGER: Final = (1 << 31) - 1

UNIT_BOUNDS: Final[Mapping[Unit, tuple[int, int]]] = {
    Unit.FEN: (0, (1 << 53) - 1),
    Unit.COUNT: (0, _SQL_INTEGER),
    Unit.DIGITS: (1, 10),
    Unit.SECONDS: (0, MOST_DAYS * 86_400),
    Unit.MINUTES: (0, MOST_DAYS * 1_440),
    Unit.HOURS: (0, MOST_DAYS * 24),
    Unit.DAYS: (0, MOST_DAYS),
    Unit.WORKING_DAYS: (0, MOST_DAYS),
    Unit.MONTHS: (0, 1_200),
    Unit.YEARS: (0, 100),
}
"""The least and the most of a parameter, by its unit."""


class ProofBound(msgspec.Struct, frozen=True):
    """The bounds of one number of `proofs`: a count, or seconds. `weaker`: which change protects people less."""

    least: int
    most: int
    weaker: Weaker
    seconds: bool = False


PROOF_BOUNDS: Final[Mapping[str, ProofBound]] = {
    "case_lives": ProofBound(300, 31 * _DAY, Weaker.MORE, seconds=True),
    "code_digits": ProofBound(6, 10, Weaker.LESS),
    "code_lives": ProofBound(30, 900, Weaker.MORE, seconds=True),
    "code_pause": ProofBound(10, 3_600, Weaker.LESS, seconds=True),
    "tries": ProofBound(1, 10, Weaker.MORE),
    "tries_a_day": ProofBound(1, 30, Weaker.MORE),
    "tries_window": ProofBound(_DAY, 31 * _DAY, Weaker.LESS, seconds=True),
}
"""The bounds of each number of `proofs`. The database's columns hold whatever lies within."""

OWN_METHODS: Final = frozenset({"payment_password"})
"""The methods that only the person has: every kind asks for one (a biometric, once there is one, is another)."""
MOST_CHANGES: Final = 1_000
"""Most identity changes that a quota may allow a document in a year."""


def hold(name: str, value: int) -> tuple[int, Text | None]:
    """Return a number of proofs held within its bounds, and what was wrong with it (None: nothing)."""
    bound = PROOF_BOUNDS[name]
    held = min(max(value, bound.least), bound.most)
    if held == value:
        return value, None
    least, most = describe_number(name, bound.least), describe_number(name, bound.most)
    return held, Text(f"“{name}”须为 {least.zh} 至 {most.zh}", f"`{name}` must be {least.en} to {most.en}")


def describe_number(name: str, value: int) -> Text:
    """Return a number of proofs as it is read: a length of time in its largest whole unit."""
    return describe_duration(value) if PROOF_BOUNDS[name].seconds else Text(str(value), str(value))


def describe_duration(value: int) -> Text:
    """Return a length of time, given in seconds, in its largest whole unit."""
    for size, zh, en in ((_DAY, "天", "days"), (3_600, "小时", "hours"), (60, "分钟", "minutes")):
        if value >= size and value % size == 0:
            return Text(f"{value // size} {zh}", f"{value // size} {en if value > size else en[:-1]}")
    return Text(f"{value} 秒", f"{value} seconds")
