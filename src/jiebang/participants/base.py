"""The interface of every participant, whether a database of ours or a service across the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jiebang.remote.client import RemoteError
from jiebang.store.postgres.faults import SILENCE, UNANSWERED, Fault, fault_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.model.facts import FactBatch
    from jiebang.model.plan import PlannedOperation
    from jiebang.saga.coordinator import Reply
    from jiebang.saga.fence import FenceRow, Op
    from jiebang.saga.orders import Answers, Order, Orders

__all__ = [
    "SILENCE",
    "UNANSWERED",
    "ColumnarParticipant",
    "Fault",
    "Participant",
    "TriesWithoutMark",
    "explain_silence",
    "fault_of",
    "may_be_one_case",
]


def explain_silence(error: BaseException) -> Mapping[str, str | int]:
    """Return what is known of why a participant did not answer, as fields of a log line.

    `error`: the type. Of a remote participant also `reason`, and the `status`, `code` and `detail` of its own answer.
    """
    known: dict[str, str | int | None] = {"error": type(error).__name__}
    if isinstance(error, RemoteError):
        known |= {"reason": error.what, "status": error.status, "code": error.code, "detail": error.detail}
    return {name: value for name, value in known.items() if value is not None}


@runtime_checkable
class ColumnarParticipant(Protocol):
    """A participant that also takes and answers orders in columns, with the values that most cases share sent once."""

    async def carry_out(self, op: Op, orders: Orders, planned: PlannedOperation) -> Answers:
        """Do the same as `apply`."""


@runtime_checkable
class TriesWithoutMark(Protocol):
    """A participant that supports a Try that leaves no mark when it is refused; an ordinary refusal leaves one."""

    async def try_again(self, orders: Sequence[Order], planned: PlannedOperation) -> Mapping[int, str]:
        """Try for the accounts that can grant it, and change nothing for the others.

        Returns the others by account, each with the code that a Try would be refused with now. Only for recovery,
        which tries again until the obstacle is cleared.
        """


def may_be_one_case(error: BaseException) -> bool:
    """Whether one case may be why a whole batch failed, so that its halves are worth asking for."""
    if isinstance(error, RemoteError):
        return error.refused_whole
    return fault_of(error) is not Fault.SILENCE


class Participant(Protocol):
    """A party to the saga. Every method takes a batch; one person is a batch of one.

    All raise one of SILENCE when the participant as a whole does not answer. A single case that is refused raises
    nothing, but a batch may fail as a whole because of one case: the caller halves it.
    """

    name: str

    async def facts(self, accounts: Sequence[int]) -> FactBatch | None:
        """Read all facts of `accounts` in one query; None for a participant that owns no facts."""

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        """Carry out `op` of the plan's operation for a batch in one statement; its effects are for Confirm.

        Replies come in any order; the outcome of an order without a reply is unknown.
        """

    async def look(self, accounts: Sequence[int]) -> Mapping[int, FenceRow]:
        """Read the fence rows of `accounts`, changing nothing. An account without a row is absent."""

    async def marks(self, after: int, upto: int, limit: int) -> Mapping[int, FenceRow]:
        """Read the fence rows of accounts above `after`, up to and including `upto`, that ever took a case.

        In order of account, the first `limit`; fewer only where there are no more. The caller need not know the
        accounts: an audit finds marks of accounts unknown to the platform.
        """

    async def aclose(self) -> None:
        """Close the connections."""
