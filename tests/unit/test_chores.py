"""Chores that are one for the whole installation: one worker's turn, seldom, and again at once where there is more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jiebang.usecases.periodic import PeriodicChore

NOW = datetime(2026, 4, 1, tzinfo=UTC)
MINE, OTHERS = frozenset({0, 3}), frozenset({1, 2})


async def test_a_seldom_chore_is_one_workers_and_pauses_when_there_is_nothing() -> None:
    """Twenty deletes a second from every worker, of nothing, would be most of an idle database's load."""
    turns: list[datetime] = []
    todo = [5, 0, 0]

    async def chore(_: frozenset[int], now: datetime) -> int:
        turns.append(now)
        return todo[len(turns) - 1]

    seldom = PeriodicChore(chore, timedelta(minutes=1))
    at = [NOW + timedelta(seconds=seconds) for seconds in (0, 1, 2, 60, 61)]
    assert await seldom(OTHERS, at[0]) == 0
    assert not turns, "whoever does not hold bucket 0 leaves it"
    assert [await seldom(MINE, now) for now in at] == [5, 0, 0, 0, 0]
    assert turns == [at[0], at[1], at[4]], "again at once after work, else after the pause"
