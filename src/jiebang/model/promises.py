"""Promises: what a consequence tells a person, what keeps it (its keeper), and how that is observed (its probe).

A pack names the keepers of each consequence, as `effect: [wallet.receive_limit_fen]`: a type of keeper, and what of it.
Participants declare their probes (`Declaration.probes`); the platform's own are those of `PLATFORM_KEEPERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.facts import PLATFORM

EFFECT: Final = "effect"
"""The type of keepers that are effects of an operation: a plan gives each its value."""
NOTICE: Final = "notice"
"""The type of keepers that are notices to the person: the name of a message of the pack."""

KEEPER_TYPES: Final[Mapping[str, Text]] = {
    EFFECT: Text("操作的效果", "an effect of an operation"),
    "operation": Text("操作本身所写", "what an operation itself writes"),
    "children": Text("随纪元失效", "the death of an epoch's children"),
    "retention": Text("依法留存", "a retention"),
    "job": Text("有时限的作业", "a job with its limit"),
    "gate": Text("执行限制的闸口", "a gate that enforces it"),
    NOTICE: Text("给本人的通知", "a notice to the person"),
}
"""Every type of keeper, with its words. Another type is another entry, with probes that participants declare for it, or
that the platform has (`PLATFORM_KEEPERS`, `usecases.promises.platform_probes`)."""
DATA_KEY: Final = "data_key"
"""The keeper, of type `job` or `retention`, that is the key of a name: what destroys it, and what law keeps of it."""
PLATFORM_KEEPERS: Final[Mapping[str, frozenset[str] | None]] = {
    NOTICE: None,
    "job": frozenset({DATA_KEY}),
    "retention": frozenset({DATA_KEY}),
}
"""The keepers that the platform itself observes, by type; None: as a pack names them."""


class PromiseState(StrEnum):
    """What is known of a promise, the worst first.

    BROKEN: it is not so. UNKNOWN: whoever must answer did not, or nothing observes it. DUE: it is to come, until a
    time; past that time it is late. KEPT: it is so, or was for as long as it had to be. ENDED: a later case of the
    account has put something else in its place.
    """

    BROKEN = "broken"
    UNKNOWN = "unknown"
    DUE = "due"
    KEPT = "kept"
    ENDED = "ended"


WORST_FIRST: Final = tuple(PromiseState)


class Keeper(msgspec.Struct, frozen=True, order=True):
    """What keeps a promise: its type, whose it is (an owner, or PLATFORM), and its name there."""

    type: str
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.type}: {self.name if self.owner == PLATFORM else f'{self.owner}.{self.name}'}"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """How a participant's database observes a keeper: SQL expressions that hold for *every* account of such a case.

    They see the account's row `a`, the case `i` (`begun_at`, `ended_at`: when it was opened and ended), the plan's
    effects `e` and the time as `e.now`. `by`: the operations that make the promise; none: every one of them, since
    every Confirm raises the epoch. `of`: the effect without which there is no such promise (a keeper of type EFFECT:
    its own). `holds`: it is so. `due`: it is not so yet, but in time (None: it is so from the Confirm on). `since`:
    from when (None: the case's end). `until`: while due, until when; else how long it holds (None: no end is known).

    A probe is only asked of cases that are done and that no later case of the account has replaced at the participant.
    """

    holds: str
    by: tuple[str, ...] = ()
    of: str | None = None
    due: str | None = None
    since: str | None = None
    until: str | None = None


class Observation(msgspec.Struct, frozen=True):
    """What a probe says of one case. `since` of what is kept; `until`: as in Probe."""

    state: PromiseState
    since: datetime | None = None
    until: datetime | None = None

    def is_late(self, now: datetime) -> bool:
        """Whether it is due and should be so by now."""
        return self.state is PromiseState.DUE and self.until is not None and self.until < now


UNKNOWN: Final = Observation(PromiseState.UNKNOWN)


class ProbedCases(msgspec.Struct, frozen=True):
    """Cases that are done, in columns, sorted by account: one of each account. `begun`, `ended`: when."""

    accounts: Sequence[int]
    case_nos: Sequence[int]
    begun: Sequence[datetime]
    ended: Sequence[datetime]

    def __len__(self) -> int:
        return len(self.accounts)


def join_observations(observed: Sequence[Observation]) -> Observation:
    """Join what the keepers of one promise say: the worst counts; UNKNOWN where there are none.

    Kept since the last of them is, and for as long as the first; due until the last.
    """
    if not observed:
        return UNKNOWN
    state = min((each.state for each in observed), key=WORST_FIRST.index)
    same = [each for each in observed if each.state is state]
    times = [each.until for each in same if each.until is not None]
    return Observation(
        state,
        max((each.since for each in same if each.since is not None), default=None),
        None if not times else max(times) if state is PromiseState.DUE else min(times),
    )
