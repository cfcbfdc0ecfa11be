"""The quota in a pack and in an audit: a mistake in either costs people their changes, or lets a fourth through."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from jiebang.model.case import COUNTED, Case, Kind, Slot, State
from jiebang.model.errors import PackInvalidError
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.saga.audit import Breach, find_cases_without_slot, find_leaked_slots
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
PAPER, OTHER = b"\1" * 32, b"\2" * 32
MAY_HOLD: Final = COUNTED | {State.READY}


def changed(**quota: Any) -> Mapping[str, Any]:
    text, _ = packs.text("wechat")
    pack: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    pack["quota"] = {**pack["quota"], **quota}
    return pack


def dump(document: Any) -> str:
    return str(yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False))


MISTAKES: Final[Mapping[str, Mapping[str, Any]]] = {
    "a kind its rules do not cover": {"kinds": ["change_identity", "revoke"]},
    "no kind": {"kinds": []},
    "a kind that does not exist": {"kinds": ["rename"]},
    "a rule that does not exist": {"used_up": "ID-QUOTE"},
    "a cooling-off that does not exist": {"cooling": "ID-WARMING"},
    "a number in place of a parameter": {"per_year": 3},
    "a parameter that does not exist": {"per_year": ":changes"},
    "days for a count": {"per_year": ":cooling_off_days"},
    "money for a count": {"per_year": ":receive_limit_after_fen"},
    "a word too many": {"per_month": ":identity_changes_a_year"},
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_the_quota_is_refused_with_its_place(what: str) -> None:
    """A quota whose rule never stands would begin no cooling-off, and nobody would notice."""
    text = dump(changed(**MISTAKES[what]))
    with pytest.raises(PackInvalidError) as refused:
        load_pack(text, "wechat.yaml", PARTICIPANTS)
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines, 1) if line == "quota:")
    after = next(
        (at for at, line in enumerate(lines[first:], first + 1) if not line.startswith((" ", "-"))), len(lines)
    )
    for problem in refused.value.fields["problems"]:
        assert first <= problem["line"] < after, problem
        assert problem["zh"]
        assert problem["en"]


def test_a_pack_may_count_nothing() -> None:
    """Another platform's policy knows no such limit."""
    pack = dict(changed())
    del pack["quota"]
    assert load_pack(dump(pack), "wechat.yaml", PARTICIPANTS).quota is None


def test_taking_a_name_back_is_no_change_of_identity() -> None:
    """The law: consent is withdrawn as easily as it was given."""
    quota = pack("wechat").quota
    assert quota is not None
    assert quota.kinds == {Kind.CHANGE_IDENTITY, Kind.RESTORE}
    assert quota.per_year == 3


def case(state: State, document: bytes | None = PAPER) -> Case:
    return Case(
        account_id=7,
        case_no=2,
        kind=Kind.RESTORE,
        state=state,
        plan="t/1",
        marks=".",
        revision=1,
        created_at=NOW,
        document_index=document,
    )


SLOT: Final = Slot(PAPER, 2026, 1, 7, 2)


@pytest.mark.parametrize("state", State)
def test_a_slot_belongs_to_a_case_that_goes_on_or_is_done(state: State) -> None:
    """All states, so that a new one cannot be forgotten here."""
    one = case(state)
    assert find_leaked_slots([SLOT], {one.key: one}) == ([] if state in MAY_HOLD else [SLOT])
    assert find_leaked_slots([SLOT], {}) == [SLOT]
    another = case(state, OTHER)
    assert find_leaked_slots([SLOT], {another.key: another}) == [SLOT]
    without = [each.breach for each in find_cases_without_slot([one], [])]
    assert without == ([Breach.SLOT_MISSING] if state in COUNTED else [])
    assert find_cases_without_slot([one], [SLOT]) == []
    assert len(find_cases_without_slot([another], [SLOT])) == (state in COUNTED)
    assert find_cases_without_slot([case(state, None)], []) == []
