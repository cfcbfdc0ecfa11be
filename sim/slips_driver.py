"""Planted mistakes in what drives cases: the worker and its driver, a participant's process, and recovery.

Each is one plausible slip of a programmer or an operator; sim/mistakes.py names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import ENDED, Case, State
from jiebang.saga.fence import CaseOp, FenceRow, Op
from jiebang.saga.recovery import Recovery, Restored, Seen, recovered
from sim.driver import Driver, Round, TornError
from sim.parties import Applied, Party, Wallet
from sim.restores import Restores
from sim.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from jiebang.model.plan import Plan
    from jiebang.saga.coordinator import Decision, Event, Reply, Send
    from sim.process import Steps
    from sim.store import Key


# In the driver.


class SendsFirst(Driver):
    def _decided(self, work: Mapping[Key, Case], decided: Mapping[Key, Decision], now: datetime) -> Steps:
        world = self.world
        assert world.running is not None  # noqa: S101 - a save is part of a process
        early = Round((), world.running)
        for decision in decided.values():
            for send in decision.sends:
                world.after(world.up_to(4), self._call, early, (send,), self.worker.life)
        return (yield from super()._decided(work, decided, now))


class SendsAnyway(Driver):
    def _decided(self, work: Mapping[Key, Case], decided: Mapping[Key, Decision], now: datetime) -> Steps:
        saved = yield from super()._decided(work, decided, now)
        return {key: decision.case for key, decision in decided.items()} | saved


class BelievesTorn(Driver):
    def _decided(self, work: Mapping[Key, Case], decided: Mapping[Key, Decision], now: datetime) -> Steps:
        try:
            return (yield from super()._decided(work, decided, now))
        except TornError:
            return {key: decision.case for key, decision in decided.items()}


class TrustsLease(Driver):
    def _commit(self, saves: Sequence[tuple[Case, bool]], stored: dict[Key, Case]) -> None:
        held = self.world.store.cases
        super()._commit(
            [
                (msgspec.structs.replace(case, revision=held[case.key].revision + 1), late)
                for case, late in saves
                if case.key in held
            ],
            stored,
        )


class RemembersGrants(Driver):
    """Keeps what a case learnt by account, and so takes a case's grants for the next one's."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self.learnt: dict[int, str] = {}

    def _step(self, case: Case, event: Event, now: datetime) -> Decision:
        known = self.learnt.get(case.account_id, "")
        if case.state is State.TRYING and len(known) == len(case.marks):
            marks = "".join("g" if "g" in pair else pair[0] for pair in zip(case.marks, known, strict=True))
            case = case if marks == case.marks else msgspec.structs.replace(case, marks=marks)
        decision = super()._step(case, event, now)
        if decision.case.state is State.TRYING and "g" in decision.case.marks:
            self.learnt[case.account_id] = decision.case.marks
        return decision


class SavesLearntAsSent(Driver):
    """Takes a wave for granted once it was sent: what was learnt is not looked at again."""

    def _step(self, case: Case, event: Event, now: datetime) -> Decision:
        decision = super()._step(case, event, now)
        if decision.case.state is State.TRYING and decision.case.revision == case.revision and decision.sends:
            marks = decision.case.marks.replace("t", "g")
            return msgspec.structs.replace(decision, case=msgspec.structs.replace(decision.case, marks=marks))
        return decision


class NewestPlan(Driver):
    def _plan_of(self, case: Case) -> Plan:
        newest = self.world.pack
        return newest if len(newest.participants) == len(case.marks) else super()._plan_of(case)


class SaveNotHalved(Driver):
    def _save(self, saves: Sequence[tuple[Case, bool]]) -> Steps:
        if any(self.world.poisoned(case.key, "save") for case, _ in saves):
            yield 1
            for case, _ in saves:
                self._put_off(case.key)
            return {}
        return (yield from super()._save(saves))


class WishForEver(Driver):
    """Takes a recorded wish in again and again while its save is refused."""

    def _step_and_save(self, work: Mapping[Key, Case], events: Mapping[Key, Event], learnt: dict[Key, None]) -> Steps:
        kept, sends, again = yield from super()._step_and_save(work, events, learnt)
        for key, event in events.items():
            if key in work and key not in kept and work[key].withdraw_at is not None:
                again[key], kept[key] = event, self.world.store.cases[key]
        return kept, sends, again


# In the worker.


class MixesCases(Worker):
    def hear(self, one: Round, replies: Sequence[Reply]) -> None:
        latest = self.world.store.numbers
        super().hear(one, [msgspec.structs.replace(reply, case_no=latest[reply.account_id]) for reply in replies])


# In a participant's process.


class ForgetsInRestart(Party):
    """Answers before what it did is durable."""

    unsaved: tuple[int, Any] | None = None

    def take(self, account: int, case_no: int, op: Op, asked: int | None, whim: str | None) -> Applied:
        self.unsaved = (account, self.row(account))
        return super().take(account, case_no, op, asked, whim)

    def restart(self) -> None:
        super().restart()
        if self.unsaved is not None:
            account, row = self.unsaved
            self.rows[account] = row


# In recovery.


def reuses_numbers(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    return msgspec.structs.replace(recovered(seen, restored, now), last_case_no=seen.last_case_no)


def ignores_confirmed(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    rows = {
        name: FenceRow(row.case_no, CaseOp.TRIED) if row.case_op is CaseOp.CONFIRMED else row
        for name, row in seen.rows.items()
    }
    return recovered(msgspec.structs.replace(seen, rows=rows), restored, now)


def believes_the_platform(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    """Takes up only what the platform still has open."""
    decided = recovered(seen, restored, now)
    live = {case.case_no for case in seen.cases if case.state not in ENDED}
    return msgspec.structs.replace(
        decided, sends=tuple(send for send in decided.sends if send.case_no in live), made=()
    )


def confirms_without_try(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    decided = recovered(seen, restored, now)
    return msgspec.structs.replace(decided, sends=tuple(_confirm(send) for send in decided.sends))


def _confirm(send: Send) -> Send:
    return msgspec.structs.replace(send, op=Op.CONFIRM) if send.op is Op.TRY else send


def commits_what_was_tried(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    """Takes a tried row for a grant that counts, and goes on to commit."""
    cases = tuple(
        msgspec.structs.replace(case, state=State.CONFIRMING, marks="c" * len(case.marks))
        if case.state is State.TRYING
        else case
        for case in seen.cases
    )
    return recovered(msgspec.structs.replace(seen, cases=cases), restored, now)


def overlooks_forgotten(seen: Seen, restored: Restored, now: datetime) -> Recovery:
    """Looks only at cases that somebody still holds: one that the platform and one more forgot is passed by."""
    held = [*(case.case_no for case in seen.cases), *(row.case_no for row in seen.rows.values())]
    last = max(seen.last_case_no, *held, 0)
    return recovered(msgspec.structs.replace(seen, last_case_no=last, theirs=()), restored, now)


class Unforgiving(Wallet):
    """Leaves its mark where it refuses a recovery's Try, as it does for everybody else's."""

    def refusal(self, account: int) -> None:
        del account


class NoRecovery(Restores):
    def _settled(self, account: int, names: tuple[str, ...], waited: int) -> Steps:
        del account, names, waited
        yield 1
        return True


class OpensAtOnce(Restores):
    """The database is back and open before what was under way has come in."""

    quiet = 0


class WarmWorkers(Restores):
    """Workers go on after a recovery with what they heard before it."""

    def stop(self, worker: Worker) -> None:
        del worker
