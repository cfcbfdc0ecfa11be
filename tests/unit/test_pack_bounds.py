"""The floors and bounds of a pack's numbers, and where a later version protects people less."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
import yaml

from jiebang.model.case import Kind
from jiebang.model.errors import PackInvalidError
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.bounds import MOST_DAYS, PROOF_BOUNDS, UNIT_BOUNDS
from jiebang.policy.load import load_pack
from jiebang.policy.shape import ProofsShape, Unit
from jiebang.policy.weakening import find_weakenings
from tests.examples import some

TEXT, FILE = packs.text("wechat")
WHOLE: Final = load_pack(TEXT, FILE, PARTICIPANTS)
NOW: Final = datetime(2026, 4, 1, tzinfo=UTC)
OF_PROOFS: Final = {
    "case_lives": "open_case_hours",
    "code_digits": "sms_code_digits",
    "code_lives": "sms_code_minutes",
    "code_pause": "sms_code_pause_seconds",
    "tries": "proof_tries",
    "tries_a_day": "proof_tries_a_day",
    "tries_window": "proof_tries_window_hours",
}
"""The parameter of each number of proofs in our pack."""
REFERENCES: Final = [field for field in msgspec.structs.fields(ProofsShape) if field.name != "methods"]


def with_param(name: str, value: int, unit: str | None = None) -> str:
    """Our pack with another number."""
    pattern = rf"(\n  {name}: {{value: )\d+(, unit: )(\w+)"
    text, found = re.subn(pattern, lambda at: f"{at[1]}{value}{at[2]}{unit or at[3]}", TEXT)
    assert found == 1
    return text


def refused(text: str) -> list[dict[str, Any]]:
    with pytest.raises(PackInvalidError) as caught:
        load_pack(text, "bad.yaml", PARTICIPANTS)
    problems: list[dict[str, Any]] = caught.value.fields["problems"]
    return problems


def test_every_number_of_the_shape_has_bounds() -> None:
    """A number that nobody bounded is where the next pack breaks or protects nobody."""
    assert {field.name for field in REFERENCES} == PROOF_BOUNDS.keys() == OF_PROOFS.keys()
    assert set(Unit) - {Unit.TEXT} == UNIT_BOUNDS.keys()


@pytest.mark.parametrize("name", some(list(PROOF_BOUNDS)))
@pytest.mark.parametrize("end", ["least", "most"])
def test_a_number_of_proofs_is_refused_beyond_its_bounds_and_held_there(name: str, end: str) -> None:
    """One digit and 30,000 tries are no proof: anybody's code is guessed in an afternoon."""
    bound, param = PROOF_BOUNDS[name], OF_PROOFS[name]
    unit = "seconds" if bound.seconds else None
    at = getattr(bound, end)
    good = with_param(param, at, unit)
    if name == "tries_a_day" and end == "least":
        good = re.sub(r"(\n  (?:proof_tries|tries_told): {value: )\d+", r"\g<1>1", good)
    if name == "tries":
        good = re.sub(r"(\n  proof_tries_a_day: {value: )\d+", r"\g<1>30", good)
    assert load_pack(good, FILE, PARTICIPANTS).shortfalls == ()
    beyond = at - 1 if end == "least" else at + 1
    if beyond < 1:
        return  # not above zero, which is refused in another way
    bad = good.replace(f"{param}: {{value: {at},", f"{param}: {{value: {beyond},")
    problems = [one for one in refused(bad) if f"`{name}`" in one["en"]]
    assert len(problems) == 1, "once, however many kinds use it"
    [problem] = problems
    assert param in bad.split("\n")[problem["line"] - 1], "where the number stands"
    assert f"“{name}”" in problem["zh"]
    stored = load_pack(bad, FILE, PARTICIPANTS, stored=True)
    assert any(f"`{name}`" in each.en for each in stored.shortfalls)
    held = getattr(stored.proofs[Kind.REVOKE], name)
    assert held == (timedelta(seconds=at) if bound.seconds else at)


@pytest.mark.parametrize("value", some([40_000, 30_000, 1 << 31, (1 << 53) - 1]))
def test_a_stored_version_with_absurd_tries_still_takes_cases(value: int) -> None:
    """It was admitted once: every submission answered 500, because the column could not hold the number."""
    proofs = load_pack(with_param("proof_tries", value), FILE, PARTICIPANTS, stored=True).proofs[Kind.REVOKE]
    assert proofs.tries <= 32_767


@pytest.mark.parametrize("unit", some([unit for unit in Unit if unit is not Unit.TEXT]))
def test_every_unit_is_bounded(unit: Unit) -> None:
    """A number that no date or column can hold breaks a check, a submission or a receipt."""
    least, most = UNIT_BOUNDS[unit]
    extra = '  spare: {{value: {}, unit: {}, source: 测试 / test, zh: "备用", en: "spare"}}\n'
    for value in (least, most):
        load_pack(TEXT.replace("params:\n", "params:\n" + extra.format(value, unit), 1), FILE, PARTICIPANTS)
    bad = TEXT.replace("params:\n", "params:\n" + extra.format(most + 1, unit), 1)
    [problem] = refused(bad)
    assert "spare" in bad.split("\n")[problem["line"] - 1]
    assert re.search(r"[一-鿿]", problem["zh"])


def test_every_length_of_time_of_a_pack_leads_to_a_time_that_can_be_written() -> None:
    """2³¹ hours is the year 246,000: every submission would end in 500."""
    for bound in PROOF_BOUNDS.values():
        if bound.seconds:
            assert NOW + timedelta(seconds=bound.most)
    assert NOW + timedelta(days=MOST_DAYS)


@pytest.mark.parametrize("methods", ["[sms_code]"])
def test_a_code_by_sms_alone_proves_nobody(methods: str) -> None:
    """Whoever holds the SIM for a minute would take a name back."""
    bad = TEXT.replace("methods: [payment_password, sms_code]", f"methods: {methods}")
    problems = refused(bad)
    assert all("the person's own" in one["en"] and "本人" in one["zh"] for one in problems)
    assert {bad.split("\n")[one["line"] - 1].strip() for one in problems} == {f"methods: {methods}"}
    assert load_pack(bad, FILE, PARTICIPANTS, stored=True).shortfalls


def test_tries_a_day_are_not_below_those_of_one_case() -> None:
    """The first case would use up more than the day allows: the count that protects would be the other one."""
    bad = with_param("proof_tries_a_day", 3)
    assert all("tries of one case" in one["en"] for one in refused(bad))


BAD_EFFECTS: Final = [
    ("moments_a_day", 99_999),
    ("cash_out_pause_hours", 876_601),
    ("cash_out_pause_hours", 99_999_999_999_999),
    ("key_destroy_minutes", 52_596_001),
    ("merchant_record_days", 36_526),
]


@pytest.mark.parametrize(("param", "value"), some(BAD_EFFECTS))
def test_an_effect_that_no_column_can_hold_is_refused_on_load_and_left_to_the_participant_once_stored(
    param: str, value: int
) -> None:
    """Ten participants would confirm and one never: the person's wallet would be busy for ever."""
    problems = refused(with_param(param, value))
    assert any(str(param).split("_")[0] in one["en"] or "must be" in one["en"] for one in problems)
    if param == "merchant_record_days":
        return  # days were bounded before, so no store has such a version
    stored = load_pack(with_param(param, value), FILE, PARTICIPANTS, stored=True)
    assert stored.shortfalls
    effects = [one.effects for one in stored.plans[Kind.REVOKE].operations.values()]
    assert any(value in one.values() for one in effects), "nothing is guessed: the participant refuses it at Try"


def test_a_word_that_the_column_does_not_know_is_refused_on_load() -> None:
    """`api_quota_level: gold` was valid, and broke its CHECK after the commit point."""
    [problem] = refused(TEXT.replace("api_quota_level: test", "api_quota_level: gold"))
    assert "must be one of none, test, standard, high" in problem["en"]
    assert "gold" in TEXT.replace("api_quota_level: test", "api_quota_level: gold").split("\n")[problem["line"] - 1]


# Where protection weakens.

WEAKER: Final = {
    "proofs.revoke.code_digits": with_param("sms_code_digits", 7),
    "proofs.revoke.tries": with_param("proof_tries", 4),
    "proofs.revoke.tries_a_day": with_param("proof_tries_a_day", 14),
    "proofs.revoke.tries_window": with_param("proof_tries_window_hours", 48),
    "proofs.revoke.code_lives": with_param("sms_code_minutes", 4),
    "proofs.revoke.code_pause": with_param("sms_code_pause_seconds", 61),
    "proofs.revoke.case_lives": with_param("open_case_hours", 23),
    "protection.window": with_param("protection_window_hours", 25),
    "protection.case_pause": with_param("case_pause_seconds", 61),
    "protection.account.cases": with_param("cases_a_day", 4),
    "protection.account.codes": with_param("codes_a_day", 14),
    "protection.account.messages": with_param("messages_a_day", 39),
    "protection.address.cases": with_param("address_cases_a_day", 199),
    "protection.address.codes": with_param("address_codes_a_day", 599),
    "protection.address.messages": with_param("address_messages_a_day", 1199),
    "protection.tell_after": with_param("tries_told", 2),
    "protection.unlock_pause": with_param("unlock_pause_minutes", 31),
    "protection.unlock_tries": with_param("unlock_tries", 2),
    "quota.per_year": with_param("identity_changes_a_year", 2),
    "rules[ID-RECENT-CHANGE].when": with_param("identity_change_days", 91),
    "rules[SEC-ABNORMAL-LOGIN].when": with_param("abnormal_login_days", 31),
    "plans.revoke.operations.wallet.effects.receive_limit_fen": with_param("receive_limit_after_fen", 100_000),
    "plans.revoke.operations.wallet.effects.cash_out_pause_hours": with_param("cash_out_pause_hours", 73),
    "plans.revoke.operations.identity_guiyang.effects.key_destroyed_after_minutes": with_param(
        "key_destroy_minutes", 4
    ),
    "plans.revoke.operations.social.effects.moments_per_day": with_param("moments_a_day", 2),
    "plans.revoke.operations.merchant.effects.records_kept_days": with_param("merchant_record_days", 1_097),
}
"""By what our pack weakens: a version that is stricter in that one thing."""


@pytest.mark.parametrize("path", some(list(WEAKER)))
def test_a_weaker_number_is_told_and_a_stricter_one_is_not(path: str) -> None:
    """A second person approves what they are shown: what is not shown is not approved."""
    stricter = load_pack(WEAKER[path], FILE, PARTICIPANTS)
    found = {one.path: one.what for one in find_weakenings(stricter, WHOLE)}
    assert path in found
    assert re.search(r"[一-鿿]|\d", found[path].zh)
    assert path not in {one.path for one in find_weakenings(WHOLE, stricter)}


def changed(**sections: Any) -> str:
    document = yaml.load(TEXT, yaml.CSafeLoader)
    for change in sections.values():
        change(document)
    return str(yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False))


def rule(document: Any, code: str) -> Any:
    return next(one for one in document["rules"] if one["code"] == code)


LOOSER: Final[dict[str, Any]] = {
    "rules[PAY-BALANCE].when": lambda d: rule(d, "PAY-BALANCE").update(when="balance_fen > 100"),
    "rules[PAY-BALANCE].severity": lambda d: rule(d, "PAY-BALANCE").update(severity="informs"),
    "rules[PAY-BALANCE].kinds": lambda d: rule(d, "PAY-BALANCE").update(kinds=["close_payment"]),
    "rules[LEGAL-HOLD]": lambda d: d["rules"].remove(rule(d, "LEGAL-HOLD")),
    "quota": lambda d: d.pop("quota"),
    "quota.kinds": lambda d: d["quota"].update(kinds=["restore"]),
    "plans.revoke.operations.netsunion": lambda d: (
        d["plans"]["revoke"]["operations"].pop("netsunion"),
        [wave.remove("netsunion") for wave in d["plans"]["revoke"]["waves"] if "netsunion" in wave],
    ),
    "plans.revoke.operations.security.effects.login_needs_sms": lambda d: d["plans"]["revoke"]["operations"][
        "security"
    ]["effects"].update(login_needs_sms=False),
    "plans.revoke.operations.enterprise.effects.api_rights": lambda d: d["plans"]["revoke"]["operations"]["enterprise"][
        "effects"
    ].update(api_rights=True),
    "plans.revoke.operations.openplatform.effects.api_quota_level": lambda d: d["plans"]["revoke"]["operations"][
        "openplatform"
    ]["effects"].update(api_quota_level="high"),
    "plans.revoke.operations.wallet.effects.receive_limit_fen": lambda d: d["plans"]["revoke"]["operations"]["wallet"][
        "effects"
    ].pop("receive_limit_fen"),
    "devices.proof": lambda d: d["devices"].update(proof="any"),
    "devices.consent": lambda d: d.pop("devices"),
    "protection": lambda d: (
        d.pop("protection"),
        d["messages"].pop("wrong_tries"),
        d["reasons"].pop("PROOF-LOCK"),
    ),
    "proofs.revoke.methods": lambda d: d["proofs"]["revoke"].update(methods=["payment_password"]),
}


@pytest.mark.parametrize("path", some(list(LOOSER)))
def test_whatever_lets_more_pass_is_told(path: str) -> None:
    """A rule that is gone, gentler or narrower protects somebody less, and both people should know."""
    # What is told of what it does no more is another fault, of which keepers tell.
    looser = load_pack(changed(change=LOOSER[path]), FILE, PARTICIPANTS, stored=True)
    found = find_weakenings(WHOLE, looser)
    assert path in {one.path for one in found}
    for one in found:
        assert re.search(r"[一-鿿]|\d", one.what.zh)
        assert not re.search(r"[一-鿿]", one.what.en)


def test_consent_to_the_whole_is_weaker_than_to_each() -> None:
    """A person agreed to end what they saw; a contract made the day after is not in that."""

    def change(document: Any) -> None:
        rule(document, "PAY-AUTODEBIT").pop("consent_to")

    looser = load_pack(changed(change=change), FILE, PARTICIPANTS)
    assert "rules[PAY-AUTODEBIT].consent_to" in {one.path for one in find_weakenings(WHOLE, looser)}


def test_a_remedy_on_the_spot_that_was_not_there_is_told() -> None:
    """Whoever holds the phone could clear by themselves what people decided before."""
    without = load_pack(changed(change=lambda d: d["remedies"].pop("logins")), FILE, PARTICIPANTS)
    assert "remedies.logins" in {one.path for one in find_weakenings(without, WHOLE)}


def test_the_same_version_weakens_nothing() -> None:
    """Warnings at every turn are warnings that nobody reads."""
    assert find_weakenings(WHOLE, WHOLE) == []
    reworded = load_pack(TEXT.replace("零钱余额未清零", "零钱还有余额"), FILE, PARTICIPANTS)
    assert find_weakenings(WHOLE, reworded) == []
