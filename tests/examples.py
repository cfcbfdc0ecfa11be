"""How often a property is tried: in full by `make test`, a few times by `make quick`.

`make quick` chooses the profile `quick` (`--hypothesis-profile quick`). Without it, as in `make test`, every property
is tried as often as it says.
"""

from __future__ import annotations

from typing import Final

from hypothesis import settings

QUICK: Final = "quick"
"""The profile of `make quick`."""
_FEW: Final = 5

settings.register_profile(QUICK, max_examples=_FEW)


def examples(count: int) -> settings:
    """Try a property `count` times, however long each takes; in the profile `quick` a few times."""
    few = settings.get_current_profile_name() == QUICK
    return settings(max_examples=min(count, _FEW) if few else count, deadline=None)
