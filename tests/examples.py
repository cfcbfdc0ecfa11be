"""How often a property is tried: in full by `make test`, a few times by `make quick`.

`make quick` chooses the profile `quick` (`--hypothesis-profile quick`). Without it, as in `make test`, every property
is tried as often as it says. `make fuzz` chooses the profile `long`: a hundred times as often, or as many times as the
environment variable FUZZ_TIMES says (`FUZZ_TIMES=10 make fuzz`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import settings

T = TypeVar("T")

QUICK: Final = "quick"
"""The profile of `make quick`."""
LONG: Final = "long"
"""The profile of `make fuzz`."""
_FEW: Final = 5
_OFTEN: Final = int(os.environ.get("FUZZ_TIMES", "100"))
_ONE_IN: Final = 8

settings.register_profile(QUICK, max_examples=_FEW)
settings.register_profile(LONG, max_examples=_OFTEN * 100)


def examples(count: int) -> settings:
    """Try a property `count` times, however long each takes; in `quick` a few times, in `long` many times as often."""
    if settings.get_current_profile_name() == LONG:
        count *= _OFTEN
    return settings(max_examples=min(count, _FEW) if _is_quick() else count, deadline=None)


def some(cases: Sequence[T]) -> Sequence[T]:
    """Return the cases that a test is generated for: all of them; in the profile `quick` one in eight."""
    return cases[::_ONE_IN] if _is_quick() else cases


def _is_quick() -> bool:
    return settings.get_current_profile_name() == QUICK
