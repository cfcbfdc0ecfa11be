"""What every participant must offer, whether it is a database of ours or a service across the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import asyncpg
import msgspec

from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.model.facts import FactBatch
    from jiebang.model.plan import PlannedOperation


SILENCE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What is raised when a participant as a whole does not answer: down, starting, full, or cut off in mid-sentence."""

UNANSWERED: Final = (*SILENCE, asyncpg.PostgresError)
"""What a question to a database may raise instead of an answer, for whoever need not tell silence from refusal."""


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


def in_columns(participant: str, op: Op, orders: Orders, replies: Sequence[Reply], now: datetime) -> Answers:
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


@runtime_checkable
class Columnar(Protocol):
    """A participant that also takes and answers orders in columns: what most cases have in common is said once."""

    async def carry_out(self, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        """Do what `apply` does."""


@runtime_checkable
class Forgiving(Protocol):
    """A participant that can be tried without a mark: a Try that is refused leaves one for ever."""

    async def try_again(self, orders: Sequence[Order], planned: PlannedOperation) -> Mapping[int, str]:
        """Try for the accounts that can grant it, and change nothing of the others.

        Of those returns the code, by account, with which a Try would be refused now. For recovery alone, which tries
        again until what is in the way has cleared.
        """


class Participant(Protocol):
    """A party to the saga. Every method takes a batch; one person is a batch of one.

    All raise one of SILENCE when the participant as a whole does not answer. None of them raises for a single bad case,
    but a batch may fail as a whole because of one: the caller halves it.
    """

    name: str

    async def facts(self, accounts: Sequence[int]) -> FactBatch | None:
        """Read all facts of `accounts` in one query; None for a participant that owns no facts."""

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Carry out `op` of the plan's operation for a batch in one statement; its effects are for Confirm.

        The replies may come in any order; an order without a reply is unknown.
        """

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`, changing nothing. An account without a row is absent."""

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows of accounts above `after`, up to and with `upto`, that ever took a case.

        In order of account, the first `limit`; fewer only where there are no more. It needs nobody to name the
        accounts: this is how an audit finds marks of accounts that the platform does not know.
        """

    async def aclose(self) -> None:
        """Let go of connections."""
