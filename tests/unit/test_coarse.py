"""What stands in clear of an identity: as much as rules need, and nobody is taken for older than they are."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.policy.coarse import coarsen_birth_date, find_country

NOW = datetime(2026, 4, 1, 4, tzinfo=UTC)
TODAY = date(2026, 4, 1)


def years_since(born: date, day: date) -> int:
    """Full years; whoever was born on 29 February is a year older on 1 March."""
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


@given(st.dates(date(1900, 1, 1), TODAY), st.integers(0, 40_000))
def test_nobody_is_older_than_they_are_and_adults_stay_adults(born: date, days: int) -> None:
    """A minor who passed for an adult would lose a guardian's protection; an adult who did not could not go on."""
    coarse, later = coarsen_birth_date(born, NOW), TODAY + timedelta(days=days)
    assert born <= coarse <= date(born.year, 12, 31)
    for day in (TODAY, later):
        assert years_since(coarse, day) <= years_since(born, day)
        assert (years_since(coarse, day) >= 18) == (years_since(born, day) >= 18)
    if years_since(born, TODAY) >= 19:
        assert coarse == date(born.year, 12, 31), "month and day are part of the sealed number"


@pytest.mark.parametrize(("region", "country"), [("440305", None), ("810000", None), ("DEU", "DEU"), ("HKG", "HKG")])
def test_a_residents_division_is_in_the_number_alone(region: str, country: str | None) -> None:
    """Six of the number's eighteen characters."""
    assert find_country(region) == country
