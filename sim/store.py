"""The simulated store: saved cases behind the same guard as the real one, leases, and what survives a crash."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import LIVE, WITHDRAWABLE, Case, Kind, State, bucket_of
from jiebang.saga.leases import choose_buckets

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime, timedelta

    from jiebang.model.plan import Plan

Key = tuple[int, int]


class Store:
    """Cases by key. A save needs the revision it was decided on, and never commits over a recorded wish."""

    def __init__(self) -> None:
        """Start empty."""
        self.cases: dict[Key, Case] = {}
        self.numbers: dict[int, int] = {}
        self.leases: dict[int, tuple[str, datetime]] = {}
        self.workers: dict[str, datetime] = {}
        self._held: dict[str, frozenset[int]] = {}
        self.moves: Counter[tuple[str, str]] = Counter()

    def live(self, account: int) -> bool:
        """Whether the account has a case that has not ended."""
        return any(case.state in LIVE for key, case in self.cases.items() if key[0] == account)

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

    def due(self, buckets: Collection[int], now: datetime) -> list[Case]:
        """The cases of these buckets that are due, the oldest first."""
        found = [
            case
            for case in self.cases.values()
            if case.due_at is not None and case.due_at <= now and bucket_of(case.account_id) in buckets
        ]
        return sorted(found, key=_due_first)

    def save(self, after: Case) -> Case | None:
        """Save `after` if nobody else saved since it was decided; return the row as stored, None if the guard failed.

        The guard: `revision` matches and not (new state is confirming and a wish to withdraw is recorded). A wish is
        never overwritten by a save.
        """
        held = self.cases.get(after.key)
        if held is None or not self.admits(held, after):
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

    def put_off(self, key: Key, due_at: datetime) -> None:
        """Have a case that cannot be stepped wait."""
        held = self.cases.get(key)
        if held is not None and held.due_at is not None:
            self.cases[key] = msgspec.structs.replace(held, due_at=due_at)

    def withdraw(self, key: Key, now: datetime) -> Case | None:
        """Record a wish to withdraw and make the case due; None when it is too late."""
        held = self.cases[key]
        if held.state not in WITHDRAWABLE:
            return None
        due = held.due_at if held.state is State.CANCELLING else now
        self.cases[key] = msgspec.structs.replace(held, withdraw_at=held.withdraw_at or now, due_at=due)
        return self.cases[key]

    def hold(self, worker: str, now: datetime, lease: timedelta) -> frozenset[int]:
        """Renew a worker's heartbeat and leases, take its share, let go of the rest; return the buckets it holds."""
        self.workers[worker] = now + lease
        alive = [name for name, until in self.workers.items() if until > now]
        wanted = choose_buckets(worker, alive, self.leases, now)
        if wanted != self._held.get(worker):
            self._let_go(worker)
            self._held[worker] = wanted
        self.leases |= dict.fromkeys(wanted, (worker, now + lease))
        return wanted

    def _let_go(self, worker: str) -> None:
        self.leases = {bucket: held for bucket, held in self.leases.items() if held[0] != worker}

    def release(self, worker: str) -> None:
        """Give up a worker's buckets, and its share of them."""
        self.workers.pop(worker, None)
        self._held.pop(worker, None)
        self._let_go(worker)

    def backup(self) -> Store:
        """What a backup taken now would bring back."""
        copy = type(self)()
        copy.cases, copy.numbers = dict(self.cases), dict(self.numbers)
        copy.leases, copy.workers = dict(self.leases), dict(self.workers)
        return copy

    def restore(self, backup: Store) -> None:
        """Go back to a backup."""
        copy = backup.backup()
        self.cases, self.numbers, self.leases, self.workers = copy.cases, copy.numbers, copy.leases, copy.workers
        self._held = {}


def _due_first(case: Case) -> tuple[datetime, Key]:
    assert case.due_at is not None  # noqa: S101 - only due cases are sorted
    return case.due_at, case.key
