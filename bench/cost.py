"""What work costs: seconds, and CPU seconds of our own process, PostgreSQL, the networks and the whole machine."""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_FIRST_OF_STAT: Final = 11
"""Of the fields of /proc/PID/stat after the name: utime, stime, cutime and cstime begin here."""


class Cpu(msgspec.Struct, frozen=True):
    """CPU seconds: of our own Python process, of PostgreSQL's, of the sandbox's, and of the whole machine."""

    python: float
    postgres: float
    networks: float
    machine: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(*(a - b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)))

    @property
    def others(self) -> float:
        """CPU seconds of all other processes of this machine."""
        return self.machine - self.python - self.postgres - self.networks


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one way made of `cases`: seconds, CPU seconds, and milliseconds from taken to ended of each case."""

    cases: int
    seconds: float
    cpu: Cpu
    latencies: list[float] = msgspec.field(default_factory=list)

    @property
    def rate(self) -> float:
        """Cases a second."""
        return self.cases / self.seconds

    def percentile(self, percent: int) -> float:
        """Return a percentile of the latencies, milliseconds."""
        known = self.latencies * 2 if len(self.latencies) == 1 else self.latencies
        return statistics.quantiles(known, n=100, method="inclusive")[percent - 1]


class Metered(Protocol):
    """Something that reports its cost so far: `bench.world.World`."""

    def cpu(self) -> Cpu:
        """Return the CPU seconds so far."""


class Meter:
    """Seconds and CPU from here to `read`."""

    def __init__(self, world: Metered) -> None:
        self._world = world
        self._cpu, self._started = world.cpu(), perf_counter()

    def read(self, cases: int, latencies: Sequence[float] = ()) -> Outcome:
        """Return what has passed since."""
        seconds = perf_counter() - self._started
        return Outcome(cases=cases, seconds=seconds, cpu=self._world.cpu() - self._cpu, latencies=list(latencies))


def cpu_of(servers: frozenset[int], networks: frozenset[int]) -> Cpu:
    """Return the CPU seconds so far, of this process and of those with these ids, their children included."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Cpu(own.ru_utime + own.ru_stime, _of_trees(servers), _of_trees(networks), _machine())


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name; none where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _seconds(stat: list[str]) -> float:
    """CPU seconds of a process and of its children that have ended."""
    return sum(int(field) for field in stat[_FIRST_OF_STAT : _FIRST_OF_STAT + 4]) / _TICKS


def _of_trees(roots: frozenset[int]) -> float:
    """CPU seconds of processes and their children, those that have ended included."""
    found = 0.0
    for entry in Path("/proc").iterdir() if roots else ():
        if (
            entry.name.isdigit()
            and (stat := _stat(int(entry.name)))
            and not roots.isdisjoint((int(entry.name), int(stat[1])))
        ):
            found += _seconds(stat)
    return found


def _machine() -> float:
    """CPU seconds that the whole machine has worked (user, nice, system, irq, softirq)."""
    try:
        fields = Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:]
    except OSError:
        return 0.0
    return sum(int(fields[at]) for at in (0, 1, 2, 5, 6)) / _TICKS
