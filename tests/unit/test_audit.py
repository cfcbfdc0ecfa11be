"""The audit: a consistent world is clean, and whatever single thing is wrong in it is found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import Case, Kind, State
from jiebang.model.plan import Plan
from jiebang.saga.audit import Breach, Violation, audit
from jiebang.saga.fence import CaseOp, FenceRow

NAMES = ("identity", "social", "wallet")
PLAN = Plan(name="test/1", participants=NAMES, waves=(0, 0, 1))
NOW = datetime(2026, 4, 1, tzinfo=UTC)
TRIED, CONFIRMED, CANCELLED = CaseOp.TRIED, CaseOp.CONFIRMED, CaseOp.CANCELLED
Rows = dict[str, dict[int, FenceRow]]


def case(state: State, marks: str, *, account: int = 1, number: int = 1) -> Case:
    """A case as the audit sees it."""
    live = state in {State.OPEN, State.READY, State.TRYING, State.CONFIRMING, State.CANCELLING}
    return Case(
        account_id=account,
        case_no=number,
        kind=Kind.REVOKE,
        state=state,
        plan=PLAN.name,
        marks=marks,
        revision=3,
        created_at=NOW,
        due_at=NOW + timedelta(seconds=1) if live else None,
    )


def rows(*held: tuple[int, CaseOp] | None, account: int = 1) -> Rows:
    """The fence rows of one account at the plan's participants, in their order."""
    return {name: {} if row is None else {account: FenceRow(*row)} for name, row in zip(NAMES, held, strict=True)}


def found(cases: list[Case], held: Mapping[str, Mapping[int, FenceRow]]) -> set[tuple[Breach, str]]:
    return {(each.breach, each.participant) for each in audit(cases, held, lambda _case: PLAN)}


@pytest.mark.parametrize(
    ("cases", "held", "breaches"),
    [
        ([], rows((1, CANCELLED), None, None), {(Breach.UNEXPLAINED, "identity")}),
        ([case(State.DONE, "ddd")], rows((1, CONFIRMED), (2, TRIED), (1, CONFIRMED)), {(Breach.UNEXPLAINED, "social")}),
        ([case(State.DONE, "ddd")], rows((1, CONFIRMED), (1, TRIED), (1, CONFIRMED)), {(Breach.DISAGREES, "social")}),
        ([case(State.DONE, "ddd")], rows((1, CONFIRMED), None, (1, CONFIRMED)), {(Breach.NOT_CONFIRMED, "social")}),
        ([case(State.ABORTED, "zz.")], rows((1, CANCELLED), (1, CONFIRMED), None), {(Breach.DISAGREES, "social")}),
        ([case(State.ABORTED, "zz.")], rows((1, CANCELLED), None, None), {(Breach.NOT_CANCELLED, "social")}),
        ([case(State.ABORTED, "zz.")], rows((1, CANCELLED), (1, CANCELLED), (1, TRIED)), {(Breach.TOUCHED, "wallet")}),
        ([case(State.WITHDRAWN, "...")], rows((1, TRIED), None, None), {(Breach.TOUCHED, "identity")}),
        ([case(State.CONFIRMING, "ccc")], rows((1, TRIED), (1, CONFIRMED), None), {(Breach.DISAGREES, "wallet")}),
        ([case(State.CONFIRMING, "dcc")], rows((1, TRIED), (1, TRIED), (1, TRIED)), {(Breach.DISAGREES, "identity")}),
        ([case(State.CONFIRMING, "ccc")], rows((1, TRIED), (1, CANCELLED), (1, TRIED)), {(Breach.DISAGREES, "social")}),
        ([case(State.TRYING, "gt.")], rows((1, CANCELLED), (1, TRIED), None), {(Breach.DISAGREES, "identity")}),
        ([case(State.CANCELLING, "zx.")], rows((1, TRIED), (1, TRIED), None), {(Breach.DISAGREES, "identity")}),
        (
            [case(State.READY, "..."), case(State.OPEN, "...", number=2)],
            rows(None, None, None),
            {(Breach.TWO_LIVE, "platform")},
        ),
        ([case(State.DONE, "dd")], rows((1, CONFIRMED), (1, CONFIRMED), None), {(Breach.MISFIT, "platform")}),
    ],
)  # fmt: skip
def test_every_breach_is_found_and_named(cases: list[Case], held: Rows, breaches: set[tuple[Breach, str]]) -> None:
    """Whoever is called at night must be told which participant is wrong, and how."""
    assert found(cases, held) == breaches


def test_a_case_of_an_unknown_plan_is_found_and_does_not_stop_the_audit() -> None:
    """As after a policy was taken away: who else is wrong must still be told."""

    def plan_of(case: Case) -> Plan:
        return {1: PLAN}[case.account_id]

    cases = [case(State.DONE, "ddd"), case(State.DONE, "ddd", account=2)]
    held = rows((1, CONFIRMED), None, (1, CONFIRMED))
    assert {(each.breach, each.account_id) for each in audit(cases, held, plan_of)} == {
        (Breach.NOT_CONFIRMED, 1),
        (Breach.NO_PLAN, 2),
    }


def test_a_participant_outside_the_plan_must_not_have_been_touched() -> None:
    """Else somebody who had no part in a case would keep a person's account reserved."""
    held: Rows = rows((1, CONFIRMED), (1, CONFIRMED), (1, CONFIRMED)) | {"gaming": {1: FenceRow(1, TRIED)}}
    assert found([case(State.DONE, "ddd")], held) == {(Breach.TOUCHED, "gaming")}


@pytest.mark.parametrize(
    ("state", "marks", "held"),
    [
        (State.OPEN, "...", (None, None, None)),
        (State.TRYING, "tt.", (None, (1, TRIED), None)),
        (State.TRYING, "tg.", ((1, CANCELLED), (1, TRIED), None)),
        (State.CONFIRMING, "cdC", ((1, TRIED), (1, CONFIRMED), (1, TRIED))),
        (State.CANCELLING, "xzX", (None, (1, CANCELLED), (1, TRIED))),
        (State.DONE, "ddd", ((1, CONFIRMED), (1, CONFIRMED), (1, CONFIRMED))),
        (State.ABORTED, "z..", ((1, CANCELLED), None, None)),
    ],
)
def test_a_case_on_its_way_is_no_violation(state: State, marks: str, held: Any) -> None:
    """Else every audit of a running system would cry wolf, and nobody would read it."""
    assert found([case(state, marks)], rows(*held)) == set()


def test_who_could_not_be_read_is_not_judged() -> None:
    """A database that is down must be reported as unread, not as one that lost everybody's marks."""
    held = rows((1, CONFIRMED), (1, CONFIRMED), (1, CONFIRMED))
    del held["social"]
    assert found([case(State.DONE, "ddd")], held) == set()


ENDS = {
    State.DONE: ["ddd"],
    State.ABORTED: ["zzz", "zz.", "z..", ".z."],
    State.REJECTED: ["..."],
    State.WITHDRAWN: ["..."],
}
ends = st.sampled_from([(state, marks) for state, allowed in ENDS.items() for marks in allowed])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Case], Rows]:
    """People whose cases have all ended, with the one set of fence rows that fits: the last case to reach each."""
    cases: list[Case] = []
    held: Rows = {name: {} for name in NAMES}
    for account in range(1, draw(st.integers(1, 4)) + 1):
        for number, (state, marks) in enumerate(draw(st.lists(ends, max_size=4)), start=1):
            cases.append(case(state, marks, account=account, number=number))
            for name, mark in zip(NAMES, marks, strict=True):
                if mark != ".":
                    held[name][account] = FenceRow(number, CONFIRMED if mark == "d" else CANCELLED)
    return cases, held


@given(worlds(), st.data())
def test_one_wrong_row_in_any_world_is_found(world: tuple[list[Case], Rows], data: st.DataObject) -> None:
    """An audit that overlooks a single row proves nothing of the millions of others."""
    cases, held = world
    assert found(cases, held) == set()
    name, account = data.draw(st.sampled_from(NAMES)), data.draw(st.integers(1, 5))
    right = held[name].get(account)
    nothing = st.just(None) if right is not None else st.nothing()
    other = st.builds(FenceRow, st.integers(1, 6), st.sampled_from(CaseOp)).filter(lambda row: row != right)
    wrong = data.draw(nothing | other)
    held[name].pop(account, None)
    if wrong is not None:
        held[name][account] = wrong
    violations = audit(cases, held, lambda _case: PLAN)
    assert violations
    assert {(each.account_id, each.participant) for each in violations} == {(account, name)}


@given(worlds(), st.data())
def test_one_wrong_case_in_any_world_is_found(world: tuple[list[Case], Rows], data: st.DataObject) -> None:
    """A case lost from our own store, or one whose end was rewritten, shows in what the participants hold."""
    cases, held = world
    last = {(account, row.case_no) for of in held.values() for account, row in of.items()}
    reached = [each for each in cases if each.key in last]
    if not reached:
        return
    wrong = data.draw(st.sampled_from(reached))
    rest = [each for each in cases if each is not wrong]
    if data.draw(st.booleans()):
        end, marks = (State.ABORTED, "zzz") if wrong.state is State.DONE else (State.DONE, "ddd")
        rest.append(msgspec.structs.replace(wrong, state=end, marks=marks))
    assert {each.account_id for each in audit(rest, held, lambda _case: PLAN)} == {wrong.account_id}


def test_a_violation_names_nobody() -> None:
    """It is printed and logged: ids only."""
    assert set(Violation.__struct_fields__) == {"breach", "account_id", "case_no", "participant"}
