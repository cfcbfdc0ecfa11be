"""Export the facts of every account into one Parquet file: the population of a backtest.

Page by page, in constant memory. Lists of items are left out: no condition can name them, and they hold most of what is
personal. Facts that could not be read are marked unread.
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


class ExportSummary(msgspec.Struct, frozen=True):
    """How many accounts were written, and by owner, how many accounts' facts could not be read (0 left out)."""

    accounts: int
    unread: Mapping[str, int]


async def export_facts(
    checker: Checker,
    platform: Database,
    target: Path,
    *,
    page: int = 2_000,
    progress: Callable[[int], None] = lambda _done: None,
) -> ExportSummary:
    """Write the facts of every account of the platform to `target`, a file that only its owner can read.

    `checker` reads them, each page within its time limit. The file appears whole or not at all. Raises OSError.
    """
    parts = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        accounts, unread, after = 0, Counter[str](), 0
        while True:
            ids = await store.load_account_page(platform, after, page)
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
        await asyncio.to_thread(_join_parts, parts, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, parts)
    return ExportSummary(accounts, {owner: count for owner, count in unread.items() if count})


def _join_parts(parts: Path, target: Path) -> None:
    whole = parts / "whole"
    pl.scan_parquet(parts / "*.parquet").sink_parquet(whole)
    whole.chmod(0o600)
    whole.replace(target)
