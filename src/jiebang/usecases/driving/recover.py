"""Recover after a restore from backup: stop claims, look at every participant, carry every decision out again.

All accounts are walked in ranges and in constant memory, including those that only a participant knows. `saga.recovery`
decides, `saga.recovery_driver` says in which order it is carried out; this reads, saves and sends, set by set.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from jiebang.model.case import COUNTED, ENDED, Case, Key
from jiebang.model.errors import ParticipantUnavailableError, WorkersBusyError
from jiebang.model.ids import MAX_ACCOUNT
from jiebang.model.plan import UNNAMED
from jiebang.participants.base import UNANSWERED, TriesWithoutMark, explain_silence, may_be_one_case
from jiebang.policy.calendar import local_date
from jiebang.saga.batch import Save
from jiebang.saga.coordinator import Timing
from jiebang.saga.fence import Op
from jiebang.saga.recovery import Recovery, RestoredInstallation, UndecidedCase
from jiebang.saga.recovery_driver import (
    AccountCases,
    AccountRange,
    AccountRows,
    CallOutcome,
    CasesRead,
    RangeRead,
    RecoveryCall,
    RecoveryDriver,
    RecoveryNeed,
    RecoveryPause,
    RecoverySave,
    RecoverySaveOutcome,
    RecoverySend,
    RecoveryTally,
    RecoveryWait,
    RowsRead,
    UndecidedReport,
)
from jiebang.saga.timeline import entries
from jiebang.store.cases import cases as store
from jiebang.store.checks import quota
from jiebang.store.operations import recoveries as recovery_store
from jiebang.store.operations import tasks, worker_registry
from jiebang.store.operations.tasks import NewTask

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.saga.fence import FenceRow
    from jiebang.store.postgres.pool import Pool

_TRIES: Final = 3
"""How often a participant is asked before the recovery is broken off because it does not answer."""
_SLOTS: Final = 1_000
"""A number of slots above every quota: a case proven to be committed had its slot, whatever policy allows now."""

_log = structlog.get_logger(__name__)


async def _do_nothing() -> None:
    pass


class RecoverySetup(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery works with. `call`: time limit of one call for a batch; `page`: accounts in a range.

    `each_turn`: called at each turn of waiting, to complete what is waited for; its UNANSWERED errors are logged and
    the wait goes on. `pause`: the shortest wait between two turns; it doubles up to `longest_pause`.
    """

    pool: Pool
    participants: Mapping[str, Participant]
    restored: RestoredInstallation
    clock: Callable[[], datetime]
    page: int = 2_000
    call: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(milliseconds=100)
    longest_pause: timedelta = timedelta(seconds=10)
    each_turn: Callable[[], Awaitable[object]] = _do_nothing
    still_within: timedelta = timedelta(seconds=60)


ReportWaiting = Callable[[Mapping[str, int], timedelta], object]
"""Called at each turn of waiting: how many cases wait, by participant and code, and for how long at most."""


async def recover(
    setup: RecoverySetup,
    by: str,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] = lambda _done: None,
    waiting: ReportWaiting = lambda _for, _left: None,
) -> RecoveryTally:
    """Recover all accounts. With `dry_run` nothing is stopped, sent or saved: it counts what the first pass would do.

    Claims and new cases stay stopped while it waits, and after it if the result is not complete. Raises
    ParticipantUnavailableError if a participant does not answer at all, WorkersBusyError if workers do not stop in
    time, and what the platform's database raises; another run then goes on.
    """
    await _ask_all(setup, methodcaller("look", [1]))  # with one silent, stopping claims would be in vain
    found = RecoveryTally(dry_run=dry_run)
    run = None
    if not dry_run:
        run = await recovery_store.begin_recovery(setup.pool, setup.restored.databases, by, setup.clock())
        both = msgspec.structs.replace(setup.restored, databases=run.restored)
        setup = msgspec.structs.replace(setup, restored=both)
        await _wait_until_still(setup)
    pace = Timing(resend=setup.pause, resend_limit=setup.longest_pause)
    course = RecoveryDriver(setup.restored, found, now=setup.clock(), page=setup.page, pace=pace).run()
    try:
        need = next(course)
        while True:
            if isinstance(need, RecoveryWait):
                waiting(need.waits, need.left)
            result = await _fulfil(setup, need)
            if isinstance(need, RangeRead | UndecidedReport):
                progress(found.accounts)
            need = course.send((setup.clock(), result))
    except StopIteration:
        pass
    finally:
        course.close()
    if run is not None and found.complete:
        await recovery_store.end_recovery(setup.pool, run, msgspec.to_builtins(found), setup.clock())
    return found


async def _fulfil(setup: RecoverySetup, need: RecoveryNeed) -> object:
    match need:
        case RangeRead():
            return await _read_range(setup, need.after)
        case RowsRead():
            rows = await _ask_all(setup, methodcaller("look", need.accounts))
            return AccountRows(rows, await recovery_store.load_numbers_among(setup.pool, need.accounts))
        case CasesRead():
            return await _read_cases(setup, need.accounts)
        case RecoverySave():
            return await _save_decisions(setup, need.recoveries)
        case RecoverySend():
            return await asyncio.gather(*(_call(setup, call) for call in need.calls))
        case RecoveryPause():
            await asyncio.sleep(need.wait.total_seconds())
        case UndecidedReport():
            await _update_tasks(setup, need)
        case RecoveryWait():
            await _wait(setup, need)
    return None


async def _wait_until_still(setup: RecoverySetup) -> None:
    """Wait until no worker drives a case: each has said so at its heartbeat, or its lease has run out."""
    try:
        async with asyncio.timeout(setup.still_within.total_seconds()):
            while True:
                now = setup.clock()
                seen = await worker_registry.load_workers(setup.pool, now)
                busy = [one.worker_id for one in seen if one.seen_until > now and one.state != "paused"]
                if not busy:
                    return
                await asyncio.sleep(setup.pause.total_seconds())
    except TimeoutError as error:
        raise WorkersBusyError(workers=busy) from error


async def _read_range(setup: RecoverySetup, after: int) -> AccountRange:
    """Read the next range of accounts: it ends where the first full page, ours or a participant's, ends."""
    numbers = await recovery_store.load_numbers(setup.pool, after, MAX_ACCOUNT, setup.page)
    upto = max(numbers) if len(numbers) == setup.page else MAX_ACCOUNT
    rows = await _ask_all(setup, methodcaller("marks", after, upto, setup.page))
    upto = min([upto, *(max(of) for of in rows.values() if len(of) == setup.page)])
    accounts = sorted({account for account in {*numbers}.union(*rows.values()) if account <= upto})
    return AccountRange(accounts, AccountRows(rows, numbers), upto, last=upto >= MAX_ACCOUNT)


async def _read_cases(setup: RecoverySetup, accounts: Sequence[int]) -> AccountCases:
    cases: defaultdict[int, list[Case]] = defaultdict(list)
    for case in await store.load_of_accounts(setup.pool, accounts):
        cases[case.account_id].append(case)
    undecided_by_account: defaultdict[int, list[int]] = defaultdict(list)
    for account, number in await tasks.load_undecided(setup.pool, accounts):
        undecided_by_account[account].append(number)
    return AccountCases(cases, undecided_by_account)


async def _wait(setup: RecoverySetup, need: RecoveryWait) -> None:
    try:
        await setup.each_turn()
    except UNANSWERED as error:
        _log.warning("recovery_not_helped", error=type(error).__name__)
    await asyncio.sleep(need.wait.total_seconds())


async def _save_decisions(setup: RecoverySetup, recoveries: Sequence[Recovery]) -> RecoverySaveOutcome:
    """Save the decisions in one transaction; return what was saved, and the accounts that moved meanwhile."""
    now = setup.clock()
    changed = {case.key: case for one in recoveries for case in one.changed}
    made = {case.key: case for one in recoveries for case in one.made}
    before = await store.load_many(setup.pool, changed)
    await _hold_slots(setup, changed.values(), before, now)
    saves = [_make_save(before[key], case, now) for key, case in changed.items() if key in before]
    committed = [before[case.key] for save in saves for case in save.cases if case.state in COUNTED]
    async with setup.pool.acquire() as connection, connection.transaction():
        # Before the numbers are raised past lost cases: after that, only its task tells of an undecided one.
        await tasks.raise_tasks(connection, [_make_task(each) for one in recoveries for each in one.undecided], now)
        raised = await recovery_store.raise_numbers(
            connection, {one.account_id: one.last_case_no for one in recoveries}, now
        )
        await recovery_store.forget_wishes(connection, committed)
        saved = (await store.save(connection, saves, now)).kept()
        moved = {key[0] for key in changed.keys() - saved.keys()}
        again = {case: [_make_first_entry(case, now)] for case in made.values() if case.account_id not in moved}
        inserted = await recovery_store.recreate_cases(connection, again, now)
    return RecoverySaveOutcome(
        moved=moved | {key[0] for key in made.keys() - inserted},
        changed=list(saved.values()),
        made=[made[key] for key in inserted],
        numbers_raised=raised,
    )


def _make_save(before: Case, after: Case, now: datetime) -> Save:
    ends = after.state in ENDED
    return Save(
        cases=[after],
        entries=entries(before, after, (), (), now),
        template=f"case_{after.state.value}" if ends else None,
    )


def _make_first_entry(case: Case, now: datetime) -> dict[str, Any]:
    """The first timeline entry of a case made again."""
    return {"at": now, "what": "state", "state": case.state.value} | ({"reason": case.reason} if case.reason else {})


async def _hold_slots(setup: RecoverySetup, changed: Iterable[Case], before: Mapping[Key, Case], now: datetime) -> None:
    """Claim again, for cases found to be committed, the slots of quota that the restore lost."""
    without = [
        (before[case.key], _SLOTS)
        for case in changed
        if case.document_index is not None and case.state in COUNTED and case.key in before
    ]
    if without:
        await quota.claim(setup.pool, without, local_date(now).year, now)


async def _call(setup: RecoverySetup, call: RecoveryCall) -> CallOutcome:
    """Make one call. Silence is an empty outcome; any other error, which one case may have caused, fails the call."""
    name, op, party = call.participant, call.op, setup.participants[call.participant]
    planned = UNNAMED if call.plan is None else call.plan.operations.get(name, UNNAMED)
    try:
        async with asyncio.timeout(setup.call.total_seconds()):
            if op is Op.TRY and isinstance(party, TriesWithoutMark):
                return CallOutcome(refused=await party.try_again(call.orders, planned))
            await party.apply(op, call.orders, planned)
    except Exception as error:  # noqa: BLE001 - one case must not stop the others
        if not may_be_one_case(error):
            _log.warning("recovery_unanswered", participant=name, op=op.value, **explain_silence(error))
            return CallOutcome()
        _log.warning(
            "recovery_call_failed", participant=name, op=op.value, cases=len(call.orders), error=type(error).__name__
        )
        return CallOutcome(failed=True)
    return CallOutcome()


async def _update_tasks(setup: RecoverySetup, need: UndecidedReport) -> None:
    """Raise a task for each undecided case, and close those of settled accounts that are decided now."""
    now, keys = setup.clock(), {(each.account_id, each.case_no) for each in need.undecided}
    await tasks.raise_tasks(setup.pool, [_make_task(each) for each in need.undecided], now)
    await tasks.close_decided(setup.pool, need.settled, keys, now)


def _make_task(each: UndecidedCase) -> NewTask:
    return NewTask(
        account_id=each.account_id,
        case_no=each.case_no,
        kind="undecided",
        participant="platform",
        why=each.why.value,
        note=", ".join(" ".join(pair) for pair in zip_longest(each.participants, each.codes, fillvalue="")) or None,
    )


async def _ask_all(
    setup: RecoverySetup, read: Callable[[Participant], Awaitable[Mapping[int, FenceRow]]]
) -> dict[str, Mapping[int, FenceRow]]:
    """Read fence rows from all at once. Raises ParticipantUnavailableError: an unread row might be proof."""

    async def ask(name: str, participant: Participant) -> Mapping[int, FenceRow]:
        for tried in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(setup.call.total_seconds()):
                    return await read(participant)
            except Exception as error:  # whatever is wrong with it, its rows could not be read
                if tried == _TRIES:
                    raise ParticipantUnavailableError(participant=name, **explain_silence(error)) from error
                await asyncio.sleep(setup.pause.total_seconds() * tried)
        raise AssertionError("the last try returns or raises")

    answers = await asyncio.gather(*(ask(name, each) for name, each in setup.participants.items()))
    return dict(zip(setup.participants, answers, strict=True))
