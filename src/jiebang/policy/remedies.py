"""Which rule of a pack each remedy on the spot clears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from jiebang.policy.pack import REMEDIES

if TYPE_CHECKING:
    from jiebang.policy.pack import Pack

BALANCE: Final = "PAY-BALANCE"
RED_PACKET: Final = "PAY-RED-PACKET"
AUTODEBIT: Final = "PAY-AUTODEBIT"
ABNORMAL_LOGIN: Final = "SEC-ABNORMAL-LOGIN"
DEVICE: Final = "SEC-DEVICE"
"""The code under which a remedy is recorded, independent of what the policy in force calls the rule it clears."""
NAMES: Final[Mapping[str, str]] = dict(
    zip((BALANCE, RED_PACKET, AUTODEBIT, ABNORMAL_LOGIN, DEVICE), REMEDIES, strict=True)
)
"""Each remedy's name in packs, by the code under which it is recorded."""


def cleared_by(pack: Pack, recorded: str) -> str:
    """Return the code of the rule in `pack` that a remedy clears; if there is none, the code it is recorded under."""
    return pack.remedies.get(NAMES.get(recorded, ""), recorded)


def clears(pack: Pack, code: str) -> str | None:
    """Return the code under which the remedy that clears rule `code` of `pack` is recorded; None without one."""
    return next((recorded for recorded, name in NAMES.items() if pack.remedies.get(name) == code), None)
