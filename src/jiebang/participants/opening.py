"""Opens the participants that are databases of ours, each as its own class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.identity import DECLARATION as IDENTITY
from jiebang.participants.identity.documents import IdentityParticipant
from jiebang.participants.security import DECLARATION as SECURITY
from jiebang.participants.security.logins import SecurityParticipant
from jiebang.participants.social import DECLARATION as SOCIAL
from jiebang.participants.social.gate import SocialParticipant
from jiebang.participants.wallet import DECLARATION as WALLET
from jiebang.participants.wallet.money import WalletParticipant

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.store.postgres.pool import Pool


def open_participants(
    registry: ParticipantRegistry, pools: Mapping[str, Pool], clock: Callable[[], datetime], *, pepper: bytes
) -> Mapping[str, DatabaseParticipant]:
    """Return every database participant of `registry` by name, on `pools` by the same names.

    "wallet" is a `WalletParticipant`, "security" a `SecurityParticipant`, "social" a `SocialParticipant`, both identity
    databases are an `IdentityParticipant`: those have services beside the saga's. `pepper`: the secret in hashes of
    payment passwords.
    """
    opened: dict[str, DatabaseParticipant] = {}
    for declared in registry.declarations:
        for name in declared.databases:
            if declared is WALLET:
                opened[name] = WalletParticipant(pools[name], clock, pepper=pepper)
            elif declared is SECURITY:
                opened[name] = SecurityParticipant(pools[name], clock)
            elif declared is SOCIAL:
                opened[name] = SocialParticipant(pools[name], clock)
            else:
                kind = IdentityParticipant if declared is IDENTITY else DatabaseParticipant
                opened[name] = kind(name, declared, pools[name], clock)
    return opened
