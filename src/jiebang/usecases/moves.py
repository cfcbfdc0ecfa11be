"""What a batch of cases does in one round, said once for all that do the same: moves, orders, and who heard a yes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
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
        shared = condition(self.after)
        return [msgspec.structs.replace(case, **shared) for case in self.crowd.cases]

    def by(self, cases: Sequence[Case]) -> Move:
        """Return the same move, taken by `cases`."""
        after = msgspec.structs.replace(cases[0], **condition(self.after)) if cases else self.after
        return msgspec.structs.replace(self, crowd=Crowd.of(cases), after=after)

    def without(self, keys: AbstractSet[Key] | Mapping[Key, object]) -> Move:
        """Return the move without the cases of `keys`; perhaps nobody's."""
        crowd = self.crowd
        return self.by([case for case, key in zip(crowd.cases, crowd.keys, strict=True) if key not in keys])

    def parted(self, wishes: Mapping[Key, datetime]) -> list[Move]:
        """Part it: those who wish to withdraw are alike to nobody any more."""
        wishing = [case for case in self.crowd.cases if case.key in wishes]
        if not wishing:
            return [self]
        alone = [self.by([msgspec.structs.replace(case, withdraw_at=wishes[case.key])]) for case in wishing]
        left = self.without(wishes)
        return [left, *alone] if left.crowd.keys else alone


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
        if move.replies or move.record is not None or move.entries:
            found.append(move)
        else:
            before = move.before.state, move.before.reason, move.before.revision
            groups[before, alike(move.after), tuple([send.participant for send in move.sends])].append(move)
    for group in groups.values():
        cases = [case for move in group for case in move.crowd.cases]
        found.append(group[0].by(sorted(cases, key=attrgetter("account_id"))))
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


class Told(msgspec.Struct, frozen=True, gc=False):
    """What one participant answered to a call; `rest`: what was no plain yes, by the case that it is about."""

    answers: Answers
    rest: Mapping[Key, tuple[Reply, ...]]

    @classmethod
    def of(cls, answers: Answers) -> Told:
        """Look the rest up once for all cases."""
        return cls(answers, by_case(answers.rest))

    def to(self, key: Key) -> tuple[Reply, ...]:
        """Return the replies to one of the cases that were asked."""
        yes = (self.answers.yes_to(*key),) if key[0] in self.answers.yes else ()
        return yes + self.rest.get(key, ())


def heard_by(move: Move, told: Sequence[Sequence[Told]], late: Container[Key]) -> tuple[list[Heard], Move]:
    """Return those cases of a move that heard the same, together, and the move of those who heard nothing.

    `told`: by each that was asked, in order of the sends. Whoever is in `late` goes with those who heard nothing.
    """
    crowd, answers = move.crowd, [each for of_one in told for each in of_one]
    once = all(len(of_one) == 1 for of_one in told)
    if once and not late and all(each.answers.yes is crowd.everybody and not each.rest for each in answers):
        return [_heard(move, answers)], move.by([])
    yes = _all_yes(crowd, answers) if once else frozenset()
    together: list[Case] = []
    groups: defaultdict[Hashable, list[Case]] = defaultdict(list)
    left: list[Case] = []
    for case, key in zip(crowd.cases, crowd.keys, strict=True):
        if key in late:
            left.append(case)
        elif key[0] in yes and not any(key in each.rest for each in answers):
            together.append(case)  # most of them, even where some were refused
        elif said := [reply for each in answers for reply in each.to(key)]:
            groups[tuple([(reply.participant, reply.answer, reply.code, reply.at) for reply in said])].append(case)
        else:
            left.append(case)
    parts = [together, *groups.values()] if together else list(groups.values())
    return [_heard(move.by(cases), answers) for cases in parts], move.by(left)


def _all_yes(crowd: Crowd, answers: Sequence[Told]) -> AbstractSet[int]:
    """Return the accounts that everybody said yes to, of a crowd that is a small part of a call or nearly all of it."""
    if len(crowd.keys) * 8 < len(answers[0].answers.yes):
        return {account for account in crowd.accounts if all(account in each.answers.yes for each in answers)}
    return frozenset.intersection(*{id(each.answers.yes): each.answers.yes for each in answers}.values())


def _heard(move: Move, answers: Sequence[Told]) -> Heard:
    replies = tuple([reply for each in answers for reply in each.to(move.crowd.keys[0])])
    return Heard(move.crowd, move.after, replies, move.entries if move.unsaved else [])


def by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    """Return replies by the case that they are about."""
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(of_case) for key, of_case in grouped.items()}
