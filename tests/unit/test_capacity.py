"""The places for work and the rates of callers, without a server: bounded whatever comes, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from jiebang.api.gate.capacity import AdmissionQueue, Capacity, Rates, Urgency
from tests.examples import examples


class Seconds:
    """A monotonic clock that a test puts forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


WORK = st.tuples(st.sampled_from(Urgency), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 4)))


@examples(60)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 4), st.lists(WORK, max_size=30))
async def test_places_are_never_exceeded_and_always_given_back(
    places: int, kept: int, longest: int, works: list[tuple[Urgency, int, int | None]]
) -> None:
    """Whoever comes, waits, gives up or is cut off: no more work at once than there are places, and none left over."""
    line = AdmissionQueue(Capacity(places=places, kept=kept, line=longest, wait=timedelta(milliseconds=3)), Seconds())
    at_work = most = 0

    async def work(urgency: Urgency, turns: int) -> bool:
        nonlocal at_work, most
        if not await line.enter(urgency):
            return False
        at_work += 1
        most = max(most, at_work)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            at_work -= 1
            line.leave()
        return True

    tasks = []
    for urgency, turns, cut_off in works:
        task = asyncio.create_task(work(urgency, turns))
        tasks.append(task)
        if cut_off is not None:
            for _ in range(cut_off):
                await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most <= places
    assert (line.busy, line.waiting, at_work) == (0, 0, 0)
    for urgency in Urgency:  # and all of it can be used again
        assert await line.enter(urgency)
        line.leave()


async def test_the_most_urgent_go_first_and_find_places_kept_for_them() -> None:
    """A person who withdraws must not stand behind a crowd that wants something new."""
    line = AdmissionQueue(Capacity(places=3, kept=1, line=10, wait=timedelta(seconds=5)), Seconds())
    assert await line.enter(Urgency.NEW)
    waiting = [asyncio.create_task(line.enter(Urgency.NEW)) for _ in range(3)]
    await asyncio.sleep(0)
    assert line.waiting == 3
    assert await line.enter(Urgency.GOING_ON)
    assert await line.enter(Urgency.WAY_OUT)
    later = asyncio.create_task(line.enter(Urgency.WAY_OUT))
    await asyncio.sleep(0)
    line.leave()
    await asyncio.sleep(0)
    assert later.done()
    assert not any(task.done() for task in waiting)
    for _ in range(3):
        line.leave()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_where_work_ends_slowly_less_is_taken_on() -> None:
    """Else on a slow day everybody waits for many seconds, and gives up, and the work was for nothing."""
    seconds = Seconds()
    line = AdmissionQueue(
        Capacity(places=200, kept=2, within=timedelta(seconds=1), wait=timedelta(milliseconds=1)), seconds
    )

    async def let_in() -> int:
        count = 0
        while await line.enter(Urgency.NEW):
            count += 1
        return count

    assert await let_in() == 196
    for _ in range(196):
        seconds.now += 4 / 196  # 49 a second
        line.leave()
    assert 40 < await let_in() < 50
    for _ in range(12):
        seconds.now += 0.1
        while line.busy:
            line.leave()
        await let_in()
    assert line.busy > 100  # it was quick: there is room again
    while line.busy:
        line.leave()


async def test_those_sent_away_are_told_to_come_back_one_after_the_other() -> None:
    """If all came back at the same second, all but a few would be sent away again, for ever."""
    seconds = Seconds()
    line = AdmissionQueue(Capacity(places=10), seconds)
    for _ in range(20):
        assert await line.enter(Urgency.NEW)
        line.leave()
    seconds.now += 2
    told = [line.retry_after() for _ in range(35)]  # ten a second end, so ten may come each second
    assert told == sorted(told)
    assert told[0] == 1
    assert told[-1] == 4
    for _ in range(40):
        assert await line.enter(Urgency.NEW)
        line.leave()
    seconds.now += 4
    assert line.retry_after() == 1
    assert max(line.retry_after() for _ in range(5_000)) == 60


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 3), st.booleans()), max_size=120),
)
def test_nobody_takes_more_than_their_rate(rate: int, burst: int, came: list[tuple[int, float, bool]]) -> None:
    """Over any time a caller gets the burst and the rate times that time, and what was given back; and no less."""
    seconds = Seconds()
    rates = Rates(rate, burst, seconds)
    began, taken = seconds.now, dict.fromkeys(range(3), 0)
    for caller, pause, returned in came:
        seconds.now += pause
        wait = rates.take(caller)
        if wait == 0:
            taken[caller] += 1
            if returned:
                rates.give_back(caller)
                taken[caller] -= 1
        else:
            seconds.now += wait  # what was told is true
            assert rates.take(caller) == 0
            taken[caller] += 1
        assert taken[caller] <= burst + rate * (seconds.now - began) + 1e-6


def test_only_the_callers_seen_last_are_kept() -> None:
    """A flood from ever new addresses must not fill the memory."""
    rates = Rates(1, 1, Seconds(), most=100)
    for caller in range(1_000):
        assert rates.take(caller) == 0
    assert len(rates._left) == 100
    assert rates.take(999) == 1
