"""What a state of a small world is made of: small values kept once, so that states compare as numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import Timing
from sim.options import WITHOUT_FACTS
from sim.parties import PartyRow

if TYPE_CHECKING:
    from collections.abc import Hashable

ACCOUNT: Final = 1
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DUE: Final = START + timedelta(seconds=1)
DEADLINE: Final = START + timedelta(seconds=10)
TIMING: Final = Timing(try_limit=DEADLINE - START)
REVISION: Final = 10
"""The revision of whatever is stored; a copy that a worker took before the last save has one less."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What one account of a small world is made of: who takes part in its cases, and how many it submits in turn."""

    parties: tuple[str, ...]
    waves: tuple[int, ...]
    cases: int
    withdrawals: bool = True
    reviews: bool = False
    every_subset: bool = False
    """Let workers hear every set of replies, not only those that can make a difference: a check of that claim."""

    def plan(self) -> Plan:
        """The plan that all its cases follow."""
        return Plan(name="small", participants=self.parties, waves=self.waves)

    def alike(self) -> tuple[tuple[int, ...], ...]:
        """Groups of positions that may change places: same wave, same sort of participant."""
        groups: dict[tuple[int, bool, bool], list[int]] = {}
        for at, (name, wave) in enumerate(zip(self.parties, self.waves, strict=True)):
            groups.setdefault((wave, name in WITHOUT_FACTS, name == WALLET), []).append(at)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """One small world: its accounts, one or two, and how many faults and transfers may happen in all (3 at most)."""

    name: str
    accounts: tuple[Shape, ...]
    faults: int
    transfers: int = 1


class Head(NamedTuple):
    """One account's cases as the store has them, marks aside. `state` is "" before the first case.

    `earlier`: how the cases before the last ended. `due`: the case wants a look. `promised`: a withdrawal was answered
    202; `moved`: money moved since the last proof was read: these two are what happened, whatever the store says.
    """

    earlier: tuple[str, ...] = ()
    state: str = ""
    wallet_version: int | None = None
    wished: bool = False
    due: bool = False
    promised: bool = False
    moved: bool = False

    @property
    def case_no(self) -> int:
        """The number of the last case, 0 before the first."""
        return len(self.earlier) + (self.state != "")


class Column(NamedTuple):
    """One participant of one account: its mark in the stored case, the version re-checked, its row, and messages.

    `net`: all ops ever sent to it; `replies`: its answers to ops of the last case, which may still be heard. Both are
    sets of bits (see `Words`).
    """

    mark: str = "."
    version: int = 0
    row: PartyRow = PartyRow()
    net: int = 0
    replies: int = 0


class Message(NamedTuple):
    """An op under way to a participant."""

    case_no: int
    op: str
    version: int | None


class Said(NamedTuple):
    """An answer under way to a worker."""

    op: str
    answer: str


class Kept:
    """Values kept once each, by number."""

    def __init__(self, *first: Hashable) -> None:
        """Start with `first` as number 0 and on."""
        self.values: list[Any] = list(first)
        self.numbers: dict[Hashable, int] = {value: number for number, value in enumerate(first)}

    def number(self, value: Hashable) -> int:
        """The number of `value`, a new one if it has none yet."""
        number = self.numbers.get(value)
        if number is None:
            number = self.numbers[value] = len(self.values)
            self.values.append(value)
        return number


class Words:
    """What the bits of `net` and `replies` stand for."""

    def __init__(self) -> None:
        """Start without words."""
        self._messages, self._answers = Kept(), Kept()
        self._sets: dict[tuple[bool, int], tuple[Any, ...]] = {}

    def message(self, message: Message) -> int:
        """The bit of a message."""
        return 1 << self._messages.number(message)

    def answer(self, said: Said) -> int:
        """The bit of an answer."""
        return 1 << self._answers.number(said)

    def messages(self, net: int) -> tuple[Message, ...]:
        """The messages in a set."""
        return self._members(self._messages, net, sort=False)

    def answers(self, replies: int) -> tuple[Said, ...]:
        """The answers in a set."""
        return self._members(self._answers, replies, sort=True)

    def _members(self, kept: Kept, members: int, *, sort: bool) -> tuple[Any, ...]:
        found = self._sets.get((sort, members))
        if found is None:
            found = tuple(kept.values[at] for at in range(members.bit_length()) if members >> at & 1)
            self._sets[sort, members] = found
        return found
