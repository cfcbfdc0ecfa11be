"""The facts of everybody in one file: whole, in constant memory, and the same as the checks read."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import pytest

from jiebang.model.case import Kind
from jiebang.model.ids import CaseIds
from jiebang.model.origin import SERVICE
from jiebang.participants import PARTICIPANTS
from jiebang.participants.opening import open_participants
from jiebang.policy.backtest import ACCOUNT, backtest
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.request import CheckRequest
from jiebang.usecases.policy.export_facts import export_facts
from tests.packs import pack
from tests.rows import BOUND, insert

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

NOW: Final = datetime(2026, 3, 15, 4, 0, tzinfo=UTC)
PACK: Final = pack("wechat")
PEOPLE: Final = range(1, 8)
CENT: Final = 3


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing but the file may be left."""
    yield tmp_path
    assert [one.name for one in tmp_path.iterdir()] == ["people.parquet"]


async def test_an_export_holds_everybody_and_backtests_as_their_checks_answer(
    pools: Mapping[str, Pool], folder: Path
) -> None:
    """Pages must neither lose nor repeat anybody, and what the officer counts is what each person is told."""
    await insert(pools["platform"], "platform.account", [{"account_id": one, "created_at": NOW} for one in PEOPLE])
    for name in PARTICIPANTS.databases:
        owner = name.split("_", maxsplit=1)[0]
        own = {**BOUND, "changed_at": NOW - timedelta(days=500)} if owner == "identity" else {}
        await insert(pools[name], f"{owner}.account", [{"account_id": one, **own} for one in PEOPLE])
    await pools["wallet"].execute("UPDATE wallet.account SET balance_fen = 1 WHERE account_id = $1", CENT)
    checker = Checker(
        registry=PARTICIPANTS,
        pack=lambda: PACK,
        participants=open_participants(PARTICIPANTS, pools, lambda: NOW, pepper=b"p" * 32),
        platform=pools["platform"],
        case_ids=CaseIds(b"0123456789abcdef"),
        clock=lambda: NOW,
        limit=timedelta(seconds=20),
    )
    file, seen = folder / "people.parquet", list[int]()
    done = await export_facts(checker, pools["platform"], file, page=3, progress=seen.append)
    assert (done.accounts, done.unread, seen) == (len(PEOPLE), {}, [3, 6, 7])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    frame = pl.read_parquet(file)
    assert frame[ACCOUNT].to_list() == list(PEOPLE)
    (report,) = backtest(PACK, pl.scan_parquet(file), [Kind.REVOKE], NOW)
    together = await checker.check([CheckRequest(one, SERVICE) for one in PEOPLE], Kind.REVOKE)
    alone = await asyncio.gather(*(checker.check([CheckRequest(one, SERVICE)], Kind.REVOKE) for one in PEOPLE))
    assert [answer for (answer,) in alone] == together
    assert report.outcome.passes == sum(answer.passes for answer in together) == len(PEOPLE) - 1
