"""A process of a simulated world: a generator whose every `yield` is a wait, in which others act and its host may die.

What a real process awaits, a simulated one yields.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sim.world import World

Steps = Generator[int, None, Any]
"""Yields milliseconds to wait."""


class Host(Protocol):
    """Where a process runs: it dies with the host's life and stands still while the host does."""

    life: int
    stalled_until: int


class Process:
    """Runs `steps` on `host` from now on."""

    __slots__ = ("_host", "_life", "_steps", "_turn", "_world")

    def __init__(self, world: World, host: Host, steps: Steps) -> None:
        """Start at once."""
        self._world, self._host, self._life, self._steps, self._turn = world, host, host.life, steps, 0
        self._go(0)

    def wake(self) -> None:
        """Cut the present wait short."""
        self._world.after(0, self._go, self._turn)

    def _go(self, turn: int) -> None:
        if turn != self._turn:
            return
        world, host = self._world, self._host
        if host.life != self._life:
            self._steps.close()
            return
        self._turn += 1
        wait = host.stalled_until - world.now
        if wait <= 0:
            before, world.running = world.running, self
            try:
                wait = next(self._steps)
            except StopIteration:
                return
            finally:
                world.running = before
        world.after(wait, self._go, self._turn)
