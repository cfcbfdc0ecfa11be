"""What a batch of cases does in one round, said once for all that do the same: moves, orders, and who heard a yes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from jiebang.model.case import Case
from jiebang.participants.base import Answers, Orders
from jiebang.saga.coordinator import Reply, Send, alike, condition
from jiebang.store.cases import Key
from jiebang.store.records import Record


class Crowd(msgspec.Struct, frozen=True, gc=False):
    """Cases that stay together, in order of account; keys in columns too, the same for every participant and round.

    `cases` are as they came together. What is each one's own stays so (its number, its versions, its document); of all
    else one of them speaks for everybody, and the others are not written out again at every step.
    """

    cases: Sequence[Case]
    keys: Sequence[Key]
    accounts: Sequence[int]
    case_nos: Sequence[int]
    everybody: frozenset[int]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Crowd:
        """Put cases together."""
        accounts, case_nos = [case.account_id for case in cases], [case.case_no for case in cases]
        return cls(cases, list(zip(accounts, case_nos, strict=True)), accounts, case_nos, frozenset(accounts))

    def versions(self, at: int) -> Sequence[int | None]:
        """Return the versions that the plan's participant `at` is tried at (None: it has none)."""
        return [case.versions[at] or None for case in self.cases]

    def as_of(self, one: Case) -> list[Case]:
        """Return every case in the condition of `one`."""
        shared = condition(one)
        return [msgspec.structs.replace(case, **shared) for case in self.cases]


class Move(msgspec.Struct):
    """Cases that took the same step: the first of them before and after, what is sent, the replies that led to it.

    All of them were of one state and revision before, and are `alike` after it. The sends and replies are the first
    one's, and stand for everybody's. `entries`: for the timeline, with what had been learnt before and not saved.
    """

    crowd: Crowd
    before: Case
    after: Case
    sends: Sequence[Send]
    replies: Sequence[Reply] = ()
    record: Record | None = None
    entries: list[dict[str, Any]] = []

    @property
    def unsaved(self) -> bool:
        """Whether the step only learnt grants, and needs no save."""
        return self.after.revision == self.before.revision

    def each(self) -> list[Case]:
        """Return the cases after the step."""
        return self.crowd.as_of(self.after)

    def by(self, cases: Sequence[Case]) -> Move:
        """Return the same move, taken by `cases`."""
        after = msgspec.structs.replace(cases[0], **condition(self.after)) if cases else self.after
        return msgspec.structs.replace(self, crowd=Crowd.of(cases), after=after)

    def without(self, keys: AbstractSet[Key] | Mapping[Key, object]) -> Move:
        """Return the move without the cases of `keys`; perhaps nobody's."""
        crowd = self.crowd
        return self.by([case for case, key in zip(crowd.cases, crowd.keys, strict=True) if key not in keys])


class Heard(msgspec.Struct, frozen=True):
    """Cases that heard the same in a round; `one` speaks for all, as they asked, and `replies` are those it heard.

    `learnt`: entries of the timeline for their next save.
    """

    crowd: Crowd
    one: Case
    replies: tuple[Reply, ...]
    learnt: list[dict[str, Any]] = []


def joined(moves: Sequence[Move]) -> list[Move]:
    """Join moves of single cases that took the same step without a reply, so that they are saved and told of as one."""
    found: list[Move] = []
    groups: defaultdict[Hashable, list[Move]] = defaultdict(list)
    for move in moves:
        if len(move.crowd.keys) > 1 or move.replies or move.record is not None or move.entries:
            found.append(move)
        else:
            before = move.before.state, move.before.reason, move.before.revision
            groups[before, alike(move.after), tuple([send.participant for send in move.sends])].append(move)
    for group in groups.values():
        crowd = Crowd.of(sorted([case for move in group for case in move.crowd.cases], key=attrgetter("account_id")))
        found.append(msgspec.structs.replace(group[0], crowd=crowd))
    return found


def orders_of(parts: Sequence[tuple[Crowd, Sequence[int | None] | None]]) -> Orders:
    """Return the orders of several crowds at one participant, each with the versions to be tried at (None: no Try)."""
    if len(parts) == 1:
        [(crowd, versions)] = parts
        return Orders(crowd.accounts, crowd.case_nos, versions, crowd.everybody)
    none = repeat(None)
    together = sorted(
        [each for crowd, own in parts for each in zip(crowd.accounts, crowd.case_nos, own or none, strict=False)],
        key=itemgetter(0),
    )
    accounts, case_nos, versions = zip(*together, strict=True)
    return Orders(accounts, case_nos, None if parts[0][1] is None else versions)


def heard_by(move: Move, answers: Sequence[Sequence[Answers]], late: Container[Key]) -> tuple[list[Heard], Move]:
    """Return those cases of a move that heard the same, together, and the move of those who heard nothing.

    `answers`: of each that was asked, in order of the sends. Whoever is in `late` goes with those who heard nothing.
    """
    crowd, told = move.crowd, [each for of_one in answers for each in of_one]
    once = all(len(of_one) == 1 for of_one in answers)
    if once and not late and all(each.yes is crowd.everybody and not each.rest for each in told):
        replies_of_first = tuple([each.yes_to(*crowd.keys[0]) for each in told])
        return [Heard(crowd, move.after, replies_of_first, move.entries if move.unsaved else [])], move.by([])
    yes: AbstractSet[int] = frozenset()
    if once:  # most of them heard a yes from everybody even where some did not
        refused = [reply.account_id for each in told for reply in each.rest]
        yes = frozenset.intersection(*{id(each.yes): each.yes for each in told}.values()).difference(refused)
    together: list[Case] = []
    others: dict[Key, Case] = {}
    for case, key in zip(crowd.cases, crowd.keys, strict=True):
        if key[0] in yes and key not in late:
            together.append(case)
        else:
            others[key] = case
    heard = [_heard(move, together, tuple([each.yes_to(*together[0].key) for each in told]))] if together else []
    replies = by_case([reply for each in told for reply in each.one_by_one({key[0] for key in others})])
    groups: defaultdict[Hashable, list[Key]] = defaultdict(list)
    for key in others.keys() & replies.keys():
        if key not in late:
            groups[tuple([(each.participant, each.answer, each.code, each.at) for each in replies[key]])].append(key)
    heard += [_heard(move, [others[key] for key in sorted(keys)], replies[min(keys)]) for keys in groups.values()]
    return heard, move.by([case for key, case in others.items() if key in late or key not in replies])


def _heard(move: Move, cases: Sequence[Case], replies: tuple[Reply, ...]) -> Heard:
    part = move.by(cases)
    return Heard(part.crowd, part.after, replies, move.entries if move.unsaved else [])


def by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    """Return replies by the case that they are about."""
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(of_case) for key, of_case in grouped.items()}
