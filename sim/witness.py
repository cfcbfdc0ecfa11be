"""The witness of a batch: computes what each of its cases would have done alone, and compares the batch with it.

A batch steps groups, one case for all of its group. The witness has no groups: it steps every case by itself, with the
results that the batch got for that case, and compares saves and sends case by case. So a mistake in the batch code (a
case left out, a case added, another case's version) shows in the batch where it happens, even where the protocol would
have repaired it later. Whether the steps themselves are right is judged by the auditor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from jiebang.model.case import ENDED, Case, State, transition
from jiebang.saga.batch import Save, SaveOutcome
from jiebang.saga.coordinator import Event, Replied, Woken, condition
from jiebang.saga.fence import Op
from jiebang.saga.needs import CaseLoad, FactsRecheck, GroupSave, Postponement, Round, RoundAnswers, SaveRefusal
from jiebang.saga.timeline import entries
from sim.evidence import ViolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from jiebang.model.case import Key
    from jiebang.model.plan import Plan
    from jiebang.saga.coordinator import Decision, Reply, Send, Timing
    from jiebang.saga.needs import Need

Entries = list[dict[str, Any]]


class Expected(msgspec.Struct, frozen=True):
    """How a case must be saved, and what must be sent after that."""

    before: Case
    after: Case
    entries: Entries
    sends: Sequence[Send] = ()
    template: str | None = None


class Witness:
    """Follows one batch. Call `check` before each request is carried out, and `learn` with its result."""

    def __init__(
        self,
        taken: Iterable[Case],
        late: Iterable[Reply],
        plan_of: Callable[[Case], Plan],
        step: Callable[[Case, Plan, Event, datetime, Timing], Decision],
        timing: Timing,
    ) -> None:
        """Take the batch's due cases and late replies."""
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
        """Compare the batch's request with what its cases need. Raises ViolationError."""
        if isinstance(need, GroupSave):
            self._step_all(now)
            if not self._unsaved and not self._to_send:
                self._expect_learnt()
            self._check_saves(need.saves)
        elif isinstance(need, Round):
            self._step_all(now)
            if self._unsaved:
                _fail(f"cases {sorted(self._unsaved)} are left out of the save before a round")
            self._check_sends(need)

    def learn(self, need: Need, result: Any) -> None:
        """Take in the result of a request."""
        if isinstance(need, CaseLoad):
            self._learn_loaded(result)
        elif isinstance(need, FactsRecheck):
            self._events |= {key: event for key, event in result.items() if key in self._cases}
            self._began = self._began or self._first_events()
        elif isinstance(need, GroupSave):
            self._learn_saved(need.saves, result)
        elif isinstance(need, Postponement):
            for key in self._unsaved.keys() & need.keys:  # what cannot be saved is lost
                self._lost[key] = self._unsaved.pop(key).before
                del self._cases[key]
        elif isinstance(need, Round):
            self._learn_replies(need, result)

    def end(self, now: datetime) -> None:
        """Check that nothing is left to do when the batch ends. Raises ViolationError."""
        self._step_all(now)
        for what, keys in (("saved", self._unsaved), ("sent", self._to_send), ("saved as learnt", self._learnt)):
            if keys:
                _fail(f"the batch ends and what cases {sorted(keys)} did is not {what}")

    # Steps.

    def _step_all(self, now: datetime) -> None:
        """Step every case that has an event, once the results of earlier steps are saved and sent."""
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
            self._unsaved[key] = Expected(case, transition(case, case.state), told)
        self._learnt = {}

    # Saves.

    def _check_saves(self, saves: Sequence[Save]) -> None:
        for save in saves:
            for case in save.cases:
                wanted = self._unsaved.get(case.key)
                if wanted is None:
                    _fail(f"case {case.key} is saved as {save.stepped.state} {save.stepped.marks} unasked")
                stored = _as_stored(save, case, wanted.before)
                is_saved = {**msgspec.structs.asdict(stored), "entries": list(save.entries), "template": save.template}
                alone = {
                    **msgspec.structs.asdict(wanted.after),
                    "head": stored.head,
                    "entries": wanted.entries,
                    "template": wanted.template,
                }
                differs = {name: (alone[name], value) for name, value in is_saved.items() if value != alone[name]}
                if differs:
                    _fail(f"case {case.key} alone, and as it is saved with its group: {differs}")

    def _learn_saved(self, saves: Sequence[Save], outcome: SaveOutcome | SaveRefusal) -> None:
        if isinstance(outcome, SaveRefusal):
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

    def _learn_loaded(self, loaded: Mapping[Key, Case]) -> None:
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
                    _fail(f"{call.participant} is sent {call.op} of case {key} twice in a round")
                sent[key, call.participant, call.op] = version
                if key in self._cases and call.plan != self._plan_of(self._cases[key]):
                    _fail(f"{call.participant} is sent {call.op} of case {key} under another plan")
        wanted = {
            (key, send.participant, send.op): send.version for key, sends in self._to_send.items() for send in sends
        }
        if sent != wanted:
            more = {where: version for where, version in sent.items() if wanted.get(where, -1) != version}
            less = {where: version for where, version in wanted.items() if sent.get(where, -1) != version}
            _fail(f"alone, cases would have sent {less}; sent is {more}")

    def _learn_replies(self, need: Round, closed: RoundAnswers) -> None:
        """Take in replies: in the order of the case's sends, or, with a late one, in the order of the calls."""
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


def _as_stored(save: Save, case: Case, before: Case) -> Case:
    """Return one of a save's cases as the save stores it; versions that are not written stay as before."""
    versions = case if save.versions else before
    return msgspec.structs.replace(
        case, **condition(save.stepped), versions=versions.versions, wallet_version=versions.wallet_version
    )


def _fail(what: str) -> NoReturn:
    message = f"batch: {what}"
    raise ViolationError(message)
