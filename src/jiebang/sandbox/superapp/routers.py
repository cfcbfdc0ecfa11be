"""All routers of the super-app, over the databases of the participants whose gates they call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jiebang.participants.enterprise.gate import EnterpriseGate
from jiebang.participants.gaming.gate import GameGate
from jiebang.participants.openplatform.gate import OpenApiGate
from jiebang.participants.social.gate import SocialParticipant
from jiebang.sandbox.superapp.games import Games
from jiebang.sandbox.superapp.interfaces import Interfaces
from jiebang.sandbox.superapp.login import Login, SendNotices
from jiebang.sandbox.superapp.money import Money, wallet_of
from jiebang.sandbox.superapp.social import Social

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jiebang.sandbox.superapp.door import Door, Router
    from jiebang.store.postgres.pool import Pool


def build_routers(
    door: Door, pools: Mapping[str, Pool], clock: Callable[[], datetime], send: SendNotices
) -> list[Router]:
    """Return the routers.

    `pools`: by participant, those of `CALLED`; `clock`: by which gates count and stamp; `send`: brings codes to phones.
    """
    return [
        Money(door, wallet_of(pools["wallet"], clock)),
        Social(door, SocialParticipant(pools["social"], clock)),
        Login(door, pools["security"], clock, send),
        Games(door, GameGate(pools["gaming"], clock)),
        Interfaces(door, OpenApiGate(pools["openplatform"], clock), EnterpriseGate(pools["enterprise"])),
    ]
