"""Single questions joined into batches: nobody waits for another, nobody fails for another, nothing old is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from jiebang.usecases.checks.coalesce import Coalescer


class Oracle:
    """Answers ten times the number, keeps what it was asked; 13 breaks its batch, and it stops while `gate` is shut."""

    def __init__(self, *, limit: int = 256, window: timedelta = timedelta(milliseconds=2)) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self._came = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.ask = Coalescer(self.answer, window=window, limit=limit).ask

    async def batch(self) -> None:
        """Wait until one more batch has begun."""
        await self._came.acquire()

    async def answer(self, topic: str, questions: Sequence[int]) -> list[int]:
        self.asked.append((topic, tuple(questions)))
        self._came.release()
        await self.gate.wait()
        if 13 in questions:
            raise LookupError
        return [10 * one for one in questions]


async def test_callers_of_one_moment_share_one_batch_and_equal_questions_are_asked_once() -> None:
    """64 people at once must cost one read of the databases, not 64."""
    oracle = Oracle()
    assert await asyncio.gather(*(oracle.ask("a", each) for each in (3, 1, 3, 2))) == [30, 10, 30, 20]
    assert oracle.asked == [("a", (3, 1, 2))]


async def test_each_topic_has_its_own_batch() -> None:
    """A check for one kind of case must not be answered with another kind's rules."""
    oracle = Oracle()
    assert list(await asyncio.gather(oracle.ask("a", 1), oracle.ask("b", 1))) == [10, 10]
    assert sorted(oracle.asked) == [("a", (1,)), ("b", (1,))]


async def test_one_who_comes_alone_goes_at_once() -> None:
    """An idle service must not make a person wait for company that never comes."""
    oracle = Oracle(window=timedelta(days=1))
    assert await oracle.ask("a", 1) == 10
    assert await oracle.ask("a", 2) == 20


async def test_a_question_never_joins_a_batch_that_has_begun() -> None:
    """Else a person who has just cleared a blocker would be told what was read before."""
    oracle = Oracle()
    oracle.gate.clear()
    first = asyncio.create_task(oracle.ask("a", 1))
    await oracle.batch()
    again = asyncio.create_task(oracle.ask("a", 1))
    await oracle.batch()  # it does not wait for the first batch to end either
    oracle.gate.set()
    assert list(await asyncio.gather(first, again)) == [10, 10]
    assert oracle.asked == [("a", (1,)), ("a", (1,))]


async def test_a_question_that_breaks_its_batch_fails_its_own_caller_alone() -> None:
    """One absurd account must not fail the check of everybody who asked in the same moment."""
    oracle = Oracle()
    one, bad, two = await asyncio.gather(*(oracle.ask("a", each) for each in (1, 13, 2)), return_exceptions=True)
    assert (one, two) == (10, 20)
    assert isinstance(bad, LookupError)


async def test_a_caller_who_goes_away_takes_nothing_with_them() -> None:
    """A closed connection must not cancel the check of the others."""
    oracle = Oracle()
    oracle.gate.clear()
    tasks = [asyncio.create_task(oracle.ask("a", each)) for each in (1, 2)]
    await oracle.batch()
    tasks[0].cancel()
    oracle.gate.set()
    assert await tasks[1] == 20
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_a_full_batch_does_not_wait_for_the_window() -> None:
    """A crowd must not be held up by the wait that is meant to gather one."""
    oracle = Oracle(limit=2, window=timedelta(days=1))
    oracle.gate.clear()
    first = asyncio.create_task(oracle.ask("a", 0))
    await oracle.batch()
    crowd = [asyncio.create_task(oracle.ask("a", each)) for each in (1, 2)]
    await oracle.batch()
    oracle.gate.set()
    assert await asyncio.gather(first, *crowd) == [0, 10, 20]
    assert oracle.asked[1] == ("a", (1, 2))
