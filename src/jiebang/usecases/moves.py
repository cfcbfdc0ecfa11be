"""What a batch of cases does in one round, said once for all that do the same: moves, orders, and who heard a yes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from jiebang.model.case import Case
from jiebang.participants.base import Answers, Orders
from jiebang.saga.coordinator import Reply, Send, alike
from jiebang.store.cases import Key
from jiebang.store.records import Record


class Crowd(msgspec.Struct, frozen=True, gc=False):
    """Cases by key, in order of account, in columns: for every participant and every round the same."""

    keys: Sequence[Key]
    accounts: Sequence[int]
    case_nos: Sequence[int]
    everybody: frozenset[int]

    @classmethod
    def of(cls, keys: Sequence[Key]) -> Crowd:
        """Put keys into columns."""
        accounts = [key[0] for key in keys]
        return cls(keys, accounts, [key[1] for key in keys], frozenset(accounts))


class Move(msgspec.Struct):
    """Cases that took the same step: before and after, what is sent for each of them, the replies that led to it.

    Cases that were `alike` before it are `alike` after it.
    """

    crowd: Crowd
    before: Sequence[Case]
    after: Sequence[Case]
    sends: Sequence[Send]
    replies: Sequence[Reply] = ()
    record: Record | None = None
    entries: list[dict[str, Any]] = []

    @property
    def unsaved(self) -> bool:
        """Whether the step only learnt grants, and needs no save."""
        return self.after[0].revision == self.before[0].revision

    def only(self, wanted: Callable[[Key], bool]) -> Move | None:
        """Return the move of the cases `wanted`."""
        at = [place for place, key in enumerate(self.crowd.keys) if wanted(key)]
        if not at:
            return None
        crowd = Crowd.of([self.crowd.keys[place] for place in at])
        before, after = [self.before[place] for place in at], [self.after[place] for place in at]
        return msgspec.structs.replace(self, crowd=crowd, before=before, after=after)


class Heard(msgspec.Struct, frozen=True):
    """Cases that heard a yes from everybody they asked in a round."""

    crowd: Crowd
    cases: Sequence[Case]
    answers: Sequence[Answers]

    def replies(self) -> list[Reply]:
        """Return the replies as they came to the first of the cases."""
        return [answers.yes_to(*self.crowd.keys[0]) for answers in self.answers]


def joined(moves: Sequence[Move], learnt: Mapping[Key, object]) -> list[Move]:
    """Join moves of single cases that took the same step without a reply, so that they are saved and told of as one."""
    found: list[Move] = []
    groups: defaultdict[Hashable, list[Move]] = defaultdict(list)
    for move in moves:
        if len(move.after) > 1 or move.replies or move.record is not None or move.crowd.keys[0] in learnt:
            found.append(move)
        else:
            sends = tuple([send.participant for send in move.sends])
            groups[alike(move.before[0]), alike(move.after[0]), sends].append(move)
    for group in groups.values():
        crowd = Crowd.of([key for move in group for key in move.crowd.keys])
        before = [case for move in group for case in move.before]
        after = [case for move in group for case in move.after]
        found.append(msgspec.structs.replace(group[0], crowd=crowd, before=before, after=after))
    return found


def orders_of(parts: Sequence[tuple[Move, int | None]]) -> Orders:
    """Return the orders of several moves at one participant; `at`: its place in the plan, for the version of a Try."""
    if len(parts) == 1:
        [(move, at)] = parts
        crowd = move.crowd
        versions = None if at is None else [case.versions[at] or None for case in move.after]
        return Orders(crowd.accounts, crowd.case_nos, versions, crowd.everybody)
    together = sorted([(case, at) for move, at in parts for case in move.after], key=lambda each: each[0].account_id)
    versions = None if parts[0][1] is None else [case.versions[at] or None for case, at in together if at is not None]
    return Orders([case.account_id for case, _ in together], [case.case_no for case, _ in together], versions)


def heard_by(move: Move, answers: Sequence[Sequence[Answers]], late: Collection[Key]) -> Heard | None:
    """Return which cases of a move heard a yes from everybody they asked, in time and without a late reply.

    `answers`: of each that was asked, in the order of the sends.
    """
    if any(len(each) != 1 for each in answers):
        return None
    whole, crowd = [each[0] for each in answers], move.crowd
    if not late and all(each.yes is crowd.everybody and not each.rest for each in whole):
        return Heard(crowd, move.after, whole)
    yes = frozenset.intersection(*{id(each.yes): each.yes for each in whole}.values()).difference(
        [reply.account_id for each in whole for reply in each.rest]
    )
    part = move.only(lambda key: key[0] in yes and key not in late)
    return None if part is None else Heard(part.crowd, part.after, whole)
