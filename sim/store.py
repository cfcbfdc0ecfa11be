"""The simulated store: saved cases behind the same guard as the real one, and what must survive a crash."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import LIVE, WITHDRAWABLE, Case, Kind, State

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.model.plan import Plan

Key = tuple[int, int]


class Store:
    """Cases by key. A save needs the revision it was decided on, and never commits over a recorded wish."""

    def __init__(self) -> None:
        """Start empty."""
        self.cases: dict[Key, Case] = {}
        self.numbers: dict[int, int] = {}
        self.moves: Counter[tuple[str, str]] = Counter()

    def live(self, account: int) -> bool:
        """Whether the account has a case that has not ended."""
        last = self.cases.get((account, self.numbers.get(account, 0)))
        return last is not None and last.state in LIVE

    def create(self, account: int, plan: Plan, kind: Kind, now: datetime, due_at: datetime | None) -> Case | None:
        """Open the account's next case; None while another one lives."""
        if self.live(account):
            return None
        number = self.numbers[account] = self.numbers.get(account, 0) + 1
        case = Case(
            account_id=account,
            case_no=number,
            kind=kind,
            state=State.OPEN,
            plan=plan.name,
            marks="." * len(plan.participants),
            revision=1,
            created_at=now,
            due_at=due_at,
        )
        self.cases[case.key] = case
        return case

    def save(self, after: Case) -> Case | None:
        """Save `after` if nobody else saved since it was decided; return the row as stored, None if the guard failed.

        The guard: `revision` matches and not (new state is confirming and a wish to withdraw is recorded). A wish is
        never overwritten by a save.
        """
        held = self.cases[after.key]
        if not self.admits(held, after):
            return None
        if held.withdraw_at is not after.withdraw_at:
            after = msgspec.structs.replace(after, withdraw_at=held.withdraw_at)
        self.moves[held.state, after.state] += 1
        self.cases[after.key] = after
        return after

    def admits(self, held: Case, after: Case) -> bool:
        """The guard itself."""
        if held.revision != after.revision - 1:
            return False
        return not (after.state is State.CONFIRMING and held.withdraw_at is not None)

    def withdraw(self, key: Key, now: datetime) -> Case | None:
        """Record a wish to withdraw and make the case due; None when it is too late."""
        held = self.cases[key]
        if held.state not in WITHDRAWABLE:
            return None
        due = held.due_at if held.state is State.CANCELLING else now
        self.cases[key] = msgspec.structs.replace(held, withdraw_at=held.withdraw_at or now, due_at=due)
        return self.cases[key]
