"""Probe: what do those who keep the promises of cases say of them? Set by set, and all participants at once.

A promise is observed once its case is done, wherever the case's plan carried out the operation that keeps it. Where a
later case of the account is done whose plan has that participant too, something else stands there: it has ended.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from prometheus_client import Counter

from jiebang.model.errors import JiebangError
from jiebang.model.facts import PLATFORM
from jiebang.model.plan import UNNAMED
from jiebang.model.promises import UNKNOWN, Keeper, Observation, ProbedCases, PromiseState
from jiebang.participants.base import ObservingParticipant
from jiebang.policy.keepers import list_promises
from jiebang.saga.fence import CaseOp
from jiebang.store.postgres.halving import ask_in_halves
from jiebang.usecases.promises.platform_probes import PLATFORM_PROBES, PlatformStores, PromiseLimits

if TYPE_CHECKING:
    from jiebang.model.case import Key, Kind, PlanFollower
    from jiebang.model.plan import Plan, PlannedOperation
    from jiebang.participants.base import Participant
    from jiebang.policy.pack import Pack
    from jiebang.store.postgres.pool import Database
    from jiebang.store.promises.done_cases import DoneCase
    from jiebang.usecases.promises.platform_probes import Observations

UNPROBED_TOTAL: Final = Counter("jiebang_promises_unprobed_total", "Probes that brought no answer", ["participant"])
_ENDED: Final = Observation(PromiseState.ENDED)
_KEPT: Final = Observation(PromiseState.KEPT)
_BROKEN: Final = Observation(PromiseState.BROKEN)
_log = structlog.get_logger(__name__)


class Observed(msgspec.Struct, frozen=True):
    """What one keeper of one case said, at one participant (or PLATFORM)."""

    key: Key
    keeper: Keeper
    participant: str
    says: Observation


class Findings(msgspec.Struct, frozen=True):
    """What was found for a batch: how many observations were made, and those that are wanted.

    `cases`: how many had promises with keepers. `unread`: who did not answer.
    """

    cases: int
    observations: int
    found: Sequence[Observed]
    unread: frozenset[str]


class _Promised(msgspec.Struct, frozen=True, eq=False):
    """What the cases of one pack and kind were promised: the plan, and the keepers by participant (or PLATFORM)."""

    plan: Plan | None
    keepers: Mapping[str, tuple[Keeper, ...]]


class Probes:
    """Probes promises of cases that are done."""

    def __init__(
        self,
        *,
        platform: Database,
        keys: Database | None,
        participants: Mapping[str, Participant],
        pack_named: Callable[[str], Pack],
        plan_of: Callable[[PlanFollower], Plan],
        limits: PromiseLimits | None = None,
    ) -> None:
        """`plan_of`: the plan that a case follows, as corrected. `keys`: None: nothing is known of keys."""
        self._stores, self._participants = PlatformStores(platform, keys), participants
        self._pack_named, self._plan_of = pack_named, plan_of
        self._limits = limits or PromiseLimits()

    async def observe(
        self, done: Sequence[DoneCase], *, whole: bool = False, only: Collection[Key] | None = None
    ) -> Findings:
        """Observe what keeps the promises of `done`: *all* cases of their accounts that are done, in key order.

        Returns what is not kept; if `whole`, everything. `only`: the cases to observe (None: all of them).
        """
        groups = defaultdict[tuple[str, "Kind"], list["DoneCase"]](list)
        for case in done:
            groups[case.plan, case.kind].append(case)
        promised = {name: self._list_promised(cases[0]) for name, cases in groups.items()}
        replaced = _find_replaced(done, promised)
        unread, found, count, asks = set[str](), list[Observed](), 0, []
        for name, cases in groups.items():
            for place, keepers in promised[name].keepers.items():
                wanted = [case for case in cases if only is None or case.key in only]
                asked = [case for case in wanted if place not in replaced[case.key]]
                count += len(wanted) * len(keepers)
                if whole:
                    gone = (case for case in wanted if place in replaced[case.key])
                    found += [Observed(case.key, keeper, place, _ENDED) for case in gone for keeper in keepers]
                if asked:
                    asks.append((place, promised[name].plan, keepers, asked, whole, unread))
        for answer in await asyncio.gather(*starmap(self._ask, asks)):
            found += answer
        watched = [
            case for case in done if promised[case.plan, case.kind].keepers and (only is None or case.key in only)
        ]
        return Findings(len(watched), count, found, frozenset(unread))

    def _list_promised(self, case: DoneCase) -> _Promised:
        """Return what cases like this one were promised; nothing that can be observed under a pack without keepers."""
        try:
            pack, plan = self._pack_named(case.plan), self._plan_of(case)
        except (JiebangError, KeyError):  # a version that does not load any more
            return _Promised(None, {})
        told = {keeper for one in pack.consequences_of[case.kind] for keeper in one.kept_by}
        places = list_promises(plan, pack.registry)
        found = defaultdict[str, list[Keeper]](list)
        for keeper in sorted(told):
            for place in [PLATFORM] if keeper.owner == PLATFORM else places.get(keeper, ()):
                found[place].append(keeper)
        return _Promised(plan, {place: tuple(keepers) for place, keepers in found.items()})

    async def _ask(
        self,
        place: str,
        plan: Plan,
        keepers: Sequence[Keeper],
        cases: Sequence[DoneCase],
        whole: bool,
        unread: set[str],
    ) -> list[Observed]:
        """Ask one participant, or the platform's database, about all its keepers; who does not answer is `unread`."""

        async def ask(part: Sequence[DoneCase]) -> Observations:
            if place == PLATFORM:
                return await self._ask_platform(keepers, part)
            planned = plan.operations.get(place, UNNAMED)
            return await _ask_participant(self._participants[place], planned, keepers, part, whole=whole)

        try:
            answers = await ask_in_halves(cases, ask, what=f"promises at {place}")
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others are probed
            _log.warning("promises_unprobed", participant=place, error=type(error).__name__)
            UNPROBED_TOTAL.labels(place).inc()
            unread.add(place)
            return [Observed(case.key, keeper, place, UNKNOWN) for case in cases for keeper in keepers]
        if answers.failed:
            unread.add(place)
        found = [Observed(case.key, keeper, place, UNKNOWN) for case in answers.failed for keeper in keepers]
        for part, told in answers.parts:
            of = {case.key: case for case in part}
            for key, said in told.items():
                case = of[key]
                found += [
                    Observed(case.key, keeper, place, _date(one, case))
                    for keeper, one in zip(keepers, said, strict=True)
                    if whole or one.state is not PromiseState.KEPT
                ]
        return found

    async def _ask_platform(self, keepers: Sequence[Keeper], cases: Sequence[DoneCase]) -> Observations:
        said = dict[Keeper, Mapping["Key", Observation]]()
        for kind in sorted({keeper.type for keeper in keepers}):
            asked = [keeper for keeper in keepers if keeper.type == kind]
            names = [keeper.name for keeper in asked]
            told = await PLATFORM_PROBES[kind](self._stores, cases, names, self._limits)
            for at, keeper in enumerate(asked):
                said[keeper] = {key: each[at] for key, each in told.items()}
        return {case.key: [said[keeper][case.key] for keeper in keepers] for case in cases}


async def _ask_participant(
    participant: Participant,
    planned: PlannedOperation,
    keepers: Sequence[Keeper],
    cases: Sequence[DoneCase],
    *,
    whole: bool,
) -> Observations:
    """Ask one participant; of a remote one, see whether it has confirmed: its promises are kept or broken together."""
    accounts = [case.account_id for case in cases]
    if isinstance(participant, ObservingParticipant):
        probed = ProbedCases(
            accounts,
            [case.case_no for case in cases],
            [case.begun_at for case in cases],
            [case.ended_at for case in cases],
        )
        asked = [(keeper.type, keeper.name) for keeper in keepers]
        told = await participant.observe(planned, asked, probed, whole=whole)
        return {case.key: told[case.account_id] for case in cases if case.account_id in told}
    rows = await participant.look(accounts)
    found = dict["Key", Sequence[Observation]]()
    for case in cases:
        row = rows.get(case.account_id)
        if (
            row is None
            or row.case_no < case.case_no
            or (row.case_no == case.case_no and row.case_op is not CaseOp.CONFIRMED)
        ):
            said = _BROKEN
        else:
            said = _ENDED if row.case_no > case.case_no and row.case_op is CaseOp.CONFIRMED else _KEPT
        if whole or said is not _KEPT:
            found[case.key] = [said] * len(keepers)
    return found


def _date(said: Observation, case: DoneCase) -> Observation:
    """Say since when: since the end of the case, where the probe does not know better."""
    if said.state is not PromiseState.KEPT or said.since is not None:
        return said
    return msgspec.structs.replace(said, since=case.ended_at)


def _find_replaced(
    done: Iterable[DoneCase], promised: Mapping[tuple[str, Kind], _Promised]
) -> Mapping[Key, frozenset[str]]:
    """Return by case the participants of later cases of the same account."""
    found, account, later = dict["Key", frozenset[str]](), 0, frozenset[str]()
    for case in reversed(list(done)):
        if case.account_id != account:
            account, later = case.account_id, frozenset()
        found[case.key] = later
        plan = promised[case.plan, case.kind].plan
        later |= frozenset(plan.participants if plan is not None else ())
    return found
