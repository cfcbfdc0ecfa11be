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
"""What a remedy is recorded under, whatever the policy in force calls the rule that it clears."""
NAMES: Final[Mapping[str, str]] = dict(
    zip((BALANCE, RED_PACKET, AUTODEBIT, ABNORMAL_LOGIN, DEVICE), REMEDIES, strict=True)
)
"""By what a remedy is recorded under: its name in packs."""


def cleared_by(pack: Pack, recorded: str) -> str:
    """Return the code that `pack` has for the rule which a remedy clears; what it is recorded under if it has none."""
    return pack.remedies.get(NAMES[recorded], recorded)


def clears(pack: Pack, code: str) -> str | None:
    """Return what the remedy that clears rule `code` of `pack` is recorded under; None where nothing clears it here."""
    return next((recorded for recorded, name in NAMES.items() if pack.remedies.get(name) == code), None)
