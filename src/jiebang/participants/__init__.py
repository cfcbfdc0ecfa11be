"""The participants: the databases and clearing networks that know a person, each declared in a folder of its own."""

from __future__ import annotations

from typing import Final

from jiebang.model.participants import ParticipantRegistry
from jiebang.participants import (
    enterprise,
    gaming,
    identity,
    merchant,
    networks,
    openplatform,
    security,
    social,
    wallet,
)

PARTICIPANTS: Final = ParticipantRegistry(
    (
        identity.DECLARATION,
        wallet.DECLARATION,
        security.DECLARATION,
        social.DECLARATION,
        openplatform.DECLARATION,
        enterprise.DECLARATION,
        merchant.DECLARATION,
        gaming.DECLARATION,
        *networks.DECLARATIONS,
    )
)
"""The participants of the product. `app` hands it down; no room below reads it here."""
