"""The databases and clearing networks that know a person. One file a participant; all speak `Participant`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from jiebang.participants.database import DatabaseParticipant, Particulars
from jiebang.participants.enterprise import ENTERPRISE
from jiebang.participants.gaming import GAMING
from jiebang.participants.identity import IDENTITY, Identity
from jiebang.participants.logins import Security
from jiebang.participants.merchant import MERCHANT
from jiebang.participants.openplatform import OPENPLATFORM
from jiebang.participants.security import SECURITY
from jiebang.participants.social import SOCIAL
from jiebang.participants.wallet import WALLET

if TYPE_CHECKING:
    from jiebang.participants.database import Pool

PARTICULARS: Final[Mapping[str, Particulars]] = {
    "identity_shenzhen": IDENTITY,
    "identity_guiyang": IDENTITY,
    "wallet": WALLET,
    "security": SECURITY,
    "social": SOCIAL,
    "openplatform": OPENPLATFORM,
    "enterprise": ENTERPRISE,
    "merchant": MERCHANT,
    "gaming": GAMING,
}
"""What is each database participant's own, by name, in the order of `model.plan.DATABASES`."""


def open_participants(
    pools: Mapping[str, Pool], clock: Callable[[], datetime], *, pepper: bytes
) -> Mapping[str, DatabaseParticipant]:
    """Return the nine database participants by name, on `pools` by the same names.

    "wallet" is a `Wallet`, "security" a `Security`, both identity databases are an `Identity`.

    `pepper`: the secret that payment passwords are marked with.
    """
    from jiebang.participants.money import Wallet  # noqa: PLC0415 - brings polars, half a second to a network's process

    opened = {
        name: (Identity if own is IDENTITY else DatabaseParticipant)(name, own, pools[name], clock)
        for name, own in PARTICULARS.items()
    }
    own_wallet, own_security = Wallet(pools["wallet"], clock, pepper=pepper), Security(pools["security"], clock)
    return {**opened, "wallet": own_wallet, "security": own_security}
