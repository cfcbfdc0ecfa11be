"""Whose fault an error of a database is: one table by SQLSTATE, used wherever errors of asyncpg are sorted.

`Fault.SILENCE`: the database as a whole does not answer, or does not write, now. Nothing is to be concluded about any
case or caller; the same is asked again later. `Fault.DATA`: what one row or one argument holds; the batch is halved
until that one is alone (`halving.py`). `Fault.OURS`: a statement, a schema or a permission that does not fit; asking in
parts or again does not help, and somebody must look.

docs/operations.md shows the table; tests/unit/test_faults.py holds it against every error that asyncpg knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import asyncpg
import msgspec


class Fault(StrEnum):
    """Whose fault an error is, by what is to be done about it."""

    SILENCE = "silence"
    DATA = "data"
    OURS = "ours"


class Judgement(msgspec.Struct, frozen=True):
    """The fault of a class of SQLSTATE, or of one, and the reason."""

    fault: Fault
    why: str


BY_SQLSTATE: Final[Mapping[str, Judgement]] = {
    # Connections and servers.
    "08": Judgement(Fault.SILENCE, "the connection failed or was refused"),
    "25006": Judgement(
        Fault.SILENCE, "read-only: after a failover this server is a standby, or it was closed to writes"
    ),
    "25P03": Judgement(Fault.SILENCE, "the server ended a session that was idle in a transaction"),
    "25P04": Judgement(Fault.SILENCE, "the server ended a transaction that took too long"),
    "28": Judgement(Fault.SILENCE, "the server refuses us the connection: a password changed, or it is another server"),
    "3D": Judgement(Fault.SILENCE, "the server does not have the database: it is another server, or being restored"),
    "40": Judgement(Fault.SILENCE, "undone for another transaction's sake, or a standby's replay; nothing was changed"),
    "53": Judgement(Fault.SILENCE, "the server has no connection, memory or disk left"),
    "55": Judgement(Fault.SILENCE, "closed to connections, in recovery, or a lock was not to be had in time"),
    "57": Judgement(Fault.SILENCE, "shutting down, starting up, or ended by an operator or a time limit"),
    "58": Judgement(Fault.SILENCE, "the server's disk or operating system failed"),
    # What one row or one argument holds.
    "21": Judgement(Fault.DATA, "one row too many for a value"),
    "22": Judgement(Fault.DATA, "a value that its type does not hold, or that cannot be computed with"),
    "23": Judgement(Fault.DATA, "a row that a constraint refuses"),
    "54": Judgement(Fault.DATA, "a row too large to be built"),
    "XX": Judgement(Fault.DATA, "damaged pages, or a defect of the server: met by whoever touches those rows"),
    # The rest of class 25 is a transaction used wrongly; 42 a statement or permission that does not fit; and so on.
    "": Judgement(Fault.OURS, "a statement, a schema or a permission does not fit"),
}
"""By SQLSTATE or its first two characters, the longer first; "" is every other one."""


def judge_sqlstate(sqlstate: str) -> Judgement:
    """Return the judgement of one SQLSTATE."""
    return next(BY_SQLSTATE[key] for key in (sqlstate, sqlstate[:2], "") if key in BY_SQLSTATE)


def fault_of(error: BaseException) -> Fault:
    """Return whose fault an error is that a call to a database or to another party raised.

    One that is neither a server's nor a connection's was raised while an answer was decoded or used: DATA.
    """
    if isinstance(error, asyncpg.PostgresError):
        return judge_sqlstate(error.sqlstate or "").fault
    return Fault.SILENCE if isinstance(error, _NO_ANSWER) else Fault.DATA


_NO_ANSWER: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Raised by the system or the driver for a connection that cannot be made, or that dies in use."""


def _list_silent() -> Iterator[type[asyncpg.PostgresError]]:
    for kind in vars(asyncpg.exceptions).values():
        if isinstance(kind, type) and issubclass(kind, asyncpg.PostgresError):
            sqlstate = getattr(kind, "sqlstate", None)
            if sqlstate is not None and judge_sqlstate(sqlstate).fault is Fault.SILENCE:
                yield kind


SILENCE: Final[tuple[type[Exception], ...]] = (*_NO_ANSWER, *_list_silent())
"""For `except`: raised when a party as a whole does not answer. An SQLSTATE unknown to asyncpg needs `fault_of`."""

UNANSWERED: Final[tuple[type[Exception], ...]] = (*SILENCE, asyncpg.PostgresError)
"""For `except`: a query got no answer, where silence and an error need not be told apart."""
