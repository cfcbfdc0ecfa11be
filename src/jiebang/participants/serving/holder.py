"""What a team writes of a participant: its operations, and its own business in each op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3

    from jiebang.model.participants import Operation
    from jiebang.model.plan import PlannedOperation


class Holder(Protocol):
    """A party that holds something of an account's. Every method takes a batch, inside the transaction of its fence.

    What is written is there when the answer leaves, with the fence row, or neither is. Whatever a method raises undoes
    the batch whole and is answered 500: the platform asks again. `schema`: the tables, created where they are missing.
    `operations`: by name, with the effects that each applies; a Try with others is refused before it reaches you.
    """

    schema: str
    operations: Mapping[str, Operation]

    def refuse(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> Mapping[int, str]:
        """Return the accounts whose Try is refused, each with a code (upper case, digits, hyphens). Change nothing.

        Whatever could refuse a Confirm belongs here.
        """

    def reserve(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> None:
        """Reserve: a Try was granted."""

    def apply(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> None:
        """Apply what was reserved, with the effects of the plan: a Confirm. It may not fail."""

    def release(self, db: sqlite3.Connection, accounts: Sequence[int]) -> None:
        """Give back what was reserved, if anything was: a Cancel. It may not fail."""
