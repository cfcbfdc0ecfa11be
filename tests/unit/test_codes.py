"""What a code means: every one of ours in full, those of older systems, and near ones for a slip."""

from __future__ import annotations

import re

import pytest

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.errors import NoSuchRouteError, UnknownCodeError
from jiebang.policy.codes import CodeGroup, explain, list_codes
from tests.packs import pack

PACK = pack("wechat")
EMONEY = pack("emoney")


def test_a_bare_number_of_today_is_told_in_full() -> None:
    """Six failures in ten show 30007 and nothing else."""
    found = explain(PACK, "30007")
    assert found == explain(PACK, "PAY-AUTODEBIT")
    assert (found.code, found.group, found.severity) == ("PAY-AUTODEBIT", CodeGroup.BLOCKER, Severity.NEEDS_CONSENT)
    assert found.legacy == ("30007",)
    assert found.on_the_spot
    assert found.kinds == (Kind.REVOKE, Kind.CLOSE_PAYMENT)
    assert found.explanation is not None
    assert "〈自动扣费签约〉" in found.explanation.zh
    assert "[active contracts" in found.explanation.en


@pytest.mark.parametrize("pack", [PACK, EMONEY], ids=lambda pack: pack.id)
def test_every_code_is_explained_in_both_languages(pack: object) -> None:
    assert isinstance(pack, type(PACK))
    for code in list_codes(pack):
        found = explain(pack, code.lower())
        assert found.code == code
        for text in (found.title, found.explanation, found.what, found.takes, found.reaches, found.costs, found.appeal):
            if isinstance(text, Text):
                assert re.search(r"[\u4e00-\u9fff]", text.zh), code
                assert text.en.strip(), code
                assert "{" not in text.zh + text.en, code


def test_a_condition_comes_with_its_numbers() -> None:
    found = explain(PACK, "ID-RECENT-CHANGE")
    assert found.condition == "today - identity_changed_date <= :identity_change_days"
    assert found.params == {"identity_change_days": 90}


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("FACT-UNAVAILABLE", CodeGroup.BLOCKER),
        ("WALLET-CASH-OUT-PAUSED", CodeGroup.CONSEQUENCE),
        ("INSTEAD-LEGAL-PERSON", CodeGroup.ALTERNATIVE),
        ("FUNDS-MOVED", CodeGroup.REASON),
        ("KIND-NOT-OFFERED", CodeGroup.ERROR),
        (NoSuchRouteError.code, CodeGroup.ERROR),
    ],
)
def test_every_group_of_codes_is_known(code: str, group: CodeGroup) -> None:
    assert explain(PACK, code).group is group


@pytest.mark.parametrize(
    ("slip", "near"),
    [
        ("PAY-BALENCE", "PAY-BALANCE"),
        ("30008", "30007"),
        ("pay-autodebits", "PAY-AUTODEBIT"),
        ("LEGALHOLD", "LEGAL-HOLD"),
    ],
)
def test_a_slip_is_answered_with_near_codes(slip: str, near: str) -> None:
    with pytest.raises(UnknownCodeError) as unknown:
        explain(PACK, slip)
    assert near in unknown.value.fields["near"]


def test_old_codes_belong_to_their_pack() -> None:
    assert explain(EMONEY, "e-117").code == "MONEY-LEFT"
    with pytest.raises(UnknownCodeError):
        explain(EMONEY, "30007")
