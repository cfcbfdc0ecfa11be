"""Groups of cases that step together: their steps, saves and orders, and how a round's answers split them.

Cases that took the same step share everything that the next step reads. So one member is stepped for all, the group is
saved in one write, and it is split only where its members get different replies. `saga.driver` runs the groups.
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


class CaseGroup(msgspec.Struct, frozen=True, gc=False):
    """Cases that step together, in ascending order of account. Their keys are in columns too, made once for all rounds.

    `cases` are as they were when the group was formed. Only what differs between members (number, versions, document)
    is read from them: the shared condition is that of one member as stepped, and is not copied at every step.
    """

    cases: Sequence[Case]
    keys: Sequence[Key]
    accounts: Sequence[int]
    case_nos: Sequence[int]
    everybody: frozenset[int]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> CaseGroup:
        """Form a group of cases that are in order of account."""
        accounts, case_nos = [case.account_id for case in cases], [case.case_no for case in cases]
        return cls(cases, list(zip(accounts, case_nos, strict=True)), accounts, case_nos, frozenset(accounts))

    def versions(self, index: int) -> Sequence[int | None]:
        """Return the version for each case's Try at the plan's participant `index` (None: it has no facts)."""
        return [case.versions[index] or None for case in self.cases]


class GroupStep(msgspec.Struct):
    """A step that a group took: its first case before and after, the sends, and the replies that led to it.

    All members had one state and revision before the step, and have one `condition` after it. Sends and replies are the
    first member's and stand for all. `entries`: the timeline entries to save, those learnt earlier but not yet saved
    first. `evidence`: of the re-check, where it ended the case.
    """

    group: CaseGroup
    before: Case
    after: Case
    sends: Sequence[Send]
    replies: Sequence[Reply] = ()
    evidence: object | None = None
    entries: list[dict[str, Any]] = []

    @property
    def unsaved(self) -> bool:
        """Whether the step only recorded grants, which needs no save."""
        return self.after.revision == self.before.revision

    def each(self) -> list[Case]:
        """Return the cases after the step."""
        shared = condition(self.after)
        return [msgspec.structs.replace(case, **shared) for case in self.group.cases]

    def of(self, cases: Sequence[Case]) -> GroupStep:
        """Return the same step with `cases` as its group."""
        after = msgspec.structs.replace(cases[0], **condition(self.after)) if cases else self.after
        return msgspec.structs.replace(self, group=CaseGroup.of(cases), after=after)

    def without(self, keys: AbstractSet[Key] | Mapping[Key, object]) -> GroupStep:
        """Return the step without the cases `keys`; its group may then be empty."""
        group = self.group
        return self.of([case for case, key in zip(group.cases, group.keys, strict=True) if key not in keys])

    def split(self, wishes: Mapping[Key, datetime]) -> list[GroupStep]:
        """Split off each case that wishes to withdraw (since when, by key): its condition is no longer the group's."""
        withdrawing = [case for case in self.group.cases if case.key in wishes]
        if not withdrawing:
            return [self]
        alone = [self.of([msgspec.structs.replace(case, withdraw_at=wishes[case.key])]) for case in withdrawing]
        rest = self.without(wishes)
        return [rest, *alone] if rest.group.keys else alone


class GroupReplies(msgspec.Struct, frozen=True):
    """A group whose members got the same replies in a round; `one` is a member as it was when the ops were sent.

    `replies`: those to `one`. `learnt`: timeline entries to add to the group's next save.
    """

    group: CaseGroup
    one: Case
    replies: tuple[Reply, ...]
    learnt: list[dict[str, Any]] = []


class Save(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Cases that took the same step, with its timeline entries and the `template` of the message of their end, if any.

    They share revision, state, marks, attempt, due_at, deadline and reason, which are written from one of them: `like`,
    a member as stepped, while `cases` are as before the step; or, where `like` is None, from `cases`, all as stepped.
    `evidence`: of the re-check that ended the first of them; it becomes a decision record in the same transaction, but
    not by the save itself. `versions`: whether to write the cases' versions and wallet_version too.
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
    """What a save did. `lost`: cases whose revision guard failed; `wishes`: since when saved ones wish to withdraw."""

    lost: AbstractSet[Key] = frozenset()
    wishes: Mapping[Key, datetime] = MappingProxyType({})


def halve_saves(saves: Sequence[Save]) -> tuple[list[Save], list[Save]]:
    """Divide saves in two halves; a single save by its cases."""
    half = len(saves) // 2
    if half:
        return list(saves[:half]), list(saves[half:])
    [save] = saves
    half = len(save.cases) // 2
    first, second = (msgspec.structs.replace(save, cases=part) for part in (save.cases[:half], save.cases[half:]))
    return [first], [second]


def join_steps(steps: Sequence[GroupStep]) -> list[GroupStep]:
    """Join equal steps of single cases that no reply led to, so that they are saved as one group."""
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


def merge_orders(parts: Sequence[tuple[CaseGroup, Sequence[int | None] | None]]) -> Orders:
    """Return the orders for several groups at one participant. `parts`: groups, each with the versions of its Trys."""
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
    """One participant's answers to a call, with `answers.rest` indexed by case."""

    answers: Answers
    rest: Mapping[Key, tuple[Reply, ...]]

    @classmethod
    def of(cls, answers: Answers) -> IndexedAnswers:
        """Index answers."""
        return cls(answers, group_by_case(answers.rest))

    def to(self, key: Key) -> tuple[Reply, ...]:
        """Return the replies to one of the call's cases."""
        yes = (self.answers.yes_to(*key),) if key[0] in self.answers.yes else ()
        return yes + self.rest.get(key, ())


def split_by_replies(
    step: GroupStep, answered: Sequence[Sequence[IndexedAnswers]], late: Container[Key]
) -> tuple[list[GroupReplies], GroupStep]:
    """Split a step's group by the replies to its members: return the groups, and the step of members without replies.

    `answered`: for each send of the step, in order, the answers to its call. Cases in `late`, which got a late reply,
    count as without replies.
    """
    group, answers = step.group, [each for to_call in answered for each in to_call]
    whole = all(len(to_call) == 1 for to_call in answered)  # no call was halved, none is silent
    if whole and not late and all(each.answers.yes is group.everybody and not each.rest for each in answers):
        return [_collect_replies(step, answers)], step.of([])
    yes = _find_all_yes(group, answers) if whole else frozenset()
    all_yes: list[Case] = []
    by_replies: defaultdict[Hashable, list[Case]] = defaultdict(list)
    unanswered: list[Case] = []
    for case, key in zip(group.cases, group.keys, strict=True):
        if key in late:
            unanswered.append(case)
        elif key[0] in yes and not any(key in each.rest for each in answers):
            all_yes.append(case)  # the common case, even where some were refused
        elif replies := [reply for each in answers for reply in each.to(key)]:
            same = tuple([(reply.participant, reply.answer, reply.code, reply.at) for reply in replies])
            by_replies[same].append(case)
        else:
            unanswered.append(case)
    parts = [all_yes, *by_replies.values()] if all_yes else list(by_replies.values())
    return [_collect_replies(step.of(cases), answers) for cases in parts], step.of(unanswered)


def _find_all_yes(group: CaseGroup, answers: Sequence[IndexedAnswers]) -> AbstractSet[int]:
    """Return the accounts with a yes from every participant, the faster way for the group's share of the call."""
    if len(group.keys) * 8 < len(answers[0].answers.yes):
        return {account for account in group.accounts if all(account in each.answers.yes for each in answers)}
    return frozenset.intersection(*{id(each.answers.yes): each.answers.yes for each in answers}.values())


def _collect_replies(step: GroupStep, answers: Sequence[IndexedAnswers]) -> GroupReplies:
    replies = tuple([reply for each in answers for reply in each.to(step.group.keys[0])])
    return GroupReplies(step.group, step.after, replies, step.entries if step.unsaved else [])


def split_replies(replies: Sequence[Reply], keys: Container[Key]) -> tuple[list[Reply], list[Reply]]:
    """Return the replies to the cases `keys`, and the others, each in the given order."""
    taken = [reply for reply in replies if (reply.account_id, reply.case_no) in keys]
    if not taken:
        return taken, list(replies)
    return taken, [reply for reply in replies if (reply.account_id, reply.case_no) not in keys]


def group_by_case(replies: Iterable[Reply]) -> dict[Key, tuple[Reply, ...]]:
    """Return replies by the case that they are about."""
    grouped: defaultdict[Key, list[Reply]] = defaultdict(list)
    for reply in replies:
        grouped[reply.account_id, reply.case_no].append(reply)
    return {key: tuple(to_case) for key, to_case in grouped.items()}
