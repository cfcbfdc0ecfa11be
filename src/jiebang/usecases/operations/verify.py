"""Verify: do all databases and networks match the cases, is all money accounted for, are timelines whole?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from jiebang.clock import utc_now
from jiebang.model.case import LIVE, State
from jiebang.model.ids import MAX_ACCOUNT
from jiebang.participants.base import UNANSWERED
from jiebang.participants.wallet.money import MoneyAudit
from jiebang.saga.audit import Breach, Violation, audit, find_cases_without_slot, find_leaked_slots
from jiebang.store.cases import cases as store
from jiebang.store.checks import quota
from jiebang.store.timelines import case_records
from jiebang.usecases.operations.stuck import list_owing
from jiebang.usecases.timelines.verify import TimelineReport, audit_chains, audit_seals

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.model.case import Case
    from jiebang.model.plan import Plan
    from jiebang.participants.base import Participant
    from jiebang.saga.fence import FenceRow
    from jiebang.store.postgres.pool import Pool
    from jiebang.store.timelines.anchor import AnchorLine
    from jiebang.store.timelines.seal_signing_keys import SealKeys
    from jiebang.store.timelines.witness import ChainMemory
    from jiebang.usecases.retention.audit import KeyAudit


KEYS: Final = "keys"
"""The database of the keys, as a report names it."""
_log = structlog.get_logger(__name__)


class MoneyAuditor(Protocol):
    """The part of the wallet that an audit needs."""

    async def audit_money(self, accounts: Sequence[int]) -> MoneyAudit:
        """Add up the ledgers of `accounts` in one query."""

    async def transfers_fen(self) -> int:
        """Add up both sides of all transfers in one snapshot: 0 unless money was made or lost."""


class HalfConfirmed(msgspec.Struct, frozen=True, kw_only=True):
    """A case that sits past its commit point. `waits_for`: who has not confirmed; none where its plan is unknown.

    `since`: its deadline; when it was made again, for one that a recovery made.
    """

    account_id: int
    case_no: int
    plan: str
    kind: str
    waits_for: tuple[str, ...]
    since: datetime


class VerificationReport(msgspec.Struct, kw_only=True):
    """What an audit counted and found. `unread`: participants that did not answer, of which nothing is proven.

    `confirming`: live cases that sit past their commit point, unbound at some participants and not at others: each
    counts as a violation until it has ended.
    """

    accounts: int = 0
    cases: int = 0
    cases_by_state: dict[str, int] = msgspec.field(default_factory=dict)
    fence_marks: dict[str, int] = msgspec.field(default_factory=dict)
    quota_slots: int = 0
    balance_fen: int = 0
    transfers_fen: int = 0
    confirming: list[HalfConfirmed] = msgspec.field(default_factory=list)
    money_wrong: list[int] = msgspec.field(default_factory=list)
    unread: list[str] = msgspec.field(default_factory=list)
    violations: list[Violation] = msgspec.field(default_factory=list)
    timelines: TimelineReport = msgspec.field(default_factory=TimelineReport)

    @property
    def violation_count(self) -> int:
        """The number of violations; a participant that could not be read counts as one."""
        found = len(self.violations) + len(self.money_wrong) + len(self.timelines.findings)
        return found + len(self.confirming) + len(self.unread) + bool(self.transfers_fen)

    @property
    def clean(self) -> bool:
        """Whether everything was read and nothing is wrong."""
        return self.violation_count == 0


_ATTEMPTS = 6
"""Cases go on meanwhile: whatever does not match is read again, and is a violation only if it still does not match."""


async def verify(
    *,
    pool: Pool,
    participants: Mapping[str, Participant],
    wallet: MoneyAuditor,
    plan_of: Callable[[Case], Plan],
    keys: SealKeys | None = None,
    anchor_at: Path | None = None,
    anchor_in_home: bool = False,
    memory: ChainMemory | None = None,
    data_keys: KeyAudit | None = None,
    page: int = 2_000,
    settle: timedelta = timedelta(milliseconds=500),
    sits_after: timedelta = timedelta(minutes=1),
    clock: Callable[[], datetime] = utc_now,
    progress: Callable[[int], Any] = lambda _done: None,
) -> VerificationReport:
    """Audit all accounts, including those that only a participant knows, in ranges and in constant memory.

    `page`: most accounts, and marks per participant, held at once. `settle`: the pause before what does not match is
    read again. `sits_after`: how long past its deadline a case in `confirming` sits, by `clock`. `progress` is called
    with the number of accounts done. `keys`: the seal keys, None: seals are not audited; `anchor_at`: the file that
    holds the end of their chain; `memory`: where it is remembered beside it; `data_keys`: the audit of those that seal
    names, None: they are not audited; `anchor_in_home`: whether the file lies
    with the installation's own, for the report.
    """
    report = VerificationReport()
    after = 0
    while after < MAX_ACCOUNT:
        part = await _read_range(pool, participants, after, page, report)
        await audit_chains(pool, after, part.upto, report.timelines)
        report.violations.extend(
            Violation(Breach.NUMBER_SET_BACK, account, 0, "platform")
            for account in await case_records.find_numbers_set_back(pool, after, part.upto, page)
        )
        after = part.upto
        found = await _judge(pool, part.cases, part.rows, plan_of)
        money = await _audit_money(wallet, part.accounts, report)
        for _ in range(_ATTEMPTS):
            suspects = sorted({violation.account_id for violation in found})
            if not suspects and not (money and money.wrong):
                break
            await asyncio.sleep(settle.total_seconds())
            if suspects:
                rows = await _read_rows(participants, report, methodcaller("look", suspects))
                found = await _judge(pool, await store.load_of_accounts(pool, suspects), rows, plan_of)
            if money and money.wrong:
                rest = await _audit_money(wallet, money.wrong, report)
                money = msgspec.structs.replace(money, wrong=rest.wrong if rest else money.wrong)
        _count(report, part, found)
        report.confirming += await _list_sitting(pool, part.cases, plan_of, clock() - sits_after)
        if money:
            report.balance_fen += money.balance_fen
            report.money_wrong.extend(money.wrong)
        await _audit_data_keys(data_keys, part, report)
        progress(report.accounts)
    await _audit_slots(pool, page, settle, report)
    report.timelines.anchor_in_home = anchor_in_home
    if not await case_records.is_policy_activated(pool):
        report.violations.append(Violation(Breach.NOT_ACTIVATED, 0, 0, "platform"))
    if keys is not None:
        await audit_seals(pool, keys, anchor_at, report.timelines, await _read_memory(memory, report))
    try:
        report.transfers_fen = await wallet.transfers_fen()
    except UNANSWERED:
        _mark_unread(report, "wallet")
    return report


async def _read_memory(memory: ChainMemory | None, report: VerificationReport) -> list[AnchorLine]:
    """Return the ends of the chain that are remembered beside the anchor; what cannot be read is reported."""
    if memory is None:
        return []
    try:
        return list((await memory.read()).values())
    except UNANSWERED:
        _mark_unread(report, KEYS)
        return []


async def _judge(
    pool: Pool,
    cases: Sequence[Case],
    rows: Mapping[str, Mapping[int, FenceRow]],
    plan_of: Callable[[Case], Plan],
) -> list[Violation]:
    """Audit the cases of some accounts. Slots are read after the cases, so that each one a case must hold is there."""
    using = [case for case in cases if case.document_index is not None]
    slots = await quota.load_of_cases(pool, using) if using else []
    return audit(cases, rows, plan_of) + find_cases_without_slot(using, slots)


async def _list_sitting(
    pool: Pool, cases: Sequence[Case], plan_of: Callable[[Case], Plan], before: datetime
) -> list[HalfConfirmed]:
    """Return the cases in `confirming` that wait for an operator, or whose deadline was before a time, and still do."""
    suspects = [case for case in cases if _sits(case, before)]
    if suspects:
        again = await store.load_many(pool, {case.key for case in suspects})
        suspects = [case for case in again.values() if _sits(case, before)]
    return [
        HalfConfirmed(
            account_id=case.account_id,
            case_no=case.case_no,
            plan=case.plan,
            kind=case.kind,
            waits_for=list_owing(case, plan_of),
            since=case.deadline or case.created_at,
        )
        for case in sorted(suspects, key=attrgetter("key"))
    ]


def _sits(case: Case, before: datetime) -> bool:
    late = (case.deadline or case.created_at) < before
    return case.state is State.CONFIRMING and (late or case.due_at is None)


async def _audit_data_keys(data_keys: KeyAudit | None, part: _Range, report: VerificationReport) -> None:
    """Audit the data keys of some accounts; a database that does not answer is reported, once for all accounts."""
    if data_keys is None or KEYS in report.unread:
        return
    live = {case.account_id for case in part.cases if case.state in LIVE}
    try:
        report.violations.extend(await data_keys.find_late(part.accounts, live))
    except UNANSWERED:
        _mark_unread(report, KEYS)


async def _audit_slots(pool: Pool, page: int, settle: timedelta, report: VerificationReport) -> None:
    """Audit all slots of quota; one that belongs to no case is a violation if it stays."""
    after = quota.FIRST
    while slots := await quota.load_page(pool, after, page):
        after = slots[-1]
        report.quota_slots += len(slots)
        suspects = find_leaked_slots(slots, await store.load_many(pool, {slot.of_case for slot in slots}))
        for _ in range(_ATTEMPTS):
            if not suspects:
                break
            await asyncio.sleep(settle.total_seconds())
            suspects = await quota.load_of_cases(pool, suspects)
            suspects = find_leaked_slots(suspects, await store.load_many(pool, {slot.of_case for slot in suspects}))
        report.violations.extend(
            Violation(Breach.SLOT_LEAKED, slot.account_id, slot.case_no, "platform") for slot in suspects
        )


class _Range(msgspec.Struct, frozen=True):
    """What was read of one range of accounts, which ends with `upto`."""

    upto: int
    accounts: Sequence[int]
    cases: Sequence[Case]
    rows: Mapping[str, Mapping[int, FenceRow]]


async def _read_range(
    pool: Pool,
    participants: Mapping[str, Participant],
    after: int,
    page: int,
    report: VerificationReport,
) -> _Range:
    """Read the next range: at most a page of accounts, and of marks of each participant.

    Fence rows are read before the cases, so that a case is never older than the marks it accounts for.
    """
    accounts = await store.load_account_page(pool, after, page)
    upto = accounts[-1] if len(accounts) == page else MAX_ACCOUNT
    rows = await _read_rows(participants, report, methodcaller("marks", after, upto, page))
    upto = min([upto, *(max(of) for of in rows.values() if len(of) == page)])
    accounts = [account for account in accounts if account <= upto]
    rows = {name: {at: row for at, row in of.items() if at <= upto} for name, of in rows.items()}
    anyone = set(accounts).union(*rows.values())
    return _Range(upto, accounts, await store.load_of_accounts(pool, anyone), rows)


async def _read_rows(
    participants: Mapping[str, Participant],
    report: VerificationReport,
    read: Callable[[Participant], Awaitable[Mapping[int, FenceRow]]],
) -> dict[str, Mapping[int, FenceRow]]:
    """Read fence rows from all participants at once; one that does not answer is reported, and left out."""

    async def ask(name: str, participant: Participant) -> Mapping[int, FenceRow] | None:
        try:
            return await read(participant)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others are audited
            _log.warning("unread", participant=name, error=type(error).__name__)
            _mark_unread(report, name)
            return None

    asked = {name: each for name, each in participants.items() if name not in report.unread}
    answers = await asyncio.gather(*(ask(name, each) for name, each in asked.items()))
    return {name: answer for name, answer in zip(asked, answers, strict=True) if answer is not None}


async def _audit_money(wallet: MoneyAuditor, accounts: Sequence[int], report: VerificationReport) -> MoneyAudit | None:
    try:
        return await wallet.audit_money(accounts)
    except UNANSWERED:
        _mark_unread(report, "wallet")
        return None


def _mark_unread(report: VerificationReport, name: str) -> None:
    if name not in report.unread:
        report.unread.append(name)


def _count(report: VerificationReport, part: _Range, found: Sequence[Violation]) -> None:
    report.accounts += len(part.accounts)
    report.cases += len(part.cases)
    for case in part.cases:
        report.cases_by_state[case.state] = report.cases_by_state.get(case.state, 0) + 1
    for name, of_participant in part.rows.items():
        report.fence_marks[name] = report.fence_marks.get(name, 0) + len(of_participant)
    report.violations.extend(found)
