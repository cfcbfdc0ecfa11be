"""Orders to participants and their answers, in columns: what most cases of a batch have in common is said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op


class Order(msgspec.Struct, frozen=True, gc=False):
    """One case's part of a batch: a Try asks for `version` (None: no version asked), the rest ignore it."""

    account_id: int
    case_no: int
    version: int | None = None


class Orders(msgspec.Struct, frozen=True, gc=False):
    """A batch of orders in columns, in order of account, each account once. `versions`: for Trys."""

    accounts: Sequence[int]
    case_nos: Sequence[int]
    versions: Sequence[int | None] | None = None
    everybody: frozenset[int] = frozenset()
    """The accounts once more: what is answered when all are a yes. Made where it is not given."""

    def __post_init__(self) -> None:
        """Make `everybody`."""
        if len(self.everybody) != len(self.accounts):
            msgspec.structs.force_setattr(self, "everybody", frozenset(self.accounts))

    @classmethod
    def of(cls, batch: Sequence[Order]) -> Orders:
        """Put orders that are in order of account into columns."""
        return cls(
            [order.account_id for order in batch],
            [order.case_no for order in batch],
            [order.version for order in batch],
        )

    def __len__(self) -> int:
        """How many cases it names."""
        return len(self.accounts)

    def part(self, start: int, end: int | None) -> Orders:
        """Return the orders from `start` up to `end`."""
        versions = None if self.versions is None else self.versions[start:end]
        return Orders(self.accounts[start:end], self.case_nos[start:end], versions)

    def one_by_one(self) -> list[Order]:
        """Return the orders case by case."""
        versions = self.versions or [None] * len(self.accounts)
        return [Order(*each) for each in zip(self.accounts, self.case_nos, versions, strict=True)]


_YES: Final = {
    Op.TRY: (Answer.GRANTED, CaseOp.TRIED),
    Op.CONFIRM: (Answer.DONE, CaseOp.CONFIRMED),
    Op.CANCEL: (Answer.DONE, CaseOp.CANCELLED),
}


class Answers(msgspec.Struct, frozen=True, gc=False):
    """What one participant answered to a batch: `yes` are the accounts it granted (a Try) or did it for, at `at`.

    `rest`: every other answer. An order in neither is unknown.
    """

    participant: str
    op: Op
    orders: Orders
    at: datetime | None = None
    yes: frozenset[int] = frozenset()
    rest: Sequence[Reply] = ()

    def yes_to(self, account_id: int, case_no: int) -> Reply:
        """Return the yes to one case."""
        answer, row = _YES[self.op]
        return Reply(account_id, case_no, self.participant, self.op, answer, None, FenceRow(case_no, row), self.at)

    def one_by_one(self) -> list[Reply]:
        """Return the answers case by case."""
        yes = [
            self.yes_to(*key)
            for key in zip(self.orders.accounts, self.orders.case_nos, strict=True)
            if key[0] in self.yes
        ]
        return yes + list(self.rest)


def collect_answers(participant: str, op: Op, orders: Orders, replies: Sequence[Reply], now: datetime) -> Answers:
    """Put replies that came one by one into columns: a single yes counts as such, everything else stays a reply."""
    positive, case_nos = _YES[op][0], dict(zip(orders.accounts, orders.case_nos, strict=True))
    times = Counter(reply.account_id for reply in replies)
    yes, rest = [], []
    for reply in replies:
        if (
            reply.answer is positive
            and times[reply.account_id] == 1
            and case_nos.get(reply.account_id) == reply.case_no
        ):
            yes.append(reply.account_id)
        else:
            rest.append(reply if reply.at else msgspec.structs.replace(reply, at=now))
    return Answers(participant, op, orders, now, frozenset(yes), rest)
