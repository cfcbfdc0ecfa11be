"""What policy holds off thieves and nuisances with: pauses, caps, what the owner hears, and the way out of a lock."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

PROOF_LOCK: Final = "PROOF-LOCK"
"""The code of the lock that too many wrong tries put on an account's proofs, and of the remedy that frees them."""
WRONG_TRIES: Final = "wrong_tries"
"""The message that tells an owner of wrong tries."""


class UseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many cases, codes and messages of every kind there may be in the window of `protection`."""

    cases: int
    codes: int
    messages: int


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one policy (`shape.ProtectionShape` says what each is)."""

    window: timedelta
    case_pause: timedelta
    account: UseLimits
    address: UseLimits
    tell_after: int
    unlock_pause: timedelta
    unlock_tries: int
