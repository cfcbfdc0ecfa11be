"""Looking at rules as a whole: what is called proven is true, and mistakes are found where they are."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.facts import FactType
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.analyse import RuleFinding, _AxisFinder, _evaluate_all, analyse_rules
from jiebang.policy.calendar import derived_columns, with_calendar
from jiebang.policy.condition import compile_condition
from jiebang.policy.frame import DTYPES
from jiebang.policy.load import load_pack
from tests.examples import examples
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT, FILE = packs.text("wechat")
BALANCE: Final = "when: balance_fen > 0"
ARREARS: Final = "when: arrears_fen > 0"


def found(*changes: tuple[str, str]) -> list[RuleFinding]:
    """What is found in our pack with some conditions replaced."""
    text = TEXT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return [one for one in analyse_rules(load_pack(text, FILE, PARTICIPANTS), text, FILE) if one not in OURS]


PACK: Final = pack("wechat")
OURS: Final = analyse_rules(PACK, TEXT, FILE)


def test_our_own_pack_holds_no_useless_rule() -> None:
    """It is what adopters begin with."""
    assert [one for one in OURS if one.error] == []


@pytest.mark.parametrize(
    "condition",
    [
        "balance_fen < 0",
        "balance_fen > 5 AND balance_fen < 5",
        "balance_fen BETWEEN 7 AND 6",
        "balance_fen IS NULL AND arrears_fen > 3",
        "balance_fen > 0 AND NOT balance_fen > 0",
        "balance_fen IN (3) AND balance_fen > 4",
        "today - identity_changed_date > :identity_change_days AND today - identity_changed_date < 2",
        "birth_years < 18 AND birth_years > 60",
        "document_type = 'passport' AND document_type = 'resident_id'",
        "identity_changed_at > now AND identity_changed_at < now",
        "live_case IS NULL AND live_case IS NOT NULL",
        "legal_hold IS TRUE AND legal_hold IS FALSE",
        "legal_hold = (NOT legal_hold)",
    ],
)
def test_a_condition_that_can_never_be_true_is_an_error(condition: str) -> None:
    """A rule that never stops anybody looks like protection and is none."""
    (one,) = found((BALANCE, f"when: ({condition}) AND balance_fen >= 0"))
    assert one.error
    assert "PAY-BALANCE can never be true" in one.problem.en
    assert "永不成立" in one.problem.zh
    assert TEXT.split("\n")[one.problem.line - 1].strip() == BALANCE
    assert one.problem.column == 11


@pytest.mark.parametrize(
    "condition",
    [
        "balance_fen >= 0",
        "balance_fen > 5 OR balance_fen <= 5",
        "document_type IS NULL OR document_type IS NOT NULL",
        "live_case IS NOT DISTINCT FROM live_case",
        "balance_fen <> 1 OR balance_fen = 1",
    ],
)
def test_a_condition_that_is_always_true_is_an_error(condition: str) -> None:
    """It would stop everybody."""
    (one,) = found((BALANCE, f"when: ({condition}) OR balance_fen < 0"))
    assert one.error
    assert "PAY-BALANCE is always true" in one.problem.en


@pytest.mark.parametrize(
    "condition",
    [
        "balance_fen > 0 OR balance_fen < 0",
        "balance_fen = 9007199254740992",
        "today - identity_changed_date = 36500",
        "identity_changed_at > now",
        "identity_changed_at <> now",
        "document_type = 'a text nobody has thought of'",
        "birth_years BETWEEN 18 AND 18",
        "balance_fen + 3 = 7 AND arrears_fen - 2 = 2",
        "document_type <> 'x' AND document_type <> 'y' AND live_case = document_type",
    ],
)
def test_a_condition_that_can_be_either_is_let_through(condition: str) -> None:
    """A false alarm keeps a right policy out of force."""
    assert [one for one in found((BALANCE, f"when: ({condition}) AND balance_fen >= 0")) if one.error] == []


def test_where_nothing_is_proven_it_is_said_so() -> None:
    """Facts compared with one another cannot be tried exhaustively: a warning, and no error."""
    (one,) = found((BALANCE, "when: balance_fen + frozen_fen < arrears_fen AND arrears_fen < balance_fen"))
    assert not one.error
    assert "not proven" in one.problem.en


def test_rules_that_always_come_together_are_told() -> None:
    """Two rules for one thing tell a person the same thing twice, and are changed one without the other."""
    (same,) = found((ARREARS, "when: balance_fen >= 1"))
    assert not same.error
    assert same.problem.en == "PAY-BALANCE and PAY-ARREARS are always raised together"
    (narrow,) = found((ARREARS, "when: balance_fen > 100 AND arrears_fen >= 0"))
    assert narrow.problem.en == "whenever PAY-ARREARS is raised, PAY-BALANCE is raised too"
    assert found((ARREARS, "when: arrears_fen > 0 AND balance_fen = 0")) == []


ATOMS: Final = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["balance_fen", "arrears_fen - 2"]),
              st.sampled_from(["<", "<=", "=", "<>", ">", ">="]), st.integers(0, 4)),
    st.builds("today - {} {} {}".format, st.sampled_from(["identity_changed_date", "abnormal_login_date"]),
              st.sampled_from(["<", "=", ">="]), st.integers(0, 3)),
    st.builds("birth_years {} {}".format, st.sampled_from(["<", "=", ">="]), st.integers(0, 3)),
    st.sampled_from(["legal_hold", "identity_changed_at IS NULL", "document_type = 'a'", "document_type <> 'b'",
                     "document_type IS DISTINCT FROM live_case", "abnormal_login_at > now"]),
)  # fmt: skip
CONDITIONS: Final = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)
NOW: Final = datetime(2027, 7, 1, 9, tzinfo=UTC)
DAYS: Final = st.integers(-3, 6)
PEOPLE: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "balance_fen": st.integers(0, 6),
    "arrears_fen": st.integers(0, 8),
    "legal_hold": st.booleans(),
    "identity_changed_at": st.none() | DAYS.map(lambda days: NOW - timedelta(days=days)),
    "abnormal_login_at": st.none() | DAYS.map(lambda days: NOW - timedelta(days=days, seconds=days)),
    "birth_date": st.none() | st.integers(0, 2000).map(lambda days: date(2027, 7, 3) - timedelta(days=days)),
    "document_type": st.none() | st.sampled_from("abc"),
    "live_case": st.none() | st.sampled_from("abc"),
}


@examples(100)
@given(CONDITIONS, st.lists(st.fixed_dictionaries(PEOPLE), min_size=30, max_size=30))
def test_what_is_proven_holds_for_everybody(condition: str, people: list[dict[str, Any]]) -> None:
    """A proof that one person refutes would keep a right policy out of force."""
    rule = msgspec.structs.replace(PACK.rules[0], when=compile_condition(condition, FactType.BOOL, {}, PARTICIPANTS))
    (tried,), proof = _evaluate_all([rule], [_AxisFinder(condition, PACK).axis()], PARTICIPANTS)
    names = {derived_columns(PARTICIPANTS).get(name, name) for name in rule.when.names} & PARTICIPANTS.facts.keys()
    frame = pl.DataFrame(
        [pl.Series("", range(len(people)))]
        + [
            pl.Series(name, [one[name] for one in people], dtype=DTYPES[PARTICIPANTS.facts[name].type])
            for name in sorted(names)
        ]
    )
    hits = with_calendar(frame, rule.when.names, NOW, PARTICIPANTS).select(hit=rule.when.expr.fill_null(value=False))[
        "hit"
    ]
    if proof:
        assert tried.any() or not hits.any()
        assert not tried.all() or hits.all()
