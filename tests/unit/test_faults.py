"""Whose fault an error of a database is: one table, which every place that sorts such errors agrees with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from jiebang.participants.base import SILENCE, UNANSWERED
from jiebang.store.postgres.faults import BY_SQLSTATE, Fault, fault_of, judge_sqlstate

KNOWN: Final = {
    kind.sqlstate: kind
    for kind in vars(asyncpg.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, asyncpg.PostgresError) and getattr(kind, "sqlstate", None)
}
"""Every error that asyncpg knows, by SQLSTATE."""

DECIDED: Final = {
    "08006": Fault.SILENCE,  # the connection failed
    "08P01": Fault.SILENCE,
    "25006": Fault.SILENCE,  # read-only after a failover
    "25P03": Fault.SILENCE,
    "25P02": Fault.OURS,  # a transaction used after it had failed
    "25001": Fault.OURS,
    "28P01": Fault.SILENCE,  # a password changed
    "3D000": Fault.SILENCE,  # another server
    "40001": Fault.SILENCE,
    "40P01": Fault.SILENCE,
    "53100": Fault.SILENCE,  # disk full
    "53300": Fault.SILENCE,  # no connection left
    "55000": Fault.SILENCE,  # closed to connections
    "57014": Fault.SILENCE,  # statement_timeout
    "57P01": Fault.SILENCE,  # shutting down
    "57P03": Fault.SILENCE,  # starting up
    "58030": Fault.SILENCE,  # input or output failed
    "XX000": Fault.DATA,
    "XX001": Fault.DATA,  # one damaged page: whoever's row is on it
    "XX002": Fault.DATA,
    "22003": Fault.DATA,  # a sum out of range
    "23514": Fault.DATA,
    "54000": Fault.DATA,
    "42P01": Fault.OURS,  # a table that is not there: nobody migrated
    "42501": Fault.OURS,  # a permission that is missing
}


@pytest.mark.parametrize("sqlstate", DECIDED)
def test_each_class_is_decided(sqlstate: str) -> None:
    """A failover taken for a case's fault cancels a stranger's case; a row taken for silence stops everybody."""
    assert fault_of(KNOWN[sqlstate]("x")) is DECIDED[sqlstate]


@pytest.mark.parametrize("sqlstate", sorted(KNOWN))
def test_what_is_caught_as_silence_is_what_the_table_says(sqlstate: str) -> None:
    """`except SILENCE` and the table must not drift apart: both decide about the same people."""
    error = KNOWN[sqlstate]("x")
    assert isinstance(error, SILENCE) == (judge_sqlstate(sqlstate).fault is Fault.SILENCE)
    assert isinstance(error, UNANSWERED)


def test_an_sqlstate_that_asyncpg_does_not_know_is_judged_by_its_class() -> None:
    """Servers are younger than drivers: a new code of class 57 must not blame a case."""
    for sqlstate, fault in (("57P99", Fault.SILENCE), ("22Z99", Fault.DATA), ("99999", Fault.OURS)):
        error = asyncpg.UnknownPostgresError("x")
        error.__dict__["sqlstate"] = sqlstate
        assert fault_of(error) is fault


def test_what_is_no_servers_error() -> None:
    """A connection that dies is silence; a value that cannot be decoded is somebody's row."""
    for silent in (OSError(), TimeoutError(), asyncpg.InterfaceError("x"), asyncpg.InternalClientError("x")):
        assert fault_of(silent) is Fault.SILENCE
    for data in (OverflowError(), ValueError(), TypeError()):
        assert fault_of(data) is Fault.DATA


def test_every_judgement_gives_its_reason_and_the_page_shows_it() -> None:
    """An operator at three in the morning looks the code up, and needs to know whose fault it is."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([0-9A-Z]{2,5})` \| (silence|data|ours) \|", page, re.MULTILINE))
    assert rows == {key: judged.fault.value for key, judged in BY_SQLSTATE.items() if key}
    assert all(judged.why for judged in BY_SQLSTATE.values())
