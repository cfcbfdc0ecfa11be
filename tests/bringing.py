"""What cases bring to participants, for tests of operations that take something up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.staging import GivenValues

if TYPE_CHECKING:
    from jiebang.model.participants import ValueType
    from jiebang.participants.core.database import DatabaseParticipant


def edges_of(kind: ValueType) -> list[Any]:
    """The values of a type at which an expression fails if it fails anywhere."""
    match kind.kind:
        case _ if kind.among:
            return list(kind.among)
        case t if t is int:
            middle = [value for value in (0, 1, 24, 32_767, 32_768, 1 << 31) if kind.least <= value <= kind.most]
            return sorted({kind.least, *middle, kind.most})
        case t if t is bool:
            return [False, True]
        case t if t is str:
            return ["a" * kind.least, "\U0001f9ff" * kind.most, "'" * max(kind.least, 1)]
        case t if t is date:
            return [date.min, date(2026, 4, 1), date.max]
        case _:
            return [b"\0" * kind.least, b"\xff" * kind.most]


async def bring(
    participant: DatabaseParticipant,
    operation: str,
    rows: Mapping[int, Mapping[str, Any]],
    case_nos: Sequence[int] = (1,),
) -> None:
    """Stage what an operation takes up for each account, one edge of each value after the other.

    `rows`: the accounts, with the columns of their rows that are not as by default: an identity is brought for the
    epoch that the next Confirm begins. What the staging area refuses of it is not staged.
    """
    given = PARTICIPANTS[participant.name].operations[operation].given
    if not given or participant.staging is None:
        return
    batch = [
        GivenValues(
            account_id=account,
            case_no=case_no,
            values={
                name: row.get("epoch", 1) + 1 if name == "epoch" else edges_of(kind)[at % len(edges_of(kind))]
                for name, kind in given.items()
            },
        )
        for at, (account, row) in enumerate(rows.items())
        for case_no in case_nos
    ]
    await participant.staging.stage(operation, batch)
