"""Evaluation of the built-in pack over columns: who is stopped, by what, until when, and what they read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer, Severity
from jiebang.model.facts import PLATFORM, QUOTA, FactBatch, FactType
from jiebang.model.origin import SERVICE, Origin
from jiebang.participants import PARTICIPANTS
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import OwnerFacts, join_facts, line_up
from tests.examples import examples
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PACK: Final = pack("wechat")
SHANGHAI: Final = timezone(timedelta(hours=8))
NOW: Final = datetime(2026, 3, 15, 4, 0, tzinfo=UTC)
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)

Person = dict[str, Any]

CLEAN: Final[Mapping[str, Any]] = {
    "identity_state": "active",
    "identity_changed_at": LONG_AGO,
    "document_type": "resident_id",
    "birth_date": date(1990, 5, 17),
    "primary_device_id": "phone-1",
    "primary_device_since": LONG_AGO,
    "account_known": True,
}
_BY_TYPE: Final[Mapping[FactType, Any]] = {
    FactType.INT: 0,
    FactType.FEN: 0,
    FactType.BOOL: False,
    FactType.ITEMS: [],
}

HITS: Final[Mapping[str, Person]] = {
    "CASE-OPEN": {"live_case": "case_abc"},
    "PARTICIPANT-OUT": {
        "participants_out": 1,
        "participant_out_items": [
            {"participant": "wallet", "name_zh": "钱包", "name_en": "wallet", "since": "2026-03-15T01:00:00Z"}
        ],
    },
    "ID-NONE": {"identity_state": "reclaimed"},
    "PAY-BALANCE": {"balance_fen": 1},
    "PAY-PENDING": {
        "open_transactions": 1,
        "open_transaction_items": [
            {"id": "t1", "title": "转账", "amount_fen": 1250, "expected_at": "2026-03-16T01:00:00+00:00"}
        ],
    },
    "PAY-RED-PACKET": {
        "unclaimed_red_packets": 1,
        "unclaimed_red_packet_items": [
            {"id": "r1", "sender": "王芳", "amount_fen": 888, "expires_at": "2026-03-16T01:00:00Z"}
        ],
    },
    "PAY-ARREARS": {"arrears_fen": 100},
    "PAY-FROZEN": {
        "frozen_fen": 500,
        "freeze_items": [{"id": "f1", "authority": "某法院", "amount_fen": 500, "contact": "12368"}],
    },
    "PAY-AUTODEBIT": {
        "autodebit_contracts": 1,
        "autodebit_items": [
            {"id": "c1", "merchant": "视频会员", "next_charge_at": "2026-04-01T00:00:00+00:00", "amount_fen": 2500}
        ],
    },
    "CREDIT-OPEN": {"open_credit": 1, "credit_items": [{"id": "w1", "product": "微粒贷", "owed_fen": 0}]},
    "SEC-ABNORMAL-LOGIN": {
        "abnormal_login_at": NOW - timedelta(days=3),
        "abnormal_login_items": [{"id": "l1", "at": "2026-03-12T04:00:00Z", "place": "昆明", "device": "Pixel"}],
    },
    "SEC-DEVICE": {"request_device_id": "tablet-9", "request_by_service": False},
    "SEC-DEVICE-RECENT": {"primary_device_since": NOW - timedelta(days=2)},
    "ID-RECENT-CHANGE": {"identity_changed_at": NOW - timedelta(days=90)},
    "ORG-ADMIN": {
        "administered_enterprises": 1,
        "enterprise_items": [{"id": "e1", "name": "某某科技", "credit_code": "91350100M000100Y43"}],
    },
    "OA-ADMIN": {"official_accounts": 1, "official_account_items": [{"id": "o1", "name": "某某日报"}]},
    "MERCHANT-OPEN": {"open_merchants": 1, "merchant_items": [{"id": "m1", "name": "小店"}]},
    "MINOR-EVIDENCE": {"birth_date": date(2008, 3, 16)},
    "DOC-REVIEW": {"document_type": "hk_macao_permit"},
    "LEGAL-HOLD": {"legal_hold": True, "legal_hold_authority": "某人民法院 12368"},
    "RISK-HOLD": {"risk_hold": True, "risk_hold_contact": "风控中心 95017"},
}


def parts_of(people: Sequence[Mapping[str, Any]], unread: Iterable[str] = ()) -> dict[str, OwnerFacts]:
    """What every participant would answer about `people`, account i + 1 each."""
    accounts = range(1, len(people) + 1)
    parts: dict[str, OwnerFacts] = {}
    for name in (*PARTICIPANTS.databases, PLATFORM, QUOTA):
        owner = PARTICIPANTS.owner_of(name)
        if owner in set(unread):
            continue
        columns = {
            fact: [person.get(fact, CLEAN.get(fact, _BY_TYPE.get(PARTICIPANTS.facts[fact].type))) for person in people]
            for fact in PARTICIPANTS.owned[owner]
        }
        parts[name] = line_up(FactBatch(owner, accounts, [7] * len(people), columns), owner, accounts, PARTICIPANTS)
    return parts


def answers(
    people: Sequence[Mapping[str, Any]], unread: Iterable[str] = (), now: datetime = NOW, kind: Kind = Kind.REVOKE
) -> list[CheckAnswer]:
    """Check `people` with some owners unread."""
    origins = [Origin(person.get("request_device_id"), person.get("request_by_service", True)) for person in people]
    facts = join_facts(range(1, len(people) + 1), parts_of(people, unread), origins, PARTICIPANTS)
    return evaluate(PACK, facts, kind, now)


def codes(answer: CheckAnswer) -> list[str]:
    return [blocker.code for blocker in answer.blockers]


def test_clean_person_passes() -> None:
    [answer] = answers([{}])
    assert (answer.passes, answer.blockers, answer.pack) == (True, (), "wechat/2")
    assert answer.versions == dict.fromkeys(PARTICIPANTS.databases, 7)


def test_every_rule_of_the_pack_has_a_person_it_stops() -> None:
    assert set(HITS) == {rule.code for rule in PACK.rules_of[Kind.REVOKE]}


@pytest.mark.parametrize("code", HITS)
def test_one_reason_raises_exactly_its_rule_and_says_everything(code: str) -> None:
    """A person who reads a blocker must find every text in both languages, with nothing left to fill."""
    [answer] = answers([HITS[code]])
    assert codes(answer) == [code]
    [blocker] = answer.blockers
    assert answer.passes == (blocker.severity is Severity.INFORMS)
    remedy = blocker.remedy
    for text in (blocker.title, blocker.explanation, remedy.what, remedy.where, remedy.takes, blocker.appeal):
        for words in (text.zh, text.en):
            assert words.strip()
            assert "{" not in words
    for fact, value in HITS[code].items():
        assert blocker.facts[fact] == value


def test_all_reasons_at_once() -> None:
    """Whoever hides a second reason behind the first makes the person come back again and again."""
    everyone: Person = {}
    for hit in HITS.values():
        everyone |= hit
    [answer] = answers([everyone])
    assert codes(answer) == [rule.code for rule in PACK.rules_of[Kind.REVOKE]]


def test_values_are_the_persons_own_in_both_languages() -> None:
    people = [{"balance_fen": 1}, HITS["PAY-AUTODEBIT"], {"balance_fen": 123_456_789}]
    cent, contract, rich = (answer.blockers[0].explanation for answer in answers(people))
    assert "¥0.01" in cent.zh
    assert "¥0.01" in cent.en
    assert "视频会员 ¥25.00（下次扣费 2026年4月1日 08:00）" in contract.zh
    assert "视频会员 ¥25.00 (next charge 1 Apr 2026, 08:00)" in contract.en
    assert "¥1,234,567.89" in rich.en


def test_what_a_merchant_wrote_is_never_a_template() -> None:
    """A merchant named like a place must not pull another value of the person into a text."""
    item = {"id": "c", "merchant": "{autodebit_contracts}{balance_fen}", "next_charge_at": None, "amount_fen": 1}
    [answer] = answers([{"autodebit_contracts": 1, "autodebit_items": [item]}])
    assert "{autodebit_contracts}{balance_fen} ¥0.01" in answer.blockers[0].explanation.zh


@pytest.mark.parametrize(
    "item", [{}, {"merchant": None}, {"next_charge_at": "soon", "amount_fen": "much"}, {"next_charge_at": 5}]
)
def test_odd_items_do_not_break_the_batch(item: dict[str, Any]) -> None:
    """One malformed detail from another system must not cost 256 people their answer."""
    [answer] = answers([{"autodebit_contracts": 1, "autodebit_items": [item]}])
    assert codes(answer) == ["PAY-AUTODEBIT"]


def test_long_lists_are_cut_in_the_text_and_whole_in_the_facts() -> None:
    items = [{"id": str(at), "name": f"号{at}"} for at in range(50)]
    [answer] = answers([{"official_accounts": 50, "official_account_items": items}])
    assert "另有 30 项" in answer.blockers[0].explanation.zh
    assert "and 30 more" in answer.blockers[0].explanation.en
    assert len(answer.blockers[0].facts["official_account_items"]) == 50


# Days are days in Shanghai.


@pytest.mark.parametrize(
    ("code", "fact", "days"),
    [
        ("ID-RECENT-CHANGE", "identity_changed_at", 91),
        ("SEC-ABNORMAL-LOGIN", "abnormal_login_at", 31),
        ("SEC-DEVICE-RECENT", "primary_device_since", 7),
    ],
)
@pytest.mark.parametrize(
    "at",
    [
        datetime(2025, 12, 1, 0, 0, 0, tzinfo=SHANGHAI),
        datetime(2025, 12, 1, 23, 59, 59, tzinfo=SHANGHAI),
        datetime(2024, 2, 28, 12, 0, 0, tzinfo=SHANGHAI),  # a leap day lies within
        datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=SHANGHAI),
        datetime(2023, 12, 31, 23, 59, 59, tzinfo=SHANGHAI),
    ],
)
def test_waiting_ends_at_midnight_in_shanghai_to_the_second(code: str, fact: str, days: int, at: datetime) -> None:
    """A second early lets a thief through, a day late keeps an honest person waiting for nothing."""
    passes = datetime.combine(at.date() + timedelta(days=days), datetime.min.time(), SHANGHAI)
    person = {fact: at.astimezone(UTC)}
    [before] = answers([person], now=(passes - timedelta(seconds=1)).astimezone(UTC))
    assert codes(before) == [code]
    assert before.blockers[0].remedy.earliest == passes
    assert f"{passes.year}年{passes.month}月{passes.day}日" in before.blockers[0].remedy.what.zh
    [after] = answers([person], now=passes.astimezone(UTC))
    assert codes(after) == []


def test_absurd_dates_do_not_break_the_batch() -> None:
    late = datetime(9999, 12, 31, 15, 0, tzinfo=UTC)
    [answer, clean] = answers([{"identity_changed_at": late, "primary_device_since": late}, {}])
    assert codes(answer) == ["SEC-DEVICE-RECENT", "ID-RECENT-CHANGE"]
    assert clean.passes


# Reading: absent, unread, disagreeing.


def test_account_without_a_row_has_nothing_and_is_not_unread() -> None:
    """Most people have no merchant row; that must not stop them."""
    parts = parts_of([{}])
    for name in ("merchant", "enterprise", "openplatform", "gaming"):
        empty = FactBatch(name, (), (), dict.fromkeys(PARTICIPANTS.owned[name], ()))
        parts[name] = line_up(empty, name, [1], PARTICIPANTS)
    [answer] = evaluate(PACK, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    assert answer.passes
    assert answer.versions["merchant"] == 0


@pytest.mark.parametrize("owner", sorted({PARTICIPANTS.owner_of(name) for name in PARTICIPANTS.databases} | {PLATFORM}))
def test_an_unread_owner_never_passes_and_is_named(owner: str) -> None:
    """A database that is down must not let anybody through, nor hide what the others say."""
    [answer, poor] = answers([{}, {"balance_fen": 5, "legal_hold": True}], unread=[owner])
    assert not answer.passes
    assert codes(answer) == ["FACT-UNAVAILABLE"]
    assert answer.blockers[0].facts["owner"] == owner
    assert set(answer.blockers[0].facts["facts"]) <= set(PARTICIPANTS.owned[owner])
    assert PACK.owners[owner].zh in answer.blockers[0].explanation.zh
    assert codes(poor) == [
        *(["PAY-BALANCE"] if owner != "wallet" else []),
        *(["LEGAL-HOLD"] if owner != "security" else []),
        "FACT-UNAVAILABLE",
    ]
    assert {name for name, version in answer.versions.items() if version is None} == {
        name for name in PARTICIPANTS.databases if PARTICIPANTS.owner_of(name) == owner
    }


@pytest.mark.parametrize(
    "other", [{"identity_changed_at": NOW}, {"document_type": None}, {"identity_state": "pending_reclaim"}]
)
def test_data_centres_that_disagree_make_the_identity_unread(other: Person) -> None:
    """If Shenzhen and Guiyang tell two stories, neither may be acted on, and nobody else in the batch suffers."""
    people: list[Person] = [{}, {}, {"identity_state": "none"}]
    parts = parts_of(people)
    parts["identity_guiyang"] = parts_of([{}, other, {"identity_state": "none"}])["identity_guiyang"]
    found = evaluate(PACK, join_facts([1, 2, 3], parts, [SERVICE] * 3, PARTICIPANTS), Kind.REVOKE, NOW)
    assert [codes(answer) for answer in found] == [[], ["FACT-UNAVAILABLE"], ["ID-NONE"]]
    assert found[1].versions["identity_shenzhen"] is None
    assert found[1].versions["identity_guiyang"] is None
    assert found[0].versions["identity_guiyang"] == 7


def test_one_data_centre_down_makes_the_identity_unread() -> None:
    parts = parts_of([{}])
    del parts["identity_guiyang"]
    [answer] = evaluate(PACK, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    assert codes(answer) == ["FACT-UNAVAILABLE"]
    assert answer.versions["identity_guiyang"] is None
    assert answer.versions["identity_shenzhen"] is None


def _batch(**changes: Any) -> FactBatch:
    columns: dict[str, Any] = {
        fact: [_BY_TYPE.get(PARTICIPANTS.facts[fact].type)] for fact in PARTICIPANTS.owned["wallet"]
    }
    made = {"owner": "wallet", "accounts": [1], "versions": [3], "columns": columns, **changes}
    return FactBatch(**made)


@pytest.mark.parametrize(
    "batch",
    [
        _batch(owner="social"),
        _batch(accounts=[1, 1], versions=[3, 3]),
        _batch(versions=[]),
        _batch(columns={}),
        _batch(columns={**_batch().columns, "balance_fen": [1, 2]}),
        _batch(columns={**_batch().columns, "balance_fen": ["1"]}),
        _batch(columns={**_batch().columns, "balance_fen": [0.5]}),
        _batch(columns={**_batch().columns, "balance_fen": [1 << 70]}),
        _batch(columns={**_batch().columns, "autodebit_items": ["[]"]}),
        _batch(columns={**_batch().columns, "autodebit_items": [[1]]}),
    ],
)
def test_an_answer_of_the_wrong_shape_is_no_answer(batch: FactBatch) -> None:
    """Nonsense from a participant must count as unread; taken at face value it could let somebody pass."""
    with pytest.raises((ValueError, TypeError, OverflowError)):
        line_up(batch, "wallet", [1], PARTICIPANTS)


# Properties.

_counts = st.integers(0, 3)
_times = st.datetimes(datetime(2025, 9, 1), datetime(2026, 3, 20), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive by contract
_people = st.fixed_dictionaries(
    {},
    optional={
        "identity_state": st.sampled_from(["active", "pending_reclaim", "reclaimed", "none", None]),
        "identity_changed_at": st.none() | _times,
        "balance_fen": _counts,
        "open_transactions": _counts,
        "unclaimed_red_packets": _counts,
        "arrears_fen": _counts,
        "frozen_fen": _counts,
        "autodebit_contracts": _counts,
        "open_credit": _counts,
        "primary_device_id": st.sampled_from(["phone-1", "phone-2", None]),
        "primary_device_since": st.none() | _times,
        "abnormal_login_at": st.none() | _times,
        "legal_hold": st.booleans(),
        "risk_hold": st.booleans(),
        "birth_date": st.dates(date(2007, 1, 1), date(2009, 1, 1)),
        "document_type": st.sampled_from(["resident_id", "passport", "taiwan_permit", "residence_permit", None]),
        "official_accounts": _counts,
        "administered_enterprises": _counts,
        "open_merchants": _counts,
        "live_case": st.none() | st.just("case_x"),
        "participants_out": _counts,
        "request_device_id": st.sampled_from(["phone-1", None]),
        "request_by_service": st.booleans(),
    },
)
_owners = st.sets(st.sampled_from(list(PACK.facts_needed[Kind.REVOKE])), max_size=3)


def _expected(person: Mapping[str, Any]) -> set[str]:
    """The rules of domain.md §3 once more, by hand, a row at a time."""
    value = {**{fact: _BY_TYPE.get(spec.type) for fact, spec in PARTICIPANTS.facts.items()}, **CLEAN}
    value |= {"request_by_service": True, **person}
    today = NOW.astimezone(SHANGHAI).date()

    def days(fact: str) -> int | None:
        at = value[fact]
        return None if at is None else (today - at.astimezone(SHANGHAI).date()).days

    counted = {
        "PARTICIPANT-OUT": "participants_out",
        "PAY-BALANCE": "balance_fen",
        "PAY-PENDING": "open_transactions",
        "PAY-RED-PACKET": "unclaimed_red_packets",
        "PAY-ARREARS": "arrears_fen",
        "PAY-FROZEN": "frozen_fen",
        "PAY-AUTODEBIT": "autodebit_contracts",
        "CREDIT-OPEN": "open_credit",
        "ORG-ADMIN": "administered_enterprises",
        "OA-ADMIN": "official_accounts",
        "MERCHANT-OPEN": "open_merchants",
    }
    found = {code for code, fact in counted.items() if value[fact] > 0}
    login, device, change = days("abnormal_login_at"), days("primary_device_since"), days("identity_changed_at")
    elsewhere = value["request_device_id"] is None or value["request_device_id"] != value["primary_device_id"]
    found |= {"SEC-ABNORMAL-LOGIN"} if login is not None and login <= 30 else set()
    found |= {"SEC-DEVICE-RECENT"} if device is not None and device < 7 else set()
    found |= {"ID-RECENT-CHANGE"} if change is not None and change <= 90 else set()
    found |= {"SEC-DEVICE"} if not value["request_by_service"] and elsewhere else set()
    found |= {"ID-NONE"} if value["identity_state"] != "active" else set()
    found |= {"RISK-HOLD"} if value["risk_hold"] else set()
    found |= {"DOC-REVIEW"} if value["document_type"] in ("passport", "taiwan_permit") else set()
    born = value["birth_date"]
    found |= {"MINOR-EVIDENCE"} if (born.year + 18, born.month, born.day) > today.timetuple()[:3] else set()
    found |= {"LEGAL-HOLD"} if value["legal_hold"] else set()
    found |= {"CASE-OPEN"} if value["live_case"] else set()
    return found


@examples(60)
@given(st.lists(_people, min_size=1, max_size=12))
def test_the_pack_says_what_the_domain_says(people: list[Person]) -> None:
    for person, answer in zip(people, answers(people), strict=True):
        assert set(codes(answer)) == _expected(person)


@examples(40)
@given(st.lists(_people, min_size=1, max_size=8), _owners)
def test_a_batch_answers_what_one_by_one_answers(people: list[Person], unread: set[str]) -> None:
    """Whoever shares a batch with you must not change your answer."""
    together = answers(people, unread)
    for person, answer in zip(people, together, strict=True):
        [alone] = answers([person], unread)
        assert (alone.passes, alone.blockers, alone.versions) == (answer.passes, answer.blockers, answer.versions)


@examples(40)
@given(_people, _owners)
def test_unknown_facts_never_pass(person: Person, unread: set[str]) -> None:
    [whole] = answers([person])
    [answer] = answers([person], unread)
    named = {blocker.facts["owner"] for blocker in answer.blockers if blocker.code == "FACT-UNAVAILABLE"}
    assert named == unread
    assert answer.passes <= (whole.passes and not unread)
    assert set(codes(answer)) - {"FACT-UNAVAILABLE"} <= set(codes(whole))


@examples(40)
@given(_people, st.sampled_from(sorted(HITS)))
def test_adding_a_blocker_never_removes_another(person: Person, code: str) -> None:
    fields = {name: value for name, value in HITS[code].items() if name not in person}
    [before], [after] = answers([person]), answers([{**person, **fields}])
    touched = {rule.code for rule in PACK.rules if set(fields) & set(rule.shown)}
    assert set(codes(before)) - touched <= set(codes(after))
    assert not after.passes or before.passes
