"""Halving: whichever rows are bad, exactly those stay unanswered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.store.postgres.halving import ask_in_halves


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=5))
async def test_exactly_the_bad_rows_are_left_out(size: int, bad: set[int]) -> None:
    """A stranger left out with a bad row is blocked by somebody whom they have never met."""
    asked = 0

    async def ask(part: Sequence[int]) -> list[int]:
        nonlocal asked
        asked += 1
        if bad.intersection(part):
            raise OverflowError
        return [item * 2 for item in part]

    found = await ask_in_halves(range(size), ask, what="rows")
    assert sorted(found.failed) == sorted(bad & set(range(size)))
    answers = {item: double for items, doubles in found.parts for item, double in zip(items, doubles, strict=True)}
    assert answers == {item: 2 * item for item in range(size) if item not in bad}
    assert asked <= 1 + 2 * 10 * len(bad), "two questions for each halving of each bad row"


async def test_silence_is_not_halved() -> None:
    """A database that is down would be asked once for each person."""
    asked = 0

    async def ask(_part: Sequence[int]) -> None:
        nonlocal asked
        asked += 1
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await ask_in_halves(range(100), ask, what="rows")
    assert asked == 1


async def test_a_party_that_answers_only_nonsense_is_given_up() -> None:
    """It would be asked twice for every row of every batch, while people wait."""
    asked = 0

    async def ask(_part: Sequence[int]) -> None:
        nonlocal asked
        asked += 1
        raise ValueError

    found = await ask_in_halves(range(10_000), ask, what="rows")
    assert (found.parts, sorted(found.failed)) == ([], list(range(10_000)))
    assert asked < 1_000
