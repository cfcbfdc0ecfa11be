"""The packs that come with the product, loaded once a process: a pack is immutable, and many tests read the same."""

from __future__ import annotations

from functools import cache

from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.policy.pack import Pack


@cache
def pack(name: str) -> Pack:
    """Return the built-in pack `name`, shared by every test of this process."""
    return load_pack(*packs.text(name), PARTICIPANTS)
