"""Gauges over a real database: they show what is stuck, parked, late or busy, and nothing once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from jiebang.model.case import Kind
from jiebang.model.plan import Plan
from jiebang.usecases.operations.gauges import Gauges

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NOW = datetime.now(UTC)
PLAN = Plan(name="p/1", participants=("social", "wallet"), waves=(0, 1))
OURS = frozenset({0, 7})


@pytest.fixture(scope="module")
async def platform(pools: Mapping[str, Pool]) -> Pool:
    return pools["platform"]


def gauges(pool: Pool) -> Gauges:
    def plan_named(pack: str, kind: Kind) -> Plan:
        assert (pack, kind) == ("p/1", Kind.REVOKE)
        return PLAN

    return Gauges(pool, plan_named, lease=timedelta(seconds=10), resend_limit=timedelta(seconds=30))


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"jiebang_{name}", labels)


async def put(
    pool: Pool, account: int, state: str, marks: str, *, due: float | None, past_deadline: float | None = None
) -> None:
    """Insert a case that is due in `due` seconds and whose deadline was so many seconds ago."""
    await pool.execute(
        """INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, versions, wallet_version,
               created_at, due_at, deadline)
           VALUES ($1::bigint, 1, ($1::bigint % 256)::smallint, 'revoke', $2, 'p/1', $3, '{1,1}', 1, $4, $5, $6)""",
        account,
        state,
        marks,
        NOW - timedelta(days=1),
        None if due is None else NOW + timedelta(seconds=due),
        None if past_deadline is None else NOW - timedelta(seconds=past_deadline),
    )


async def test_gauges_show_what_is_wrong_and_nothing_else(platform: Pool) -> None:
    """Each of these people waits; an alarm must ring for every one, and for none of those who are well."""
    await put(platform, 1, "open", "..", due=86_400)
    await put(platform, 2, "trying", "tt", due=1, past_deadline=-3)
    await put(platform, 3, "confirming", "dc", due=20, past_deadline=60)
    await put(platform, 4, "confirming", "cd", due=20, past_deadline=400)
    await put(platform, 5, "cancelling", "zx", due=25, past_deadline=400)
    await put(platform, 6, "confirming", "Cd", due=None, past_deadline=9_000)
    await put(platform, 7, "confirming", "dC", due=None, past_deadline=9_000)
    await put(platform, 8, "in_review", "..", due=None)
    await put(platform, 9, "ready", "..", due=-42)
    await platform.execute(
        """INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
           VALUES (1, gen_random_uuid(), 1, 1, 't', '{}', $1, $1)""",
        NOW - timedelta(seconds=17),
    )
    await platform.execute(
        """INSERT INTO platform.outbox
               (account_id, message_id, bucket, case_no, template, params, created_at, dead_at, dead_code)
           VALUES (1, gen_random_uuid(), 1, 1, 't', '{}', $1, $1, 'GONE')""",
        NOW,
    )
    read = gauges(platform)
    assert await read(OURS, NOW) == 0
    assert (shown("oldest_due_seconds"), shown("oldest_message_seconds")) == (42, 17)
    assert shown("dead_messages") == 1
    assert {state: shown("stuck_cases", state=state) for state in ("trying", "confirming", "cancelling")} == {
        "trying": 0,
        "confirming": 1,
        "cancelling": 1,
    }
    assert (shown("parked_cases", state="confirming"), shown("parked_cases", state="cancelling")) == (2, 0)
    assert shown("busy_wallets") == 3, "accounts 3, 5 and 7: at the others the wallet is done, or was only just asked"
    assert shown("gauges_read_timestamp_seconds") == NOW.timestamp()
    await platform.execute("DELETE FROM platform.cases WHERE account_id > 2")
    assert await read(OURS, NOW + timedelta(seconds=1)) == 0
    assert shown("busy_wallets") == 3, "not before its time"
    assert await read(OURS, NOW + timedelta(seconds=11)) == 0
    assert (shown("busy_wallets"), shown("stuck_cases", state="confirming")) == (0, 0)


async def test_whoever_no_longer_reads_shows_nothing(platform: Pool) -> None:
    """Two workers with different numbers, one of them of yesterday, would keep an alarm ringing for ever."""
    await put(platform, 21, "confirming", "cC", due=None, past_deadline=9_000)
    read = gauges(platform)
    await read(OURS, NOW)
    assert shown("parked_cases", state="confirming") == 1
    await read(frozenset({3}), NOW + timedelta(seconds=1))
    assert shown("parked_cases", state="confirming") == 0


async def test_a_plan_that_nobody_knows_does_not_stop_the_reading(platform: Pool) -> None:
    """The alarm must ring above all when something is odd."""

    def unknown(_pack: str, _kind: Kind) -> Plan:
        raise KeyError

    read = Gauges(platform, unknown, lease=timedelta(seconds=10), resend_limit=timedelta(seconds=30))
    await read(OURS, NOW)
    assert (shown("parked_cases", state="confirming"), shown("busy_wallets")) == (1, 0)
