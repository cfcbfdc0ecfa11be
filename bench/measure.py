"""What every comparison shares: rounds that take turns, medians, bars, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

SMOKING: Final = "BENCH_SMOKE"
"""Set in the environment under `--smoke`: nothing is measured, so what makes a measurement true may be left out."""


class Row(msgspec.Struct, omit_defaults=True):
    """One thing measured: the median over the rounds, and all of them."""

    name: str
    unit: str
    median: float
    rounds: list[float]
    note: str = ""


class Bar(msgspec.Struct, omit_defaults=True):
    """One bar: `value` against its limit. Exactly one of the two limits is set."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def held(self) -> bool:
        """Whether the value reaches its limit."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is not None and self.value <= self.at_most


class Result(msgspec.Struct):
    """What a comparison found."""

    rows: list[Row]
    bars: list[Bar]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(cpu) if line.startswith("model name")]
    memory = [line.split()[1] for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal")]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[0]) // 1024 if memory else None,
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def take_turns(
    rounds: int, contestants: Mapping[str, Callable[[], float]], between: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Run every contestant once a round, each round beginning with another one; return their figures by name.

    A contestant returns its own figure (of a rate, higher is better). `between` runs before each of them. One more
    round comes first and does not count.
    """
    names = list(contestants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            between()
            figure = contestants[name]()
            if number >= 0:
                figures[name].append(figure)
    return figures


def rate(amount: float, work: Callable[[], object]) -> float:
    """Run `work` and return `amount` a second."""
    start = time.perf_counter()
    work()
    return amount / (time.perf_counter() - start)


def row(name: str, unit: str, figures: list[float], note: str = "") -> Row:
    """Return a row with the median of its rounds."""
    return Row(name, unit, round(statistics.median(figures), 3), [round(figure, 3) for figure in figures], note)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of each round: a slow phase of the machine affects both."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
