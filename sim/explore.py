"""Walk every interleaving of a small world, breadth first, so that the first violation has the shortest story.

The default world: one account, two consecutive cases, three participants of which the wallet is last, and any two
faults out of: sends lost or the worker dying between its save and any part of its sends, a Try refused, a Confirm or
Cancel answered with an error, a transfer at the wallet, a fact that changes elsewhere, a withdrawal, a deadline (or
the expiry of an open case).
Losing a reply, or never delivering a message, costs no fault: nothing forces a delivery.

What is abstracted, and why that loses nothing:
- A message once sent stays: it may arrive now, later, often or never, and so may its reply. That is every delay,
  repetition and reordering at once.
- Time is an order of three moments: now, when an op is due again, the deadline. Waits, attempts and revisions are
  put back to the same values after each step, since only their order decides anything.
- There is one worker, whose copy of the case is the stored one, or the stored one without a wish to withdraw that
  was recorded since. Any other stale copy fails the guard on its revision and so does nothing (the random worlds
  cover the guard). A second worker that saved and then is slow to send is a message that arrives late.
- Reading facts is one moment: a change between reading and saving is the same as one right after saving.
- A round brings one reply, or two, or all that are under way; not every subset of them.
- Replies to a case that has ended are dropped (an ended case is deaf: tests/unit/test_coordinator.py).
- Reviews and facts that cannot be read are left to the random worlds.

Beside the judge's rules, each state must be able to reach the end without further faults: nothing can be stuck.
"""

from __future__ import annotations

from array import array
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import IllegalTransitionError
from sim.auditor import ViolationError
from sim.smallworld import Place, Said, Shape, SmallWorld
from sim.world import Parts

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT: Final = Shape(names=("identity", "unionpay", "wallet"), waves=(0, 0, 1), cases=2, faults=2)
SMALL: Final = Shape(names=("identity", "wallet"), waves=(0, 1), cases=2, faults=1)
"""The world that the test suite walks."""
REPORT_EVERY: Final = 5000


class Walk(msgspec.Struct, kw_only=True):
    """What a walk saw. `story` is the shortest way to `violation`."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    endings: Counter[str] = msgspec.field(default_factory=Counter)
    violation: str | None = None
    story: list[str] = msgspec.field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The walk as JSON."""
        return {**msgspec.structs.asdict(self), "endings": dict(self.endings), "seconds": round(self.seconds, 2)}


class _Graph:
    """The states seen, how each was first reached, and where each leads without a fault."""

    def __init__(self, start: Place) -> None:
        self.numbers: dict[Place, int] = {start: 0}
        self.places: list[Place] = [start]
        self.parents = array("l", [-1])
        self.said: list[Said] = [()]
        self.depths = array("l", [0])
        self.leads: list[array[int]] = []
        self.transitions = 0

    def reach(self, place: Place, parent: int, said: Said) -> int:
        number = self.numbers.get(place)
        if number is None:
            number = self.numbers[place] = len(self.places)
            self.places.append(place)
            self.parents.append(parent)
            self.said.append(said)
            self.depths.append(self.depths[parent] + 1)
        return number

    def story(self, number: int) -> list[Said]:
        """What happened on the way to a state."""
        told = []
        while number > 0:
            told.append(self.said[number])
            number = self.parents[number]
        return told[::-1]


def walk(shape: Shape, parts: Parts | None = None, progress: Callable[[int], Any] | None = None) -> Walk:
    """Walk all of `shape`. Stops at the first violation, told by the shortest story."""
    started = perf_counter()
    world = SmallWorld(shape, parts or Parts())
    graph, seen = _Graph(world.start()), Walk()
    at = 0
    try:
        while at < len(graph.places):
            _expand(world, graph, at)
            at += 1
            if progress is not None and at % REPORT_EVERY == 0:
                progress(at)
        _demand_endings(world, graph, seen)
    except (ViolationError, IllegalTransitionError) as broken:
        seen.violation = str(broken)
        last = " ".join(str(piece) for piece in world.shown_last)
        seen.story = seen.story or [*(world.say(said) for said in graph.story(at)), f"the judge is shown: {last}"]
    seen.states, seen.transitions = len(graph.places), graph.transitions
    seen.depth, seen.seconds = max(graph.depths), perf_counter() - started
    return seen


def _expand(world: SmallWorld, graph: _Graph, at: int) -> None:
    place = graph.places[at]
    leads = array("l")
    for said, reached in world.after(place):
        graph.transitions += 1
        if reached == place:
            continue
        number = graph.reach(reached, at, said)
        if reached.faults == place.faults:
            leads.append(number)
    graph.leads.append(leads)


def _demand_endings(world: SmallWorld, graph: _Graph, seen: Walk) -> None:
    """Every state must be able to come to rest without another fault."""
    rests = bytearray(len(graph.places))
    for number, place in enumerate(graph.places):
        if world.at_rest(place):
            rests[number] = 1
            seen.endings[world.ending(place)] += 1
    changed = True
    while changed:
        changed = False
        for number in range(len(rests) - 1, -1, -1):
            if not rests[number] and any(rests[lead] for lead in graph.leads[number]):
                rests[number], changed = 1, True
    stuck = rests.find(0)
    if stuck >= 0:
        seen.story = [world.say(said) for said in graph.story(stuck)]
        message = f"from here no end can be reached: {world.told(graph.places[stuck])}"
        raise ViolationError(message)
