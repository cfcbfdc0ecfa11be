"""What was asked for from each network address of late, in the memory of this process.

Kept in no database: an address is personal, and counting it must cost no request a row. Each API process counts what
it sees. Only public addresses count: a private one is a proxy's or a network's, not a person's.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.errors import TooSoonError

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.policy.protection import Protection

_MOST: Final = 100_000


class _AddressUse(msgspec.Struct):
    since: datetime
    cases: int = 0
    codes: int = 0
    messages: int = 0


class AddressUse:
    """The counts, by address; of IPv6 by /64 network, since one client has a whole one."""

    def __init__(self, most: int = _MOST) -> None:
        """`most`: how many addresses are kept, the most recent ones."""
        self._most = most
        self._used: OrderedDict[str, _AddressUse] = OrderedDict()

    def take_up(
        self,
        address: str | None,
        protection: Protection,
        now: datetime,
        *,
        cases: int = 0,
        codes: int = 0,
        messages: int = 0,
    ) -> None:
        """Count what a request takes up. Raises TooSoonError where its address had all that policy allows it."""
        counted = _normalize(address)
        if counted is None:
            return
        used = self._used.get(counted)
        if used is None or used.since + protection.window <= now:
            used = self._used[counted] = _AddressUse(now)
        limits = protection.address
        if (
            used.cases + cases > limits.cases
            or used.codes + codes > limits.codes
            or used.messages + messages > limits.messages
        ):
            raise TooSoonError(retry_after_s=int((used.since + protection.window - now).total_seconds()) + 1)
        used.cases, used.codes, used.messages = used.cases + cases, used.codes + codes, used.messages + messages
        self._used.move_to_end(counted)
        if len(self._used) > self._most:
            self._used.popitem(last=False)


def _normalize(address: str | None) -> str | None:
    """Return the address as it is counted; None for one that says nothing about a person."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return None
    if not found.is_global:
        return None
    return str(found) if found.version == 4 else str(ip_network((found, 64), strict=False))  # noqa: PLR2004 - IPv4
