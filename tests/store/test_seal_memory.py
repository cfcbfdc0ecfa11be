"""A chain of seals cannot be rewritten with the help of our workers, and what earlier versions sealed stays good."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from jiebang.model.facts import PLATFORM
from jiebang.saga.chain import time_text
from jiebang.saga.seals import BEGINNING, NOTHING, Leaf, Statement, find_leaf, pack, root, seal_hash
from jiebang.store.timelines import anchor, seals
from jiebang.store.timelines.seal_signing_keys import build_seal_keys
from jiebang.store.timelines.seals import Seal
from jiebang.store.timelines.witness import ChainMemory
from jiebang.usecases.timelines.seal import ANCHOR_GONE, Sealer, SealPace
from jiebang.usecases.timelines.verify import TimelineReport, audit_seals
from tests.store.test_timelines import REWRITTEN, withdrawn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

ACCOUNTS = [217, 218, 219]


def now() -> datetime:
    return datetime.now(UTC)


class Host:
    """A host whose workers seal: its key, its own memory, the anchor, and the database of the keys."""

    def __init__(self, pools: Mapping[str, Pool], folder: Path, name: str = "host") -> None:
        self.pool, self.anchor, self.keys = pools[PLATFORM], folder / "anchor.jsonl", build_seal_keys(b"k" * 32)
        self.file = folder / name
        self.memory = ChainMemory(self.file, pools["keys"])
        self.sealer = self.worker()

    def worker(self) -> Sealer:
        return Sealer(
            pool=self.pool, keys=self.keys, anchor_at=self.anchor, pace=SealPace(grace=timedelta()), memory=self.memory
        )

    async def audit(self) -> list[tuple[str, int | None]]:
        report = TimelineReport()
        remembered = (await self.memory.read()).values()
        await audit_seals(self.pool, self.keys, self.anchor, report, remembered)
        return [(str(each.fault), each.seal) for each in report.findings]


@pytest.fixture
async def host(pools: Mapping[str, Pool], tmp_path: Path) -> Host:
    """Three seals of a case each."""
    for table in ("platform.account", "platform.cases", "platform.case_event", "platform.timeline_seal"):
        await pools[PLATFORM].execute(f"TRUNCATE {table}")
    await pools["keys"].execute("TRUNCATE keys.seal_witness")
    await pools[PLATFORM].execute("UPDATE platform.seal_floor SET until = 'epoch'")
    await pools[PLATFORM].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT n, now() FROM unnest($1::bigint[]) AS n",
        [*ACCOUNTS, 220],
    )
    host = Host(pools, tmp_path)
    for account in ACCOUNTS:
        await withdrawn(host.pool, [account], now() - timedelta(minutes=1))
        assert await host.sealer.turn(now()) == 1
    assert await host.audit() == []
    return host


async def rewrite(host: Host) -> None:
    """Cut database and anchor back to the first seal, and forge the history of the case in the second."""
    await host.pool.execute("DELETE FROM platform.timeline_seal WHERE seal_no > 1")
    lines = host.anchor.read_bytes().split(b"\n\n")
    host.anchor.write_bytes(b"\n\n".join(lines[:2]) + b"\n")
    last = anchor.read_last(host.anchor)
    assert last is not None
    assert last.seal == 1
    await host.pool.execute(REWRITTEN)


@pytest.mark.parametrize("forgotten", ["nothing", "host", "witness", "worker"])
async def test_whoever_has_the_database_and_the_anchor_cannot_have_history_sealed_anew(
    host: Host, pools: Mapping[str, Pool], forgotten: str
) -> None:
    """The worker would sign the forgery: it must know, however many of its memories are gone, that it sealed before."""
    sealer = host.worker()  # a new process, which remembers nothing itself
    if forgotten == "host":
        host.file.unlink()
    elif forgotten == "witness":
        await pools["keys"].execute("TRUNCATE keys.seal_witness")
    elif forgotten == "worker":
        host.file.unlink()
        await pools["keys"].execute("TRUNCATE keys.seal_witness")
        sealer = host.sealer
    await rewrite(host)
    assert await sealer.turn(now()) == 0
    assert (await sealer.standing(now())).halted in {
        "chain_ends_before_the_host",
        "chain_ends_before_the_witness",
        "chain_ends_before_the_worker",
    }
    if forgotten != "worker":
        assert await host.audit() == [("seal_chain_cut", 3)]


async def test_another_host_does_not_seal_over_it_either(host: Host, pools: Mapping[str, Pool]) -> None:
    """Its own memory is empty: what the first host sealed stands in the database of the keys."""
    await rewrite(host)
    other = Host(pools, host.file.parent, "other")
    assert await other.sealer.turn(now()) == 0
    assert await other.audit() == [("seal_chain_cut", 3)]


async def test_a_host_that_sealed_long_ago_takes_over(host: Host, pools: Mapping[str, Pool]) -> None:
    """Its memory is old, not wrong: the chain holds what it sealed."""
    other = Host(pools, host.file.parent, "other")
    await withdrawn(host.pool, [220])
    assert await other.sealer.turn(now()) == 1
    await withdrawn(host.pool, [217])
    assert await host.sealer.turn(now()) == 1
    assert await host.audit() == []


async def test_an_anchor_that_is_gone_is_a_violation_and_nobody_makes_another(host: Host) -> None:
    """A deleted anchor must not come back as if it had always begun today."""
    host.anchor.unlink()
    await withdrawn(host.pool, [220])
    assert await host.sealer.turn(now()) == 0
    assert not host.anchor.exists()
    assert (await host.sealer.standing(now())).halted == ANCHOR_GONE
    assert await host.audit() == [("anchor_missing", None)]
    assert await host.sealer.go_on_after_restore(now(), "mei") == 4
    assert await host.sealer.turn(now()) == 1
    assert await host.audit() == []


async def test_without_seals_no_anchor_is_missing(host: Host, pools: Mapping[str, Pool], tmp_path: Path) -> None:
    """A fresh installation is clean; one whose seals were all deleted, with the anchor, is not."""
    await host.pool.execute("DELETE FROM platform.timeline_seal")
    host.anchor.unlink()
    assert await host.audit() == [("anchor_missing", None), ("seal_chain_cut", 3)]
    host.file.unlink()
    await pools["keys"].execute("TRUNCATE keys.seal_witness")
    assert await host.audit() == []
    fresh = Host(pools, tmp_path / "..", "fresh")
    await host.pool.execute("DELETE FROM platform.cases")
    assert await fresh.sealer.turn(now()) == 0
    assert fresh.anchor.exists(), "its absence is a fault from now on"
    fresh.anchor.unlink()


async def test_a_host_that_cannot_remember_seals_all_the_same(host: Host, pools: Mapping[str, Pool]) -> None:
    """Keys are often mounted read-only: the database of the keys remembers for that host."""
    other = Host(pools, host.file.parent, "no such folder/host")
    await withdrawn(host.pool, [220])
    assert await other.sealer.turn(now()) == 1
    await rewrite(host)
    assert await Host(pools, host.file.parent, "third").sealer.turn(now()) == 0


async def test_what_an_earlier_version_sealed_stays_good_and_the_chain_goes_on(host: Host) -> None:
    """An installation is migrated with its seals, and its people's receipts must not turn into forgeries."""
    await host.pool.execute("DELETE FROM platform.timeline_seal")
    stored = await host.pool.fetch("SELECT * FROM platform.cases ORDER BY ended_at")
    leaves = [Leaf(row["account_id"], row["case_no"], row["revision"], row["head"]) for row in stored[:2]]
    packed, until = pack(leaves), stored[1]["ended_at"]
    assert len(packed) == 96
    said = Statement(
        seal=1,
        previous=NOTHING.hex(),
        at=time_text(now()),
        ended_until=time_text(until),
        moved_until=time_text(BEGINNING),
        ended=2,
        live=0,
        cases=sha256(packed).hexdigest(),
        root=root(packed, 1).hex(),
    )
    fields = {name: value for name, value in msgspec.to_builtins(said).items() if not name.startswith("registers")}
    signed = host.keys.sign(msgspec.json.encode(fields, order="sorted"))  # as it was signed then
    assert await seals.add(
        host.pool, Seal(seal_no=1, ended_until=until, moved_until=BEGINNING, statement=signed, cases=packed)
    )
    host.file.unlink()
    host.anchor.unlink()
    anchor.append(host.anchor, anchor.AnchorLine(1, seal_hash(signed).hex(), time_text(now())))
    earlier = Sealer(pool=host.pool, keys=host.keys, anchor_at=host.anchor, pace=SealPace())
    assert await earlier.turn(now()) == 1, "the third case, in a seal of today"
    report = TimelineReport()
    await audit_seals(host.pool, host.keys, host.anchor, report)
    assert (report.findings, report.seals, report.older, report.sealed) == ([], 2, 1, 3)
    assert find_leaf(packed, 1, leaves[1]) == (1, leaves[1])
    await host.pool.execute("UPDATE platform.case_event SET head = sha256('x') WHERE account_id = $1", ACCOUNTS[0])
    report = TimelineReport()
    await audit_seals(host.pool, host.keys, host.anchor, report)
    assert [str(each.fault) for each in report.findings] == ["sealed_timeline_rewritten"]
