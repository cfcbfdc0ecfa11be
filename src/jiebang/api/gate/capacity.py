"""How much one API process takes on: the limits, the places for requests in hand, and the rates of callers.

A request that finds no place waits a moment in a short queue. Beyond that it is refused at once, with the time after
which a retry is worth while. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from datetime import timedelta
from enum import IntEnum
from math import ceil
from typing import Final

import msgspec

_PATIENCE_S: Final = 60
"""The longest Retry-After, in seconds."""
_STALE_S: Final = 5
_LEAST_NEW: Final = 8
"""Places that new work always has: a slow pace may only mean that there was little to do."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Technical limits of one API process. Rates are requests a second, bursts how many may come at once."""

    places: int = 256
    """Requests worked on at a time, at most."""
    within: timedelta = timedelta(seconds=1)
    """How long one may take while all places are: where they end more slowly, there are fewer places."""
    kept: int = 4
    """Of them, places that new work may not take; as many again that only a way out may (`Urgency`)."""
    line: int = 256
    """How many wait for a place, of each urgency."""
    wait: timedelta = timedelta(milliseconds=250)
    """How long they wait at most."""
    person_rate: int = 10
    person_burst: int = 40
    service_rate: int = 2_000
    service_burst: int = 4_000
    unproven_rate: int = 20
    """Requests of one address whose token is not known to be valid; those that prove to be are given back."""
    unproven_burst: int = 200
    backlog: int = 2_000
    """Cases overdue, at all workers together, from which on no new one is taken; from half of it on, a part is not."""
    overdue: timedelta = timedelta(seconds=2)
    """How long a case may be due before it counts as overdue."""
    backlog_every: timedelta = timedelta(seconds=1)
    """How often the backlog is read, at most."""
    headers_within: timedelta = timedelta(seconds=10)
    """How long a client may take to send a request's headers."""
    body_within: timedelta = timedelta(seconds=10)
    """How long a client may take to send a request's body."""
    bodies_per_address: int = 64
    """How many bodies of one address may be on their way at a time."""
    connections: int = 8_192
    connections_per_address: int = 1_024
    """Connections of one address; a trusted proxy, which stands for many people, has no such limit."""
    streams: int = 4_096
    """Event streams open at a time, at most; and of them one person's, one service's, and those of one address."""
    streams_per_person: int = 16
    streams_per_service: int = 2_048
    streams_per_address: int = 512


class Urgency(IntEnum):
    """How urgent a request is. Each urgency may take places that those below it may not."""

    NEW = 0  # asks for something new
    GOING_ON = 1  # goes on with what was begun, or reads
    WAY_OUT = 2  # withdraws, or takes one's own money out


class AdmissionClass(msgspec.Struct, frozen=True, kw_only=True):
    """How the gate treats the requests of a route. Each route declares its own (`opt={"admission": …}`)."""

    urgency: Urgency = Urgency.NEW
    always: bool = False
    """Admitted whatever else goes on: monitoring must work under overload."""
    opens_case: bool = False
    """Refused while the workers are behind."""


STRICTEST: Final = AdmissionClass(urgency=Urgency.NEW, opens_case=True)
"""Of what no route is declared for: unknown paths and methods, and a route that forgot to say."""
OPENS_CASE: Final = STRICTEST
ASKS_ANEW: Final = AdmissionClass(urgency=Urgency.NEW)
GOES_ON: Final = AdmissionClass(urgency=Urgency.GOING_ON)
LEAVES: Final = AdmissionClass(urgency=Urgency.WAY_OUT)
MONITORS: Final = AdmissionClass(urgency=Urgency.GOING_ON, always=True)


class AdmissionQueue:
    """Places for requests in hand, and the queue before them, the most urgent first.

    There are as many places as requests end in `within`, so an admitted request is answered by about then, however
    slow the machine is.
    """

    def __init__(self, capacity: Capacity, clock: Callable[[], float]) -> None:
        """`clock`: seconds, monotonic."""
        self._most, self._within_s = capacity.places, capacity.within.total_seconds()
        self._kept = min(capacity.kept, (capacity.places - 1) // 2)
        self._least = min(2 * self._kept + _LEAST_NEW, capacity.places)
        self._longest, self._wait_s = capacity.line, capacity.wait.total_seconds()
        self._lines: dict[Urgency, deque[asyncio.Future[bool]]] = {each: deque() for each in Urgency}
        self._clock = clock
        self._since, self._ended, self._sent_away = clock(), 0, 0.0
        self._pace = float(self._most)  # until it has been measured: a place a second
        self._ceilings = self._places()
        self.busy = 0

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return sum(map(len, self._lines.values()))

    async def enter(self, urgency: Urgency) -> bool:
        """Take a place, waiting for it if need be; False where none is free in time. True: the caller must `leave`."""
        self._measure()
        line = self._lines[urgency]
        if not line and self.busy < self._ceilings[urgency]:
            self.busy += 1
            return True
        if len(line) >= self._longest:
            return False
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        line.append(mine)
        timer = loop.call_later(self._wait_s, self._give_up, line, mine)
        try:
            return await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.result():
                self._let_in(-1)  # the place came, and the request went away, at the same time
            else:
                self._give_up(line, mine)
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give the place back to those who wait."""
        self._ended += 1
        self._let_in(-1)

    def _let_in(self, change: int) -> None:
        self.busy += change
        for urgency in reversed(Urgency):
            line = self._lines[urgency]
            while line and self.busy < self._ceilings[urgency]:
                first = line.popleft()
                if not first.done():  # else its request went away
                    self.busy += 1
                    first.set_result(True)

    @staticmethod
    def _give_up(line: deque[asyncio.Future[bool]], mine: asyncio.Future[bool]) -> None:
        if mine in line:
            line.remove(mine)
        if not mine.done():
            mine.set_result(False)

    def retry_after(self) -> int:
        """Return after how many seconds a request refused now may find a place.

        Counted as if all refused requests queued and the queue moved at the present pace, so that they do not all
        return at once.
        """
        self._measure()
        self._sent_away += 1
        return min(1 + int(self._sent_away / self._pace), _PATIENCE_S)

    def _measure(self) -> None:
        """Measure, once a second, how many requests end, and set the number of places accordingly."""
        now = self._clock()
        passed = now - self._since
        if passed < 1:
            return
        if passed < _STALE_S:  # else it was quiet meanwhile, which says nothing about the pace
            self._pace = max(self._ended / passed, 1.0)
        self._sent_away = max(self._sent_away - self._pace * passed, 0.0)
        self._since, self._ended = now, 0
        self._ceilings = self._places()

    def _places(self) -> dict[Urgency, int]:
        most = min(max(ceil(self._pace * self._within_s), self._least), self._most)
        return {Urgency.NEW: most - 2 * self._kept, Urgency.GOING_ON: most - self._kept, Urgency.WAY_OUT: most}


class Rates:
    """A token bucket for each caller: `rate` a second, `burst` at once. The most recent callers are kept."""

    def __init__(self, rate: int, burst: int, clock: Callable[[], float], *, most: int = 100_000) -> None:
        """`clock`: seconds, monotonic. A caller beyond `most` is forgotten, which gives them a full bucket."""
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, caller: Hashable) -> int:
        """Take one token; return 0, or after how many seconds there will be one."""
        left = self._now(caller)
        if left < 1:
            return ceil((1 - left) / self._rate)
        self._keep(caller, left - 1)
        return 0

    def give_back(self, caller: Hashable) -> None:
        """Give a token back."""
        self._keep(caller, min(self._now(caller) + 1, self._burst))

    def _now(self, caller: Hashable) -> float:
        left, at = self._left.get(caller, (float(self._burst), 0.0))
        return min(left + (self._clock() - at) * self._rate, self._burst)

    def _keep(self, caller: Hashable, left: float) -> None:
        self._left[caller] = (left, self._clock())
        self._left.move_to_end(caller)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
