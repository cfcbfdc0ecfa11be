"""The gate of the participant `openplatform`: API calls of apps and mini programs, counted against their daily quota.

Every call takes a batch: one transaction locks the developers' accounts in key order, reads, decides, and writes the
counts in one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.errors import ApiQuotaUsedError, JiebangError, NoSuchAppError, UnknownAccountError
from jiebang.policy.calendar import ZONE, local_date
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.participants.openplatform", "gate.sql")


class OpenApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of an API by an app or mini program (`subject_id`) of an account."""

    account_id: int
    subject_id: str
    api: str


class OpenApiAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a call: how often the subject has called that API today, this one included, and how often it may.

    `most` None: as often as it likes. Or why it was refused: then it does not count.
    """

    calls: int = 0
    most: int | None = None
    refusal: JiebangError | None = None


class OpenApiGate:
    """Lets API calls through. Its method raises OSError, TimeoutError or asyncpg's errors while the database is silent.

    A call is no mutation of anything but its count: one that is repeated after a lost answer counts again.
    """

    name: Final = "openplatform"

    def __init__(self, pool: Pool, clock: Callable[[], datetime]) -> None:
        """Use `pool`, which belongs to its opener."""
        self._pool, self._clock = pool, clock

    async def call_apis(self, calls: Sequence[OpenApiCall]) -> list[OpenApiAnswer]:
        """Count calls, and let through those within the quota of the Shanghai day. Answers in the order given.

        Refused with UnknownAccountError, NoSuchAppError (not an open app or published mini program of the account), or
        ApiQuotaUsedError (how many a day, when the next is admitted, and what brings the quota back).
        """
        now, ids = self._clock(), sorted({one.account_id for one in calls})
        today = local_date(now)
        async with self._pool.acquire() as connection, connection.transaction():
            locked = await connection.fetch(_SQL["lock_developers"], ids)
            subjects = {tuple(row) for row in await connection.fetch(_SQL["subjects"], ids)}
            quotas = {tuple(row)[:3]: row["calls_per_day"] for row in await connection.fetch(_SQL["quotas"], ids)}
            used = {tuple(row)[:3]: row["calls"] for row in await connection.fetch(_SQL["used"], ids, today)}
            test = {row["account_id"]: row["test_calls_per_day"] if row["at_test"] else None for row in locked}
            known, counted = {row["account_id"] for row in locked}, dict[tuple[int, str, str], int]()
            answers = list[OpenApiAnswer]()
            for one in calls:
                key = one.account_id, one.subject_id, one.api
                if one.account_id not in known:
                    answers.append(OpenApiAnswer(refusal=UnknownAccountError(accounts=[str(one.account_id)])))
                    continue
                if key[:2] not in subjects:
                    answers.append(OpenApiAnswer(refusal=NoSuchAppError(subject=one.subject_id)))
                    continue
                limits = [most for most in (quotas.get(key), test[one.account_id]) if most is not None]
                most = min(limits, default=None)
                if most is not None and used.get(key, 0) >= most:
                    answers.append(OpenApiAnswer(most=most, refusal=_refuse(most, now, test[one.account_id])))
                    continue
                counted[key] = used[key] = used.get(key, 0) + 1
                answers.append(OpenApiAnswer(calls=used[key], most=most))
            if counted:
                await connection.execute(
                    _SQL["count_calls"],
                    [account_id for account_id, _, _ in counted],
                    [subject for _, subject, _ in counted],
                    [api for _, _, api in counted],
                    list(counted.values()),
                    today,
                )
        return answers


def _refuse(most: int, now: datetime, test: int | None) -> ApiQuotaUsedError:
    reopens = datetime.combine(local_date(now) + timedelta(days=1), time(), ZONE)
    return ApiQuotaUsedError(
        limit=most,
        until=reopens.isoformat(),
        retry_after_s=int((reopens - now).total_seconds()) + 1,
        at_test_level=test is not None,
    )
