"""A plan: which participants a case of one kind needs, in which waves, and what Confirm applies at each.

Plans are data: they stand in policy packs (domain.md §5 gives their content), never in code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

DATABASES: Final = (
    "identity_shenzhen",
    "identity_guiyang",
    "wallet",
    "security",
    "social",
    "openplatform",
    "enterprise",
    "merchant",
    "gaming",
)
"""The database participants: eight of them, identity in both data centres, hence nine databases."""

NETWORKS: Final = ("unionpay", "netsunion")
"""The clearing networks 银联 and 网联: participants reached over HTTP, not databases of ours."""

WALLET: Final = "wallet"

_IDENTITY: Final[Mapping[str, type]] = {"key_destroyed_after_minutes": int}

EFFECTS: Final[Mapping[str, Mapping[str, type]]] = {
    "identity_shenzhen": _IDENTITY,
    "identity_guiyang": _IDENTITY,
    "wallet": {"receive_limit_fen": int, "cash_out_pause_hours": int},
    "security": {"login_needs_sms": bool},
    "social": {"friend_requests_blocked": bool, "moments_per_day": int},
    "openplatform": {"api_quota_level": str},
    "enterprise": {"api_rights": bool},
    "merchant": {"records_kept_days": int},
    "gaming": {},
}
"""The effects that each database's Confirm knows, by name and type (domain.md §5); one that a plan leaves out changes
nothing. What dies with its epoch (contracts, tokens, approvals) needs no effect. Networks take what they are sent."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Participants in Try order, each with its wave (0 first), and the effects Confirm applies.

    `participants[i]` is tried in wave `waves[i]`; waves never fall along the tuple and the wallet, where the
    plan has one, stands alone in the last. `effects[name]` is the JSON object its Confirm gets.
    Raises ValueError when these do not hold.
    """

    name: str
    participants: tuple[str, ...]
    waves: tuple[int, ...]
    effects: Mapping[str, Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Refuse a plan whose shape the coordinator could not follow."""
        if not self.participants or len(set(self.participants)) != len(self.participants):
            message = f"plan {self.name}: participants must be named once each, at least one"
            raise ValueError(message)
        if len(self.waves) != len(self.participants) or list(self.waves) != sorted(self.waves) or self.waves[0] != 0:
            message = f"plan {self.name}: one wave for each participant, growing from 0"
            raise ValueError(message)
        if WALLET in self.participants and (self.participants[-1] != WALLET or self.waves.count(self.waves[-1]) != 1):
            message = f"plan {self.name}: the wallet's wave comes last, alone"
            raise ValueError(message)
        unknown = set(self.effects) - set(self.participants)
        if unknown:
            message = f"plan {self.name}: effects for {sorted(unknown)}, which it does not name"
            raise ValueError(message)
        for participant, effects in self.effects.items():
            for effect, value in effects.items() if participant in EFFECTS else ():
                if type(value) is not EFFECTS[participant].get(effect):
                    message = f"plan {self.name}: {participant} knows no effect {effect!r} of {type(value).__name__}"
                    raise ValueError(message)
