"""Plans: a shape that the coordinator cannot follow, or an effect that nobody applies, is refused when it is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from jiebang.model.plan import DATABASES, EFFECTS, Plan

GOOD: dict[str, Any] = {
    "name": "p/1",
    "participants": ("security", "social", "unionpay", "wallet"),
    "waves": (0, 0, 1, 2),
}


def test_every_database_says_which_effects_it_knows() -> None:
    """An effect that is in no table would be ignored in silence."""
    assert set(EFFECTS) == set(DATABASES)


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
        {"effects": {"merchant": {}}},
        {"effects": {"social": {"moments": 3}}},
        {"effects": {"social": {"moments_per_day": "3"}}},
        {"effects": {"social": {"moments_per_day": True}}},
        {"effects": {"security": {"login_needs_sms": 1}}},
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict[str, Any]) -> None:
    """Found here it stops a pack; found after the commit point it would stop a person."""
    with pytest.raises(ValueError, match="plan p/1"):
        Plan(**{**GOOD, **change})


def test_a_plan_that_can_be_followed_is_not() -> None:
    """Networks take whatever they are sent: what they do with it is their own."""
    plan = Plan(**GOOD, effects={"social": {"moments_per_day": 3}, "unionpay": {"anything": [1]}, "wallet": {}})
    assert plan.effects["social"] == {"moments_per_day": 3}
