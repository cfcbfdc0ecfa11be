"""What a pack's plans say of operations: the form of today, and the form that stands in older installations."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml

from jiebang.model.case import Kind
from jiebang.model.errors import PackInvalidError
from jiebang.model.participants import Declaration, Operation, ParticipantRegistry
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack

NAMES: Final = ("wechat", "emoney")


def formerly(name: str) -> str:
    """A pack as an installation of before operations holds it: its plan has effects alone."""
    text, _ = packs.text(name)
    pack: dict[str, Any] = yaml.safe_load(text)
    plan = pack["plans"]["revoke"]
    operations = plan.pop("operations")
    plan["effects"] = {party: one["effects"] for party, one in operations.items() if "effects" in one}
    return yaml.safe_dump(pack, allow_unicode=True, sort_keys=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_of_the_older_form_plans_what_it_always_did(name: str) -> None:
    """A case that was opened under it could otherwise never end."""
    old = load_pack(formerly(name), "old.yaml", PARTICIPANTS).plans[Kind.REVOKE]
    assert old == load_pack(*packs.text(name), PARTICIPANTS).plans[Kind.REVOKE]


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_left_out_is_named_where_it_should_stand(name: str) -> None:
    """A participant that nothing is asked of would be tried for nothing in particular."""
    text, file = packs.text(name)
    without = re.sub(r"^      security: \{operation.*\n", "", text, flags=re.MULTILINE)
    line = without[: without.index("\n    operations:\n")].count("\n") + 3
    with pytest.raises(PackInvalidError) as caught:
        load_pack(without, file, PARTICIPANTS)
    [problem] = caught.value.fields["problems"]
    assert (problem["line"], problem["en"]) == (line, "the operation of 'security' is missing")
    assert "security" in problem["zh"]


def test_a_participant_younger_than_operations_has_no_older_form() -> None:
    """What a plan does not say must not be guessed."""
    young = Declaration(owner="young", package="young", databases={"young": "shenzhen"}, operations={"go": Operation()})
    text = formerly("emoney").replace("- - identity_shenzhen", "- - young\n      - identity_shenzhen")
    assert "young" in text
    with pytest.raises(PackInvalidError) as caught:
        load_pack(text, "old.yaml", ParticipantRegistry((*PARTICIPANTS.declarations, young)))
    assert any("must name that of 'young'" in problem["en"] for problem in caught.value.fields["problems"])
