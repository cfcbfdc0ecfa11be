"""The participants: the databases and clearing networks that hold a person's data, each declared in its own folder."""

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
"""The participants of the product. `app` passes it on; no room below imports it."""
