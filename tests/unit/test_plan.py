"""Plans: a shape that the coordinator cannot follow, or an effect that nobody applies, is refused when it is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from jiebang.model.plan import UNNAMED, Plan, PlannedOperation
from jiebang.participants import PARTICIPANTS

GOOD: dict[str, Any] = {
    "name": "p/1",
    "participants": ("security", "social", "unionpay", "wallet"),
    "waves": (0, 0, 1, 2),
}


def test_every_database_says_which_effects_it_knows() -> None:
    """An effect that is in no table would be ignored in silence."""
    for name in PARTICIPANTS.databases:
        assert all(operation.effects is not None for operation in PARTICIPANTS[name].operations.values()), name


@pytest.mark.parametrize(
    "change",
    [
        {"participants": ()},
        {"participants": ("social", "social", "security", "wallet")},
        {"waves": (0, 0, 1)},
        {"waves": (0, 1, 0, 2)},
        {"waves": (1, 1, 1, 2)},
        {"waves": (0, 0, 1, 1)},
        {"participants": ("wallet", "social", "unionpay", "security")},
        {"operations": {"merchant": PlannedOperation("retain")}},
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict[str, Any]) -> None:
    """Found here it stops a pack; found after the commit point it would stop a person."""
    with pytest.raises(ValueError, match="plan p/1"):
        Plan(**{**GOOD, **change})


def test_a_plan_that_can_be_followed_is_not() -> None:
    """Networks take whatever they are sent: what they do with it is their own."""
    social = PlannedOperation("restrict", {"moments_per_day": 3})
    plan = Plan(**GOOD, operations={"social": social, "unionpay": PlannedOperation("release", {"anything": [1]})})
    assert plan.operations == {**dict.fromkeys(GOOD["participants"], UNNAMED), **plan.operations}
    assert plan.operations["social"] == social


@pytest.mark.parametrize(
    ("name", "effect", "value"),
    [
        ("social", "moments", 3),
        ("social", "moments_per_day", "3"),
        ("social", "moments_per_day", True),
        ("social", "moments_per_day", 1 << 15),
        ("security", "login_needs_sms", 1),
    ],
)
def test_an_effect_of_another_type_is_not_declared(name: str, effect: str, value: object) -> None:
    """What Confirm could not write must not come into a plan: after the commit point it would stop a person."""
    (operation,) = PARTICIPANTS[name].operations.values()
    assert operation.effects is not None
    assert effect not in operation.effects or operation.effects[effect].fault(value) is not None
