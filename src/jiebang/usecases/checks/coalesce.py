"""Coalesce single questions asked at the same time into one batch, which costs little more than one question.

A question asked while no batch is under way is sent at once, with the others of the same turn of the event loop. While
a batch is under way, questions gather for one window and are then sent without waiting for it: no caller waits for
another's slow answer. A question never joins a batch that has begun, so its answer rests on what was read after it was
asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from datetime import timedelta
from typing import Final, Generic, TypeVar

from prometheus_client import Histogram

Topic = TypeVar("Topic", bound=Hashable)
Question = TypeVar("Question", bound=Hashable)
Reply = TypeVar("Reply")

BATCH_SIZE: Final = Histogram(
    "jiebang_coalesced_questions", "Callers answered by one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)


class Coalescer(Generic[Topic, Question, Reply]):
    """Asks `together` for many callers at once. Equal questions are asked once and their callers share the reply.

    `together(topic, questions)` replies in the order of the questions. If it raises, each question is asked alone, and
    only the callers of those that raise then get the error. A caller that is cancelled does not affect the others.
    """

    def __init__(
        self,
        together: Callable[[Topic, Sequence[Question]], Awaitable[Sequence[Reply]]],
        *,
        window: timedelta,
        limit: int,
    ) -> None:
        """`window`: how long a question waits for others at most; `limit`: most different questions in a batch."""
        self._together, self._window, self._limit = together, window.total_seconds(), limit
        self._waiting: dict[Topic, dict[Question, list[asyncio.Future[Reply]]]] = {}
        self._timers: dict[Topic, asyncio.Handle] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._number = 0

    async def ask(self, topic: Topic, question: Question) -> Reply:
        """Return the reply to one question. Raises what `together` raises for it."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Reply] = loop.create_future()
        waiting = self._waiting.setdefault(topic, {})
        waiting.setdefault(question, []).append(mine)
        if len(waiting) >= self._limit:
            self._send(topic)
        elif topic not in self._timers:
            idle = not self._under_way
            self._timers[topic] = (
                loop.call_soon(self._send, topic) if idle else loop.call_later(self._window, self._send, topic)
            )
        return await mine

    def _send(self, topic: Topic) -> None:
        """Send what has gathered, in an empty context: the batch belongs to no single caller."""
        timer = self._timers.pop(topic, None)
        if timer is not None:
            timer.cancel()
        batch = self._waiting.pop(topic, {})
        asked = {
            question: alive
            for question, callers in batch.items()
            if (alive := [one for one in callers if not one.done()])
        }
        if not asked:
            return
        BATCH_SIZE.observe(sum(map(len, asked.values())))
        self._number += 1
        run = self._run_batch(self._number, topic, asked)
        self._under_way[self._number] = asyncio.get_running_loop().create_task(run, context=Context())

    async def _run_batch(self, number: int, topic: Topic, asked: dict[Question, list[asyncio.Future[Reply]]]) -> None:
        try:
            await self._answer(topic, asked)
        finally:
            # Here, not when the task is done: a caller just answered that asks again must find nothing under way.
            del self._under_way[number]

    async def _answer(self, topic: Topic, asked: dict[Question, list[asyncio.Future[Reply]]]) -> None:
        callers = [caller for futures in asked.values() for caller in futures]
        try:
            replies = await self._together(topic, list(asked))
            for futures, reply in zip(asked.values(), replies, strict=True):
                for caller in futures:
                    if not caller.done():
                        caller.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers get it
            if len(asked) > 1:
                await asyncio.gather(*(self._answer(topic, {question: futures}) for question, futures in asked.items()))
            for caller in callers:
                if not caller.done():
                    caller.set_exception(error)
        finally:
            for caller in callers:
                caller.cancel()  # no effect on answered ones; others are left only when the event loop ends
