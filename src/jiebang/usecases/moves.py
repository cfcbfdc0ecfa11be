"""What a batch of cases does in one round, said once for all that do the same: moves, orders, and who heard a yes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import Case
from jiebang.participants.base import Answers, Orders
from jiebang.saga.coordinator import Reply, Send, alike
from jiebang.store.cases import Key
from jiebang.store.records import Record

if TYPE_CHECKING:
    from jiebang.model.plan import Plan
    from jiebang.saga.fence import Op


class Move(msgspec.Struct):
    """Cases that took the same step: before and after, what is sent for each of them, the replies that led to it."""

    keys: list[Key]
    before: list[Case]
    after: list[Case]
    sends: Sequence[Send]
    replies: Sequence[Reply] = ()
    record: Record | None = None
    entries: list[dict[str, Any]] = []
    _columns: tuple[list[int], list[int], frozenset[int]] | None = None

    @property
    def columns(self) -> tuple[list[int], list[int], frozenset[int]]:
        """The accounts, their case numbers, and the accounts as a set: for every participant the same."""
        if self._columns is None:
            accounts = [case.account_id for case in self.after]
            self._columns = (accounts, [case.case_no for case in self.after], frozenset(accounts))
        return self._columns

    @property
    def unsaved(self) -> bool:
        """Whether the step only learnt grants, and needs no save."""
        return self.after[0].revision == self.before[0].revision

    def without(self, lost: Collection[Key]) -> Move:
        """Return the move of those whose save was not lost."""
        left = [each for each in zip(self.keys, self.before, self.after, strict=True) if each[0] not in lost]
        keys, before, after = map(list, zip(*left, strict=True)) if left else ([], [], [])
        return msgspec.structs.replace(self, keys=keys, before=before, after=after, _columns=None)


class Heard(msgspec.Struct, frozen=True):
    """Cases that heard a yes from everybody they asked in a round."""

    keys: Sequence[Key]
    answers: Sequence[Answers]

    def replies_to(self, case: Case) -> list[Reply]:
        """Return the replies as they came to one of the cases."""
        return [answers.yes_to(case.account_id, case.case_no) for answers in self.answers]


def joined(moves: Sequence[Move], learnt: Mapping[Key, object]) -> list[Move]:
    """Join moves of single cases that took the same step without a reply, so that they are saved and told of as one."""
    found: list[Move] = []
    groups: dict[Any, Move] = {}
    for move in moves:
        [before, *others], after = move.before, move.after[0]
        if others or move.replies or move.record is not None or move.keys[0] in learnt:
            found.append(move)
            continue
        sends = tuple([send.participant for send in move.sends])
        same = (alike(before), alike(after), sends)
        if same in groups:
            groups[same].keys += move.keys
            groups[same].before.append(before)
            groups[same].after.append(after)
        else:
            groups[same] = move
            found.append(move)
    return found


def orders_of(parts: Sequence[tuple[Move, int | None]]) -> Orders:
    """Return the orders of several moves at one participant; `at`: its place in the plan, for the version of a Try."""
    if len(parts) == 1:
        [(move, at)] = parts
        accounts, case_nos, everybody = move.columns
        versions = None if at is None else [case.versions[at] or None for case in move.after]
        return Orders(accounts, case_nos, versions, everybody)
    together = sorted([(case, at) for move, at in parts for case in move.after], key=lambda each: each[0].account_id)
    versions = None if parts[0][1] is None else [case.versions[at] or None for case, at in together if at is not None]
    return Orders([case.account_id for case, _ in together], [case.case_no for case, _ in together], versions)


def heard_by(
    moves: Sequence[Move],
    answered: Mapping[tuple[str, Op, str], Sequence[Answers]],
    late: Collection[Key],
    plan_of: Callable[[Case], Plan],
) -> list[Heard]:
    """Return which cases of which moves heard a yes from everybody they asked, in time and without a late reply."""
    found: list[Heard] = []
    for move in moves:
        plan = plan_of(move.after[0]).name
        answers = [answered.get((send.participant, send.op, plan), ()) for send in move.sends]
        if any(len(each) != 1 for each in answers):
            continue
        whole = [each[0] for each in answers]
        yes = frozenset.intersection(*{id(each.yes): each.yes for each in whole}.values()).difference(
            [reply.account_id for each in whole for reply in each.rest]
        )
        keys = [key for key in move.keys if key[0] in yes and key not in late]
        if keys:
            found.append(Heard(keys, whole))
    return found
