"""The runner of a simulated worker: carries out the requests of `saga.driver`, with waits in place of awaits.

What a batch does, and in which order, is the product's own code. This module makes saves get torn or refused, facts
unreadable, calls lost, halved or late, and workers die in between.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.plan import WALLET
from jiebang.saga.batch import Save, SaveOutcome
from jiebang.saga.coordinator import Rechecked, Reply, Send, condition
from jiebang.saga.driver import drive
from jiebang.saga.fence import Answer, Op
from jiebang.saga.needs import (
    CaseLoad,
    FactsRecheck,
    GroupSave,
    PlanLookup,
    Postponement,
    Round,
    RoundAnswers,
    SaveRefusal,
)
from jiebang.saga.needs import ParticipantCall as DriverCall
from jiebang.saga.orders import Answers, collect_answers
from sim.batch import PoisonedError, WitnessedError, WorldBatch
from sim.evidence import ViolationError
from sim.network import Call

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from jiebang.model.case import Case, Key
    from jiebang.saga.needs import Need
    from sim.process import Process, Steps
    from sim.worker import Worker

SLOW_SAVE = 200
"""Milliseconds that a save takes when the store's disk is slow, long enough for others to act in between."""


class TornError(Exception):
    """The store did not answer: the save has happened, will happen, or never does."""


class OpenCall:
    """One call of a round. A halved call is answered when all of its parts are."""

    __slots__ = ("answers", "parts")

    def __init__(self) -> None:
        """Nothing sent yet."""
        self.parts, self.answers = 1, list[Answers]()


class OpenRound:
    """The calls of one round of one batch, and the process that waits for them."""

    __slots__ = ("calls", "keys", "waiting")

    def __init__(self, keys: Collection[Key], calls: int, waiting: Process) -> None:
        """Nothing answered yet."""
        self.keys, self.waiting = keys, waiting
        self.calls = [OpenCall() for _ in range(calls)]


class Driver:
    """Runs batches of cases for one worker."""

    def __init__(self, worker: Worker) -> None:
        """Drive for `worker`."""
        self.worker, self.world = worker, worker.world

    def drive(self, taken: Sequence[Case], late: Sequence[Reply]) -> Steps:
        """Take due cases, and the cases of late replies, as far as they go now. Raises TornError."""
        world, worker = self.world, self.worker
        world.seen["batch of several"] += len(taken) > 1

        def batch(now: Any, _timing: Any) -> WorldBatch:
            return world.parts.batch(world, now)

        life = drive(taken, late, worker.clock(), world.options.timing, batch)
        try:
            need = next(life)
            while True:
                result = yield from self._do(need)
                need = life.send((worker.clock(), result))
        except StopIteration:
            return
        except WitnessedError as wrong:
            raise ViolationError(*wrong.args) from wrong
        finally:
            life.close()

    def _do(self, need: Need) -> Steps:
        match need:
            case Round():
                return (yield from self._round(need))
            case GroupSave():
                return (yield from self._save(need.saves))
            case FactsRecheck():
                return (yield from self._recheck(need.cases))
            case PlanLookup():
                return {followed: self.world.plan_of(case) for followed, case in need.cases.items()}
            case CaseLoad():
                yield self._pause()
                return self._load(need.keys)
            case Postponement():
                self._put_off(need)
                return None

    def _put_off(self, need: Postponement) -> None:
        """Postpone a case that cannot be driven, so that it is not claimed again and again."""
        if not isinstance(need.error, PoisonedError):
            message = f"{need.why} {need.keys}: {need.error}"
            raise ViolationError(message) from need.error
        self.world.seen["poisoned case put off"] += 1
        for key in need.keys:
            self.world.store.put_off(key, self.worker.clock() + need.wait)
            self.world.remind(key)

    def _load(self, keys: Iterable[Key]) -> dict[Key, Case]:
        held = self.world.store.cases
        return {key: held[key] for key in sorted(keys) if key in held}

    def _pause(self) -> int:
        world = self.world
        return world.up_to(SLOW_SAVE if world.chance(world.options.disk) else 6)

    def _recheck(self, ready: Sequence[Case]) -> Steps:
        """Read all facts, each participant's at a different moment."""
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

    # Saving.

    def _save(self, saves: Sequence[Save]) -> Steps:
        """Save in one statement, which runs on even if the worker dies meanwhile. Raises TornError."""
        world = self.world
        if any(world.poisoned(case.key, "save") for save in saves for case in save.cases):
            world.seen["save poisoned"] += 1
            yield 1
            return SaveRefusal(PoisonedError())
        now, stored = self.worker.clock(), dict[Any, Any]()
        wait = self._pause()
        if world.chance(world.options.torn):
            world.seen["save torn"] += 1
            if world.chance(2 / 3):
                world.after(world.up_to(2 * SLOW_SAVE), self._commit, saves, now, stored)
            yield wait
            world.tell(self.worker.name, "gets no answer to a save")
            raise TornError
        world.after(wait, self._commit, saves, now, stored)
        yield wait + world.up_to(3)
        return SaveOutcome(
            lost={case.key for save in saves for case in save.cases} - stored.keys(),
            wishes={key: case.withdraw_at for key, case in stored.items() if case.withdraw_at is not None},
        )

    def _commit(self, saves: Sequence[Save], now: Any, stored: dict[Key, Case]) -> None:
        """Commit the statement: all saves at one moment, each case under its guard."""
        world, held = self.world, self.world.store.cases
        for save in saves:
            for case in save.cases:
                row = held.get(case.key, case)
                versions = case if save.versions else row
                after = msgspec.structs.replace(
                    case,
                    **condition(save.stepped),
                    versions=versions.versions,
                    wallet_version=versions.wallet_version,
                )
                late = row.deadline is not None and now >= row.deadline
                kept = world.keep(after, late, self.worker.name)
                if kept is not None:
                    stored[case.key] = kept

    # Rounds.

    def _round(self, need: Round) -> Steps:
        """Make the calls, and gather answers until the round closes."""
        world, worker = self.world, self.worker
        assert world.running is not None  # noqa: S101 - a round is part of a process
        one = OpenRound(need.keys, len(need.calls), world.running)
        worker.rounds.append(one)
        if world.chance(world.options.die):
            world.after(world.up_to(3), worker.die, worker.life)
        for call, open_call in zip(need.calls, one.calls, strict=True):
            world.after(world.up_to(4), self._call, one, open_call, call, worker.life)
        if not any((reply.account_id, reply.case_no) in need.keys for reply in worker.late):
            yield world.options.round_limit
        worker.rounds.remove(one)
        answers = [call.answers if not call.parts else [] for call in one.calls]
        return RoundAnswers(answers, worker.take_late(need.keys))

    def _call(self, one: OpenRound, open_call: OpenCall, call: DriverCall, life: int) -> None:
        """Call one participant. A batch that fails as a whole is halved."""
        world, worker = self.world, self.worker
        if life != worker.life or worker.stands_still(self._call, one, open_call, call, life):
            return
        sends = tuple(
            Send(order.account_id, order.case_no, call.participant, call.op, order.version)
            for order in call.orders.one_by_one()
        )
        for send in sends:
            if world.traced:
                world.tell(worker.name, f"sends {send.op} {send.account_id}/{send.case_no} to {send.participant}")
            world.judge.sent(send.account_id, send.case_no, send.participant, send.op)
        world.network.carry(
            Call(call.participant, call.op, sends, partial(self._answered, one, open_call, call, life, [False]))
        )

    def _answered(
        self,
        one: OpenRound,
        open_call: OpenCall,
        call: DriverCall,
        life: int,
        before: list[bool],
        replies: tuple[Reply, ...] | None,
    ) -> None:
        """Take an answer to a call, or to a part of it; a repeated one (`before[0]`) counts as late."""
        world, worker = self.world, self.worker
        if life != worker.life:
            return
        again, before[0] = before[0], True
        if replies is not None:
            answers = self._answers(call, replies)
            if again:
                worker.hear_late(answers.one_by_one())
                return
            open_call.answers.append(answers)
        elif again:
            return
        elif halves := call.halves():
            world.seen["call halved"] += 1
            open_call.parts += 2
            for half in halves:
                self._call(one, open_call, half, life)
        open_call.parts -= 1
        if not open_call.parts:
            worker.hear(one, open_call)

    def _answers(self, call: DriverCall, replies: Sequence[Reply]) -> Answers:
        """Put replies into the form that the product gets: a database of ours answers one yes for all."""
        worker, world = self.worker, self.world
        now = worker.clock()
        positive = Answer.GRANTED if call.op is Op.TRY else Answer.DONE
        if world.parties[call.participant].has_facts:
            if len(replies) == len(call.orders) and all(reply.answer is positive for reply in replies):
                return Answers(call.participant, call.op, call.orders, now, call.orders.everybody)
            if not world.up_to(3):  # rows that stood as asked already are no plain yes
                stamped = [msgspec.structs.replace(reply, at=now) for reply in replies]
                return Answers(call.participant, call.op, call.orders, now, frozenset(), stamped)
        return collect_answers(call.participant, call.op, call.orders, replies, now)


def keys_of(replies: Iterable[Reply]) -> Iterator[Key]:
    """Yield the keys of the cases that replies are about."""
    return ((reply.account_id, reply.case_no) for reply in replies)
