"""Orders to participants and their answers, in columns: values that a batch's cases share are stored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op


class Order(msgspec.Struct, frozen=True, gc=False):
    """One case's part of a batch. `version`: the facts_version a Try is granted at (None: any); other ops ignore it."""

    account_id: int
    case_no: int
    version: int | None = None


class Orders(msgspec.Struct, frozen=True, gc=False):
    """A batch of orders in columns, in ascending order of account, each account once. `versions`: of Trys only."""

    accounts: Sequence[int]
    case_nos: Sequence[int]
    versions: Sequence[int | None] | None = None
    everybody: frozenset[int] = frozenset()
    """The set of `accounts`: the answer where every order is a yes. Computed if it is not passed in."""

    def __post_init__(self) -> None:
        """Compute `everybody`."""
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


_POSITIVE: Final = {
    Op.TRY: (Answer.GRANTED, CaseOp.TRIED),
    Op.CONFIRM: (Answer.DONE, CaseOp.CONFIRMED),
    Op.CANCEL: (Answer.DONE, CaseOp.CANCELLED),
}


class Answers(msgspec.Struct, frozen=True, gc=False):
    """What one participant answered to a batch, at `at`.

    `yes`: the accounts for which it granted the Try, or carried out the Confirm or Cancel. `rest`: every other reply.
    The outcome of an order in neither is unknown.
    """

    participant: str
    op: Op
    orders: Orders
    at: datetime | None = None
    yes: frozenset[int] = frozenset()
    rest: Sequence[Reply] = ()

    def yes_to(self, account_id: int, case_no: int) -> Reply:
        """Return the positive reply to one case."""
        answer, row = _POSITIVE[self.op]
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
    """Put single replies into columns: a case's only reply, if positive, goes to `yes`; all others to `rest`."""
    positive, case_nos = _POSITIVE[op][0], dict(zip(orders.accounts, orders.case_nos, strict=True))
    counts = Counter(reply.account_id for reply in replies)
    yes, rest = [], []
    for reply in replies:
        if (
            reply.answer is positive
            and counts[reply.account_id] == 1
            and case_nos.get(reply.account_id) == reply.case_no
        ):
            yes.append(reply.account_id)
        else:
            rest.append(reply if reply.at else msgspec.structs.replace(reply, at=now))
    return Answers(participant, op, orders, now, frozenset(yes), rest)
