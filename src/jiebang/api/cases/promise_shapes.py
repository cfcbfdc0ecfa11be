"""The shape of a case's promises. Docstrings here are part of the OpenAPI document."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from jiebang.api.shapes import CaseId
from jiebang.model.case import Kind, State
from jiebang.model.check import Text
from jiebang.model.promises import KEEPER_TYPES, PromiseState

if TYPE_CHECKING:
    from jiebang.model.ids import CaseIds
    from jiebang.usecases.promises.read import CasePromises, KeeperSays, Promise

Since = Annotated[datetime | None, Meta(description="Since when it is kept 自何时起")]
Until = Annotated[
    datetime | None,
    Meta(description="Due: by when it will be so. Kept: for how long it holds 待兑现:至迟何时;已兑现:持续到何时"),
]


class KeptBy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What keeps a promise, and what its probe says 由何兑现,及其探测结果."""

    keeper: Annotated[str, Meta(description="Type and name 类型与名称", examples=["effect: wallet.receive_limit_fen"])]
    means: Text
    participant: Annotated[str, Meta(description="Where it was observed 于何处探测", examples=["wallet"])]
    state: PromiseState
    since: Since = None
    until: Until = None


class PromiseAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A consequence as the person was told it, and whether it is kept 当时告知的后果,以及是否兑现.

    `kept`; `due`: not yet, but in time; `broken`; `ended`: a later case has put something else in its place;
    `unknown`: who must answer did not, or nothing observes it.
    """

    code: str
    participant: str
    title: Text
    explanation: Text
    lasts: Text
    legal_basis: str
    state: PromiseState
    since: Since = None
    until: Until = None
    kept_by: list[KeptBy]


class PromisesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The promises of a case, each with its state as of `at` 申请的全部承诺及其状态.

    A case that has not ended has them all `due`. One that ended otherwise than `done` has none: all is as before.
    """

    case: CaseId
    kind: Kind
    state: State
    at: datetime
    recorded: Annotated[
        bool, Meta(description="False: the record of what was told is lost 为假:当时告知内容的记录已丢失")
    ]
    told: Annotated[int, Meta(ge=0, description="How many 承诺数")]
    counts: Annotated[dict[str, int], Meta(description="How many of each state 各状态的数目", examples=[{"kept": 12}])]
    promises: list[PromiseAnswer]


def promises_shape(found: CasePromises, case_ids: CaseIds) -> PromisesAnswer:
    """Return the promises of a case as the API tells them."""
    case = found.case
    return PromisesAnswer(
        case=case_ids.encode(*case.key),
        kind=case.kind,
        state=case.state,
        at=found.at,
        recorded=found.recorded,
        told=len(found.promises),
        counts={
            state.value: count for state, count in sorted(Counter(one.says.state for one in found.promises).items())
        },
        promises=[_shape(one) for one in found.promises],
    )


def _shape(one: Promise) -> PromiseAnswer:
    told, says = one.told, one.says
    return PromiseAnswer(
        code=told.code,
        participant=told.participant,
        title=told.title,
        explanation=told.explanation,
        lasts=told.lasts,
        legal_basis=told.legal_basis,
        state=says.state,
        since=says.since,
        until=says.until,
        kept_by=[_keeper_shape(each) for each in one.kept_by],
    )


def _keeper_shape(one: KeeperSays) -> KeptBy:
    return KeptBy(
        keeper=str(one.keeper),
        means=KEEPER_TYPES[one.keeper.type],
        participant=one.participant,
        state=one.says.state,
        since=one.says.since,
        until=one.says.until,
    )
