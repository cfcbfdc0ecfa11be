"""A policy over ten million accounts: the whole pack as columns, against zen-engine an account at a time on a sample.

The population is a Parquet file, made anew from a fixed seed and written in pieces; what each account is like follows
shares that stop about two of three. Each contestant runs in a process of its own, so that its memory is its own: ours
reads the file, runs every rule of every kind of case and counts who passes and what stops whom, alone and together. The
rival gets facts that are ready in memory, and counts nothing.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import polars as pl

from bench import zen_rules
from bench.measure import Bar, Result, ratio, row
from jiebang.model.case import Kind
from jiebang.model.facts import FactType
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.backtest import ACCOUNT, backtest
from jiebang.policy.calendar import with_calendar
from jiebang.policy.frame import DTYPES, read_column
from jiebang.policy.load import load_pack
from jiebang.policy.pack import Pack

_NOW: Final = datetime(2026, 3, 15, 4, tzinfo=UTC)
_ACCOUNTS: Final = 10_000_000
SMOKE: Final = {"size": 2_000}
_SAMPLE: Final = 20_000
"""Accounts the rival gets: it would run for minutes on all."""
_PIECE: Final = 1_000_000
_SEED: Final = 11
_COMMON: Final = {
    "balance_fen": 0.45,
    "open_transactions": 0.04,
    "unclaimed_red_packets": 0.12,
    "autodebit_contracts": 0.35,
    "open_credit": 0.08,
    "official_accounts": 0.01,
    "administered_enterprises": 0.01,
    "open_merchants": 0.03,
}
"""Share of accounts in which a number is above 0; any other number or yes-or-no: one in 500."""
_RARE: Final = 0.002
_YEARS: Final = 10 * 365 * 86_400
_UNREAD: Final = 0.001


def _pack() -> Pack:
    return load_pack(*packs.text("wechat"), PARTICIPANTS)


def _column(name: str, size: int, chance: np.random.Generator) -> pl.Series:
    """Make one fact of `size` accounts."""
    kind = PARTICIPANTS.facts[name].type
    dtype = DTYPES[kind]
    hit = chance.random(size) < _COMMON.get(name, _RARE)
    match kind:
        case FactType.INT | FactType.FEN:
            return pl.Series(name, np.where(hit, chance.integers(1, 50_000, size), 0), dtype=dtype)
        case FactType.BOOL:
            return pl.Series(name, hit)
        case FactType.TIME:
            seconds = int(_NOW.timestamp()) - chance.integers(0, _YEARS, size)
            if name == "abnormal_login_at":
                hit = chance.random(size) < 0.3  # noqa: PLR2004 - most people never had one
                return pl.Series(name, np.where(hit, seconds, 0) * 1_000_000).replace(0, None).cast(dtype)
            return pl.Series(name, seconds * 1_000_000).cast(dtype)
        case FactType.DATE:
            return pl.Series(name, chance.integers(-7_000, 20_000, size).astype(np.int32)).cast(dtype)
        case _:
            words = {"identity_state": ("active", "none"), "document_type": ("resident_id", "passport")}.get(name)
            usual, other = words or (None, f"{name}-1")
            share = 0.05 if words else _RARE
            return pl.DataFrame({"hit": chance.random(size) < share}).select(
                pl.when("hit").then(pl.lit(other)).otherwise(pl.lit(usual, dtype=pl.String)).alias(name)
            )[name]


def _people(first: int, size: int) -> pl.DataFrame:
    chance = np.random.default_rng([_SEED, first])
    columns = [pl.Series(ACCOUNT, np.arange(first, first + size))]
    for owner, names in PARTICIPANTS.owned.items():
        columns += [
            _column(name, size, chance) for name in names if PARTICIPANTS.facts[name].type is not FactType.ITEMS
        ]
        columns.append(pl.Series(read_column(owner), chance.random(size) >= _UNREAD))
    frame = pl.DataFrame(columns)
    unread = [
        pl.when(read_column(PARTICIPANTS.facts[name].owner)).then(pl.col(name)).alias(name)
        for name in frame.columns
        if name in PARTICIPANTS.facts
    ]
    return frame.with_columns(unread)


def _make(folder: Path, accounts: int) -> None:
    for first in range(1, accounts + 1, _PIECE):
        _people(first, min(_PIECE, accounts + 1 - first)).write_parquet(folder / f"{first:012}.parquet")


def _ours(folder: str, _sample: int) -> tuple[float, int, int]:
    """Run every rule for every kind of case over the files; return seconds, peak of memory in bytes, who may revoke."""
    pack = _pack()
    start = perf_counter()
    reports = backtest(pack, pl.scan_parquet(f"{folder}/*.parquet"), list(Kind), _NOW)
    took = perf_counter() - start
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, reports[0].outcome.passes


def _rival(folder: str, sample: int) -> tuple[float, float]:
    """Run the same rules an account at a time; return seconds as a decision graph, and as one compiled expression.

    Raises RuntimeError where it finds anything else than our columns do.
    """
    pack = _pack()
    names = frozenset().union(*(rule.when.names for rule in pack.rules))
    frame = with_calendar(pl.scan_parquet(f"{folder}/*.parquet").head(sample).collect(), names, _NOW, PARTICIPANTS)
    facts = zen_rules.contexts(frame, names)
    truth = [list(one) for one in frame.select(rule.raised.alias(rule.code) for rule in pack.rules).iter_rows()]
    taken = []
    for engine in (zen_rules.decision(pack, pack.rules), zen_rules.expression(pack, pack.rules)):
        start = perf_counter()
        found = [engine(one) for one in facts]
        taken.append(perf_counter() - start)
        if found != truth:
            message = "the rival finds something else than the columns"
            raise RuntimeError(message)
    return taken[0], taken[1]


def run(rounds: int, size: int | None) -> Result:
    """Measure; `size` is how many accounts."""
    accounts = size or _ACCOUNTS
    sample = min(_SAMPLE, accounts)
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    alone = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    try:
        _make(folder, accounts)
        ours, rivals = list[tuple[float, int, int]](), list[tuple[float, float]]()
        for _ in range(rounds):
            ours.append(alone.submit(_ours, str(folder), sample).result())
            rivals.append(alone.submit(_rival, str(folder), sample).result())
    finally:
        alone.shutdown()
        shutil.rmtree(folder)
    seconds = [one[0] for one in ours]
    rates = [accounts / one for one in seconds]
    rules = len(_pack().rules)
    rows = [
        row("backtest", "s", seconds, f"{accounts:,} accounts, {rules} rules, all kinds; reading the file included"),
        row("backtest: peak memory", "MiB", [one[1] / 2**20 for one in ours], "of the whole process"),
        row("backtest: rate", "accounts/s", rates),
        row("zen: decision graph", "accounts/s", [sample / one[0] for one in rivals], f"{sample:,} accounts in memory"),
        row("zen: one expression", "accounts/s", [sample / one[1] for one in rivals], "the fastest form it has"),
    ]
    return Result(
        rows,
        [
            Bar("seconds for all accounts", rows[0].median, at_most=10),
            Bar("peak memory, MiB", rows[1].median, at_most=2048),
            Bar("backtest / zen decision graph", ratio(rates, rows[3].rounds), at_least=20),
        ],
    )
