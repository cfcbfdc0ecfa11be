"""Timelines in the database: chained by every writer, and chained by PostgreSQL exactly as anybody else computes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.saga.timeline import opened
from jiebang.store import cases, seals
from jiebang.store.cases import NewCase, Save

if TYPE_CHECKING:
    from jiebang.store.pool import Pool

NOW = datetime(2026, 4, 1, 8, 0, 0, 70_000, tzinfo=UTC)


@pytest.fixture(scope="module")
async def platform(pools: Mapping[str, Pool]) -> Pool:
    await pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT n, now() FROM generate_series(1, 9007) AS n"
    )
    return pools["platform"]


async def withdrawn(platform: Pool, ids: list[int], at: datetime = NOW) -> list[Case]:
    """Open cases, let them wait, and withdraw them: three rows of a timeline each."""
    new = [NewCase(account_id=each, kind=Kind.REVOKE, plan="p/1", participants=2, due_at=at) for each in ids]
    found = await cases.insert(platform, new, at, [opened(at)])
    waiting: dict[str, Any] = {"what": "state", "state": "in_review", "reason": '复核 "§1"/\u2028'}
    for state, told in ((State.IN_REVIEW, waiting), (State.WITHDRAWN, {"what": "state", "state": "withdrawn"})):
        at += timedelta(seconds=1)
        ended = state is State.WITHDRAWN
        saves = [
            Save(
                case=msgspec.structs.replace(
                    case,
                    revision=case.revision + 1,
                    state=state,
                    due_at=None if ended else case.due_at,
                    withdraw_at=at if ended else None,
                ),
                entries=[{"at": at, **told}],
            )
            for case in found.values()
        ]
        if ended:
            await cases.wish_withdraw(platform, [save.case.key for save in saves], at)
        found = {key[0]: case for key, case in (await cases.save(platform, saves, at)).items()}
    return list(found.values())


async def test_postgresql_chains_as_a_third_party_would(platform: Pool) -> None:
    """A receipt is checked far from here, with a JSON library and SHA-256 of somebody else's."""
    [case] = await withdrawn(platform, [9_007])
    stored = await platform.fetch(
        "SELECT revision, at, entries, head FROM platform.case_event WHERE account_id = 9007 ORDER BY revision"
    )
    head = sha256(b"jiebang-timeline-1\n9007\n1").digest()
    for row in stored:
        entries = json.dumps(json.loads(row["entries"]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        at = row["at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        head = sha256(head + sha256(f"{row['revision']}\n{at}\n{entries}".encode()).digest()).digest()
        assert row["head"] == head
    assert (len(stored), case.revision) == (3, 3)
    assert case.head == head, "what a save returns is what stands"
    assert (await cases.load_many(platform, [case.key]))[case.key].head == head


async def test_every_case_of_a_batch_goes_on_from_its_own_head(platform: Pool) -> None:
    """One statement saves many: none may take another's head."""
    await withdrawn(platform, list(range(101, 141)))
    found = [(case, rows) async for case, rows in seals.timelines(platform, 100, 140, 7)]
    assert len(found) == len({case.head for case, _ in found}) == 40
