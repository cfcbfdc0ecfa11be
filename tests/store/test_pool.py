"""Pools: what the set-based statements rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jiebang.store.pool import Pool


async def test_every_database_answers(pools: Mapping[str, Pool]) -> None:
    for name, pool in pools.items():
        assert str(await pool.fetchval("SELECT current_database()")).startswith(name)
