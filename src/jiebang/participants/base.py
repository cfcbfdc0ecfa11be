"""What every participant must offer, whether it is a database of ours or a service across the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.model.facts import FactBatch
    from jiebang.model.plan import PlannedOperation
    from jiebang.saga.coordinator import Reply
    from jiebang.saga.fence import FenceRow, Op
    from jiebang.saga.orders import Answers, Order, Orders


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
