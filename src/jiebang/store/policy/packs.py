"""The versions of policy in the platform's database: their texts, activations, and which is in force since when."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from jiebang.store.postgres.named_sql import columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.policy", "packs.sql")


class StoredPack(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one policy as it was added. `pack`: name and version, as in `wechat/2`."""

    pack: str
    name: str
    version: int
    text: str
    sha256: bytes
    added_by: str
    added_at: datetime


class NewPack(msgspec.Struct, frozen=True):
    """A version to add."""

    name: str
    version: int
    text: str


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """The one row that every process reads: `pack` is in force from `in_force_since` on, `before` until then."""

    revision: int
    activation_no: int
    pack: str
    in_force_since: datetime
    before: str
    shadow: str | None = None
    shadow_by: str | None = None
    shadow_since: datetime | None = None

    def at(self, now: datetime) -> str:
        """Return the version in force at `now`."""
        return self.pack if now >= self.in_force_since else self.before


class Activation(msgspec.Struct, frozen=True, kw_only=True):
    """One change of policy, or the proposal of one. `replaces`: the number of the activation before."""

    activation_no: int
    pack: str
    action: str
    proposed_by: str
    proposed_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None
    in_force_since: datetime | None = None
    lapsed_at: datetime | None = None
    replaces: int | None = None


class ShadowCount(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one code in one segment. Empty `code`: checks with any blocker at all."""

    shadow: str
    live: str
    kind: str
    segment: str
    code: str
    checks: int
    in_both: int
    only_live: int
    only_shadow: int


def _build_activation(row: asyncpg.Record | None) -> Activation | None:
    return None if row is None else Activation(**row)


async def load_state(db: Database, *, lock: bool = False) -> PolicyState | None:
    """Return the state of policy; None before the first activation. With `lock`, locked until the transaction ends."""
    row = await db.fetchrow(_SQL["lock_state" if lock else "read_state"])
    return None if row is None else PolicyState(**row)


async def add(db: Database, packs: Sequence[NewPack], by: str, now: datetime) -> set[str]:
    """Add versions; return those that are new. An existing one stays as it is."""
    rows = await db.fetch(
        _SQL["insert_packs"],
        *columns(packs, "name", "version", "text"),
        by,
        now,
    )
    if rows:
        await db.execute(_SQL["touch_state"])
    return {row["pack"] for row in rows}


async def load_others(db: Database, known: Iterable[str] = ()) -> list[StoredPack]:
    """Return every version but those of `known`."""
    return [StoredPack(**row) for row in await db.fetch(_SQL["load_packs"], sorted(known))]


async def install(db: Database, pack: str, by: str, now: datetime) -> bool:
    """Put the first version in force, where none is yet; return whether this call did."""
    if not await db.fetchval(_SQL["first_state"], pack, now):
        return False
    await db.execute(_SQL["first_activation"], pack, by, now)
    return True


async def touch(db: Database) -> None:
    """Have every process read again what it knows of policy. The caller holds the lock of the state."""
    await db.execute(_SQL["touch_state"])


async def load_proposal(db: Database, pack: str) -> Activation | None:
    """Return the open proposal of a version."""
    return _build_activation(await db.fetchrow(_SQL["open_proposal"], pack))


async def load_activation(db: Database, number: int) -> Activation | None:
    """Return one activation."""
    return _build_activation(await db.fetchrow(_SQL["load_activation"], number))


async def propose(db: Database, pack: str, by: str, now: datetime) -> Activation:
    """Record a proposal to activate a version. The caller holds the lock of the state."""
    number: int = await db.fetchval(_SQL["next_activation"])
    await db.execute(_SQL["propose"], number, pack, by, now)
    return Activation(activation_no=number, pack=pack, action="activate", proposed_by=by, proposed_at=now)


async def approve(db: Database, proposed: Activation, by: str, now: datetime, since: datetime, replaces: int) -> None:
    """Put a proposal in force from `since` on, in place of activation `replaces`. The caller holds the lock."""
    await db.execute(_SQL["approve"], proposed.activation_no, by, now, since, replaces)
    await _put_in_force(db, proposed.activation_no, proposed.pack, now, since)


async def roll_back(db: Database, to: Activation, by: str, now: datetime, since: datetime) -> None:
    """Put the version of an earlier activation in force again from `since` on. The caller holds the lock."""
    number: int = await db.fetchval(_SQL["next_activation"])
    await db.execute(_SQL["roll_back"], number, to.pack, by, now, since, to.replaces)
    await _put_in_force(db, number, to.pack, now, since)


async def _put_in_force(db: Database, number: int, pack: str, now: datetime, since: datetime) -> None:
    await db.execute(_SQL["in_force"], number, pack, since)
    await db.execute(_SQL["lapse_proposals"], number, now)


async def load_history(db: Database, limit: int) -> list[Activation]:
    """Return the last changes of policy, including proposals, the newest first."""
    return [Activation(**row) for row in await db.fetch(_SQL["history"], limit)]


async def set_shadow(db: Database, pack: str | None, by: str | None, now: datetime | None) -> None:
    """Run a version in shadow, with all counts at zero; all None: run none."""
    if pack is not None:
        await db.execute(_SQL["forget_shadow"], pack)
    await db.execute(_SQL["set_shadow"], pack, by, now)


async def add_counts(db: Database, counts: Sequence[ShadowCount]) -> None:
    """Add counts. In key order, so that concurrent processes do not deadlock."""
    ordered = sorted(counts, key=lambda count: (count.shadow, count.live, count.kind, count.segment, count.code))
    await db.execute(_SQL["count_shadow"], *columns(ordered, *ShadowCount.__struct_fields__))


async def load_counts(db: Database, shadow: str) -> list[ShadowCount]:
    """Return all counts of one version in shadow."""
    return [ShadowCount(**row) for row in await db.fetch(_SQL["read_shadow"], shadow)]
