"""Compare two versions of a policy on the same facts, by code and segment. Columns only, no texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from jiebang.model.check import Severity
from jiebang.policy.calendar import with_calendar
from jiebang.policy.evaluate import has_agreed, run_rules
from jiebang.policy.frame import Facts, read_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from numpy.typing import NDArray

    from jiebang.model.case import Kind
    from jiebang.policy.pack import Pack

    Table = NDArray[np.int64]

ALL: Final = "all"
BLOCKED: Final = ""
"""In place of a code: counts whole answers that something blocks."""
_YEARS: Final = "birth_years"
_ADULT: Final = 18
"""Civil Code art. 17. A segment of a report, not a rule."""
_MINOR: Final = (pl.col(_YEARS) < _ADULT).fill_null(value=False)
_SEGMENTS: Final[Mapping[str, pl.Expr]] = {
    ALL: pl.lit(value=True),
    "minor": _MINOR,
    "enterprise": (pl.col("administered_enterprises") > 0).fill_null(value=False),
    "merchant": (pl.col("open_merchants") > 0).fill_null(value=False),
    "developer": (pl.col("mini_programs") > 0).fill_null(value=False),
}
"""The segments of accounts, beside those by type of document. An account may belong to several."""
_DOCUMENT: Final = "document_type"

VersionCounts = tuple[int, int, int, int]
"""Counts: checks, raised by both versions, by the live one only, by the shadow only."""


def join_batches(batches: Sequence[Facts]) -> Facts:
    """Join the facts of several batches, without their versions."""
    if len(batches) == 1:
        return batches[0]
    items = {name: [row for facts in batches for row in facts.items[name]] for name in batches[0].items}
    frame = pl.concat([facts.frame for facts in batches])
    return Facts([account for facts in batches for account in facts.accounts], frame, items, {}, batches[0].registry)


def compare_versions(
    live: Pack, shadow: Pack, facts: Facts, kind: Kind, now: datetime
) -> dict[tuple[str, str], VersionCounts]:
    """Count, by segment and code, how two versions agree and differ. Accounts that do not exist are not counted."""
    before, after = _hits(live, facts, kind, now), _hits(shadow, facts, kind, now)
    codes = sorted(before.keys() | after.keys())
    nobody = np.zeros(len(facts.accounts), dtype=bool)
    old = np.stack([before.get(code, nobody) for code in codes], axis=1)
    new = np.stack([after.get(code, nobody) for code in codes], axis=1)
    names, members = _segments(facts, now, live.zone)
    both, only_live, only_new = (members @ table.astype(np.int64) for table in (old & new, old & ~new, ~old & new))
    sizes = members.sum(axis=1)
    return {
        (name, code): (int(sizes[row]), int(both[row, column]), int(only_live[row, column]), int(only_new[row, column]))
        for row, name in enumerate(names)
        if sizes[row]
        for column, code in enumerate(codes)
    }


def _hits(pack: Pack, facts: Facts, kind: Kind, now: datetime) -> dict[str, Any]:
    """Return a boolean row by code of who raises it, and under BLOCKED of who is stopped by anything."""
    _, columns = run_rules(pack, facts, kind, now)
    unread = np.zeros(len(facts.accounts), dtype=bool)
    for owner in pack.facts_needed[kind]:
        unread |= ~facts.frame[read_column(owner)].to_numpy()
    found = {pack.unavailable.code: unread}
    blocked = unread.copy()
    for rule in pack.rules_of[kind]:
        hits = columns[rule.code].to_numpy().copy()
        if rule.severity is Severity.NEEDS_CONSENT:
            for row in np.flatnonzero(hits):
                hits[row] = not has_agreed(rule, facts, int(row))
        if rule.severity is not Severity.INFORMS:
            blocked |= hits
        found[rule.code] = hits
    return {**found, BLOCKED: blocked}


def _segments(facts: Facts, now: datetime, zone: ZoneInfo) -> tuple[list[str], Table]:
    """Return the names of the segments and a row of ones and zeros for each."""
    frame = with_calendar(facts.frame, [_YEARS], now, facts.registry, zone)
    flags = frame.select(expr.alias(name) for name, expr in _SEGMENTS.items())
    names, rows = list(_SEGMENTS), [flags[name].to_numpy() for name in _SEGMENTS]
    documents = frame[_DOCUMENT].fill_null("unknown")
    for name in sorted(documents.unique().to_list()):
        names.append(f"{_DOCUMENT}={name}")
        rows.append((documents == name).to_numpy())
    there = frame["account_known"].fill_null(value=False).to_numpy()
    return names, (np.stack(rows) & there).astype(np.int64)
