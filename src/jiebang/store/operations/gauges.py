"""What the gauges read from the platform's database."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import BUCKETS, Kind, State
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "gauges.sql")
_ALL_BUCKETS = list(range(BUCKETS))


class LateCases(msgspec.Struct, frozen=True, kw_only=True):
    """How many cases under way past their deadline share one state and marks.

    `stuck`: long past it. `parked`: nothing more is sent for them until an operator acts. `since`: the earliest of
    their deadlines (of one that has none, when it was made).
    """

    plan: str
    kind: Kind
    state: State
    marks: str
    stuck: bool
    parked: bool
    cases: int
    since: datetime


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """When the oldest case and the oldest message were or will be due (None: there are none), and the late cases."""

    due_at: datetime | None
    message_at: datetime | None
    late: list[LateCases]


async def count_accounts(db: Database) -> int:
    """Count all accounts."""
    count: int = await db.fetchval("SELECT count(*) FROM platform.account")
    return count


async def read(
    db: Database, *, now: datetime, soon: datetime, late_before: datetime, stuck_before: datetime, most: int
) -> Readings:
    """Read all gauges in one statement.

    `now`: a case that rests until later is under way and not counted as the oldest. `soon`: by then every case
    under way is due. `late_before`, `stuck_before`: a case with an earlier deadline is late, or stuck. `most`: how many
    late cases of one bucket are counted.
    """
    rows = await db.fetch(_SQL["readings"], _ALL_BUCKETS, soon, late_before, most, stuck_before, now)
    oldest = {row["what"]: row["oldest_at"] for row in rows if row["what"] in ("due", "message")}
    return Readings(
        due_at=oldest.get("due"),
        message_at=oldest.get("message"),
        late=[
            LateCases(
                plan=row["plan"],
                kind=Kind(row["kind"]),
                state=State(row["state"]),
                marks=row["marks"],
                stuck=row["what"] == "stuck",
                parked=row["what"] == "parked",
                cases=row["cases"],
                since=row["oldest_at"],
            )
            for row in rows
            if row["what"] not in oldest
        ],
    )
