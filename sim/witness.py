"""The witness of a batch: works out what each of its cases would have done alone, and holds the batch to it.

A batch steps groups, and one case stands for all of its group. The witness knows no groups: it steps every case by
itself, with what the batch was told about that case, and compares what is saved and what is sent, case by case. So a
slip of the batch's code (somebody forgotten, somebody taken along, somebody else's version) shows in the batch in which
it happens, even where the protocol would have made it good. Whether the steps themselves are right is the auditor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from jiebang.model.case import ENDED, Case, State, moved
from jiebang.saga.batch import Save, SaveOutcome
from jiebang.saga.coordinator import Event, Replied, Woken, condition
from jiebang.saga.driver import CaseLoad, FactsRecheck, GroupSave, Postponement, Round, RoundAnswers, SaveRefused
from jiebang.saga.fence import Op
from jiebang.saga.timeline import entries
from sim.evidence import ViolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from jiebang.model.case import Key
    from jiebang.model.plan import Plan
    from jiebang.saga.coordinator import Decision, Reply, Send, Timing
    from jiebang.saga.driver import Need

Entries = list[dict[str, Any]]


class Expected(msgspec.Struct, frozen=True):
    """What a case is to be saved as, and what is to be sent once it is."""

    before: Case
    after: Case
    entries: Entries
    sends: Sequence[Send] = ()
    template: str | None = None


class Witness:
    """Follows one batch. `check` is asked before each of its needs is met, `met` is told what came of it."""

    def __init__(
        self,
        taken: Iterable[Case],
        late: Iterable[Reply],
        plan_of: Callable[[Case], Plan],
        step: Callable[[Case, Plan, Event, datetime, Timing], Decision],
        timing: Timing,
    ) -> None:
        """Know what the batch begins with."""
        self._plan_of, self._step, self._timing = plan_of, step, timing
        self._cases: dict[Key, Case] = {case.key: case for case in taken}
        self._late: dict[Key, list[Reply]] = {}
        for reply in late:
            self._late.setdefault((reply.account_id, reply.case_no), []).append(reply)
        self._events: dict[Key, Event] = {}
        self._began = False
        self._unsaved: dict[Key, Expected] = {}
        self._to_send: dict[Key, Sequence[Send]] = {}
        self._learnt: dict[Key, Entries] = {}
        self._lost: dict[Key, Case] = {}

    def check(self, need: Need, now: datetime) -> None:
        """Compare what the batch wants with what its cases want. Raises ViolationError."""
        if isinstance(need, GroupSave):
            self._go_on(now)
            if not self._unsaved and not self._to_send:
                self._expect_learnt()
            self._check_saves(need.saves)
        elif isinstance(need, Round):
            self._go_on(now)
            if self._unsaved:
                _broken(f"cases {sorted(self._unsaved)} are left out of the save before a round")
            self._check_sends(need)

    def met(self, need: Need, result: Any) -> None:
        """Learn what came of a need."""
        if isinstance(need, CaseLoad):
            self._loaded(result)
        elif isinstance(need, FactsRecheck):
            self._events |= {key: event for key, event in result.items() if key in self._cases}
            self._began = self._began or self._first_events()
        elif isinstance(need, GroupSave):
            self._saved(need.saves, result)
        elif isinstance(need, Postponement):
            for key in self._unsaved.keys() & need.keys:  # what cannot be saved is lost
                self._lost[key] = self._unsaved.pop(key).before
                del self._cases[key]
        elif isinstance(need, Round):
            self._heard(need, result)

    def end(self, now: datetime) -> None:
        """Nothing may be left to do when the batch ends. Raises ViolationError."""
        self._go_on(now)
        for what, keys in (("saved", self._unsaved), ("sent", self._to_send), ("saved as learnt", self._learnt)):
            if keys:
                _broken(f"the batch ends and what cases {sorted(keys)} did is not {what}")

    # Steps.

    def _go_on(self, now: datetime) -> None:
        """Step every case that has an event, once all that came of the steps before is saved and sent."""
        if not self._began:
            self._began = self._first_events()
        if self._unsaved or self._to_send:
            return
        events, self._events = self._events, {}
        for key, event in events.items():
            self._take(key, event, now)

    def _first_events(self) -> bool:
        for key, case in self._cases.items():
            if key in self._late:
                self._events[key] = Replied(tuple(self._late[key]))
            elif case.state is not State.READY or case.withdraw_at is not None:
                self._events[key] = Woken()
        return True

    def _take(self, key: Key, event: Event, now: datetime) -> None:
        before = self._cases[key]
        decision = self._step(before, self._plan_of(before), event, now, self._timing)
        after = decision.case
        if after is before:
            return
        replies = event.replies if isinstance(event, Replied) else ()
        told = self._learnt.pop(key, []) + entries(before, after, decision.sends, replies, now)
        if after.revision == before.revision:
            self._cases[key], self._learnt[key] = after, told
            if decision.sends:
                self._to_send[key] = decision.sends
            return
        template = f"case_{after.state.value}" if after.state in ENDED else None
        self._unsaved[key] = Expected(before, after, told, decision.sends, template)

    def _expect_learnt(self) -> None:
        for key, told in self._learnt.items():
            case = self._cases[key]
            self._unsaved[key] = Expected(case, moved(case, case.state), told)
        self._learnt = {}

    # Saves.

    def _check_saves(self, saves: Sequence[Save]) -> None:
        for save in saves:
            for case in save.cases:
                wanted = self._unsaved.get(case.key)
                if wanted is None:
                    _broken(f"case {case.key} is saved as {save.stepped.state} {save.stepped.marks} unasked")
                told = _as_told(save, case, wanted.before)
                is_saved = {**msgspec.structs.asdict(told), "entries": list(save.entries), "template": save.template}
                alone = {
                    **msgspec.structs.asdict(wanted.after),
                    "head": told.head,
                    "entries": wanted.entries,
                    "template": wanted.template,
                }
                differs = {name: (alone[name], value) for name, value in is_saved.items() if value != alone[name]}
                if differs:
                    _broken(f"case {case.key} alone, and as it is saved with its group: {differs}")

    def _saved(self, saves: Sequence[Save], outcome: SaveOutcome | SaveRefused) -> None:
        if isinstance(outcome, SaveRefused):
            return
        for key in [case.key for save in saves for case in save.cases]:
            wanted = self._unsaved.pop(key)
            if key in outcome.lost:
                self._lost[key] = wanted.before
                del self._cases[key]
                continue
            self._cases[key] = msgspec.structs.replace(wanted.after, withdraw_at=outcome.wishes.get(key))
            if wanted.sends:
                self._to_send[key] = wanted.sends

    def _loaded(self, loaded: Mapping[Key, Case]) -> None:
        for key, case in loaded.items():
            before = self._lost.pop(key, None)
            if before is None:
                self._cases[key] = case
            elif case.withdraw_at is not None and before.withdraw_at is None and case.revision == before.revision:
                self._cases[key], self._events[key] = case, Woken()

    # Sends.

    def _check_sends(self, need: Round) -> None:
        sent: dict[tuple[Key, str, Op], int | None] = {}
        for call in need.calls:
            for order in call.orders.one_by_one():
                key, version = (order.account_id, order.case_no), order.version
                if (key, call.participant, call.op) in sent:
                    _broken(f"{call.participant} is sent {call.op} of case {key} twice in a round")
                sent[key, call.participant, call.op] = version
                if key in self._cases and call.plan != self._plan_of(self._cases[key]):
                    _broken(f"{call.participant} is sent {call.op} of case {key} under another plan")
        wanted = {
            (key, send.participant, send.op): send.version for key, sends in self._to_send.items() for send in sends
        }
        if sent != wanted:
            more = {where: version for where, version in sent.items() if wanted.get(where, -1) != version}
            less = {where: version for where, version in wanted.items() if sent.get(where, -1) != version}
            _broken(f"alone, cases would have sent {less}; sent is {more}")

    def _heard(self, need: Round, closed: RoundAnswers) -> None:
        """Take in time what a case asked for, in the order in which it asked; with late replies, as the calls went."""
        told: dict[Key, list[Reply]] = {}
        for answers in closed.answers:
            for reply in (reply for each in answers for reply in each.one_by_one()):
                told.setdefault((reply.account_id, reply.case_no), []).append(reply)
        late = {(reply.account_id, reply.case_no) for reply in closed.late}
        for key, replies in told.items():
            if key not in late:
                asked = [send.participant for send in self._to_send[key]]
                replies.sort(key=lambda reply: asked.index(reply.participant))
        for reply in closed.late:
            told.setdefault((reply.account_id, reply.case_no), []).append(reply)
        for key, replies in told.items():
            if key in self._cases and key in need.keys:
                self._events[key] = Replied(tuple(replies))
        self._to_send = {}


def _as_told(save: Save, case: Case, before: Case) -> Case:
    """What a save makes of one of its cases: versions stand as they were unless they are written."""
    versions = case if save.versions else before
    return msgspec.structs.replace(
        case, **condition(save.stepped), versions=versions.versions, wallet_version=versions.wallet_version
    )


def _broken(what: str) -> NoReturn:
    message = f"batch: {what}"
    raise ViolationError(message)
