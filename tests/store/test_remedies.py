"""Remedies at their participants under any order of requests: done once, all or none, and the version tells of each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jiebang.participants.security.logins import LoginConfirmation, SecurityParticipant
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.participants.wallet.movements import WalletAction
from tests.rows import AT, insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

_ids = itertools.count(1)
ITEMS = range(1, 6)
ask = st.tuples(
    st.sampled_from(("end", "open", "return", "confirm")),
    st.integers(0, 3),  # under which of a few ids: repeats and clashes are common
    st.none() | st.sets(st.sampled_from((*ITEMS, 99)), min_size=1),
)


class World:
    """One account with five contracts, red packets and abnormal logins, and what we believe of them."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.account, self.pools = next(_ids), pools
        self.wallet = WalletParticipant(pools["wallet"], lambda: AT, pepper=b"p" * 32)
        self.security = SecurityParticipant(pools["security"], lambda: AT)
        self.left = {what: set(ITEMS) for what in ("contract", "packet", "login")}
        self.done: dict[tuple[str, int], tuple[int, ...]] = {}
        self.raised = {"wallet": 1, "security": 1}
        self.uuids: dict[tuple[str, int], UUID] = {}

    async def made(self) -> World:
        for owner in ("wallet", "security"):
            await insert_accounts(self.pools[owner], owner, [self.account])
        packet = {"sender": "x", "amount_fen": 5, "state": "unclaimed", "sent_at": AT, "expires_at": AT + timedelta(1)}
        login = {"device_id": "d", "place": "p", "at": AT, "anomaly": "odd_hour"}
        rows: list[tuple[str, str, str, Mapping[str, Any]]] = [
            ("wallet", "autodebit_contract", "contract_id", {"merchant": "m", "service": "s", "signed_at": AT}),
            ("wallet", "red_packet", "packet_id", packet),
            ("security", "login", "login_id", login),
        ]
        for owner, table, key, row in rows:
            each = [{"account_id": self.account, key: item, **row} for item in ITEMS]
            await insert(self.pools[owner], f"{owner}.{table}", each)
        return self

    async def act(self, what: str, number: int, items: set[int] | None) -> None:
        """Ask for one remedy and hold its answer to what it must be."""
        kind = {"end": "contract", "confirm": "login"}.get(what, "packet")
        owner = "security" if what == "confirm" else "wallet"
        key = (kind, number)
        remedy = self.uuids.setdefault(key, uuid4())
        chosen = tuple(sorted(self.left[kind] if items is None else items))
        answer, refused = await self._asked(what, remedy, None if items is None else chosen, chosen)
        if key in self.done:
            assert (answer, refused) == (self.done[key], False)
        elif not set(chosen) <= self.left[kind] or (what == "confirm" and not chosen):
            assert refused
        else:
            assert (answer, refused) == (chosen, False)
            if chosen:
                self.done[key] = chosen
                self.left[kind] -= set(chosen)
                self.raised[owner] += 1

    async def _asked(
        self, what: str, remedy: UUID, items: tuple[int, ...] | None, chosen: tuple[int, ...]
    ) -> tuple[tuple[int, ...], bool]:
        if what == "confirm":
            [said] = await self.security.confirm_logins(
                [LoginConfirmation(remedy_id=remedy, account_id=self.account, logins=chosen)]
            )
            return said.logins, said.refusal is not None
        action = WalletAction(entry_id=remedy, account_id=self.account, items=items)
        if what == "end":
            [outcome] = await self.wallet.end_autodebits([action])
        else:
            [outcome] = await self.wallet.open_red_packets([action], give_back=what == "return")
        return outcome.items, outcome.refusal is not None

    async def hold(self) -> None:
        """What the databases say is what we believe."""
        wallet, security = await self.wallet.facts([self.account]), await self.security.facts([self.account])
        found = {
            "contract": wallet.columns["autodebit_items"][0],
            "packet": wallet.columns["unclaimed_red_packet_items"][0],
            "login": security.columns["abnormal_login_items"][0],
        }
        assert {what: {int(item["id"]) for item in items} for what, items in found.items()} == self.left
        assert (wallet.versions[0], security.versions[0]) == (self.raised["wallet"], self.raised["security"])
        assert not (await self.wallet.audit_money([self.account])).wrong


async def test_remedies_are_done_once_all_or_none_and_raise_the_version(pools: Mapping[str, Pool]) -> None:
    """Whatever is asked for in whatever order: a repeat answers as the first time, a wrong id changes nothing."""
    loop = asyncio.get_running_loop()

    async def lived(asks: list[tuple[str, int, set[int] | None]]) -> None:
        world = await World(pools).made()
        for what, number, items in asks:
            await world.act(what, number, items)
        await world.hold()

    @given(st.lists(ask, min_size=1, max_size=10))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def whatever_is_asked(asks: list[tuple[str, int, set[int] | None]]) -> None:
        asyncio.run_coroutine_threadsafe(lived(asks), loop).result()

    await asyncio.to_thread(whatever_is_asked)


async def test_a_batch_does_what_its_members_do_alone(pools: Mapping[str, Pool]) -> None:
    """Twenty accounts in one call: each gets its own answer, a bad one spoils nobody's."""
    worlds = [await World(pools).made() for _ in range(20)]
    wallet, security = worlds[0].wallet, worlds[0].security
    items = [(1,) if number % 2 else (99,) for number in range(20)]
    actions = [
        WalletAction(entry_id=uuid4(), account_id=world.account, items=each)
        for world, each in zip(worlds, items, strict=True)
    ]
    ended = await wallet.end_autodebits(actions)
    assert [outcome.items for outcome in ended] == [(1,) if number % 2 else () for number in range(20)]
    confirmations = [
        LoginConfirmation(remedy_id=uuid4(), account_id=world.account, logins=each)
        for world, each in zip(worlds, items, strict=True)
    ]
    assert [one.logins for one in await security.confirm_logins(confirmations)] == [one.items for one in ended]
    assert [one.logins for one in await security.confirm_logins(confirmations)] == [one.items for one in ended]
