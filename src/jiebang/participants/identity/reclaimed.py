"""Identities that were taken back, as one data centre knows them: when their keys go, and what law keeps of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from jiebang.store.postgres.named_sql import key_columns, load

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_SQL = load("jiebang.participants.identity", "reclaimed.sql")


class IdentityStanding(msgspec.Struct, frozen=True):
    """How an account's identity stands. `destroy_at`: when the key of one that was taken back is to be destroyed."""

    account_id: int
    epoch: int
    reclaimed: bool
    destroy_at: datetime | None


@runtime_checkable
class ReclaimedIdentities(Protocol):
    """Knows which identities were taken back, and keeps their sealed bytes as long as law does."""

    async def load_standings(self, accounts: Collection[int]) -> Mapping[int, IdentityStanding]:
        """Return how the identities of accounts stand."""

    async def retain_sealed(self, accounts: Collection[int], now: datetime) -> None:
        """Keep the sealed bytes of those of the accounts whose identity was taken back."""

    async def load_retained(self, accounts: Collection[int]) -> Mapping[int, list[bytes]]:
        """Return the kept sealed bytes of accounts."""

    async def drop_retained(self, keys: Collection[tuple[int, int]]) -> None:
        """Delete kept sealed bytes, by account and epoch."""


class ReclaimedIdentityTable:
    """The identities of one data centre that were taken back."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load_standings(self, accounts: Collection[int]) -> Mapping[int, IdentityStanding]:
        """Return how the identities of accounts stand."""
        rows = await self._pool.fetch(_SQL["reclaimed_of"], sorted(set(accounts)))
        return {row["account_id"]: IdentityStanding(*row) for row in rows}

    async def retain_sealed(self, accounts: Collection[int], now: datetime) -> None:
        """Keep the sealed bytes of those of the accounts whose identity was taken back."""
        await self._pool.execute(_SQL["retain_sealed"], sorted(set(accounts)), now)

    async def load_retained(self, accounts: Collection[int]) -> Mapping[int, list[bytes]]:
        """Return the kept sealed bytes of accounts."""
        found = dict[int, list[bytes]]()
        for row in await self._pool.fetch(_SQL["retained_of"], sorted(set(accounts))):
            found.setdefault(row["account_id"], []).append(row["sealed"])
        return found

    async def drop_retained(self, keys: Collection[tuple[int, int]]) -> None:
        """Delete kept sealed bytes, by account and epoch."""
        await self._pool.execute(_SQL["drop_retained"], *key_columns(keys))
