"""People with a key under both locks, whose names are taken back: what tests of keys share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jiebang.model.case import Kind, State
from jiebang.participants import PARTICIPANTS
from jiebang.participants.identity.reclaimed import ReclaimedIdentityTable
from jiebang.policy import packs
from jiebang.store.encryption import SealedIdentity, seal, unseal
from jiebang.store.retention import data_keys
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, FileWrappingKey, KeyLocks, OwnedKey, WrappingKey
from jiebang.usecases.policy import lifecycle
from jiebang.usecases.policy.registry import PackRegistry
from jiebang.usecases.retention.destroy import KeyDestruction
from tests.rows import insert, insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

ENDED = datetime(2026, 2, 28, 15, 59, tzinfo=UTC)
"""One minute before midnight in Shanghai."""
LATER = ENDED + timedelta(minutes=3)
LOCKS = KeyLocks(
    master=FileWrappingKey(MASTER, b"m" * 32, os.urandom), retention=FileWrappingKey(RETENTION, b"r" * 32, os.urandom)
)
CENTRES = ("identity_shenzhen", "identity_guiyang")
HELD = frozenset({0})
CASE: Mapping[str, Any] = {
    "account_id": 1, "case_no": 1, "kind": Kind.REVOKE, "state": State.DONE, "ended_at": ENDED
}  # fmt: skip
NAME = SealedIdentity("王小明", "440305199005170011")


class Cut(ReclaimedIdentityTable):
    """A data centre that does not answer."""

    async def retain_sealed(self, _accounts: Any, _now: datetime) -> None:
        raise TimeoutError


class World:
    """The databases of an installation, its packs, and people with a key under both locks."""

    def __init__(self, pools: Mapping[str, Pool], registry: PackRegistry) -> None:
        self.pools, self.registry = pools, registry

    @property
    def keys(self) -> Pool:
        return self.pools["keys"]

    def chore(self, *, cut: Sequence[str] = (), page: int = 1_000) -> KeyDestruction:
        identities = {name: (Cut if name in cut else ReclaimedIdentityTable)(self.pools[name]) for name in CENTRES}
        return KeyDestruction(
            platform=self.pools["platform"], keys=self.keys, identities=identities, registry=self.registry, page=page
        )

    async def bind(self, accounts: Sequence[int], *, locks: int = 2, epoch: int = 1) -> None:
        """Give accounts an identity, sealed under a key of their own; with one lock alone, as it was before."""
        made = [OwnedKey(account, epoch, os.urandom(32)) for account in accounts]
        locked = LOCKS.lock(made)
        rows = [
            {"account_id": one.account_id, "epoch": epoch, "wrapped": one.wrapped, "wrapped_by": one.wrapped_by}
            | {"retained": one.retained if locks == 2 else None, "retained_by": None, "made_at": ENDED}
            for one in locked
        ]
        await insert(self.keys, "keys.data_key", rows)
        if epoch > 1:
            return
        await insert(
            self.pools["platform"], "platform.account", [{"account_id": each, "created_at": ENDED} for each in accounts]
        )
        for name in CENTRES:
            await insert_accounts(self.pools[name], "identity", accounts)
            for one in made:
                await self.pools[name].execute(
                    "UPDATE identity.account SET sealed = $2 WHERE account_id = $1",
                    one.account_id,
                    seal(one.value, NAME, one.account_id, epoch, bytes(12)),
                )

    async def reclaim(self, accounts: Sequence[int], *, at: Sequence[str] = CENTRES) -> None:
        for name in at:
            await self.pools[name].execute(
                """UPDATE identity.account SET state = 'reclaimed', level = 0, document_type = NULL,
                       document_index = NULL, birth_date = NULL, changed_at = $2::timestamptz,
                       key_destroy_at = $2::timestamptz + interval '5 min'
                   WHERE account_id = ANY ($1)""",
                accounts,
                ENDED,
            )

    async def end_cases(
        self,
        accounts: Sequence[int],
        *,
        plan: str = "wechat/2",
        kind: str = "revoke",
        at: datetime = ENDED,
        no: int = 1,
    ) -> None:
        row = {"bucket": 1, "kind": kind, "state": "done", "plan": plan, "marks": "d", "versions": [1]}
        rows = [
            {"account_id": each, "case_no": no, "created_at": at, "deadline": at, "ended_at": at, **row}
            for each in accounts
        ]
        await insert(self.pools["platform"], "platform.cases", rows)

    async def take_back(self, accounts: Sequence[int], **case: Any) -> None:
        await self.bind(accounts)
        await self.reclaim(accounts)
        await self.end_cases(accounts, **case)

    async def one(self, account: int) -> data_keys.KeyState:
        [found] = await data_keys.load_states(self.keys, [account])
        return found

    async def read_with(self, lock: WrappingKey, column: str, account: int) -> str | None:
        """The name that a lock still opens."""
        wrap = await self.keys.fetchval(f"SELECT {column} FROM keys.data_key WHERE account_id = $1", account)  # noqa: S608
        if wrap is None:
            return None
        [key] = lock.unwrap([OwnedKey(account, 1, wrap)])
        assert key is not None
        sealed = await self.pools["identity_guiyang"].fetchval(
            "SELECT sealed FROM identity.account WHERE account_id = $1", account
        )
        return unseal(key, sealed, account, 1).name


async def open_world(pools: Mapping[str, Pool]) -> World:
    """Empty the databases, install the shipped packs, and return the world."""
    for name in ("platform", "keys", *CENTRES):
        for row in await pools[name].fetch(
            """SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
               WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'schema_migration'"""
        ):
            await pools[name].execute(f"TRUNCATE {row[0]}")
    shipped = {name: packs.text(name) for name in packs.NAMES}
    await lifecycle.install(pools["platform"], PARTICIPANTS, shipped, "wechat", ENDED)
    registry = PackRegistry(pools["platform"], PARTICIPANTS, lambda: LATER)
    await registry.refresh()
    return World(pools, registry)


async def turn(chore: KeyDestruction, now: datetime = LATER) -> None:
    while await chore.turn(now):
        pass
