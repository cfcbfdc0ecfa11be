"""Groups of cases that step together: their steps, saves and orders, and how the answers of a round divide them.

Cases that took the same step share all that the next step reads of them. So one of them is stepped, saved and heard for
all, and a group is divided only where its members are told different things. `saga.driver` puts these in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from itertools import repeat
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any

import msgspec

from jiebang.model.case import Case, Key
from jiebang.saga.coordinator import Reply, Send, condition, condition_key
from jiebang.saga.orders import Answers, Orders


class Group(msgspec.Struct, frozen=True, gc=False):
    """Cases that stay together, in order of account; keys in columns too, the same for every participant and round.

    `cases` are as they came together. What is each one's own stays so (its number, its versions, its document); of all
    else one of them stands for the group, and the others are not written out again at every step.
    """

    cases: Sequence[Case]
    keys: Sequence[Key]
    accounts: Sequence[int]
    case_nos: Sequence[int]
    everybody: frozenset[int]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Group:
        """Make a group of cases."""
        accounts, case_nos = [case.account_id for case in cases], [case.case_no for case in cases]
        return cls(cases, list(zip(accounts, case_nos, strict=True)), accounts, case_nos, frozenset(accounts))

    def versions(self, at: int) -> Sequence[int | None]:
        """Return the versions that the plan's participant `at` is tried at (None: it has none)."""
        return [case.versions[at] or None for case in self.cases]


class GroupStep(msgspec.Struct):
    """A step that a group took: its first case before and after, what is sent, the replies that led to it.

    All members were of one state and revision before, and have one `condition` after it. The sends and replies are the
    first one's, and stand for the others' too. `entries`: for the timeline, with what had been learnt before and not
    saved. `evidence`: of the re-check that ended the case, where it did.
    """

    group: Group
    before: Case
    after: Case
    sends: Sequence[Send]
    replies: Sequence[Reply] = ()
    evidence: object | None = None
    entries: list[dict[str, Any]] = []

    @property
    def unsaved(self) -> bool:
        """Whether the step only learnt grants, and needs no save."""
        return self.after.revision == self.before.revision

    def each(self) -> list[Case]:
        """Return the cases after the step."""
        shared = condition(self.after)
        return [msgspec.structs.replace(case, **shared) for case in self.group.cases]

    def of(self, cases: Sequence[Case]) -> GroupStep:
        """Return the same step, taken by `cases`."""
        after = msgspec.structs.replace(cases[0], **condition(self.after)) if cases else self.after
        return msgspec.structs.replace(self, group=Group.of(cases), after=after)

    def without(self, keys: AbstractSet[Key] | Mapping[Key, object]) -> GroupStep:
        """Return the step without the cases of `keys`; perhaps no case is left."""
        group = self.group
        return self.of([case for case, key in zip(group.cases, group.keys, strict=True) if key not in keys])

    def split(self, wishes: Mapping[Key, datetime]) -> list[GroupStep]:
        """Split it: those who wish to withdraw (since when) no longer share a condition with anybody."""
        wishing = [case for case in self.group.cases if case.key in wishes]
        if not wishing:
            return [self]
        alone = [self.of([msgspec.structs.replace(case, withdraw_at=wishes[case.key])]) for case in wishing]
        left = self.without(wishes)
        return [left, *alone] if left.group.keys else alone


class GroupReplied(msgspec.Struct, frozen=True):
    """A group whose members got the same replies in a round; `one` stands for all, as it asked.

    `replies`: those to `one`. `learnt`: entries of the timeline for the next save.
    """

    group: Group
    one: Case
    replies: tuple[Reply, ...]
    learnt: list[dict[str, Any]] = []


class Save(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Cases that took the same step, with the step's timeline entries and the message of their end, if any.

    They share revision, state, marks, attempt, due_at, deadline and reason: these are sent, and the entries read, once.
    They are `like`'s, one of them as stepped, where the others still stand as before (None: all are as stepped).
    `evidence`: of the re-check that ended the first of them, to be kept in the same transaction as a record; the save
    itself does not write it. `versions`: whether the cases' versions and wallet_version are to be written too.
    """

    cases: Sequence[Case]
    entries: Sequence[Mapping[str, Any]]
    like: Case | None = None
    template: str | None = None
    evidence: object | None = None
    versions: bool = True

    @property
    def stepped(self) -> Case:
        """One of the cases as stepped."""
        return self.like or self.cases[0]


class SaveOutcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a save: `lost` were refused by their guard; `wishes`: who else wishes to withdraw, since when."""

    lost: AbstractSet[Key] = frozenset()
    wishes: Mapping[Key, datetime] = MappingProxyType({})


def halve_saves(saves: Sequence[Save]) -> tuple[list[Save], list[Save]]:
    """Divide saves in two: by groups, and one group by its cases."""
    half = len(saves) // 2
    if half:
        return list(saves[:half]), list(saves[half:])
    [save] = saves
    half = len(save.cases) // 2
    first, second = (msgspec.structs.replace(save, cases=part) for part in (save.cases[:half], save.cases[half:]))
    return [first], [second]


def join_steps(steps: Sequence[GroupStep]) -> list[GroupStep]:
    """Join steps of single cases that are the same and come of no reply, so that they are saved as one group."""
    joined: list[GroupStep] = []
    alike: defaultdict[Hashable, list[GroupStep]] = defaultdict(list)
    for step in steps:
        if step.replies or step.evidence is not None or step.entries:
            joined.append(step)
        else:
            before = step.before.state, step.before.reason, step.before.revision
            alike[before, condition_key(step.after), tuple([send.participant for send in step.sends])].append(step)
    for several in alike.values():
        cases = [case for step in several for case in step.group.cases]
        joined.append(several[0].of(sorted(cases, key=attrgetter("account_id"))))
    return joined


def merge_orders(parts: Sequence[tuple[Group, Sequence[int | None] | None]]) -> Orders:
    """Return the orders of several groups at one participant, each with the versions to be tried at (None: no Try)."""
    if len(parts) == 1:
        [(group, versions)] = parts
        return Orders(group.accounts, group.case_nos, versions, group.everybody)
    none = repeat(None)
    together = sorted(
        [each for group, own in parts for each in zip(group.accounts, group.case_nos, own or none, strict=False)],
        key=itemgetter(0),
    )
    accounts, case_nos, versions = zip(*together, strict=True)
    return Orders(accounts, case_nos, None if parts[0][1] is None else versions)


class IndexedAnswers(msgspec.Struct, frozen=True, gc=False):
    """What one participant answered to a call; `rest`: what was no plain yes, by the case that it is about."""

    answers: Answers
    rest: Mapping[Key, tuple[Reply, ...]]

    @classmethod
    def of(cls, answers: Answers) -> IndexedAnswers:
        """Index the rest once for all cases."""
        return cls(answers, group_by_case(answers.rest))

    def to(self, key: Key) -> tuple[Reply, ...]:
        """Return the replies to one of the cases that were asked."""
        yes = (self.answers.yes_to(*key),) if key[0] in self.answers.yes else ()
        return yes + self.rest.get(key, ())


def split_by_replies(
    step: GroupStep, answered: Sequence[Sequence[IndexedAnswers]], late: Container[Key]
) -> tuple[list[GroupReplied], GroupStep]:
    """Divide the group of a step by what its members were answered; return those, and the step of the unanswered.

    `answered`: by each that was asked, in order of the sends. Whoever is in `late` counts among the unanswered.
    """
    group, answers = step.group, [each for of_one in answered for each in of_one]
    once = all(len(of_one) == 1 for of_one in answered)
    if once and not late and all(each.answers.yes is group.everybody and not each.rest for each in answers):
        return [_replied(step, answers)], step.of([])
    yes = _all_yes(group, answers) if once else frozenset()
    together: list[Case] = []
    several: defaultdict[Hashable, list[Case]] = defaultdict(list)
    left: list[Case] = []
    for case, key in zip(group.cases, group.keys, strict=True):
        if key in late:
            left.append(case)
        elif key[0] in yes and not any(key in each.rest for each in answers):
            together.append(case)  # most of them, even where some were refused
        elif replies := [reply for each in answers for reply in each.to(key)]:
            same = tuple([(reply.participant, reply.answer, reply.code, reply.at) for reply in replies])
            several[same].append(case)
        else:
            left.append(case)
    parts = [together, *several.values()] if together else list(several.values())
    return [_replied(step.of(cases), answers) for cases in parts], step.of(left)


def _all_yes(group: Group, answers: Sequence[IndexedAnswers]) -> AbstractSet[int]:
    """Return the accounts that everybody said yes to, of a group that is a small part of a call or nearly all of it."""
    if len(group.keys) * 8 < len(answers[0].answers.yes):
        return {account for account in group.accounts if all(account in each.answers.yes for each in answers)}
    return frozenset.intersection(*{id(each.answers.yes): each.answers.yes for each in answers}.values())


def _replied(step: GroupStep, answers: Sequence[IndexedAnswers]) -> GroupReplied:
    replies = tuple([reply for each in answers for reply in each.to(step.group.keys[0])])
    return GroupReplied(step.group, step.after, replies, step.entries if step.unsaved else [])


def split_replies(replies: Sequence[Reply], keys: Container[Key]) -> tuple[list[Reply], list[Reply]]:
    """Return the replies to the cases `keys`, and the others, each in their order."""
    taken = [reply for reply in replies if (reply.account_id, reply.case_no) in keys]
    if not taken:
        return taken, list(replies)
    return taken, [reply for reply in replies if (reply.account_id, reply.case_no) not in keys]


def group_by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    """Return replies by the case that they are about."""
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(of_case) for key, of_case in grouped.items()}
