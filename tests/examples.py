"""How often a property is tried: in full by `make test`, a few times by `make quick`.

`make quick` chooses the profile `quick` (`--hypothesis-profile quick`). Without it, as in `make test`, every property
is tried as often as it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import settings

T = TypeVar("T")

QUICK: Final = "quick"
"""The profile of `make quick`."""
_FEW: Final = 5
_ONE_IN: Final = 8

settings.register_profile(QUICK, max_examples=_FEW)


def examples(count: int) -> settings:
    """Try a property `count` times, however long each takes; in the profile `quick` a few times."""
    return settings(max_examples=min(count, _FEW) if _is_quick() else count, deadline=None)


def some(cases: Sequence[T]) -> Sequence[T]:
    """Return the cases that a test is generated for: all of them; in the profile `quick` one in eight."""
    return cases[::_ONE_IN] if _is_quick() else cases


def _is_quick() -> bool:
    return settings.get_current_profile_name() == QUICK
