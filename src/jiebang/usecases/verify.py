"""Audit all databases and networks: do they agree with the cases, and is all money accounted for?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg
import msgspec

from jiebang.participants.money import MoneyAudit
from jiebang.saga.audit import Violation, audit
from jiebang.store import cases as store

if TYPE_CHECKING:
    from jiebang.model.case import Case
    from jiebang.model.plan import Plan
    from jiebang.participants.base import Participant
    from jiebang.saga.fence import FenceRow


class MoneyAuditor(Protocol):
    """The wallet, as far as an audit needs it."""

    async def audit_money(self, accounts: Sequence[int]) -> MoneyAudit:
        """Add up the ledgers of `accounts` in one query."""

    async def transfers_fen(self) -> int:
        """Add up both sides of all transfers in one snapshot: 0 unless money was made or lost."""


class Report(msgspec.Struct, kw_only=True):
    """What an audit counted and found. `unread`: participants that did not answer; nothing is proven of them."""

    accounts: int = 0
    cases: int = 0
    cases_by_state: dict[str, int] = msgspec.field(default_factory=dict)
    fence_marks: dict[str, int] = msgspec.field(default_factory=dict)
    balance_fen: int = 0
    transfers_fen: int = 0
    money_wrong: list[int] = msgspec.field(default_factory=list)
    unread: list[str] = msgspec.field(default_factory=list)
    violations: list[Violation] = msgspec.field(default_factory=list)

    @property
    def violation_count(self) -> int:
        """How many things are wrong, a participant that could not be read counting as one."""
        return len(self.violations) + len(self.money_wrong) + len(self.unread) + bool(self.transfers_fen)

    @property
    def clean(self) -> bool:
        """Whether everything was read and nothing is wrong."""
        return self.violation_count == 0


_READ_FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_ATTEMPTS = 6
"""Cases run while we look: what is seen out of step is read again, and only what stays out of step is a violation."""


async def verify(
    *,
    pool: asyncpg.Pool[asyncpg.Record],
    participants: Mapping[str, Participant],
    wallet: MoneyAuditor,
    plan_of: Callable[[Case], Plan],
    page: int = 2_000,
    settle: timedelta = timedelta(milliseconds=500),
    progress: Callable[[int], Any] = lambda _done: None,
) -> Report:
    """Walk all accounts in pages, in constant memory. `progress` is told how many accounts are done."""
    report = Report()
    after = 0
    while accounts := await store.account_page(pool, after, page):
        after = accounts[-1]
        cases, rows = await _read(pool, participants, accounts, report)
        found = audit(cases, rows, plan_of)
        money = await _money(wallet, accounts, report)
        for _ in range(_ATTEMPTS):
            suspects = sorted({violation.account_id for violation in found})
            if not suspects and not (money and money.wrong):
                break
            await asyncio.sleep(settle.total_seconds())
            if suspects:
                again, rows_again = await _read(pool, participants, suspects, report)
                found = audit(again, rows_again, plan_of)
            if money and money.wrong:
                rest = await _money(wallet, money.wrong, report)
                money = msgspec.structs.replace(money, wrong=rest.wrong if rest else money.wrong)
        _count(report, accounts, cases, rows, found)
        if money:
            report.balance_fen += money.balance_fen
            report.money_wrong.extend(money.wrong)
        progress(report.accounts)
    try:
        report.transfers_fen = await wallet.transfers_fen()
    except _READ_FAILURES:
        _unread(report, "wallet")
    return report


async def _read(
    pool: asyncpg.Pool[asyncpg.Record], participants: Mapping[str, Participant], accounts: Sequence[int], report: Report
) -> tuple[list[Case], dict[str, Mapping[int, FenceRow]]]:
    """Read fence rows first, cases after: a case is then never older than a mark it explains."""
    looks = await asyncio.gather(*(_look(name, each, accounts, report) for name, each in participants.items()))
    rows = {
        name: of_participant
        for name, of_participant in zip(participants, looks, strict=True)
        if of_participant is not None
    }
    return await store.of_accounts(pool, accounts), rows


async def _look(
    name: str, participant: Participant, accounts: Sequence[int], report: Report
) -> Mapping[int, FenceRow] | None:
    if name in report.unread:
        return None
    try:
        return await participant.look(accounts)
    except _READ_FAILURES:
        _unread(report, name)
        return None


async def _money(wallet: MoneyAuditor, accounts: Sequence[int], report: Report) -> MoneyAudit | None:
    try:
        return await wallet.audit_money(accounts)
    except _READ_FAILURES:
        _unread(report, "wallet")
        return None


def _unread(report: Report, name: str) -> None:
    if name not in report.unread:
        report.unread.append(name)


def _count(
    report: Report,
    accounts: Sequence[int],
    cases: Sequence[Case],
    rows: Mapping[str, Mapping[int, FenceRow]],
    found: Sequence[Violation],
) -> None:
    report.accounts += len(accounts)
    report.cases += len(cases)
    for case in cases:
        report.cases_by_state[case.state] = report.cases_by_state.get(case.state, 0) + 1
    for name, of_participant in rows.items():
        marked = sum(1 for row in of_participant.values() if row.case_no)
        report.fence_marks[name] = report.fence_marks.get(name, 0) + marked
    report.violations.extend(found)
