"""Audit timelines: is each one whole, does it match its case, and is it what was sealed?

Set by set and in constant memory: the timelines by ranges of accounts, the seals by number. A case and its timeline are
read in one snapshot, so that cases under way are audited too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.saga.chain import TimelineFault, find_faults
from jiebang.saga.seals import NOTHING, SealFault, Statement, fits, seal_hash, unpack
from jiebang.store.timelines import anchor, seals, timeline_rows
from jiebang.store.timelines.seals import NONE

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.store.postgres.pool import Pool
    from jiebang.store.timelines.seal_signing_keys import SealKeys
    from jiebang.store.timelines.seals import Seal, StoredLeaf


_SEALS_AT_ONCE: Final = 4
_ROWS_AT_ONCE: Final = 1_000
_END_OF_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)
_LIMIT: Final = 1_000
"""Most orphans of a range, and waiting cases, that are counted."""


class TimelineFinding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault of a case's timeline, of a seal, or of both. Ids and numbers, nothing personal."""

    fault: TimelineFault | SealFault
    account_id: int | None = None
    case_no: int | None = None
    revision: int | None = None
    seal: int | None = None


class LostSeals(msgspec.Struct, frozen=True):
    """Seals `first` to `last`, lost by a restore from backup, as operator `by` has acknowledged."""

    first: int
    last: int
    by: str | None


class TimelineReport(msgspec.Struct, kw_only=True):
    """What was read of timelines and seals, and what is wrong.

    `unsealed`: ended cases that wait for their seal, of which nothing is proven yet. `anchored`: the number of the seal
    in the anchor, None without an anchor: then nothing is proven of the chain's end. `restored`: seals lost by restores
    from backup.
    """

    timelines: int = 0
    rows: int = 0
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    anchored: int | None = None
    restored: list[LostSeals] = msgspec.field(default_factory=list)
    findings: list[TimelineFinding] = msgspec.field(default_factory=list)


async def audit_chains(pool: Pool, after: int, upto: int, report: TimelineReport) -> None:
    """Audit the timelines of all accounts above `after` up to `upto`; add what is found to `report`."""
    async for case, rows in timeline_rows.walk(pool, after, upto, _ROWS_AT_ONCE):
        report.timelines += 1
        report.rows += len(rows)
        report.findings.extend(
            TimelineFinding(fault=fault, account_id=case.account_id, case_no=case.case_no, revision=revision)
            for fault, revision in find_faults(case, rows)
        )
    report.findings.extend(
        TimelineFinding(fault=TimelineFault.ORPHANED, account_id=account_id, case_no=case_no, revision=revision)
        for account_id, case_no, revision in await timeline_rows.find_orphans(pool, after, upto, _LIMIT)
    )


async def audit_seals(pool: Pool, keys: SealKeys, anchor_at: Path | None, report: TimelineReport) -> None:
    """Walk the chain of seals; audit each by itself, against the one before, and against its cases as they are now."""
    anchored = None if anchor_at is None else anchor.read_last(anchor_at)
    report.anchored = None if anchored is None else anchored.seal
    before, met = NONE, anchored is None
    while page := await seals.load_page(pool, before.seal_no, _SEALS_AT_ONCE):
        for seal in page:
            report.seals += 1
            statement = _read_statement(keys, seal)
            whole = _judge(seal, statement, before, report)
            if statement is not None:
                report.sealed += statement.ended + statement.live
            await _judge_cases(pool, seal, statement, before if whole else None, report)
            if anchored is not None and anchored.seal == seal.seal_no:
                met = seal_hash(seal.statement).hex() == anchored.hash
            before = seal
    if not met:
        report.findings.append(TimelineFinding(fault=SealFault.CHAIN_CUT, seal=report.anchored))
    waiting = await seals.load_ended_between(pool, before.ended_until, _END_OF_TIME, _LIMIT)
    report.unsealed = len(waiting)


def _read_statement(keys: SealKeys, seal: Seal) -> Statement | None:
    """Return a seal's statement, if a key of ours signed it and it matches the columns stored beside it."""
    payload = keys.payload(seal.statement)
    if payload is None:
        return None
    try:
        statement = msgspec.json.decode(payload, type=Statement)
    except msgspec.DecodeError:
        return None
    right = fits(
        statement,
        seal=seal.seal_no,
        ended_until=seal.ended_until,
        moved_until=seal.moved_until,
        packed=seal.cases,
    )
    return statement if right else None


def _judge(seal: Seal, statement: Statement | None, before: Seal, report: TimelineReport) -> bool:
    """Judge a seal and its place in the chain; return whether it is linked to the one before."""
    expected = before.seal_no + 1
    gap = seal.seal_no != expected
    restored = statement is not None and statement.restored == seal.seal_no - 1
    if gap and statement is not None and restored:
        report.restored.append(LostSeals(expected, seal.seal_no - 1, statement.by))
    elif gap:
        report.findings.append(TimelineFinding(fault=SealFault.MISSING, seal=expected))
    if statement is None:
        report.findings.append(TimelineFinding(fault=SealFault.FORGED, seal=seal.seal_no))
        return False
    previous = seal_hash(before.statement) if before.seal_no else NOTHING
    linked = statement.previous == previous.hex()
    if not linked and (restored or not gap):
        report.findings.append(TimelineFinding(fault=SealFault.UNLINKED, seal=seal.seal_no))
    return linked


async def _judge_cases(
    pool: Pool, seal: Seal, statement: Statement | None, before: Seal | None, report: TimelineReport
) -> None:
    """Compare a seal's cases with what is stored of them, and with the cases that it should hold."""
    leaves = unpack(seal.cases)
    ended = leaves[: statement.ended] if statement is not None else []
    final = {(leaf.account_id, leaf.case_no): leaf.revision for leaf in ended}
    if leaves:
        report.findings.extend(
            finding
            for found in await seals.load_stored_leaves(pool, leaves)
            if (finding := _compare(found, final, seal.seal_no))
        )
    if before is None or statement is None:
        return
    limit = len(ended) + _LIMIT
    for account_id, case_no in await seals.load_ended_between(pool, before.ended_until, seal.ended_until, limit):
        if (account_id, case_no) not in final:
            report.findings.append(
                TimelineFinding(fault=SealFault.NOT_SEALED, account_id=account_id, case_no=case_no, seal=seal.seal_no)
            )


def _compare(found: StoredLeaf, final: Mapping[tuple[int, int], int], seal_no: int) -> TimelineFinding | None:
    leaf = found.leaf
    if found.head is None:
        fault = SealFault.CASE_GONE if found.stands_at is None else SealFault.TIMELINE_CUT
    elif found.stands_at is None:
        fault = SealFault.CASE_GONE
    elif found.head != leaf.head:
        fault = SealFault.REWRITTEN
    elif final.get((leaf.account_id, leaf.case_no)) == leaf.revision and not (
        found.ended and found.stands_at == leaf.revision
    ):
        fault = SealFault.GONE_ON
    else:
        return None
    return TimelineFinding(
        fault=fault, account_id=leaf.account_id, case_no=leaf.case_no, revision=leaf.revision, seal=seal_no
    )
