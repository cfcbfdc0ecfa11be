"""The conformance suite of the product, as tests: `jiebang participant test` runs the same list of properties.

A test module subclasses `ParticipantSuite`, names the class `Test…`, and gives a fixture `subject`:

    class TestUnionPay(ParticipantSuite):
        @pytest.fixture
        async def subject(self, ...) -> Subject: ...
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jiebang.participants.conformance.crossing import CROSSING_PROPERTIES, SIDE_BY_SIDE, Step, examine_sequence
from jiebang.participants.conformance.fence import FENCE_PROPERTIES
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.signed_http import SIGNED_PROPERTIES
from jiebang.participants.conformance.subject import NotApplicableError, Subject
from jiebang.participants.conformance.suite import PROPERTIES
from jiebang.policy import packs
from jiebang.saga.fence import Op
from tests.packs import pack

__all__ = ["ParticipantSuite", "RemoteSuite", "Subject", "examine"]


async def examine(name: str, subject: Subject) -> None:
    """Examine one property, with all that the product's own packs send too."""
    (each,) = (one for one in PROPERTIES if one.name == name)
    whole = replace(subject, packs=[*map(pack, packs.NAMES), *subject.packs])
    try:
        await each.examine(whole)
    except NotApplicableError as error:
        pytest.skip(str(error))


class ParticipantSuite:
    """What must hold of every participant. Each property says what would break otherwise."""

    @pytest.mark.parametrize("each", [*FENCE_PROPERTIES, *CROSSING_PROPERTIES], ids=lambda each: each.name)
    async def test_property(self, subject: Subject, each: Property) -> None:
        """See the property: `breaks` says what would break for whom."""
        await examine(each.name, subject)

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,  # one suite, a class a participant: none shares an example with another
        ],
    )
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(Op), st.lists(st.integers(1, 4), min_size=SIDE_BY_SIDE, max_size=SIDE_BY_SIDE)),
            min_size=1,
            max_size=10,
        )
    )
    async def test_any_sequence_of_batches_answers_as_the_fence_says(self, subject: Subject, steps: list[Step]) -> None:
        """Late, repeated and reordered messages of several cases, shrunk to the shortest that departs."""
        await examine_sequence(subject, steps)


class RemoteSuite(ParticipantSuite):
    """What must hold of a remote participant too."""

    @pytest.mark.parametrize("each", SIGNED_PROPERTIES, ids=lambda each: each.name)
    async def test_signed_property(self, subject: Subject, each: Property) -> None:
        """As above."""
        await examine(each.name, subject)
