"""Controls one of the sandbox's clearing networks: load bindings, switch faults, read its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from jiebang.model.errors import JiebangError
from jiebang.remote import wire
from jiebang.remote.client import RemoteError, SignedClient
from jiebang.sandbox.faults import NetworkFault
from jiebang.sandbox.ledger import MAX_BINDINGS, AccountState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.remote.signing import Link
    from jiebang.sandbox.ledger import Binding

T = TypeVar("T")
_STATES: Final = 256
"""Accounts whose state is asked for at once, so that the answer stays below the body limit."""


class _Busy(msgspec.Struct):
    busy: list[str]


class _States(msgspec.Struct):
    accounts: list[AccountState]


class _Faults(msgspec.Struct):
    faults: list[NetworkFault]


class Control:
    """One network, from outside the saga. All methods raise RemoteError or TimeoutError when it does not answer."""

    def __init__(self, link: Link, *, limit: float = 10.0) -> None:
        """`limit`: seconds a request may take."""
        self.name = link.name
        self._client = SignedClient(link, limit=limit)

    async def bind(self, bindings: Sequence[Binding]) -> list[int]:
        """Bring bindings into force, 2,000 a request. Returns accounts left unchanged, within a case."""
        busy = list[int]()
        for at in range(0, len(bindings), MAX_BINDINGS):
            body = msgspec.json.encode({"bindings": bindings[at : at + MAX_BINDINGS]})
            busy += map(int, self._read(await self._client.send("PUT", "/sandbox/bindings", body), _Busy).busy)
        return busy

    async def faults(self) -> list[NetworkFault]:
        """Read the faults switched on, counted ones with what is left of them."""
        return self._read(await self._client.send("GET", "/sandbox/faults"), _Faults).faults

    async def set_faults(self, faults: Sequence[NetworkFault]) -> None:
        """Replace all faults; an empty sequence switches all off."""
        await self._client.send("PUT", "/sandbox/faults", msgspec.json.encode({"faults": faults}))

    async def state(self, accounts: Sequence[int]) -> dict[int, AccountState]:
        """Read fence row and bindings of accounts."""
        found = dict[int, AccountState]()
        for at in range(0, len(accounts), _STATES):
            chunk = [str(account) for account in accounts[at : at + _STATES]]
            answer = await self._client.send("POST", "/sandbox/state", msgspec.json.encode(wire.LookBatch(chunk)))
            found |= {int(one.account): one for one in self._read(answer, _States).accounts}
        return found

    def _read(self, answer: bytes, shape: type[T]) -> T:
        try:
            return wire.parse(answer, shape)
        except JiebangError as error:
            raise RemoteError(self.name, "an answer that cannot be read", 200, error.code) from error

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()
