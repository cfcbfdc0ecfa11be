"""Audit timelines: is each one whole, does it match its case, and is it what was sealed?

Set by set and in constant memory: the timelines by ranges of accounts, the seals by number. A case and its timeline are
read in one snapshot, so that cases under way are audited too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.saga.chain import TimelineFault, find_faults
from jiebang.saga.seals import NOTHING, SealFault, Statement, decode_statement, fits, seal_hash, unpack
from jiebang.store.timelines import anchor, case_records, seals, timeline_rows
from jiebang.store.timelines.seals import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from jiebang.model.case import Key
    from jiebang.saga.seals import Leaf
    from jiebang.store.postgres.pool import Pool
    from jiebang.store.timelines.anchor import AnchorLine
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
    register: str | None = None
    """The table whose rows were changed."""


class LostSeals(msgspec.Struct, frozen=True):
    """Seals `first` to `last`, lost by a restore from backup, as operator `by` has acknowledged."""

    first: int
    last: int
    by: str | None


class TimelineReport(msgspec.Struct, kw_only=True):
    """What was read of timelines and seals, and what is wrong.

    `unsealed`: ended cases that wait for their seal, of which nothing is proven yet. `anchored`: the number of the seal
    in the anchor, None without an anchor: then nothing is proven of the chain's end. `restored`: seals lost by restores
    from backup. `older`: seals of form 1, made by an earlier version, which hold the timelines alone.
    `anchor_in_home`: whether whoever has the home has the anchor too.
    """

    timelines: int = 0
    rows: int = 0
    seals: int = 0
    sealed: int = 0
    unsealed: int = 0
    older: int = 0
    anchored: int | None = None
    anchor_in_home: bool = False
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


async def audit_seals(
    pool: Pool,
    keys: SealKeys,
    anchor_at: Path | None,
    report: TimelineReport,
    remembered: Iterable[AnchorLine] = (),
) -> None:
    """Walk the chain of seals; audit each by itself, against the one before, and against its cases as they are now.

    The chain must hold the seal in the anchor, and those `remembered` elsewhere.
    """
    ends = set(remembered)
    anchored = None if anchor_at is None else anchor.read_last(anchor_at)
    report.anchored = None if anchored is None else anchored.seal
    if anchored is not None:
        ends.add(anchored)
    met = {end for end in ends if end.seal == 0}
    before = NONE
    said: Statement | None = None
    while page := await seals.load_page(pool, before.seal_no, _SEALS_AT_ONCE):
        for seal in page:
            report.seals += 1
            statement = _read_statement(keys, seal)
            whole = _judge(seal, statement, before, report)
            if statement is not None:
                report.sealed += statement.ended + statement.live
                report.older += statement.v == 1
            await _judge_cases(pool, seal, statement, before if whole else None, report)
            if said is not None and (statement is None or statement.registers != said.registers):
                await _judge_registers(pool, said, report)
            said = statement
            met |= {end for end in ends if (end.seal, end.hash) == _end_of(seal)}
            before = seal
    if said is not None:
        await _judge_registers(pool, said, report)
    if anchor_at is not None and anchored is None and (before.seal_no or ends):
        report.findings.append(TimelineFinding(fault=SealFault.NO_ANCHOR))
    report.findings.extend(
        TimelineFinding(fault=SealFault.CHAIN_CUT, seal=seal_no) for seal_no in sorted({end.seal for end in ends - met})
    )
    waiting = await seals.load_ended_between(pool, before.ended_until, _END_OF_TIME, _LIMIT)
    report.unsealed = len(waiting)


def _end_of(seal: Seal) -> tuple[int, str]:
    return seal.seal_no, seal_hash(seal.statement).hex()


async def _judge_registers(pool: Pool, said: Statement, report: TimelineReport) -> None:
    """Compare what the installation decided with what the last of several equal seals says of it."""
    if said.registers is None or said.registers_until is None:
        return
    stored = await case_records.load_registers(pool, datetime.fromisoformat(said.registers_until))
    report.findings.extend(
        TimelineFinding(fault=SealFault.REGISTER_CHANGED, seal=said.seal, register=name)
        for name, sealed in sorted(said.registers.items())
        if stored.get(name, b"").hex() != sealed
    )


def _read_statement(keys: SealKeys, seal: Seal) -> Statement | None:
    """Return a seal's statement, if a key of ours signed it and it matches the columns stored beside it."""
    payload = keys.payload(seal.statement)
    if payload is None:
        return None
    try:
        statement = decode(payload, Statement)
    except InvalidInputError:
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
    said = statement or decode_statement(seal.statement)
    leaves = unpack(seal.cases, 1 if said is None else said.v)
    ended = leaves[: statement.ended] if statement is not None else []
    final = {(leaf.account_id, leaf.case_no): leaf.revision for leaf in ended}
    if leaves:
        records = {} if statement is None else await _load_records(pool, leaves, final)
        report.findings.extend(
            finding
            for found in await seals.load_stored_leaves(pool, leaves)
            if (finding := _compare(found, final, records, seal.seal_no))
        )
    if before is None or statement is None:
        return
    limit = len(ended) + _LIMIT
    for account_id, case_no in await seals.load_ended_between(pool, before.ended_until, seal.ended_until, limit):
        if (account_id, case_no) not in final:
            report.findings.append(
                TimelineFinding(fault=SealFault.NOT_SEALED, account_id=account_id, case_no=case_no, seal=seal.seal_no)
            )


async def _load_records(pool: Pool, leaves: Sequence[Leaf], final: Mapping[Key, int]) -> Mapping[Key, bytes]:
    """Return the records of a seal's cases as they are now; none for a seal of form 1, which holds none."""
    keys = [(leaf.account_id, leaf.case_no) for leaf in leaves if leaf.record]
    ended = await case_records.load_records(pool, [key for key in keys if key in final], whole=True)
    return {**await case_records.load_records(pool, [key for key in keys if key not in final], whole=False), **ended}


def _compare(
    found: StoredLeaf, final: Mapping[Key, int], records: Mapping[Key, bytes], seal_no: int
) -> TimelineFinding | None:
    leaf = found.leaf
    key = (leaf.account_id, leaf.case_no)
    if found.head is None:
        fault = SealFault.CASE_GONE if found.stands_at is None else SealFault.TIMELINE_CUT
    elif found.stands_at is None:
        fault = SealFault.CASE_GONE
    elif found.head != leaf.head:
        fault = SealFault.REWRITTEN
    elif final.get(key) == leaf.revision and not (found.ended and found.stands_at == leaf.revision):
        fault = SealFault.GONE_ON
    elif records.get(key, leaf.record) != leaf.record:
        fault = SealFault.RECORD_CHANGED
    else:
        return None
    return TimelineFinding(
        fault=fault, account_id=leaf.account_id, case_no=leaf.case_no, revision=leaf.revision, seal=seal_no
    )
