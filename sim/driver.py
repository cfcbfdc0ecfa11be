"""The driver of a simulated worker: what `usecases/advance.py` does, line by line, with waits in place of awaits.

One batch of cases goes through rounds: step them all, save what must be saved in one statement, send what the guarded
save returned (one call a participant and op, all concurrently), step again with the replies. What a case learnt that
needs no save yet is kept in mind for its next save, at the latest at the end of the batch.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from jiebang.model.case import Case, State, moved
from jiebang.model.plan import WALLET
from jiebang.saga.coordinator import Decision, Event, Rechecked, Replied, Reply, Send, Woken
from sim.network import Call

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from jiebang.model.plan import Plan
    from sim.process import Process, Steps
    from sim.store import Key
    from sim.worker import Worker

SLOW_SAVE = 200
"""Milliseconds that a save takes when the store's disk is slow, long enough for others to act in between."""


class TornError(Exception):
    """The store gave no answer: the save happened, will happen, or never does."""


class PoisonedError(Exception):
    """A case that its driver cannot step breaks the batch it is in."""


class Round:
    """The calls of one round of one batch, and who waits for them."""

    __slots__ = ("keys", "pending", "replies", "waiting")

    def __init__(self, keys: Collection[Key], waiting: Process) -> None:
        """Nothing sent yet."""
        self.keys, self.waiting = keys, waiting
        self.pending = 0
        self.replies: list[Reply] = []


class Driver:
    """Drives batches of cases of one worker."""

    def __init__(self, worker: Worker) -> None:
        """Drive for `worker`."""
        self.worker, self.world = worker, worker.world

    def drive(self, taken: Sequence[Case], late: Sequence[Reply]) -> Steps:
        """Take due cases, and the cases of late replies, as far as they go now. Raises TornError."""
        try:
            yield from self._together(taken, late)
        except PoisonedError:
            keys = sorted({case.key for case in taken} | {(reply.account_id, reply.case_no) for reply in late})
            if len(keys) == 1:
                self._put_off(keys[0])
                return
            for half in (set(keys[: len(keys) // 2]), set(keys[len(keys) // 2 :])):
                yield from self.drive(
                    [case for case in taken if case.key in half],
                    [reply for reply in late if (reply.account_id, reply.case_no) in half],
                )

    def _together(self, taken: Sequence[Case], late: Sequence[Reply]) -> Steps:
        world = self.world
        events: dict[Key, Event] = {}
        work = {case.key: case for case in taken}
        replied = _by_case(late)
        work |= self._load(key for key in replied if key not in work)
        yield self._pause()
        if any(world.poisoned(key, "step") for key in work):
            world.seen["batch poisoned at a step"] += 1
            raise PoisonedError
        for key, case in work.items():
            if case.state is not State.READY or case.withdraw_at is not None:
                events[key] = Replied(replied[key]) if key in replied else Woken()
        ready = [case for key, case in work.items() if key not in events]
        if ready:
            events |= yield from self._recheck(ready)
        world.seen["batch of several"] += len(work) > 1
        learnt: dict[Key, None] = {}
        while events:
            work, sends, events = yield from self._step_and_save(work, events, learnt)
            if sends:
                replies = yield from self._round(work, sends)
                events |= {key: Replied(heard) for key, heard in _by_case(replies).items()}
        if learnt:
            world.seen["learnt, then silence"] += len(learnt)
            yield from self._save([(moved(work[key], work[key].state), False) for key in learnt])

    def _put_off(self, key: Key) -> None:
        """A case that cannot be driven waits, so that it is not taken up again and again."""
        self.world.seen["poisoned case put off"] += 1
        self.world.store.put_off(key, self.worker.clock() + self.world.options.timing.resend_limit)
        self.world.remind(key)

    def _load(self, keys: Iterable[Key]) -> dict[Key, Case]:
        held = self.world.store.cases
        return {key: held[key] for key in keys if key in held}

    def _pause(self) -> int:
        world = self.world
        return world.up_to(SLOW_SAVE if world.chance(world.options.disk) else 6)

    def _recheck(self, ready: Sequence[Case]) -> Steps:
        """Read all facts, each participant's at its own moment."""
        world = self.world
        found: dict[Key, tuple[dict[str, int | None], list[str]]] = {case.key: ({}, []) for case in ready}
        for name, party in world.parties.items():
            concerned = [case for case in ready if party.has_facts and name in world.plan_of(case).participants]
            if concerned:
                world.after(world.up_to(6), self._read, name, concerned, found)
        yield 7
        return {key: Rechecked(versions, tuple(blockers)) for key, (versions, blockers) in found.items()}

    def _read(
        self, name: str, concerned: Sequence[Case], found: Mapping[Key, tuple[dict[str, int | None], list[str]]]
    ) -> None:
        world = self.world
        party = world.parties[name]
        unread = not party.up or world.chance(world.options.unread)
        world.seen["facts unread"] += unread
        for case in concerned:
            versions, blockers = found[case.key]
            row = party.row(case.account_id)
            versions[name] = None if unread else row.version
            if not unread and row.open_items:
                blockers.append("PAY-PENDING" if name == WALLET else "IN-THE-WAY")

    def _step_and_save(self, work: Mapping[Key, Case], events: Mapping[Key, Event], learnt: dict[Key, None]) -> Steps:
        """Step every case that has an event and save what must be.

        Returns the cases still ours, what may now be sent, and events for cases whose save met a wish to withdraw.
        """
        now = self.worker.clock()
        kept, sends, decided = dict(work), list[Send](), dict[tuple[int, int], Decision]()
        for key, event in events.items():
            before = work.get(key)
            if before is None:
                continue
            decision = self._step(before, event, now)
            if decision.case is before:
                continue
            learnt.pop(key, None)
            if decision.case.revision == before.revision:
                kept[key], learnt[key] = decision.case, None
                sends.extend(decision.sends)
            else:
                decided[key] = decision
        if not decided:
            return kept, sends, {}
        saved = yield from self._decided(work, decided, now)
        sends.extend(send for key in saved for send in decided[key].sends)
        lost = [key for key in decided if key not in saved]
        kept = {key: case for key, case in kept.items() if key not in lost} | saved
        reloaded = self._load(lost)
        wished = {
            key: case
            for key, case in reloaded.items()
            if case.withdraw_at is not None and work[key].withdraw_at is None and case.revision == work[key].revision
        }
        return kept | wished, sends, {key: Woken() for key in wished}

    def _step(self, case: Case, event: Event, now: datetime) -> Decision:
        world = self.world
        return world.parts.step(case, self._plan_of(case), event, now, world.options.timing)

    def _plan_of(self, case: Case) -> Plan:
        return self.world.plan_of(case)

    def _decided(self, work: Mapping[Key, Case], decided: Mapping[Key, Decision], now: datetime) -> Steps:
        """Save what was decided; return the cases whose save returned, whose sends alone leave."""
        return (yield from self._save([(one.case, _late(work[key], now)) for key, one in decided.items()]))

    def _save(self, saves: Sequence[tuple[Case, bool]]) -> Steps:
        """Save a batch; one that the store refuses as a whole is halved until the bad case stands alone.

        The statement runs by itself, whatever becomes of the worker meanwhile. Raises TornError.
        """
        world = self.world
        if any(world.poisoned(case.key, "save") for case, _ in saves):
            world.seen["save poisoned"] += 1
            yield 1
            if len(saves) == 1:
                self._put_off(saves[0][0].key)
                return {}
            half = len(saves) // 2
            first = yield from self._save(saves[:half])
            second = yield from self._save(saves[half:])
            return first | second
        stored: dict[Key, Case] = {}
        wait = self._pause()
        if world.chance(world.options.torn):
            world.seen["save torn"] += 1
            if world.chance(2 / 3):
                world.after(world.up_to(2 * SLOW_SAVE), self._commit, saves, stored)
            yield wait
            world.tell(self.worker.name, "gets no answer to a save")
            raise TornError
        world.after(wait, self._commit, saves, stored)
        yield wait + world.up_to(3)
        return stored

    def _commit(self, saves: Sequence[tuple[Case, bool]], stored: dict[Key, Case]) -> None:
        """The statement commits: all of the batch at one moment, each case under its guard."""
        world = self.world
        for case, late in saves:
            kept = world.keep(case, late, self.worker.name)
            if kept is not None:
                stored[case.key] = kept

    def _round(self, work: Mapping[Key, Case], sends: Iterable[Send]) -> Steps:
        """Send everything, one call a participant and op, and gather replies until the round closes."""
        world, worker = self.world, self.worker
        grouped: defaultdict[tuple[str, Any, str], list[Send]] = defaultdict(list)
        for send in sends:
            grouped[send.participant, send.op, work[send.account_id, send.case_no].plan].append(send)
        assert world.running is not None  # noqa: S101 - a round is part of a process
        one = Round(work.keys(), world.running)
        worker.rounds.append(one)
        if world.chance(world.options.die):
            world.after(world.up_to(3), worker.die, worker.life)
        for orders in grouped.values():
            world.after(world.up_to(4), self._call, one, tuple(orders), worker.life)
            one.pending += 1
        if not any((reply.account_id, reply.case_no) in work for reply in worker.late):
            yield world.options.round_limit
        worker.rounds.remove(one)
        return one.replies + worker.take_late(work.keys())

    def _call(self, one: Round, orders: tuple[Send, ...], life: int) -> None:
        """Call one participant. A batch that fails as a whole is halved."""
        world, worker = self.world, self.worker
        if life != worker.life or worker.stands_still(self._call, one, orders, life):
            return
        first = orders[0]
        for send in orders:
            if world.traced:
                world.tell(worker.name, f"sends {send.op} {send.account_id}/{send.case_no} to {send.participant}")
            world.judge.sent(send.account_id, send.case_no, send.participant, send.op)

        def heard(replies: tuple[Reply, ...] | None) -> None:
            if life != worker.life:
                return
            if replies is not None:
                worker.hear(one, replies)
            elif len(orders) > 1:
                world.seen["call halved"] += 1
                one.pending += 1
                self._call(one, orders[: len(orders) // 2], life)
                self._call(one, orders[len(orders) // 2 :], life)

        world.network.carry(Call(first.participant, first.op, orders, heard))


def _late(case: Case, now: datetime) -> bool:
    """Whether a decision taken now comes at or after the case's deadline."""
    return case.deadline is not None and now >= case.deadline


def _by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(of_case) for key, of_case in grouped.items()}


def keys_of(replies: Iterable[Reply]) -> Iterator[Key]:
    """The cases that replies are about."""
    return ((reply.account_id, reply.case_no) for reply in replies)
