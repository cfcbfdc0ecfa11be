"""Recover after a restore from backup: stop claims, look everywhere, bring every decision to its end again.

All accounts are walked in ranges and in constant memory, those that only a participant knows too. What is decided is
`saga.recovery`'s; this carries it out, set by set: sends what recovery sends itself, looks again, and saves. Accounts
that something stands in the way of which clears by itself are waited for at the end, all together. Every part of it may
be repeated: what one run began, the next goes on with.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec
import structlog

from jiebang.model.case import COUNTED, ENDED, Case
from jiebang.model.errors import ParticipantUnavailableError, WorkersBusyError
from jiebang.participants.base import UNANSWERED, Forgiving, Order
from jiebang.policy.calendar import local_date
from jiebang.remote.wire import MAX_ACCOUNT
from jiebang.saga.coordinator import Timing, backoff
from jiebang.saga.fence import Op
from jiebang.saga.recovery import Recovery, Restored, Seen, Undecided, Wait, recovered
from jiebang.saga.timeline import entries
from jiebang.store import cases as store
from jiebang.store import operating, quota, tasks
from jiebang.store.cases import Save
from jiebang.store.tasks import NewTask

if TYPE_CHECKING:
    from jiebang.participants.base import Participant
    from jiebang.saga.fence import FenceRow

_PASSES: Final = 200
"""How often one range is looked at again: each pass brings every row that needs it one op further."""
_IN_VAIN: Final = 3
"""How many passes may bring nothing before the rest of a range is left for another run."""
_TRIES: Final = 3
"""How often somebody who does not answer is asked before the recovery is broken off."""
_SLOTS: Final = 1_000
"""A commit that was proven has its slot, whatever policy allows: it held one when it was made."""

Rows = Mapping[str, Mapping[int, "FenceRow"]]
"""Fence rows by participant and account."""
Refusals = Mapping[int, Mapping[str, str]]
"""Codes of Trys that would be refused now, by account and participant."""

_log = structlog.get_logger(__name__)


class Found(msgspec.Struct, kw_only=True):
    """What a recovery counted. `unfinished`: accounts of which somebody did not answer; another run goes on there.

    `states`: what was saved, by the state it was put into. `sent`: ops that recovery sent itself. `waited`: cases that
    had to wait for a refusal to clear, by participant and code.
    """

    accounts: int = 0
    changed: int = 0
    made_again: int = 0
    numbers_raised: int = 0
    states: dict[str, int] = msgspec.field(default_factory=dict)
    sent: dict[str, int] = msgspec.field(default_factory=dict)
    undecided: dict[str, int] = msgspec.field(default_factory=dict)
    waited: dict[str, int] = msgspec.field(default_factory=dict)
    unfinished: list[int] = msgspec.field(default_factory=list)
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether every account was brought to where the workers can go on."""
        return not self.unfinished


async def _nothing() -> None:
    pass


class Recovering(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery works with. `call`: how long a participant is given for a batch; `page`: accounts at a time.

    `meanwhile`: what helps along what is waited for, called at each turn; what it raises of UNANSWERED is borne.
    `pause`: the shortest wait between two turns; it doubles up to `longest_pause`.
    """

    pool: asyncpg.Pool[asyncpg.Record]
    participants: Mapping[str, Participant]
    restored: Restored
    clock: Callable[[], datetime]
    page: int = 2_000
    call: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(milliseconds=100)
    longest_pause: timedelta = timedelta(seconds=10)
    meanwhile: Callable[[], Awaitable[object]] = _nothing
    still_within: timedelta = timedelta(seconds=60)


Waiting = Callable[[Mapping[str, int], timedelta], object]
"""What is told at each turn of waiting: how many cases wait, by participant and code, and for how long at most yet."""


async def recover(
    with_: Recovering,
    by: str,
    *,
    dry_run: bool = False,
    progress: Callable[[int], object] = lambda _done: None,
    waiting: Waiting = lambda _for, _left: None,
) -> Found:
    """Recover everything. With `dry_run` nothing is stopped, sent or saved: it counts what the first pass would do.

    Claims and new cases stay stopped while it waits, and where the answer is not complete. Raises
    ParticipantUnavailableError where a participant does not answer at all, WorkersBusyError where workers do not come
    to a stop in time, and what the platform's database raises; another run then goes on.
    """
    await _asked(with_, methodcaller("look", [1]))  # nothing is stopped for a recovery that could decide nothing
    found = Found(dry_run=dry_run)
    run = None
    if not dry_run:
        run = await operating.begin_recovery(with_.pool, with_.restored.databases, by, with_.clock())
        both = msgspec.structs.replace(with_.restored, databases=run.restored)
        with_ = msgspec.structs.replace(with_, restored=both)
        await _still(with_)
    after, waits = 0, list[Wait]()
    while after < MAX_ACCOUNT:
        after, more = await _range(with_, after, found)
        waits += more
        progress(found.accounts)
    await _wait(with_, waits, found, waiting)
    if run is not None and found.complete:
        await operating.end_recovery(with_.pool, run, msgspec.to_builtins(found), with_.clock())
    return found


async def _still(with_: Recovering) -> None:
    """Wait until no worker drives a case any more: each says so at its heartbeat, or its lease has run out."""
    try:
        async with asyncio.timeout(with_.still_within.total_seconds()):
            while True:
                now = with_.clock()
                seen = await operating.workers(with_.pool, now)
                busy = [one.worker_id for one in seen if one.seen_until > now and one.state != "paused"]
                if not busy:
                    return
                await asyncio.sleep(with_.pause.total_seconds())
    except TimeoutError as error:
        raise WorkersBusyError(workers=busy) from error


async def _range(with_: Recovering, after: int, found: Found) -> tuple[int, list[Wait]]:
    """Recover the next range of accounts, as far as a page of anybody's goes; return where it ends, and who waits."""
    numbers = await operating.numbers(with_.pool, after, MAX_ACCOUNT, with_.page)
    upto = max(numbers) if len(numbers) == with_.page else MAX_ACCOUNT
    rows = await _asked(with_, methodcaller("marks", after, upto, with_.page))
    upto = min([upto, *(max(of) for of in rows.values() if len(of) == with_.page)])
    accounts = sorted({account for account in {*numbers}.union(*rows.values()) if account <= upto})
    found.accounts += len(accounts)
    if found.dry_run:
        _foresee(found, await _decided(with_, accounts, rows, numbers, {}, timedelta(0)), numbers)
        return upto, []
    waits = await _as_far_as_it_goes(with_, accounts, rows, numbers, timedelta(0), found)
    _count(found.waited, waits)
    return upto, waits


async def _wait(with_: Recovering, waits: Sequence[Wait], found: Found, waiting: Waiting) -> None:
    """Wait, with growing pauses, for what clears by itself; the decision when to wait no longer is recovery's."""
    since, turn = with_.clock(), 0
    pace = Timing(resend=with_.pause, resend_limit=with_.longest_pause)
    while waits:
        left = max(with_.restored.patience - (with_.clock() - since), timedelta(0))
        waiting(_count({}, waits), left)
        try:
            await with_.meanwhile()
        except UNANSWERED as error:
            _log.warning("recovery_not_helped", error=type(error).__name__)
        await asyncio.sleep(min(backoff(turn, pace), left).total_seconds())
        turn += 1
        waited, accounts, waits = with_.clock() - since, sorted({wait.account_id for wait in waits}), []
        for start in range(0, len(accounts), with_.page):
            page = accounts[start : start + with_.page]
            rows = await _asked(with_, methodcaller("look", page))
            numbers = await operating.numbers_among(with_.pool, page)
            waits += await _as_far_as_it_goes(with_, page, rows, numbers, waited, found)


def _count(counted: dict[str, int], waits: Iterable[Wait]) -> dict[str, int]:
    """Count waits by participant and code."""
    for name, cases in Counter(f"{wait.participant} {wait.code}" for wait in waits).items():
        counted[name] = counted.get(name, 0) + cases
    return counted


async def _as_far_as_it_goes(
    with_: Recovering,
    accounts: Sequence[int],
    rows: Rows,
    numbers: Mapping[int, int],
    waited: timedelta,
    found: Found,
) -> list[Wait]:
    """Decide, send and save for these accounts until nothing moves any more; return what is to be waited for."""
    left, in_vain, undecided, waits = sorted(accounts), 0, list[Undecided](), list[Wait]()
    refusals: Refusals = {}
    for _ in range(_PASSES):
        told = await _decided(with_, left, rows, numbers, refusals, waited)
        undone = await _settle(with_, [one for one in told if not one.sends and not one.waits], found)
        for one in told:
            if one.again:
                undone.add(one.account_id)
            elif not one.sends and one.account_id not in undone:
                undecided += one.undecided if not one.waits else ()
                waits += one.waits
        sending = [one for one in told if one.sends]
        left = sorted({one.account_id for one in sending} | undone)
        if not left or in_vain == _IN_VAIN:
            break
        refusals = await _send(with_, sending, found)
        before, rows = rows, await _asked(with_, methodcaller("look", left))
        numbers = await operating.numbers_among(with_.pool, left)
        moved = any(before[name].get(account) != of.get(account) for account in left for name, of in rows.items())
        in_vain = 0 if moved else in_vain + 1
        await asyncio.sleep(with_.pause.total_seconds() * in_vain)
    found.unfinished += left
    settled = {*accounts}.difference(left, (wait.account_id for wait in waits))
    await _tell(with_, settled, undecided, found)
    return waits


async def _decided(
    with_: Recovering,
    accounts: Sequence[int],
    rows: Rows,
    numbers: Mapping[int, int],
    refusals: Refusals,
    waited: timedelta,
) -> list[Recovery]:
    """Decide about each account, by the rows read before and the cases read now."""
    held: defaultdict[int, list[Case]] = defaultdict(list)
    for case in await store.of_accounts(with_.pool, accounts):
        held[case.account_id].append(case)
    theirs: defaultdict[int, list[int]] = defaultdict(list)
    for account, number in await tasks.undecided(with_.pool, accounts):
        theirs[account].append(number)
    now = with_.clock()
    return [
        recovered(
            Seen(
                account_id=account,
                last_case_no=numbers.get(account, 0),
                cases=tuple(held[account]),
                rows={name: of[account] for name, of in rows.items() if account in of},
                refusals=refusals.get(account, {}),
                waited=waited,
                theirs=tuple(theirs[account]),
            ),
            with_.restored,
            now,
        )
        for account in accounts
    ]


async def _settle(with_: Recovering, told: Sequence[Recovery], found: Found) -> set[int]:
    """Save what was decided; return the accounts of which something moved meanwhile, to be decided anew."""
    if not told:
        return set()
    now = with_.clock()
    changed = {case.key: case for one in told for case in one.changed}
    made = {case.key: case for one in told for case in one.made}
    before = await store.load_many(with_.pool, changed)
    await _hold_slots(with_, changed.values(), before, now)
    saves = [_save(before[key], case, now) for key, case in changed.items() if key in before]
    committed = [before[case.key] for save in saves for case in save.cases if case.state in COUNTED]
    async with with_.pool.acquire() as connection, connection.transaction():
        # Before the number goes over what was given and forgotten: from then on only its task tells of such a case.
        await tasks.raise_(connection, [_task(each) for one in told for each in one.undecided], now)
        found.numbers_raised += await operating.raise_numbers(
            connection, {one.account_id: one.last_case_no for one in told}, now
        )
        await operating.forget_wishes(connection, committed)
        saved = (await store.save(connection, saves, now)).kept()
        moved = {key[0] for key in changed.keys() - saved.keys()}
        again = {case: [_begun(case, now)] for case in made.values() if case.account_id not in moved}
        there = await operating.make_again(connection, again, now)
    for case in [*saved.values(), *(made[key] for key in there)]:
        found.states[case.state.value] = found.states.get(case.state.value, 0) + 1
    found.changed += len(saved)
    found.made_again += len(there)
    return moved | {key[0] for key in made.keys() - there}


def _save(before: Case, after: Case, now: datetime) -> Save:
    ends = after.state in ENDED
    return Save(
        cases=[after],
        entries=entries(before, after, (), (), now),
        template=f"case_{after.state.value}" if ends else None,
    )


def _begun(case: Case, now: datetime) -> dict[str, Any]:
    """The first timeline entry of a case made again."""
    return {"at": now, "what": "state", "state": case.state.value} | ({"reason": case.reason} if case.reason else {})


async def _hold_slots(
    with_: Recovering, changed: Iterable[Case], before: Mapping[store.Key, Case], now: datetime
) -> None:
    """Give cases that turn out to be committed the slot of their document's quota that the restore took back."""
    without = [
        (before[case.key], _SLOTS)
        for case in changed
        if case.document_index is not None and case.state in COUNTED and case.key in before
    ]
    if without:
        await quota.claim(with_.pool, without, local_date(now).year, now)


async def _send(with_: Recovering, told: Iterable[Recovery], found: Found) -> Refusals:
    """Send one op to each participant that lacks one, all at once; return the Trys that were refused without a mark.

    What comes of the rest is seen in the rows.
    """
    grouped: defaultdict[tuple[str, Op, bytes], list[Order]] = defaultdict(list)
    effects = dict[bytes, Mapping[str, Any]]()
    refusals: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for one in told:
        refusals[one.account_id] |= one.refusals
        for send in one.sends:
            plan = one.plans.get(send.case_no) if send.op is Op.CONFIRM else None
            applied = {} if plan is None else plan.effects.get(send.participant, {})
            key = msgspec.json.encode(applied, order="sorted")
            effects[key] = applied
            grouped[send.participant, send.op, key].append(Order(send.account_id, send.case_no, send.version))
            found.sent[send.op.value] = found.sent.get(send.op.value, 0) + 1

    async def call(name: str, op: Op, orders: Sequence[Order], applied: Mapping[str, Any]) -> None:
        party = with_.participants[name]
        try:
            async with asyncio.timeout(with_.call.total_seconds()):
                if op is not Op.TRY or not isinstance(party, Forgiving):
                    await party.apply(op, orders, applied)
                    return
                for account, code in (await party.try_again(orders)).items():
                    refusals[account][name] = code
                    found.sent[op.value] -= 1
        except UNANSWERED as error:
            _log.warning("recovery_unanswered", participant=name, op=op.value, error=type(error).__name__)

    await asyncio.gather(*(call(name, op, orders, effects[key]) for (name, op, key), orders in grouped.items()))
    return refusals


async def _tell(with_: Recovering, settled: Collection[int], undecided: Collection[Undecided], found: Found) -> None:
    """Raise what an operator must decide, and close what no longer is of accounts that are settled."""
    now, keys = with_.clock(), set[store.Key]()
    for each in undecided:
        found.undecided[each.why.value] = found.undecided.get(each.why.value, 0) + 1
        keys.add((each.account_id, each.case_no))
    await tasks.raise_(with_.pool, [_task(each) for each in undecided], now)
    await tasks.close_decided(with_.pool, settled, keys, now)


def _task(each: Undecided) -> NewTask:
    return NewTask(
        account_id=each.account_id,
        case_no=each.case_no,
        kind="undecided",
        participant="platform",
        why=each.why.value,
        note=", ".join(" ".join(told) for told in zip_longest(each.participants, each.codes, fillvalue="")) or None,
    )


async def _asked(
    with_: Recovering, read: Callable[[Participant], Awaitable[Mapping[int, FenceRow]]]
) -> dict[str, Mapping[int, FenceRow]]:
    """Read fence rows from everybody at once. Raises ParticipantUnavailableError: a row unread could be a proof."""

    async def ask(name: str, participant: Participant) -> Mapping[int, FenceRow]:
        for tried in range(1, _TRIES + 1):
            try:
                async with asyncio.timeout(with_.call.total_seconds()):
                    return await read(participant)
            except UNANSWERED as error:
                if tried == _TRIES:
                    raise ParticipantUnavailableError(participant=name, error=type(error).__name__) from error
                await asyncio.sleep(with_.pause.total_seconds() * tried)
        raise AssertionError("the last try returns or raises")

    answers = await asyncio.gather(*(ask(name, each) for name, each in with_.participants.items()))
    return dict(zip(with_.participants, answers, strict=True))


def _foresee(found: Found, told: Iterable[Recovery], numbers: Mapping[int, int]) -> None:
    """Count what the first pass would do; what it sends may bring more to light."""
    for one in told:
        found.numbers_raised += one.last_case_no != numbers.get(one.account_id)
        found.changed += len(one.changed)
        found.made_again += len(one.made)
        for send in one.sends:
            found.sent[send.op.value] = found.sent.get(send.op.value, 0) + 1
        for case in (*one.changed, *one.made):
            found.states[case.state.value] = found.states.get(case.state.value, 0) + 1
        for each in one.undecided:
            found.undecided[each.why.value] = found.undecided.get(each.why.value, 0) + 1
