"""Export the facts of every account into one Parquet file: the population that a policy is tried on.

Page by page, so that it takes the same memory for a thousand accounts and for ten million. Lists of items stay behind:
no condition can name them, and they hold most of what is personal. What could not be read is marked so, never guessed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from jiebang.model.facts import REQUEST
from jiebang.policy.backtest import ACCOUNT
from jiebang.policy.frame import read_column
from jiebang.store.cases import cases as store

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database
    from jiebang.usecases.checks.check import Checker


class Exported(msgspec.Struct, frozen=True):
    """How many accounts were written, and of how many each owner's facts could not be read (0 left out)."""

    accounts: int
    unread: Mapping[str, int]


async def export_facts(
    checker: Checker,
    platform: Database,
    target: Path,
    *,
    page: int = 2_000,
    progress: Callable[[int], None] = lambda _done: None,
) -> Exported:
    """Write the facts of every account the platform knows to `target`, readable by its owner alone.

    `checker` reads them, within its own time limit a page. The file appears whole or not at all. Raises OSError.
    """
    parts = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        accounts, unread, after = 0, Counter[str](), 0
        while True:
            ids = await store.account_page(platform, after, page)
            if not ids and accounts:
                break
            facts = await checker.facts(ids)
            frame = facts.frame.select(pl.Series(ACCOUNT, ids, dtype=pl.Int64), pl.all())
            unread.update(
                {owner: int((~frame[read_column(owner)]).sum()) for owner in facts.registry.owned if owner != REQUEST}
            )
            await asyncio.to_thread(frame.write_parquet, parts / f"{accounts:012}.parquet")
            accounts += len(ids)
            progress(accounts)
            if len(ids) < page:
                break
            after = ids[-1]
        await asyncio.to_thread(_join, parts, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, parts)
    return Exported(accounts, {owner: count for owner, count in unread.items() if count})


def _join(parts: Path, target: Path) -> None:
    whole = parts / "whole"
    pl.scan_parquet(parts / "*.parquet").sink_parquet(whole)
    whole.chmod(0o600)
    whole.replace(target)
