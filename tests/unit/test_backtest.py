"""A policy over a population: what the officer reads must be what each single person would have been told."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.cli.policy.backtest_page import page
from jiebang.model.case import Kind
from jiebang.model.check import Severity
from jiebang.model.errors import InvalidInputError
from jiebang.model.facts import REQUEST, FactType
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.backtest import BacktestReport, PopulationError, backtest, columns_needed
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import ABSENT, DTYPES, Facts, read_column
from jiebang.policy.load import load_pack
from jiebang.policy.why import RuleVerdict, explain_answer
from tests.examples import examples
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.policy.pack import Pack

NOW: Final = datetime(2026, 3, 15, 4, 0, tzinfo=UTC)
PACK: Final = pack("wechat")
BASE: Final[dict[str, Any]] = {
    "request_by_service": True,
    "identity_state": "active",
    "document_type": "resident_id",
    "birth_date": date(1990, 5, 17),
    "account_known": True,
}
VALUES: Final[dict[FactType, st.SearchStrategy[Any]]] = {
    FactType.INT: st.sampled_from([0, 0, 1, 3]),
    FactType.FEN: st.sampled_from([0, 0, 1]),
    FactType.BOOL: st.booleans(),
    FactType.TEXT: st.sampled_from([None, "active", "passport", "phone-1"]),
    FactType.TIME: st.sampled_from([None, *(NOW - timedelta(days=days) for days in (0, 6, 7, 30, 31, 90, 91, 400))]),
    FactType.DATE: st.sampled_from([None, date(1990, 1, 1), date(2010, 6, 1)]),
}
ROWS: Final = st.fixed_dictionaries(
    {name: VALUES[spec.type] for name, spec in PARTICIPANTS.facts.items() if spec.type is not FactType.ITEMS}
    | {
        read_column(owner): st.sampled_from([True, True, True, False])
        for owner in PARTICIPANTS.owned
        if owner != REQUEST
    }
)


def population(people: Sequence[dict[str, Any]]) -> Facts:
    """Facts of people, each given by what differs from somebody whom nothing stands in the way of."""
    names = [name for name, spec in PARTICIPANTS.facts.items() if spec.type is not FactType.ITEMS]
    columns = [
        pl.Series(name, [one.get(name, BASE.get(name, ABSENT.get(PARTICIPANTS.facts[name].type))) for one in people],
                  dtype=DTYPES[PARTICIPANTS.facts[name].type])
        for name in names
    ]  # fmt: skip
    reads = [read_column(owner) for owner in PARTICIPANTS.owned if owner != REQUEST]
    columns += [pl.Series(name, [one.get(name, True) for one in people], dtype=pl.Boolean) for name in reads]
    items = {name: [()] * len(people) for name, spec in PARTICIPANTS.facts.items() if spec.type is FactType.ITEMS}
    return Facts(range(1, len(people) + 1), pl.DataFrame(columns), items, {}, PARTICIPANTS)


def run(people: Sequence[dict[str, Any]], changed: Pack | None = None, kind: Kind = Kind.REVOKE) -> BacktestReport:
    (report,) = backtest(PACK, population(people).frame.lazy(), [kind], NOW, changed=changed)
    return report


@examples(30)
@given(st.lists(ROWS, min_size=1, max_size=12))
def test_a_backtest_counts_what_each_person_would_be_told(people: list[dict[str, Any]]) -> None:
    """Every kind in one pass must agree with the checks of each person, one by one."""
    facts = population(people)
    for report in backtest(PACK, facts.frame.lazy(), list(Kind), NOW):
        answers = evaluate(PACK, facts, report.kind, NOW, whole=False)
        outcome = report.outcome
        told = [{blocker.code for blocker in answer.blockers} for answer in answers]
        informs = {stop.code for stop in outcome.stops if stop.severity is Severity.INFORMS}
        assert outcome.accounts == len(people)
        assert outcome.passes == sum(answer.passes for answer in answers)
        assert {stop.code: stop.accounts for stop in outcome.stops if stop.accounts} == Counter(
            code for codes in told for code in codes
        )
        together = Counter(frozenset(codes - informs) for codes in told)
        assert {frozenset(one.codes): one.accounts for one in outcome.combinations} == {
            codes: count for codes, count in together.items() if codes
        }
        assert {stop.code: stop.alone for stop in outcome.stops if stop.alone} == {
            next(iter(codes)): count for codes, count in together.items() if len(codes) == 1
        }
        assert [step.left for step in outcome.funnel][-1] == outcome.passes


def test_one_changed_threshold_tells_who_gains_and_who_loses() -> None:
    """An officer who shortens a waiting time must see exactly whom it lets through."""
    text = packs.text("wechat")
    days = [NOW - timedelta(days=each) for each in (10, 60, 89, 400)]
    people = [{"identity_changed_at": at} for at in days] + [{"identity_changed_at": days[1], "balance_fen": 1}]
    shorter = run(people, load_pack(*text, PARTICIPANTS, {"identity_change_days": "30"}))
    assert shorter.difference is not None
    assert (shorter.outcome.passes, shorter.difference.gained, shorter.difference.lost) == (1, 2, 0)
    assert [(one.code, one.before, one.after) for one in shorter.difference.shifts] == [("ID-RECENT-CHANGE", 4, 1)]
    longer = run(people, load_pack(*text, PARTICIPANTS, {"identity_change_days": "400"}))
    assert longer.difference is not None
    assert (longer.difference.gained, longer.difference.lost) == (0, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("identity_change_day", "30"), ("identity_change_days", "-1"), ("identity_change_days", "many"),
     ("identity_change_days", "9" * 5000), ("identity_change_days", "")],
)  # fmt: skip
def test_a_wrong_setting_is_refused(name: str, value: str) -> None:
    """A mistyped name or value must not run as if nothing had been set."""
    with pytest.raises(InvalidInputError):
        load_pack(*packs.text("wechat"), PARTICIPANTS, {name: value})


def test_a_population_of_another_shape_names_the_columns() -> None:
    """A file from elsewhere must not count a column that is not there as nothing in the way."""
    frame = population([{}]).frame.drop("balance_fen").with_columns(pl.col("open_credit").cast(pl.String))
    with pytest.raises(PopulationError) as told:
        backtest(PACK, frame.lazy(), [Kind.REVOKE], NOW)
    assert set(told.value.columns) == {"balance_fen", "open_credit"}
    assert {"balance_fen", "read:wallet"} <= columns_needed(PACK, Kind.REVOKE).keys()


def test_the_page_fetches_nothing_and_holds_every_number(tmp_path: Path) -> None:
    """A compliance officer opens it offline; a number only in a picture cannot be read aloud or copied."""
    report = run([{}, {"balance_fen": 1}, {"balance_fen": 1, "open_credit": 1}])
    html = page(report, PACK.kinds[Kind.REVOKE], {"x": "<script>\u202e\x1b[31m"})
    assert "http" not in html
    assert "<script>" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    for stop in report.outcome.stops:
        assert stop.title.zh in html
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    assert html.count("<svg") == html.count("</svg>") == 2


def test_why_tells_every_rule_with_its_values() -> None:
    """A regulator asks for the rules that passed too, and must never read an unread fact as one that did."""
    facts = population([{"balance_fen": 1, read_column("security"): False, "primary_device_since": None}])
    (answer,) = evaluate(PACK, facts, Kind.REVOKE, NOW)
    reasons = {one.code: one for one in explain_answer(PACK, answer, facts, 0)}
    assert reasons.keys() == {rule.code for rule in PACK.rules_of[Kind.REVOKE]} | {PACK.unavailable.code}
    balance = reasons["PAY-BALANCE"]
    assert (balance.verdict, balance.filled) == (RuleVerdict.RAISED, "1 > 0")
    assert balance.shown["balance_fen"].zh == "¥0.01"
    assert reasons["PAY-PENDING"].verdict is RuleVerdict.PASSED
    device = reasons["SEC-DEVICE-RECENT"]
    assert (device.verdict, device.unread) == (RuleVerdict.UNKNOWN, ("security",))
    assert "?" in device.filled
    assert device.params == {"device_change_days": 7}
    assert reasons[PACK.unavailable.code].verdict is RuleVerdict.RAISED
    raised = {code for code, one in reasons.items() if one.verdict is RuleVerdict.RAISED}
    assert raised == {blocker.code for blocker in answer.blockers}
    assert msgspec.json.encode(list(reasons.values()))
