"""The gates of `openplatform` and `enterprise` in batches: one call, one answer each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jiebang.clock import utc_now
from jiebang.participants.enterprise.gate import EnterpriseCall, EnterpriseGate
from jiebang.participants.openplatform.gate import OpenApiCall, OpenApiGate
from tests.rows import AT, insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


async def test_calls_of_one_batch_and_of_many_share_a_quota(pools: Mapping[str, Pool]) -> None:
    """A thousand calls in one request, or from ten machines at once, are no way round a quota of five."""
    pool = pools["openplatform"]
    await insert_accounts(pool, "openplatform", [1], api_quota_level="test", test_calls_per_day=5)
    app = {"account_id": 1, "app_id": "wx1", "name": "x", "technical_lead": False, "created_at": AT}
    await insert(pool, "openplatform.app", [app])
    gate = OpenApiGate(pool, utc_now)
    one = OpenApiCall(account_id=1, subject_id="wx1", api="a")
    answers = await gate.call_apis([one, one, one, OpenApiCall(account_id=2, subject_id="wx1", api="a")])
    assert [answer.calls for answer in answers] == [1, 2, 3, 0]
    rest = await asyncio.gather(*(gate.call_apis([one]) for _ in range(6)))
    assert sum(answer.refusal is None for [answer] in rest) == 2
    assert await pool.fetchval("SELECT calls FROM openplatform.api_use WHERE account_id = 1") == 5


async def test_each_credential_is_answered_for_itself(pools: Mapping[str, Pool]) -> None:
    """A batch of many enterprises' calls: a key of one account must not open another's."""
    pool = pools["enterprise"]
    await insert_accounts(pool, "enterprise", [1, 2], api_rights=True)
    await insert_accounts(pool, "enterprise", [3], api_rights=True, epoch=2)
    rows = [
        {"account_id": account, "credential_id": key, "enterprise_id": 1, "name": "x", "issued_at": AT}
        for account, key in ((1, 1), (2, 2), (3, 3))
    ]
    await insert(pool, "enterprise.api_credential", rows)
    asked = [(1, 1), (1, 2), (2, 2), (3, 3), (4, 4)]
    calls = [EnterpriseCall(account_id=account, credential_id=key) for account, key in asked]
    answers = await EnterpriseGate(pool).call(calls)
    assert [answer is None for answer in answers] == [True, False, True, False, False]
