"""The gate of the participant `enterprise`: calls under the API credentials issued to people for enterprises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.errors import ApiKeyEndedError, JiebangError
from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_SQL: Final = load("jiebang.participants.enterprise", "gate.sql")


class EnterpriseCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call under a credential of an account."""

    account_id: int
    credential_id: int


class EnterpriseGate:
    """Lets calls through. Its method raises OSError, TimeoutError or asyncpg's errors while the database is silent."""

    name: Final = "enterprise"

    def __init__(self, pool: Pool) -> None:
        """Use `pool`, which belongs to its opener."""
        self._pool = pool

    async def call(self, calls: Sequence[EnterpriseCall]) -> list[JiebangError | None]:
        """Return for each call why it is refused, None where it is let through. Answers in the order given.

        Refused with ApiKeyEndedError, whether the credential was ended, died with its holder's name, or never was.
        """
        accounts, credentials = ([*{one[at] for one in map(_key, calls)}] for at in range(2))
        rows = await self._pool.fetch(_SQL["live_credentials"], sorted(accounts), sorted(credentials))
        live = {tuple(row) for row in rows}
        return [None if _key(one) in live else ApiKeyEndedError() for one in calls]


def _key(one: EnterpriseCall) -> tuple[int, int]:
    return one.account_id, one.credential_id
