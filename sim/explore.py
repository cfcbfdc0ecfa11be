"""Walk every interleaving of small worlds, breadth first, so that the first violation has the shortest story.

One world is one or two accounts under its `Bounds`, with the real `step`, the real fence and the real guard.
The steps of an account are worked out once for each of its states (sim/account.py and sim/turns.py, which say what is
abstracted and why that loses nothing); here accounts are put side by side with the transfers between them.

- Faults and transfers are counted for the whole world. A place that was reached with more of both left to happen has
  been seen already.
- Two accounts with equally many cases may change places.
- A transfer writes an entry at the sender, then at the receiver when it is not busy (or returns where that is closed),
  and then ends both entries in either order; that is wider than the wallet of ours, which writes both at once. With one
  account the other side is somebody without a case, who is never busy and never closed: an account cannot tell.

Every state is judged by `sim.properties`, and two things make sure that nobody is stranded (P9): without another fault
or transfer, no sequence of steps ever comes back to where it was; and wherever something has not ended, something is
due that happens by itself. So every path on which what is due happens comes to an end.
"""

from __future__ import annotations

import gc
from array import array
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.case import IllegalTransitionError
from sim.evidence import ViolationError
from sim.places import BUDGET_BITS, World
from sim.properties import broken
from sim.world import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.account import Account
    from sim.states import Bounds
    from sim.turns import Habits

REPORT_EVERY: Final = 20_000
DOMINATED: Final = tuple(
    sum(1 << other for other in range(16) if other // 4 >= budget // 4 and other % 4 >= budget % 4)
    for budget in range(16)
)
"""By what is left (faults * 4 + transfers): all that leave as much or more, as bits."""


class Walk(msgspec.Struct, kw_only=True):
    """What a walk saw. `story` is the shortest way to `violation`."""

    name: str
    states: int = 0
    account_states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    endings: Counter[str] = msgspec.field(default_factory=Counter)
    moves: list[str] = msgspec.field(default_factory=list)
    cells: list[str] = msgspec.field(default_factory=list)
    violation: str | None = None
    story: list[str] = msgspec.field(default_factory=list)


def walk(
    bounds: Bounds,
    parts: Parts | None = None,
    progress: Callable[[int], Any] | None = None,
    habits: Habits | None = None,
) -> Walk:
    """Walk all of one world. Stops at the first violation, told by the shortest story."""
    started, seen = perf_counter(), Walk(name=bounds.name)
    world = World(bounds, parts or Parts(), habits)
    gc.disable()  # millions of small tuples, none in a cycle
    try:
        places = _places(world, seen, progress)
        seen.endings.update(world.ending(place) for place in places if world.at_rest(place))
    finally:
        gc.enable()
    seen.states = len(places)
    seen.account_states = sum(len(local.states) for local in set(world.locals))
    engines = [local.accounts for local in world.locals]
    seen.moves = sorted({f"{before} → {after}" for one in engines for before, after in one.turns.moves})
    seen.cells = sorted({f"{op} at {place} {row}" for one in engines for op, place, row in one.cells})
    seen.seconds = perf_counter() - started
    return seen


def _places(world: World, seen: Walk, progress: Callable[[int], Any] | None) -> list[int]:
    """Reach every place, breadth first; on a violation, tell it in `seen` and stop."""
    places, parents, depths = [world.start()], array("q", [-1]), array("l", [0])
    reached = {places[0] >> BUDGET_BITS: 1 << (places[0] & 15)}
    at = 0
    try:
        while at < len(places):
            depth = depths[at] + 1
            for place in world.after(places[at]):
                seen.transitions += 1
                here, left = place >> BUDGET_BITS, place & 15
                before = reached.get(here, 0)
                if not before & DOMINATED[left]:
                    reached[here] = before | 1 << left
                    places.append(place)
                    parents.append(at)
                    depths.append(depth)
            at += 1
            if progress is not None and at % REPORT_EVERY == 0:
                progress(at)
        at = _comes_back(world, places)
        if at >= 0:
            broken(f"P9: without another fault this may come again for ever: {world.say(places[at])}")
    except (ViolationError, IllegalTransitionError) as wrong:
        seen.violation, path = str(wrong), []
        while at >= 0:
            path.append(places[at])
            at = parents[at]
        seen.story = _story(world, path[::-1])
    seen.depth = max(depths)
    return places


def _comes_back(world: World, places: list[int]) -> int:
    """A place that one can come back to without another fault; -1 if there is none."""
    for at, local in enumerate(world.locals):
        number = local.cycle()
        if number >= 0:
            return next(index for index, place in enumerate(places) if world.read(place)[0][at] == number)
    return -1


def _story(world: World, path: list[int]) -> list[str]:
    """What happened on the way through `path`, everybody keeping their names."""
    now, transfer = [local.accounts.start() for local in world.locals], 0
    budget = world.read(path[0])[2]
    told = []
    for place in path[1:]:
        for what, accounts, going, left in _ways(world, now, transfer, budget):
            if world.place(_numbers(world, accounts), going, left) == place:
                told.append(what)
                now, transfer, budget = accounts, going, left
                break
        else:
            told.append(f"… {world.say(place)}")
    return told


def _ways(
    world: World, now: list[Account], transfer: int, budget: int
) -> Iterator[tuple[str, list[Account], int, int]]:
    """Every step from here, told."""
    for at, local in enumerate(world.locals):
        whose = f"account {at + 1}: " if len(now) > 1 else ""
        for step in local.accounts.steps(now[at], budget >> 2):
            after = [*now[:at], step.after, *now[at + 1 :]]
            yield whose + local.accounts.name(step.told), after, transfer, budget - step.cost * 4
    numbers = _numbers(world, now)
    for told, reached, going, left in world.money(numbers, transfer, budget):
        moved = [
            one if number == before else _moved(world, at, one, number)
            for at, (one, before, number) in enumerate(zip(now, numbers, reached, strict=True))
        ]
        yield told, moved, going, left


def _numbers(world: World, now: list[Account]) -> list[int]:
    return [local.number(local.accounts.sorted(one)) for local, one in zip(world.locals, now, strict=True)]


def _moved(world: World, at: int, account: Account, number: int) -> Account:
    """The account after an entry was opened or ended, its participants keeping their names."""
    local = world.locals[at]
    for entries in (1, -1):
        after = local.accounts.moved(account, entries)
        if after is not None and local.numbers.get(local.accounts.sorted(after)) == number:
            return after
    return local.states[number]
