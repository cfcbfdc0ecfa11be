"""Shares of what is held for long, connections and event streams, so that nobody can take all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from jiebang.model import errors

if TYPE_CHECKING:
    from jiebang.api.gate.capacity import Capacity
    from jiebang.remote.tokens import Caller

_COME_BACK_S: Final = 5
_ALL: Final = "all"
_ADDRESS_LONGEST: Final = 64


class Shares:
    """Counts what is held, by whoever it is counted for."""

    def __init__(self) -> None:
        self._held: Counter[Hashable] = Counter()

    def take(self, limits: Mapping[Hashable, int]) -> bool:
        """Take one for each of `limits`, if none of them holds as many already; else take none."""
        if any(self._held[who] >= most for who, most in limits.items()):
            return False
        self._held.update(limits.keys())
        return True

    def give_back(self, holders: Iterable[Hashable]) -> None:
        """Give one back for each of those that took one."""
        for who in holders:
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]

    def __len__(self) -> int:
        """Return how many hold anything."""
        return len(self._held)


class Streams:
    """The event streams that are open: in all, and of each caller and address."""

    def __init__(self, capacity: Capacity) -> None:
        """`capacity`: how many each may hold open."""
        self._capacity, self._shares = capacity, Shares()

    def hold(self, scope: Any, caller: Caller) -> None:
        """Count a stream in until its request is over. Raises TooSoonError where a share is used up.

        A service, which stands for many people behind one address, is counted by its name alone.
        """
        capacity = self._capacity
        if caller.account_id is None:
            limits: dict[Hashable, int] = {caller.name: capacity.streams_per_service}
        else:
            address = read_address(scope.get("client"))
            limits = {caller.name: capacity.streams_per_person, (address,): capacity.streams_per_address}
        limits[_ALL] = capacity.streams
        if not self._shares.take(limits):
            raise errors.TooSoonError(retry_after_s=_COME_BACK_S)
        release_at_end(scope, lambda: self._shares.give_back(limits))

    def __len__(self) -> int:
        """Return how many callers and addresses hold streams (and the whole, as one more)."""
        return len(self._shares)


def release_at_end(scope: Any, release: Any) -> None:
    """Have the gate call `release` when the request is over, however it ends."""
    scope.setdefault("state", {}).setdefault("held", []).append(release)


def release_held(scope: Any) -> None:
    """Give back what a request held."""
    for release in scope.get("state", {}).pop("held", ()):
        release()


def read_address(client: Any) -> str:
    """Return a client's address; of IPv6 the /64 network, since one client has a whole one.

    A trusted proxy may pass on what is no address: that stands for itself, cut short.
    """
    host = (client[0] if client else "")[:_ADDRESS_LONGEST]
    if ":" not in host or "%" in host:
        return host
    try:
        return str(ip_network((host, 64), strict=False))
    except ValueError:
        return host


class TrustedProxies:
    """The proxies whose word is taken for where a request comes from: their own addresses stand for many people."""

    def __init__(self, listed: str) -> None:
        """`listed`: addresses and networks with commas between, or `*` for all; anything else is nobody's address."""
        self._all = listed.strip() == "*"
        self._networks = []
        for one in listed.split(","):
            try:
                self._networks.append(ip_network(one.strip(), strict=False))
            except ValueError:  # a name, as of a Unix socket
                continue

    def __contains__(self, host: str) -> bool:
        """Return whether an address is one of theirs."""
        try:
            address = ip_address(host)
        except ValueError:
            return self._all
        return self._all or any(address in network for network in self._networks)
