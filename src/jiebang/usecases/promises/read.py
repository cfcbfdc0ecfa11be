"""Read the promises of one case: each consequence as the person was told it, and what its keepers' probes say now."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.case import ENDED, Case, State
from jiebang.model.check import Consequence
from jiebang.model.errors import JiebangError
from jiebang.model.promises import Keeper, Observation, PromiseState, join_observations
from jiebang.policy.record import decode_record
from jiebang.store.checks.records import CheckStep
from jiebang.store.promises import done_cases
from jiebang.usecases.cases.find import find
from jiebang.usecases.promises.probe import Probes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.case import Key
    from jiebang.usecases.cases.context import Context
    from jiebang.usecases.promises.probe import Observed

_TO_COME = Observation(PromiseState.DUE)


class KeeperSays(msgspec.Struct, frozen=True):
    """What one keeper's probe says, at one participant."""

    keeper: Keeper
    participant: str
    says: Observation


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One consequence as it was told, and whether it is kept. `kept_by`: none in a case of before keepers."""

    told: Consequence
    kept_by: Sequence[KeeperSays]
    says: Observation


class CasePromises(msgspec.Struct, frozen=True, kw_only=True):
    """The promises of a case. `recorded`: whether it is known what the person was told.

    Of a case that has not ended all is due; of one that ended otherwise than `done` nothing was promised but that
    everything is as before, and there are none.
    """

    case: Case
    promises: Sequence[Promise]
    recorded: bool
    at: datetime


async def read_promises(context: Context, key: Key) -> CasePromises:
    """Return what was promised in a case, and what is known of it now.

    Raises UnknownCaseError, and RecordUnreadableError.
    """
    case = (await find(context, key)).case
    at = context.clock()
    records = (await context.records.of_cases(context.platform, [key])).get(key, [])
    told = next((decode_record(each.content).answer for each in records if each.step is CheckStep.SUBMIT), None)
    if told is None or (case.state in ENDED and case.state is not State.DONE):
        return CasePromises(case=case, promises=(), recorded=told is not None, at=at)
    consequences = msgspec.convert(told["consequences"], tuple[Consequence, ...])
    said = await _probe(context, key) if case.state is State.DONE else None
    kept_by = _list_keepers(context, case)
    promises = [_judge(one, kept_by.get(one.code, ()), said) for one in consequences]
    return CasePromises(case=case, promises=promises, recorded=True, at=at)


async def _probe(context: Context, key: Key) -> Mapping[Keeper, Sequence[Observed]]:
    probes = Probes(
        platform=context.platform,
        keys=context.keys,
        participants=context.participants,
        pack_named=context.pack_named,
        plan_of=context.plan_of,
    )
    done = await done_cases.load_done(context.platform, [key[0]])
    findings = await probes.observe(done, whole=True, only={key})
    found = dict[Keeper, list["Observed"]]()
    for one in findings.found:
        found.setdefault(one.keeper, []).append(one)
    return found


def _list_keepers(context: Context, case: Case) -> Mapping[str, Sequence[Keeper]]:
    try:
        pack = context.pack_named(case.plan)
    except JiebangError:  # a version that does not load any more
        return {}
    return {one.code: one.kept_by for one in pack.consequences_of[case.kind]}


def _judge(told: Consequence, keepers: Sequence[Keeper], said: Mapping[Keeper, Sequence[Observed]] | None) -> Promise:
    """Judge one promise; `said` None: the case has not ended."""
    if said is None:
        return Promise(told=told, kept_by=(), says=_TO_COME)
    kept_by = [KeeperSays(one.keeper, one.participant, one.says) for keeper in keepers for one in said.get(keeper, ())]
    return Promise(told=told, kept_by=kept_by, says=join_observations([each.says for each in kept_by]))
