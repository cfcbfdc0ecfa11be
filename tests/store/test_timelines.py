"""Timelines in the database: chained by every writer, and chained by PostgreSQL exactly as anybody else computes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from jiebang.model.case import Case, Kind, State
from jiebang.saga.batch import Save
from jiebang.saga.timeline import first_entry
from jiebang.store.cases import cases
from jiebang.store.cases.cases import NewCase
from jiebang.store.timelines import anchor as anchor_file
from jiebang.store.timelines import seals, timeline_rows
from jiebang.store.timelines.seal_signing_keys import SealKeys, build_seal_keys, read_seal_keys
from jiebang.usecases.timelines.seal import Sealer, SealPace, SealRacedError
from jiebang.usecases.timelines.verify import LostSeals, TimelineReport, audit_chains, audit_seals

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

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
    found = await cases.insert(platform, new, at, [first_entry(at)])
    waiting: dict[str, Any] = {"what": "state", "state": "in_review", "reason": '复核 "§1"/\u2028'}
    for state, told in ((State.IN_REVIEW, waiting), (State.WITHDRAWN, {"what": "state", "state": "withdrawn"})):
        at += timedelta(seconds=1)
        ended = state is State.WITHDRAWN
        saves = [
            Save(
                cases=[
                    msgspec.structs.replace(
                        case,
                        revision=case.revision + 1,
                        state=state,
                        due_at=None if ended else case.due_at,
                        withdraw_at=at if ended else None,
                    )
                ],
                entries=[{"at": at, **told}],
            )
            for case in found.values()
        ]
        if ended:
            await cases.wish_withdraw(platform, [case.key for save in saves for case in save.cases], at)
        found = {key[0]: case for key, case in (await cases.save(platform, saves, at)).kept().items()}
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
    found = [(case, rows) async for case, rows in timeline_rows.walk(platform, 100, 140, 7)]
    assert len(found) == len({case.head for case, _ in found}) == 40


class Kept:
    """A platform's database with sealed cases, its keys and its anchor, and ways to tamper with it."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.anchor, self.keys = pool, folder / "anchor.jsonl", build_seal_keys(b"k" * 32)

    def sealing(self, **pace: Any) -> Sealer:
        at_once = SealPace(**{"grace": timedelta(), "batch": 16, **pace})
        return Sealer(pool=self.pool, keys=self.keys, anchor_at=self.anchor, pace=at_once)

    async def audit(self, keys: SealKeys | None = None, *, anchored: bool = True) -> TimelineReport:
        report = TimelineReport()
        for after, upto in ((0, 205), (205, 220), (220, 9_000)):  # whom it is above, other tests have
            await audit_chains(self.pool, after, upto, report)
        await audit_seals(self.pool, keys or self.keys, self.anchor if anchored else None, report)
        return report

    async def faults(self) -> set[tuple[str, int | None, int | None]]:
        """What an audit finds, each with its account and its seal."""
        return {(str(each.fault), each.account_id, each.seal) for each in (await self.audit()).findings}

    @asynccontextmanager
    async def tampered(self, *changes: str) -> AsyncIterator[None]:
        """Change something behind everybody's back, and put all of it back as it was."""
        anchor = self.anchor.read_bytes()
        for table in ("cases", "case_event", "timeline_seal"):
            await self.pool.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM platform.{table}")  # noqa: S608 - above
        try:
            for change in changes:
                assert (await self.pool.execute(change)).split()[-1] != "0", f"changed nothing: {change}"
            yield
        finally:
            self.anchor.write_bytes(anchor)
            for table in ("cases", "case_event", "timeline_seal"):
                await self.pool.execute(f"DELETE FROM platform.{table}")  # noqa: S608 - of those above
                await self.pool.execute(f"INSERT INTO platform.{table} SELECT * FROM kept_{table}")  # noqa: S608 - ditto
                await self.pool.execute(f"DROP TABLE kept_{table}")


@pytest.fixture(scope="module")
async def kept(platform: Pool, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Three seals: accounts 201 to 216, 217 to 232, and 233 to 240 with a live case of 300."""
    made = Kept(platform, tmp_path_factory.mktemp("anchor"))
    await platform.execute("DELETE FROM platform.cases")
    await platform.execute("DELETE FROM platform.case_event")
    for second, first in enumerate((201, 217, 233)):
        count = 16 if first < 233 else 8
        await withdrawn(platform, list(range(first, first + count)), NOW + timedelta(minutes=second))
    live = [NewCase(account_id=300, kind=Kind.REVOKE, plan="p/1", participants=2, due_at=NOW)]
    await cases.insert(platform, live, NOW, [first_entry(NOW)])
    assert await made.sealing().turn(datetime.now(UTC)) == 4
    return made


async def test_an_untouched_installation_is_clean(kept: Kept) -> None:
    """Every case that ended is in one seal, the live one in another, and the anchor holds the end."""
    report = await kept.audit()
    assert report.findings == []
    assert (report.timelines, report.rows, report.seals, report.sealed) == (41, 121, 4, 41)
    assert (report.unsealed, report.anchored, report.restored) == (0, 4, [])
    assert await kept.sealing(live_every=timedelta(hours=1)).turn(datetime.now(UTC)) == 0, "nothing new, nothing sealed"


REWRITTEN = """
    WITH RECURSIVE rows AS (
        SELECT revision, entries, sha256(convert_to(
            revision || E'\\n' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || E'\\n'
            || '[{"state":"' || (entries->0->>'state') || '","what":"state"}]', 'UTF8')) AS digest
        FROM platform.case_event WHERE account_id = 218
    ), chained AS (
        SELECT r.revision, sha256(sha256(convert_to(E'jiebang-timeline-1\\n218\\n1', 'UTF8')) || r.digest) AS head
        FROM rows r WHERE r.revision = 1
        UNION ALL
        SELECT r.revision, sha256(c.head || r.digest) FROM chained c JOIN rows r ON r.revision = c.revision + 1
    ), told AS (
        UPDATE platform.case_event e SET head = c.head, entries =
            ('[{"state":"' || (entries->0->>'state') || '","what":"state"}]')::jsonb
        FROM chained c WHERE e.account_id = 218 AND e.revision = c.revision
    )
    UPDATE platform.cases SET head = (SELECT head FROM chained WHERE revision = 3) WHERE account_id = 218"""
"""Whoever knows how the chain is made changes what was told, and makes all heads anew."""

TAMPERINGS: Mapping[str, tuple[tuple[str, ...], set[tuple[str, int | None, int | None]]]] = {
    "a changed entry": (
        ('UPDATE platform.case_event SET entries = \'[{"what": "state"}]\' WHERE account_id = 205 AND revision = 2',),
        {("timeline_entry_changed", 205, None)},
    ),
    "another time": (
        ("UPDATE platform.case_event SET at = at + interval '1 microsecond' WHERE account_id = 205 AND revision = 3",),
        {("timeline_entry_changed", 205, None)},
    ),
    "a missing entry": (
        ("DELETE FROM platform.case_event WHERE account_id = 206 AND revision = 2",),
        {("timeline_entry_missing", 206, None)},
    ),
    "a cut tail": (
        ("DELETE FROM platform.case_event WHERE account_id = 207 AND revision = 3",),
        {("timeline_cut", 207, None), ("sealed_timeline_cut", 207, 1)},
    ),
    "a cut tail, and the case set back": (
        (
            "DELETE FROM platform.case_event WHERE account_id = 208 AND revision = 3",
            """UPDATE platform.cases c SET revision = 2, state = 'in_review', ended_at = NULL, head = e.head
               FROM platform.case_event e WHERE c.account_id = 208 AND e.account_id = 208 AND e.revision = 2""",
        ),
        {("sealed_timeline_cut", 208, 1)},
    ),
    "a case gone with its timeline": (
        (
            "DELETE FROM platform.case_event WHERE account_id = 209",
            "DELETE FROM platform.cases WHERE account_id = 209",
        ),
        {("sealed_case_gone", 209, 1)},
    ),
    "a case gone without it": (
        ("DELETE FROM platform.cases WHERE account_id = 209",),
        {("sealed_case_gone", 209, 1), ("timeline_without_case", 209, None)},
    ),
    "a case told otherwise": (
        ("UPDATE platform.cases SET state = 'expired' WHERE account_id = 210",),
        {("timeline_differs_from_case", 210, None), ("sealed_case_record_changed", 210, 1)},
    ),
    "a history written anew, heads and all": ((REWRITTEN,), {("sealed_timeline_rewritten", 218, 2)}),
    "a live case gone": (
        (
            "DELETE FROM platform.case_event WHERE account_id = 300",
            "DELETE FROM platform.cases WHERE account_id = 300",
        ),
        {("sealed_case_gone", 300, 4)},
    ),
    "a case brought in afterwards": (
        (
            """INSERT INTO platform.cases
                   (account_id, case_no, bucket, kind, state, plan, marks, created_at, ended_at, head)
               SELECT 211, 2, bucket, kind, 'expired', plan, marks, created_at, ended_at, head
               FROM platform.cases WHERE account_id = 211""",
        ),
        {("ended_case_not_sealed", 211, 1), ("timeline_cut", 211, None)},
    ),
    "a seal that speaks of others": (
        ("UPDATE platform.timeline_seal SET cases = substring(cases FROM 81) WHERE seal_no = 2",),
        {("seal_forged", None, 2)},
    ),
    "a seal that says it was later": (
        ("UPDATE platform.timeline_seal SET ended_until = ended_until + interval '1 microsecond' WHERE seal_no = 3",),
        {("seal_forged", None, 3)},
    ),
    "a signature that is none": (
        ("UPDATE platform.timeline_seal SET statement = left(statement, -4) || 'AAAA' WHERE seal_no = 2",),
        {("seal_forged", None, 2), ("seal_does_not_follow", None, 3)},
    ),
    "a seal given for another": (
        (
            """UPDATE platform.timeline_seal s SET statement = o.statement, cases = o.cases
               FROM platform.timeline_seal o WHERE s.seal_no = 2 AND o.seal_no = 1""",
        ),
        {("seal_forged", None, 2), ("seal_does_not_follow", None, 3)},
    ),
    "a missing seal": (
        ("DELETE FROM platform.timeline_seal WHERE seal_no = 2",),
        {("seal_missing", None, 2)},
    ),
    "no first seal": (("DELETE FROM platform.timeline_seal WHERE seal_no < 3",), {("seal_missing", None, 1)}),
    "a chain cut at its end": (
        ("DELETE FROM platform.timeline_seal WHERE seal_no > 2",),
        {("seal_chain_cut", None, 4)},
    ),
    "a chain cut, and all that it spoke of gone": (
        (
            "DELETE FROM platform.timeline_seal WHERE seal_no > 2",
            "DELETE FROM platform.cases WHERE account_id > 232",
            "DELETE FROM platform.case_event WHERE account_id > 232",
        ),
        {("seal_chain_cut", None, 4)},
    ),
    "no seals at all": (("DELETE FROM platform.timeline_seal",), {("seal_chain_cut", None, 4)}),
}


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_tampering_is_found_and_named(kept: Kept, what: str) -> None:
    """Whoever may write the database could rewrite what happened to a person's identity: not without being found."""
    changes, expected = TAMPERINGS[what]
    async with kept.tampered(*changes):
        assert await kept.faults() == expected
    assert await kept.faults() == set()


async def test_a_seal_by_anybody_elses_key_is_forged(kept: Kept) -> None:
    """A database is full of whatever its owner writes into it; only the key in the file vouches."""
    report = await kept.audit(build_seal_keys(b"x" * 32))
    assert {(each.fault, each.seal) for each in report.findings} == {("seal_forged", seal) for seal in (1, 2, 3, 4)}


async def test_what_an_earlier_key_sealed_is_still_good(kept: Kept, tmp_path: Path) -> None:
    """Keys are changed; receipts given before must not turn into forgeries."""
    read_seal_keys(tmp_path, b"k" * 32)
    rotated = read_seal_keys(tmp_path, b"n" * 32)
    assert [key["kid"] for key in rotated.public()["keys"]] == [build_seal_keys(b"n" * 32).kid, kept.keys.kid]
    assert (await kept.audit(rotated)).findings == []
    assert rotated.payload(rotated.sign(b"{}")) == b"{}"


async def test_nobody_seals_over_a_chain_that_was_cut(kept: Kept) -> None:
    """Going on from the cut would hide it: the next seal would look as if nothing had been there."""
    async with kept.tampered("DELETE FROM platform.timeline_seal WHERE seal_no > 2"):
        sealing = kept.sealing()
        assert await sealing.turn(datetime.now(UTC)) == 0
        assert await kept.pool.fetchval("SELECT max(seal_no) FROM platform.timeline_seal") == 2
    async with kept.tampered("UPDATE platform.timeline_seal SET statement = statement || 'A' WHERE seal_no = 4"):
        assert await kept.sealing().turn(datetime.now(UTC)) == 0


async def test_a_restore_that_somebody_acknowledges_is_no_tampering_but_stands_in_every_audit(kept: Kept) -> None:
    """After a restore from backup the chain must go on, and never as if nothing had happened."""
    async with kept.tampered("DELETE FROM platform.timeline_seal WHERE seal_no > 2"):
        now = datetime.now(UTC)
        assert await kept.sealing().go_on_after_restore(now, "mei") == 5
        assert await kept.sealing().go_on_after_restore(now, "mei") is None, "there is nothing more to acknowledge"
        report = await kept.audit()
        assert (report.findings, report.restored) == ([], [LostSeals(3, 4, "mei")])
        assert await kept.sealing().turn(now) == 2
        report = await kept.audit()
        assert (report.findings, report.restored, report.unsealed) == ([], [LostSeals(3, 4, "mei")], 0)


async def test_without_an_anchor_the_end_is_not_proven_and_the_audit_says_so(kept: Kept) -> None:
    """The database alone cannot show that its end was cut off; the report must not pretend."""
    async with kept.tampered("DELETE FROM platform.timeline_seal WHERE seal_no > 2"):
        report = await kept.audit(anchored=False)
    assert (report.findings, report.anchored, report.unsealed) == ([], None, 8)


async def test_half_a_line_in_the_anchor_does_not_hide_the_one_before(kept: Kept, tmp_path: Path) -> None:
    """A full disk may cut a line off."""
    torn = tmp_path / "torn"
    torn.write_bytes(kept.anchor.read_bytes() + b'{"seal":5,"ha')
    found = anchor_file.read_last(torn)
    assert found is not None
    assert found.seal == 4
    anchor_file.append(torn, msgspec.structs.replace(found, seal=6))
    assert anchor_file.read_last(torn) == msgspec.structs.replace(found, seal=6)


async def test_a_save_that_comes_late_ends_after_what_is_sealed(kept: Kept) -> None:
    """A worker that was frozen saves with an old time: its case must not fall between two seals."""
    async with kept.tampered("DELETE FROM platform.cases WHERE account_id = 300"):
        await kept.pool.execute("DELETE FROM platform.case_event WHERE account_id = 300")
        await withdrawn(kept.pool, [400], NOW - timedelta(days=1))
        report = await kept.audit()
        assert (report.unsealed, [str(each.fault) for each in report.findings]) == (1, ["sealed_case_gone"])
        assert await kept.sealing(live_every=timedelta(hours=1)).turn(datetime.now(UTC)) == 1
        assert (await seals.load_of_cases(kept.pool, [(400, 1)]))[400, 1].seal_no == 5


async def test_a_case_is_sealed_at_once_unless_a_save_that_began_before_may_still_end_another(kept: Kept) -> None:
    """Nobody can change in silence what a person was told; and no case may fall between two seals."""
    pace = {"grace": timedelta(minutes=30), "live_every": timedelta(hours=1)}
    # A case of tomorrow, which our own clock has reached: the database's counts.
    tomorrow = "UPDATE platform.cases SET ended_at = now() + interval '1 day' WHERE account_id = 201"
    async with kept.tampered("DELETE FROM platform.timeline_seal", tomorrow):
        kept.anchor.unlink()
        sealing, fast = kept.sealing(**pace), datetime.now(UTC) + timedelta(days=2)
        async with kept.pool.acquire() as slow, slow.transaction():
            await slow.fetch("SELECT until FROM platform.seal_floor")  # as a save does
            await kept.pool.execute("UPDATE platform.cases SET ended_at = now() WHERE account_id = 202")
            assert await sealing.turn(fast) == 3, "what ended long ago is sealed all the same"
            assert await seals.load_of_cases(kept.pool, [(202, 1)]) == {}
        assert await sealing.turn(fast) == 1
        assert (await seals.load_of_cases(kept.pool, [(201, 1), (202, 1)])).keys() == {(202, 1)}


async def test_no_save_ends_a_case_at_a_time_that_is_being_sealed(kept: Kept) -> None:
    """The floor holds from its commit on, whatever the clock of the worker says."""
    floor = datetime.now(UTC) + timedelta(seconds=5)
    async with kept.tampered("UPDATE platform.cases SET due_at = due_at WHERE account_id = 300"):
        await seals.raise_floor(kept.pool, floor)
        await withdrawn(kept.pool, [410], NOW)
        ended = await kept.pool.fetchval("SELECT ended_at FROM platform.cases WHERE account_id = 410")
        assert ended == floor + timedelta(microseconds=1)
        await kept.pool.execute("DELETE FROM platform.seal_floor")


async def test_two_sealing_at_once_make_one_chain(kept: Kept) -> None:
    """Leases may overlap for a moment: whoever comes second has sealed nothing, and says so."""
    async with kept.tampered("DELETE FROM platform.timeline_seal"):
        kept.anchor.unlink()
        results = await asyncio.gather(
            *(kept.sealing().turn(datetime.now(UTC)) for _ in range(4)), return_exceptions=True
        )
        assert all(isinstance(each, int | SealRacedError) for each in results)
        while await kept.sealing().turn(datetime.now(UTC)):
            pass
        report = await kept.audit(anchored=False)
        assert (report.findings, report.unsealed) == ([], 0)


async def test_the_chore_is_carried_out_by_whoever_holds_bucket_0_and_seldom(kept: Kept) -> None:
    """Every worker has the chore; one of them is enough."""
    now = datetime.now(UTC)
    sealing = kept.sealing(live_every=timedelta(hours=1))
    await withdrawn(kept.pool, [401])
    assert await sealing(frozenset({1, 2}), now) == 0
    assert await sealing(frozenset({0, 1}), now) == 1
    await withdrawn(kept.pool, [402])
    assert await sealing(frozenset({0, 1}), now + timedelta(seconds=1)) == 0
    assert await sealing(frozenset({0, 1}), now + timedelta(seconds=16)) == 1
    assert await kept.faults() == set()
