"""What a check tells beside blockers: what follows for this person, what else would do, what they agreed to."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer
from jiebang.model.facts import REQUEST
from jiebang.model.origin import SERVICE
from jiebang.participants import PARTICIPANTS
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import join_facts
from tests.examples import examples
from tests.packs import pack
from tests.unit.test_evaluate import HITS, NOW, PACK, SHANGHAI, answers, codes, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.policy.pack import Pack

EMONEY: Final = pack("emoney")
CONTRACTS: Final[Mapping[str, Any]] = {
    "autodebit_contracts": 2,
    "autodebit_items": [
        {"id": "c1", "merchant": "视频会员", "next_charge_at": "2026-04-01T00:00:00+00:00", "amount_fen": 2500},
        {"id": "c2", "merchant": "话费", "next_charge_at": None, "amount_fen": None},
    ],
}
DEVELOPER: Final[Mapping[str, Any]] = {
    "grants": 1,
    "grant_items": [{"id": "g1", "app": "滴滴出行", "scopes": "snsapi_base"}],
    "mini_programs": 1,
    "mini_program_items": [{"id": "wx1", "name": "点餐"}],
    "apps": 2,
    "app_items": [{"id": "a1", "name": "记账"}, {"id": "a2", "name": "地图"}],
    "led_apps": 1,
    "led_app_items": [{"id": "a2", "name": "地图"}],
    "api_quota_level": "high",
}
COMPANY: Final[Mapping[str, Any]] = {
    "administered_enterprises": 1,
    "enterprise_items": [{"id": "e1", "name": "某某科技", "credit_code": "91350100M000100Y43"}],
    "legal_person_enterprises": 1,
    "open_approvals": 1,
    "approval_items": [{"id": "p1", "title": "报销"}],
    "api_rights": True,
}
EVERYONE: Final = {
    "IDENTITY-RECLAIMED",
    "IDENTITY-KEPT-BY-LAW",
    "NETWORK-LOGS-KEPT",
    "WALLET-LIMIT-SET",
    "WALLET-CASH-OUT-PAUSED",
    "WALLET-WAY-BACK",
    "UNIONPAY-RELEASED",
    "NETSUNION-RELEASED",
    "SECURITY-LOGIN-SMS",
    "SOCIAL-FRIEND-REQUESTS-BLOCKED",
    "SOCIAL-MOMENTS-LIMITED",
}


def follows(answer: CheckAnswer) -> dict[str, str]:
    return {one.code: one.explanation.zh for one in answer.consequences}


def consented(*items: str | None, code: str = "PAY-AUTODEBIT") -> dict[str, Any]:
    return {"consents": [{"code": code, "item": item, "at": "2026-03-01T00:00:00+00:00"} for item in items]}


def test_what_follows_for_everyone_and_for_nobody_else() -> None:
    """Somebody without cards, apps or companies must not read of losing them."""
    [answer] = answers([{}])
    assert set(follows(answer)) == EVERYONE
    assert {one.participant for one in answer.consequences} >= {"identity", "wallet", "unionpay", "netsunion"}
    for one in answer.consequences:
        for text in (one.title, one.explanation, one.lasts):
            assert text.zh.strip()
            assert text.en.strip()
            assert "{" not in text.zh + text.en


@pytest.mark.parametrize(
    ("person", "code", "says"),
    [
        (CONTRACTS, "WALLET-AUTODEBIT-ENDED", "视频会员 ¥25.00"),
        (
            {"bank_cards": 1, "bank_card_items": [{"id": "k", "bank": "招商银行", "tail": "0042"}]},
            "WALLET-CARDS-UNBOUND",
            "招商银行（尾号 0042）",
        ),
        (DEVELOPER, "WALLET-THIRD-PARTIES-TOLD", "滴滴出行"),
        (DEVELOPER, "OPEN-GRANTS-REVOKED", "滴滴出行"),
        (DEVELOPER, "OPEN-MINI-PROGRAMS-REQUALIFY", "点餐"),
        (DEVELOPER, "OPEN-API-QUOTA-CUT", "“高”"),
        (DEVELOPER, "OPEN-REVIEWS-RESET", "地图"),
        (DEVELOPER, "OPEN-SIGN-IN-AGAIN", "记账；地图"),
        (COMPANY, "ENTERPRISE-APPROVALS-VOIDED", "报销"),
        (COMPANY, "ENTERPRISE-API-ENDED", "立即失效"),
        (COMPANY, "ENTERPRISE-WITHOUT-YOU", "某某科技"),
        (HITS["MERCHANT-OPEN"], "MERCHANT-RECORDS-KEPT", "小店"),
        ({"game_guard": True}, "GAMING-OFF-MEANWHILE", "游戏"),
    ],
)
def test_what_follows_names_the_persons_own(person: Mapping[str, Any], code: str, says: str) -> None:
    """“Some contracts may end” tells nobody whether it is theirs."""
    nobody, somebody = answers([{}, dict(person)])
    assert code not in follows(nobody)
    assert says in follows(somebody)[code]


@pytest.mark.parametrize(
    ("limited", "fen", "code"),
    [
        (False, 0, "WALLET-LIMIT-SET"),
        (True, 5_000_000, "WALLET-LIMIT-LOWERED"),
        (True, 200_001, "WALLET-LIMIT-LOWERED"),
        (True, 200_000, None),
    ],
)
def test_limits_before_and_after(limited: bool, fen: int, code: str | None) -> None:
    [answer] = answers([{"receive_limited": limited, "receive_limit_fen": fen}])
    told = [one for one in answer.consequences if one.code.startswith("WALLET-LIMIT")]
    assert [one.code for one in told] == ([] if code is None else [code])
    for one in told:
        assert "¥2,000.00" in one.explanation.en
        assert not limited or f"¥{fen / 100:,.2f}" in one.explanation.en


def test_a_developer_sees_the_whole_chain() -> None:
    [answer] = answers([dict(DEVELOPER)])
    assert set(follows(answer)) - EVERYONE == {
        "WALLET-THIRD-PARTIES-TOLD",
        "OPEN-GRANTS-REVOKED",
        "OPEN-MINI-PROGRAMS-REQUALIFY",
        "OPEN-API-QUOTA-CUT",
        "OPEN-REVIEWS-RESET",
        "OPEN-SIGN-IN-AGAIN",
    }


@pytest.mark.parametrize("level", [None, "test"])
def test_nobody_falls_to_where_they_are(level: str | None) -> None:
    [answer] = answers([{"api_quota_level": level}])
    assert "OPEN-API-QUOTA-CUT" not in follows(answer)


def test_enterprises_are_shown_the_change_of_legal_person_first() -> None:
    """A company that revokes by mistake loses its customers; a private person has nothing to change."""
    private, company, person = answers([{}, dict(COMPANY), {"legal_person_enterprises": 1}])
    assert Kind.CHANGE_LEGAL_PERSON not in [one.kind for one in private.alternatives]
    for answer in (company, person):
        first = answer.alternatives[0]
        assert (first.kind, first.recommended, first.offered) == (Kind.CHANGE_LEGAL_PERSON, True, False)
        assert not any(one.recommended for one in answer.alternatives[1:])
    assert "1 项处理中的审批" in company.alternatives[0].costs.zh


OFFERED: Final = frozenset({Kind.REVOKE, Kind.CLOSE_PAYMENT, Kind.CHANGE_IDENTITY})
"""The kinds that are carried out: README says which, and no check may say otherwise."""


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_tells_what_follows_and_what_else(kind: Kind) -> None:
    """Before anything is submitted a person sees all three, whichever kind they ask for."""
    [answer] = answers([{**COMPANY, **HITS["MERCHANT-OPEN"], **CONTRACTS}], kind=kind)
    assert answer.kind is kind
    assert answer.consequences
    assert answer.alternatives
    assert answer.offered == (kind in OFFERED)
    for one in answer.alternatives:
        assert one.kind is not kind
        assert one.costs.zh.strip()
        assert one.costs.en.strip()


# Which rule is for which kind (domain.md §3 for the kinds of §1).
_BY_KIND: Final[Mapping[Kind, set[str]]] = {
    Kind.CLOSE_PAYMENT: {
        *("CASE-OPEN", "PAY-BALANCE", "PAY-PENDING", "PAY-RED-PACKET", "PAY-ARREARS", "PAY-FROZEN", "PAY-AUTODEBIT"),
        *("PAY-CLOSED", "CREDIT-OPEN", "SEC-ABNORMAL-LOGIN", "SEC-DEVICE", "SEC-DEVICE-RECENT", "MERCHANT-OPEN"),
        *("MINOR-EVIDENCE", "DOC-REVIEW", "LEGAL-HOLD", "RISK-HOLD"),
    },
    Kind.CHANGE_IDENTITY: {
        *("CASE-OPEN", "ID-NONE", "SEC-ABNORMAL-LOGIN", "SEC-DEVICE", "SEC-DEVICE-RECENT", "ID-RECENT-CHANGE"),
        *("ID-QUOTA", "ID-COOLING", "MINOR-EVIDENCE", "DOC-REVIEW", "LEGAL-HOLD", "RISK-HOLD"),
    },
    Kind.APPEAL: {"CASE-OPEN", "LEGAL-HOLD", "RISK-HOLD"},
    Kind.CHANGE_LEGAL_PERSON: {
        *("CASE-OPEN", "ORG-NONE", "SEC-ABNORMAL-LOGIN", "SEC-DEVICE", "LEGAL-HOLD", "RISK-HOLD"),
    },
    Kind.CLOSE_MERCHANT: {
        *("CASE-OPEN", "MERCHANT-NONE", "MERCHANT-CERTIFICATE", "SEC-ABNORMAL-LOGIN", "SEC-DEVICE"),
        *("LEGAL-HOLD", "RISK-HOLD"),
    },
    Kind.RESTORE: {"CASE-OPEN", "ID-BOUND", "ID-QUOTA", "ID-COOLING", "SEC-DEVICE", "RISK-HOLD"},
}


@pytest.mark.parametrize("kind", _BY_KIND)
def test_every_kind_has_its_rules(kind: Kind) -> None:
    assert {rule.code for rule in PACK.rules_of[kind]} == _BY_KIND[kind] | {"PARTICIPANT-OUT"}


@pytest.mark.parametrize(
    ("kind", "person", "code"),
    [
        (Kind.RESTORE, {"identity_state": "active"}, "ID-BOUND"),
        (Kind.CLOSE_PAYMENT, {"payment_closed": True}, "PAY-CLOSED"),
        (Kind.CLOSE_PAYMENT, {"payment_closed": False}, None),
        (Kind.RESTORE, {"identity_state": "reclaimed"}, None),
        (Kind.CHANGE_LEGAL_PERSON, {}, "ORG-NONE"),
        (Kind.CHANGE_LEGAL_PERSON, {"legal_person_enterprises": 1}, None),
        (Kind.CLOSE_MERCHANT, {}, "MERCHANT-NONE"),
        (Kind.CLOSE_MERCHANT, HITS["MERCHANT-OPEN"], "MERCHANT-CERTIFICATE"),
        (Kind.CHANGE_IDENTITY, {"document_changes_this_year": 2}, None),
        (Kind.CHANGE_IDENTITY, {"document_changes_this_year": 3}, "ID-QUOTA"),
    ],
)
def test_rules_of_the_other_kinds_at_their_boundary(kind: Kind, person: Mapping[str, Any], code: str | None) -> None:
    [answer] = answers([dict(person)], kind=kind)
    assert codes(answer) == ([] if code is None else [code])


def test_the_quota_passes_from_new_year_in_shanghai() -> None:
    eve = datetime(2026, 12, 31, 23, 59, 59, tzinfo=SHANGHAI)
    [answer] = answers([{"document_changes_this_year": 3}], kind=Kind.CHANGE_IDENTITY, now=eve.astimezone(UTC))
    assert answer.blockers[0].remedy.earliest == datetime(2027, 1, 1, tzinfo=SHANGHAI)


def test_the_cooling_off_ends_after_its_last_day() -> None:
    refused = datetime(2026, 1, 10, 9, 0, tzinfo=SHANGHAI)
    person = {"quota_refused_at": refused.astimezone(UTC)}
    passes = datetime(2026, 7, 10, tzinfo=SHANGHAI)  # day 181; day 180 still stands
    [before] = answers([person], kind=Kind.CHANGE_IDENTITY, now=(passes - timedelta(microseconds=1)).astimezone(UTC))
    [after] = answers([person], kind=Kind.CHANGE_IDENTITY, now=passes.astimezone(UTC))
    assert codes(before) == ["ID-COOLING"]
    assert before.blockers[0].remedy.earliest == passes
    assert codes(after) == []


@pytest.mark.parametrize(
    ("born", "now", "minor"),
    [
        (date(2008, 3, 15), datetime(2026, 3, 14, 15, 59, 59, tzinfo=UTC), True),  # the last second in Shanghai
        (date(2008, 3, 15), datetime(2026, 3, 14, 16, 0, tzinfo=UTC), False),
        (date(2008, 2, 29), datetime(2026, 2, 28, 4, 0, tzinfo=UTC), True),  # no such day in 2026
        (date(2008, 2, 29), datetime(2026, 2, 28, 16, 0, tzinfo=UTC), False),
        (date(2008, 12, 31), datetime(2026, 12, 30, 16, 0, tzinfo=UTC), False),
    ],
)
def test_who_comes_of_age_does_so_on_the_day_in_shanghai(born: date, now: datetime, minor: bool) -> None:
    [answer] = answers([{"birth_date": born}], now=now)
    assert ("MINOR-EVIDENCE" in codes(answer)) == minor


def test_what_is_not_offered_says_so() -> None:
    """Whoever is told to hand in documents that nobody takes has been lied to."""
    for code in ("RISK-HOLD", "MINOR-EVIDENCE", "DOC-REVIEW"):
        [answer] = answers([HITS[code]])
        [blocker] = answer.blockers
        assert not answer.passes
        assert "尚未开通" in blocker.explanation.zh
        assert "not offered here yet" in blocker.explanation.en


# Consent.


def test_a_consented_rule_blocks_no_more_and_becomes_a_consequence() -> None:
    before, after = answers([dict(CONTRACTS), {**CONTRACTS, **consented("c1", "c2")}])
    assert (before.passes, codes(before), before.consents) == (False, ["PAY-AUTODEBIT"], ())
    assert (after.passes, codes(after), after.consents) == (True, [], ("PAY-AUTODEBIT",))
    for answer, consent in ((before, None), (after, "PAY-AUTODEBIT")):
        [one] = [one for one in answer.consequences if one.code == "WALLET-AUTODEBIT-ENDED"]
        assert one.consent == consent


@pytest.mark.parametrize(
    "given_",
    [
        consented("c1"),  # one of two
        consented("c1", "c3"),  # another one
        consented(None),  # to no item of the list
        consented("c1", "c2", code="PAY-BALANCE"),  # to another rule
        {"consents": []},
    ],
)
def test_consent_covers_only_what_was_shown(given_: Mapping[str, Any]) -> None:
    """A contract signed after the consent must not die by it."""
    [answer] = answers([{**CONTRACTS, **given_}])
    assert codes(answer) == ["PAY-AUTODEBIT"]


def test_consent_never_lifts_what_blocks() -> None:
    [answer] = answers([{"balance_fen": 1, **consented(None, code="PAY-BALANCE")}])
    assert codes(answer) == ["PAY-BALANCE"]
    assert not answer.passes


def test_consents_that_could_not_be_read_are_none() -> None:
    [answer] = answers([{**CONTRACTS, **consented("c1", "c2")}], unread=["platform"])
    assert codes(answer) == ["PAY-AUTODEBIT", "FACT-UNAVAILABLE"]


def test_nothing_listed_is_nothing_agreed() -> None:
    [answer] = answers([{"autodebit_contracts": 1, "autodebit_items": [], **consented("c1")}])
    assert codes(answer) == ["PAY-AUTODEBIT"]


_parts = st.lists(st.sampled_from([CONTRACTS, DEVELOPER, COMPANY, HITS["MERCHANT-OPEN"], consented("c1", "c2")]))


@examples(25)
@given(
    st.lists(_parts.map(lambda parts: {name: value for part in parts for name, value in part.items()}), min_size=1),
    st.sampled_from(list(Kind)),
    st.sets(st.sampled_from(["wallet", "openplatform", "enterprise", "platform"]), max_size=2),
)
def test_a_batch_tells_what_one_by_one_tells(people: list[dict[str, Any]], kind: Kind, unread: set[str]) -> None:
    """Whoever shares a batch with you must not change what you are told will happen."""
    for person, answer in zip(people, answers(people, unread, kind=kind), strict=True):
        [alone] = answers([person], unread, kind=kind)
        assert (alone.consequences, alone.alternatives, alone.consents) == (
            answer.consequences,
            answer.alternatives,
            answer.consents,
        )


@pytest.mark.parametrize("owner", ["wallet", "openplatform", "enterprise", "merchant", "gaming"])
def test_what_follows_is_never_guessed(owner: str) -> None:
    """An owner that cannot be read may hold ten contracts: then nothing of it is told, and nothing passes."""
    [answer] = answers([{**CONTRACTS, **DEVELOPER, **COMPANY}], unread=[owner])
    facts = {fact for one in answer.consequences for fact in one.facts}
    facts |= {fact for option in answer.alternatives for fact in option.facts}
    assert not facts & set(PARTICIPANTS.owned[owner])
    assert "FACT-UNAVAILABLE" in codes(answer)


# The second pack: the same engine, other data.


def test_the_second_pack_needs_identity_wallet_and_security_alone() -> None:
    """A platform without chats, mini programs or games must not be told that they cannot be read."""
    person = {**CONTRACTS, "balance_fen": 5, "legal_hold": True, "legal_hold_authority": "FIU"}
    parts = parts_of([person, {}])
    only = {name: parts[name] for name in ("identity_shenzhen", "identity_guiyang", "wallet", "security", "platform")}
    rich, clean = evaluate(EMONEY, join_facts([1, 2], only, [SERVICE, SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    assert codes(rich) == ["MONEY-LEFT", "MANDATES-ACTIVE", "AUTHORITY-HOLD"]
    assert "€0.05" in rich.blockers[0].explanation.en
    assert "€25.00" in rich.blockers[1].explanation.zh
    assert (rich.alternatives[0].kind, rich.alternatives[0].recommended) == (Kind.CLOSE_PAYMENT, True)
    assert clean.passes
    assert clean.pack == "emoney/2"
    assert {one.code for one in clean.consequences} == {"IDENTITY-ERASED", "RECORDS-KEPT"}
    assert None not in clean.versions.values()
    assert set(clean.versions) == {"identity_shenzhen", "identity_guiyang", "wallet", "security"}


def test_the_second_pack_agrees_to_mandates_under_its_own_code() -> None:
    parts = parts_of([{**CONTRACTS, **consented("c1", "c2", code="MANDATES-ACTIVE")}])
    [answer] = evaluate(EMONEY, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    assert answer.passes
    assert answer.consents == ("MANDATES-ACTIVE",)


@pytest.mark.parametrize("owner", ["identity", "wallet", "security", "platform"])
def test_the_second_pack_passes_nobody_unread(owner: str) -> None:
    [answer] = evaluate(EMONEY, join_facts([1], parts_of([{}], [owner]), [SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    assert codes(answer) == ["DATA-UNREADABLE"]
    assert not answer.passes


def test_words_of_other_systems_are_translated() -> None:
    """`high` in a Chinese sentence is a word of the open platform's database, not of the person's language."""
    [answer] = answers([DEVELOPER])
    told = next(one for one in answer.consequences if one.code == "OPEN-API-QUOTA-CUT")
    assert not re.search("[A-Za-z]", told.explanation.zh)
    assert "“高”" in told.explanation.zh
    assert "(high)" in told.explanation.en
    assert told.facts["api_quota_level"] == "high", "programs get the value itself"


@pytest.mark.parametrize("pack", [PACK, EMONEY], ids=lambda pack: pack.id)
def test_who_could_not_be_read_is_named_in_good_english(pack: Pack) -> None:
    """What says that "the gaming cannot be read" reads like a fault of ours, at a moment when something is at fault."""
    parts = parts_of([{}], [owner for owner in PARTICIPANTS.owned if owner != REQUEST])
    [answer] = evaluate(pack, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.REVOKE, NOW)
    unread = [blocker for blocker in answer.blockers if blocker.code == pack.unavailable.code]
    assert len(unread) == len(pack.facts_needed[Kind.REVOKE])
    for blocker in unread:
        owner = pack.owners[blocker.facts["owner"]]
        assert f"records under “{owner.en}” cannot" in blocker.explanation.en
        assert f"“{owner.zh}”" in blocker.explanation.zh


def test_the_engine_knows_no_wechat() -> None:
    """A word of one pack in the engine would be a rule that no compliance officer can change."""
    words = {rule.code for pack in (PACK, EMONEY) for rule in pack.rules}
    words |= {one.code for pack in (PACK, EMONEY) for one in pack.consequences}
    words |= {option.code for pack in (PACK, EMONEY) for option in pack.alternatives}
    words |= {"wechat", "微信", "emoney", "GDPR", "30007", "微粒贷"}
    engine = ("calendar", "codes", "compose", "condition", "entries", "evaluate", "frame", "load", "pack", "shape")
    from importlib import resources  # noqa: PLC0415 - only here

    for module in (*engine, "source", "wording"):
        text = resources.files("jiebang.policy").joinpath(f"{module}.py").read_text(encoding="utf-8")
        found = {word for word in words if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)}
        assert not found, (module, found)


def test_both_packs_share_no_text_but_the_facts() -> None:
    assert not {rule.code for rule in PACK.rules} & {rule.code for rule in EMONEY.rules}
    used = {fact for rule in EMONEY.rules for fact in rule.shown}
    assert {PARTICIPANTS.facts[fact].owner for fact in used} == {"identity", "wallet", "security", "platform"}
