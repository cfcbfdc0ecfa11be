"""Calendar rules: days are days in Asia/Shanghai, whatever zone the server or the person is in.

A condition sees three kinds of derived columns beside the facts: `now` (the time of the check), `today` (its date in
Shanghai), and for each fact of type TIME its local date: `identity_changed_at` gives `identity_changed_date`,
`primary_device_since` gives `primary_device_since_date`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import polars as pl

from jiebang.model.facts import FACTS, FactType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ZONE_NAME: Final = "Asia/Shanghai"
ZONE: Final = ZoneInfo(ZONE_NAME)
NOW: Final = "now"
TODAY: Final = "today"


def _date_name(fact: str) -> str:
    return fact.removesuffix("_at") + "_date"


LOCAL_DATES: Final[Mapping[str, str]] = {
    _date_name(spec.name): spec.name for spec in FACTS.values() if spec.type is FactType.TIME
}
"""Name of a derived local date -> the fact it is derived from."""


def local_date(at: datetime) -> date:
    """Return the day in Shanghai at the instant `at` (time-zone aware)."""
    return at.astimezone(ZONE).date()


def start_of(day: date) -> datetime:
    """Return the instant, in UTC, at which `day` begins in Shanghai."""
    return datetime.combine(day, time(), ZONE).astimezone(UTC)


def with_calendar(frame: pl.DataFrame, names: Iterable[str], now: datetime) -> pl.DataFrame:
    """Return `frame` with those of the derived columns that `names` asks for. `now` is time-zone aware."""
    wanted = set(names)
    columns = [
        pl.col(fact).dt.convert_time_zone(ZONE_NAME).dt.date().alias(name)
        for name, fact in LOCAL_DATES.items()
        if name in wanted
    ]
    if NOW in wanted:
        columns.append(pl.lit(now.astimezone(UTC), dtype=pl.Datetime("us", "UTC")).alias(NOW))
    if TODAY in wanted:
        columns.append(pl.lit(local_date(now), dtype=pl.Date).alias(TODAY))
    return frame.with_columns(columns)
