"""The state table: what a case may become, what its marks may say, and that the schema says the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model import case as model
from jiebang.model.case import BUCKETS, ENDED, LIVE, MARKS_OF, TRANSITIONS, WITHDRAWABLE, Case, Kind, Mark, State
from jiebang.participants import PARTICIPANTS
from jiebang.store.postgres.migrate import load_migrations

SCHEMA = "\n".join(script.sql for script in load_migrations("platform", PARTICIPANTS))
"""All that was ever made of the platform's tables, in order: what a later migration says of a check is what counts."""
NOW = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
ACCOUNTS = st.integers(1, 2**53 - 1)


def a_case(state: State = State.OPEN) -> Case:
    return Case(
        account_id=7, case_no=1, kind=Kind.REVOKE, state=state, plan="p/1", marks="...", revision=4, created_at=NOW
    )


def test_the_table_is_the_one_of_the_design() -> None:
    """A transition added or dropped by accident would let a case skip its proof or its rollback."""
    assert {str(state): {str(after) for after in afters} for state, afters in TRANSITIONS.items()} == {
        "open": {"in_review", "ready", "withdrawn", "expired", "rejected"},
        "in_review": {"ready", "rejected", "withdrawn"},
        "ready": {"trying", "withdrawn", "rejected"},
        "trying": {"confirming", "cancelling"},
        "confirming": {"done"},
        "cancelling": {"aborted"},
        "done": set(),
        "aborted": set(),
        "rejected": set(),
        "withdrawn": set(),
        "expired": set(),
    }


def test_every_state_is_named_reachable_and_leads_to_an_end() -> None:
    """A state outside the table, or one without a way out, would leave a person waiting for ever."""
    assert set(TRANSITIONS) == set(State) == set(MARKS_OF)
    seen, ahead = set[State](), [State.OPEN]
    while ahead:
        state = ahead.pop()
        if state not in seen:
            seen.add(state)
            ahead.extend(TRANSITIONS[state])
    assert seen == set(State)
    for state in LIVE:
        reached, ahead = set[State](), [state]
        while ahead:
            for after in TRANSITIONS[ahead.pop()] - reached:
                reached.add(after)
                ahead.append(after)
        assert reached & ENDED


def test_live_and_ended_part_the_states() -> None:
    """`cancelling` still counts as live: a second case started during a rollback would meet half-released rows."""
    assert {State.DONE, State.ABORTED, State.REJECTED, State.WITHDRAWN, State.EXPIRED} == ENDED
    assert set(State) == LIVE | ENDED
    assert not LIVE & ENDED
    assert State.CANCELLING in LIVE


def test_a_wish_to_withdraw_can_win_exactly_until_the_commit_point() -> None:
    """A 202 after the commit point would promise a person something that no longer can be kept."""
    assert LIVE - {State.CONFIRMING} == WITHDRAWABLE


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("after", State)
def test_moved_follows_the_table_and_nothing_else(state: State, after: State) -> None:
    """Whoever steps round the table would break every other promise; staying is only for keeping what was learnt."""
    case = a_case(state)
    if after is state or after in TRANSITIONS[state]:
        moved = model.transition(case, after, reason="R")
        assert (moved.state, moved.revision, moved.reason) == (after, case.revision + 1, "R")
        assert (moved.key, moved.kind, moved.plan, moved.created_at) == (
            case.key,
            case.kind,
            case.plan,
            case.created_at,
        )
    else:
        with pytest.raises(model.IllegalTransitionError, match=f"{state} may not become {after}"):
            model.transition(case, after)


def test_a_case_cannot_be_changed_in_place() -> None:
    """A case that changes under a worker's hands would be saved under a guard it no longer deserves."""
    with pytest.raises(AttributeError):
        a_case().state = State.DONE  # type: ignore[misc]


def test_marks_are_one_distinct_letter_each_and_every_one_has_a_state() -> None:
    """Marks are concatenated and read back letter by letter."""
    letters = [str(mark) for mark in Mark]
    assert len(set(letters)) == len(letters)
    assert all(len(letter) == 1 for letter in letters)
    assert set(letters) == set("".join(MARKS_OF.values()))


def test_no_state_mixes_confirms_with_cancels() -> None:
    """A row that could hold both would be a case half confirmed, half cancelled."""
    for state, allowed in MARKS_OF.items():
        assert not (set(allowed) & set("ceCd") and set(allowed) & set("xyXz")), state


def test_the_schema_allows_each_state_the_same_marks() -> None:
    """If the tables and the model part ways, a save the coordinator rightly asks for is refused in production."""
    clauses = re.findall(r"WHEN '(\w+)' THEN marks ~ '\^(\\\.|\[[^\]]+\]|\w)\+\$'", SCHEMA)
    assert {state: set(marks.strip("[]").replace("\\", "")) for state, marks in clauses} == {
        str(state): set(allowed) for state, allowed in MARKS_OF.items()
    }


def test_the_schema_calls_the_same_states_ended_and_knows_the_same_kinds() -> None:
    """The index that keeps one live case an account hangs on `ended_at`."""
    *_, ended = re.findall(r"\(ended_at IS NOT NULL\) = \(state IN \(([^)]*)\)\)", SCHEMA)
    *_, kinds = re.findall(r"kind IN \(('revoke'[^)]*)\)", SCHEMA)
    assert set(re.findall(r"'(\w+)'", ended)) == {str(state) for state in ENDED}
    assert set(re.findall(r"'(\w+)'", kinds)) == {str(kind) for kind in Kind}


@given(ACCOUNTS)
def test_a_bucket_is_always_one_of_the_leased_ones(account_id: int) -> None:
    """An account outside the buckets would never be taken by any worker."""
    assert 0 <= model.bucket_of(account_id) < BUCKETS
    assert model.bucket_of(account_id) == model.bucket_of(account_id)


@given(st.integers(1, 2**53 - 20_000), st.integers(1, 64))
def test_neighbouring_accounts_spread_over_the_buckets(first: int, stride: int) -> None:
    """Ids given out in a row would otherwise all land on one worker."""
    counts = [0] * BUCKETS
    for account_id in range(first, first + 2560 * stride, stride):
        counts[model.bucket_of(account_id)] += 1
    assert max(counts) <= 10 * 4
    assert sum(count > 0 for count in counts) > BUCKETS // 2
