"""What a driver of a batch requests from its runner (`saga.driver`), one type a request, and what it is sent back."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from jiebang.model.case import Case, Key, Kind
from jiebang.model.plan import Plan
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Op
from jiebang.saga.orders import Answers, Orders

PlanKey = tuple[str, Kind]
"""Identifies the plan that a case follows: its pack version (as in `wechat/2`) and kind."""
CallKey = tuple[str, Op, PlanKey]
"""Identifies a call of a round: participant, op and plan."""


class CaseLoad(msgspec.Struct, frozen=True):
    """Load cases from the store. Result: those that exist, by key."""

    keys: frozenset[Key]


class PlanLookup(msgspec.Struct, frozen=True):
    """Find the plans that cases follow. `cases`: one case for each plan. Result: plans by the same keys."""

    cases: Mapping[PlanKey, Case]


class FactsRecheck(msgspec.Struct, frozen=True):
    """Check cases in `ready` on fresh facts. Result: `Rechecked` by key, without cases that cannot be checked now."""

    cases: Sequence[Case]


class GroupSave(msgspec.Struct, frozen=True):
    """Save groups in one statement. Result: a SaveOutcome, or SaveRefused where the store refused it as a whole."""

    saves: Sequence[Save]


class SaveRefusal(msgspec.Struct, frozen=True):
    """The store refused a save as a whole because of the data of one of its cases. Nothing was stored."""

    error: Exception


class ParticipantCall(msgspec.Struct, frozen=True):
    """One op for a batch at one participant; all of its cases follow `plan`."""

    participant: str
    op: Op
    orders: Orders
    plan: Plan

    def halves(self) -> tuple[ParticipantCall, ParticipantCall] | None:
        """Return the halves to make after the call failed as a whole; None for one case, which counts as silence."""
        half = len(self.orders) // 2
        if not half:
            return None
        first, second = self.orders.part(0, half), self.orders.part(half, None)
        return msgspec.structs.replace(self, orders=first), msgspec.structs.replace(self, orders=second)


class Round(msgspec.Struct, frozen=True):
    """Make calls, all at once, and gather answers until the round closes. Result: RoundAnswers.

    It closes when all have answered, when a late reply to one of `keys` has arrived, or after the runner's limit.
    """

    keys: frozenset[Key]
    calls: Sequence[ParticipantCall]


class RoundAnswers(msgspec.Struct, frozen=True):
    """The result of a round. `answers`: by call, in order; several where it was halved, none where none came in time.

    `late`: replies to cases of the batch that belong to earlier rounds.
    """

    answers: Sequence[Sequence[Answers]]
    late: Sequence[Reply] = ()


class Postponement(msgspec.Struct, frozen=True):
    """Make cases due only after `wait`: driving them failed (`why`, `error`), and nothing was decided. Result: None."""

    keys: Sequence[Key]
    wait: timedelta
    why: str
    error: Exception
    case: Case | None = None


Need = CaseLoad | PlanLookup | FactsRecheck | GroupSave | Round | Postponement
T = TypeVar("T")
DriverCourse = Generator[Need, tuple[datetime, Any], T]
"""A generator that yields requests and is sent (now, result) for each."""

NOT_DRIVEN: Final = "case_not_driven"
SAVE_REFUSED: Final = "save_refused"
