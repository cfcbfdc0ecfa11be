"""Calendar columns: days are those of the pack's time zone (Asia/Shanghai by default), never of the server's.

A condition sees derived columns beside the facts: `now` (the time of the check), `today` (its date there),
`next_year` (the first day of the year after), for each fact of type TIME its local date (`identity_changed_at` gives
`identity_changed_date`, `primary_device_since` gives `primary_device_since_date`), and for each of type DATE the full
years since (`birth_date` gives `birth_years`; a person born on 29 February is a year older on 1 March).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

import polars as pl

from jiebang.model.facts import FactType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jiebang.model.participants import ParticipantRegistry

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

ZONE_NAME: Final = "Asia/Shanghai"
ZONE: Final = ZoneInfo(ZONE_NAME)
NOW: Final = "now"
TODAY: Final = "today"
NEXT_YEAR: Final = "next_year"


def _date_name(fact: str) -> str:
    return fact.removesuffix("_at") + "_date"


@cache
def local_dates(registry: ParticipantRegistry) -> Mapping[str, str]:
    """Return the facts of derived local dates, by the derived column's name."""
    return {_date_name(spec.name): spec.name for spec in registry.facts.values() if spec.type is FactType.TIME}


@cache
def full_years(registry: ParticipantRegistry) -> Mapping[str, str]:
    """Return the facts of derived numbers of full years, by the derived column's name."""
    dates = [spec.name for spec in registry.facts.values() if spec.type is FactType.DATE]
    return {name.removesuffix("_date") + "_years": name for name in dates}


@cache
def derived_columns(registry: ParticipantRegistry) -> Mapping[str, str]:
    """Return the facts of all derived columns, by the derived column's name."""
    return {**local_dates(registry), **full_years(registry)}


def local_date(at: datetime, zone: ZoneInfo = ZONE) -> date:
    """Return the day in `zone` at the instant `at` (time-zone aware)."""
    return at.astimezone(zone).date()


def start_of(day: date, zone: ZoneInfo = ZONE) -> datetime:
    """Return the instant, in UTC, at which `day` begins in `zone`."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def with_calendar(
    frame: Frame, names: Iterable[str], now: datetime, registry: ParticipantRegistry, zone: ZoneInfo = ZONE
) -> Frame:
    """Return `frame` with the calendar columns that are in `names`. `now` is time-zone aware."""
    wanted = set(names)
    columns = [
        pl.col(fact).dt.convert_time_zone(zone.key).dt.date().alias(name)
        for name, fact in local_dates(registry).items()
        if name in wanted
    ]
    today = local_date(now, zone)
    columns += [
        _full_years(pl.col(fact), today).alias(name) for name, fact in full_years(registry).items() if name in wanted
    ]
    if NOW in wanted:
        columns.append(pl.lit(now.astimezone(UTC), dtype=pl.Datetime("us", "UTC")).alias(NOW))
    if TODAY in wanted:
        columns.append(pl.lit(today, dtype=pl.Date).alias(TODAY))
    if NEXT_YEAR in wanted:
        columns.append(pl.lit(date(today.year + 1, 1, 1), dtype=pl.Date).alias(NEXT_YEAR))
    return frame.with_columns(columns)


def _full_years(since: pl.Expr, today: date) -> pl.Expr:
    in_year = since.dt.month().cast(pl.Int64) * 100 + since.dt.day()
    before = (in_year > today.month * 100 + today.day).cast(pl.Int64)
    return today.year - since.dt.year().cast(pl.Int64) - before
