"""A tea shop's points as a remote participant, in Python, on the SDK: what is its own business stands here, no more.

    python examples/points_python/points.py --data points.db --keys keys --new-keys --port 8900
    jiebang participant test http://127.0.0.1:8900 --name points --keys keys --operation close

A person who takes their name back closes their membership: the points are frozen by the Try, cut down by the Confirm
to what the plan lets them keep, and usable again after a Cancel. While points are being redeemed, the Try is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from jiebang.model.participants import Operation, ValueType
from jiebang.model.plan import PlannedOperation
from jiebang.participants.serving import run_service

REDEEMING = "POINTS-REDEEMING"
"""Points are being redeemed at a till."""


class Points:
    """The shop's points. An account without a row is no member: there is nothing to close, and that is granted."""

    operations: Mapping[str, Operation] = {
        "close": Operation(effects={"points_kept": ValueType(int, most=1_000_000), "notify": ValueType(bool)}),
    }
    schema = """
    CREATE TABLE IF NOT EXISTS member (
        account_id INTEGER PRIMARY KEY,
        points INTEGER NOT NULL DEFAULT 0 CHECK (points >= 0),
        redeeming INTEGER NOT NULL DEFAULT 0 CHECK (redeeming IN (0, 1)),
        frozen INTEGER NOT NULL DEFAULT 0 CHECK (frozen IN (0, 1)),
        told INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1))
    );
    """

    def refuse(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> Mapping[int, str]:
        """Refuse whoever stands at a till."""
        del planned
        query = "SELECT account_id FROM member WHERE redeeming AND account_id IN (SELECT value FROM json_each(?))"
        return {account: REDEEMING for (account,) in db.execute(query, (json.dumps(accounts),))}

    def reserve(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> None:
        """Freeze the points."""
        del planned
        query = "UPDATE member SET frozen = 1 WHERE account_id IN (SELECT value FROM json_each(?))"
        db.execute(query, (json.dumps(accounts),))

    def apply(self, db: sqlite3.Connection, accounts: Sequence[int], planned: PlannedOperation) -> None:
        """Leave the points that may be kept; without that effect, all."""
        kept, notify = planned.effects.get("points_kept"), planned.effects.get("notify", False)
        query = """UPDATE member SET frozen = 0, points = min(points, coalesce(?, points)), told = max(told, ?)
            WHERE account_id IN (SELECT value FROM json_each(?))"""
        db.execute(query, (kept, int(notify), json.dumps(accounts)))

    def release(self, db: sqlite3.Connection, accounts: Sequence[int]) -> None:
        """Make the points usable again."""
        query = "UPDATE member SET frozen = 0 WHERE account_id IN (SELECT value FROM json_each(?))"
        db.execute(query, (json.dumps(accounts),))


if __name__ == "__main__":
    run_service("points", Points())
