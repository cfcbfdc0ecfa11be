"""The data keys, in the database that no backup holds: wrapping, queueing and destroying them, a page at a time."""

from __future__ import annotations

from datetime import date, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.check import Text
from jiebang.store.postgres.named_sql import columns, load
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, OwnedKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.retention", "data_keys.sql")
PAGE: Final = 1_000
"""Most keys in a statement."""


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """What stands of one data key.

    `destroy_at`: the latest time at which the master's wrap is to be destroyed (None: in use); `destroyed_at`: when it
    was. `kept_under`: the basis by which law keeps the retained wrap; `last_day`: on which it does;
    `retention_ends_at`: the end of that day (None beside `destroy_at`: not determined); `retention_ended_at`: when it
    was destroyed. `held_at`: since when an operator holds it.
    """

    account_id: int
    epoch: int
    made_at: datetime
    destroy_at: datetime | None = None
    destroyed_at: datetime | None = None
    is_retained: bool = False
    kept_under: str | None = None
    last_day: date | None = None
    retention_ends_at: datetime | None = None
    retention_ended_at: datetime | None = None
    held_at: datetime | None = None


class RetentionBasis(msgspec.Struct, frozen=True, kw_only=True):
    """Why law keeps something: `basis` names the retention, as in `wechat/2 IDENTITY-AML`."""

    basis: str
    law: Text
    purpose: Text
    time_zone: str


class EndedIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """An identity that ended. `reclaimed`: taken back; else it was swapped for the one of `epoch`."""

    account_id: int
    epoch: int
    reclaimed: bool
    destroy_at: datetime
    kept_under: str | None = None
    last_day: date | None = None
    ends_at: datetime | None = None


class Overdue(msgspec.Struct, frozen=True):
    """How many keys are late, and since when the first of them is."""

    keys: int
    oldest_at: datetime | None


async def load_states(db: Database, accounts: Collection[int]) -> list[KeyState]:
    """Return what stands of the keys of accounts, in key order."""
    return [KeyState(**row) for row in await db.fetch(_SQL["keys_of_accounts"], sorted(set(accounts)))]


async def load_unretained(db: Database, after: tuple[int, int], limit: int = PAGE) -> list[OwnedKey]:
    """Return the next master's wraps of keys without a second lock, after an account and epoch."""
    return [OwnedKey(*row) for row in await db.fetch(_SQL["unretained_keys"], *after, limit)]


async def retain(db: Database, wraps: Sequence[OwnedKey], mark: bytes) -> None:
    """Put the second lock on keys that have none. `mark`: of the retention key."""
    await db.execute(_SQL["retain_keys"], *columns(wraps, "account_id", "epoch", "value"), mark)


async def read_progress(db: Database) -> datetime | None:
    """Return until when ended cases were read; None: none were."""
    found: datetime | None = await db.fetchval(_SQL["read_progress"])
    return found


async def note_progress(db: Database, ended_until: datetime) -> None:
    """Note until when ended cases were read."""
    await db.execute(_SQL["note_progress"], ended_until)


async def add_bases(db: Database, bases: Collection[RetentionBasis]) -> None:
    """Keep why law keeps something; what is kept already stays as it is."""
    ordered = sorted(bases, key=attrgetter("basis"))
    await db.execute(
        _SQL["add_bases"],
        [each.basis for each in ordered],
        [each.law.zh for each in ordered],
        [each.law.en for each in ordered],
        [each.purpose.zh for each in ordered],
        [each.purpose.en for each in ordered],
        [each.time_zone for each in ordered],
    )


async def queue(db: Database, ended: Sequence[EndedIdentity]) -> None:
    """Queue the keys of identities that ended; one that is queued already keeps its time."""
    fields = ("account_id", "epoch", "reclaimed", "destroy_at", "kept_under", "last_day", "ends_at")
    await db.execute(_SQL["queue_keys"], *columns(sorted(ended, key=attrgetter("account_id")), *fields))


async def load_undetermined(db: Database, after: int, limit: int = PAGE) -> list[int]:
    """Return the next accounts, after one, with keys of which it is not determined until when law keeps them."""
    return [row["account_id"] for row in await db.fetch(_SQL["undetermined_accounts"], after, limit)]


async def destroy_queued(db: Database, now: datetime, limit: int = PAGE) -> list[tuple[int, int, datetime]]:
    """Destroy master's wraps that are queued; return account, epoch and the latest time it was to be done, of each."""
    return [tuple(row) for row in await db.fetch(_SQL["destroy_keys"], now, limit)]


async def end_retentions(db: Database, now: datetime, limit: int = PAGE) -> list[tuple[int, int]]:
    """Destroy the retained wraps whose time has ended; return account and epoch of each."""
    return [tuple(row) for row in await db.fetch(_SQL["end_retentions"], now, limit)]


async def count_overdue(db: Database, before: datetime) -> tuple[Overdue, Overdue]:
    """Count the keys, and the retentions, that were to be destroyed before a time and were not."""
    late = await db.fetchrow(_SQL["overdue_keys"], before)
    kept = await db.fetchrow(_SQL["overdue_retentions"], before)
    return Overdue(*(late or (0, None))), Overdue(*(kept or (0, None)))


class EndingDay(msgspec.Struct, frozen=True, kw_only=True):
    """What ends with one day, of one basis; `held`: how much of it an operator holds."""

    last_day: date
    kept_under: str | None
    keys: int
    held: int


class KeptByBasis(msgspec.Struct, frozen=True, kw_only=True):
    """All that law keeps by one basis, from the first last day to the last."""

    basis: str | None
    keys: int
    first_day: date
    last_day: date
    held: int


async def load_retained_wraps(db: Database, accounts: Collection[int]) -> list[OwnedKey]:
    """Return the retention key's wraps of accounts whose names were taken back."""
    return [OwnedKey(*row) for row in await db.fetch(_SQL["retained_wraps"], sorted(set(accounts)))]


async def hold(db: Database, accounts: Collection[int], since: datetime | None) -> list[tuple[int, int]]:
    """Hold what law keeps of accounts beyond its day; None: let go of it. Return account and epoch of what changed."""
    return [tuple(row) for row in await db.fetch(_SQL["hold_keys"], sorted(set(accounts)), since)]


async def load_ending(db: Database, until: datetime) -> list[EndingDay]:
    """Return what ends until a time, by day and basis."""
    return [EndingDay(**row) for row in await db.fetch(_SQL["ending_by_day"], until)]


async def count_undetermined(db: Database) -> int:
    """Count the keys of which it is not determined until when law keeps them."""
    return int(await db.fetchval(_SQL["count_undetermined"]))


async def load_kept(db: Database) -> list[KeptByBasis]:
    """Return all that law keeps, by basis."""
    return [KeptByBasis(**row) for row in await db.fetch(_SQL["kept_by_basis"])]


async def load_bases(db: Database) -> list[RetentionBasis]:
    """Return why law keeps something, by name."""
    return [
        RetentionBasis(
            basis=row["basis"],
            law=Text(row["law_zh"], row["law_en"]),
            purpose=Text(row["purpose_zh"], row["purpose_en"]),
            time_zone=row["time_zone"],
        )
        for row in await db.fetch(_SQL["list_bases"])
    ]


_WRAPS: Final = {
    MASTER: ("wraps_of_other_masters", "replace_master_wraps"),
    RETENTION: ("wraps_of_other_retentions", "replace_retention_wraps"),
}


async def load_other_wraps(
    db: Database, name: str, mark: bytes, after: tuple[int, int], limit: int = PAGE
) -> list[OwnedKey]:
    """Return the next wraps that another MASTER or RETENTION key made than the one of a mark."""
    return [OwnedKey(*row) for row in await db.fetch(_SQL[_WRAPS[name][0]], *after, mark, limit)]


async def replace_wraps(db: Database, name: str, mark: bytes, wraps: Sequence[OwnedKey]) -> None:
    """Put new wraps, made by the key of a mark, in the place of old ones."""
    await db.execute(_SQL[_WRAPS[name][1]], *columns(wraps, "account_id", "epoch", "value"), mark)
