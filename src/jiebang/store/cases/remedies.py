"""Remedies carried out on the spot to clear a blocker, and step-ups: remedies that wait for a proof first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from jiebang.model.origin import Origin
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.cases", "remedies.sql")


class RemedyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One remedy: the rule `code` that it clears, the `action` requested, and its outcome.

    `outcome`: `items`, the ids of what it cleared, and `amount_fen` where money moved; None until done.
    """

    account_id: int
    remedy_id: UUID
    code: str
    action: str
    begun_at: datetime
    done_at: datetime | None = None
    outcome: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[int, UUID]:
        """The remedy's key: (account_id, remedy_id)."""
        return (self.account_id, self.remedy_id)


class StepUp(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy that waits for a proof. `what`: the ids it clears; `wrong`: wrong tries so far.

    `device_id`, `by_service`: who asked for it, as in `Origin`.
    """

    account_id: int
    remedy_id: UUID
    code: str
    kind: str
    what: tuple[str, ...]
    nonce: bytes
    created_at: datetime
    expires_at: datetime
    device_id: str | None = None
    wrong: int = 0
    used_at: datetime | None = None
    ended_at: datetime | None = None
    by_service: bool = False

    @property
    def origin(self) -> Origin:
        """Who asked for it."""
        return Origin(self.device_id, self.by_service)


async def begin(db: Database, begun: Sequence[RemedyRecord]) -> None:
    """Record remedies before they are carried out; all of a batch begin at the same time. A repeat changes nothing."""
    if begun:
        await db.execute(
            _SQL["begin_remedies"],
            *columns(begun, "account_id", "remedy_id", "code", "action"),
            begun[0].begun_at,
        )


async def finish(db: Database, outcomes: Mapping[tuple[int, UUID], Mapping[str, Any]], now: datetime) -> None:
    """Record the outcomes of remedies, by key; the first outcome recorded stays."""
    keys = sorted(outcomes)
    await db.execute(
        _SQL["finish_remedies"],
        *key_columns(keys),
        [msgspec.json.encode(outcomes[key]).decode() for key in keys],
        now,
    )


async def drop(db: Database, keys: Iterable[tuple[int, UUID]]) -> None:
    """Delete remedies that were refused before anything was done."""
    await db.execute(_SQL["drop_remedies"], *key_columns(keys))


async def load_of_accounts(db: Database, accounts: Iterable[int]) -> dict[int, list[RemedyRecord]]:
    """Return every remedy of each account, the oldest first."""
    remedies: defaultdict[int, list[RemedyRecord]] = defaultdict(list)
    for row in await db.fetch(_SQL["remedies_of"], sorted(set(accounts))):
        outcome = None if row["outcome"] is None else msgspec.json.decode(row["outcome"])
        remedies[row["account_id"]].append(RemedyRecord(**{**row, "outcome": outcome}))
    return dict(remedies)


async def lock(db: Database, accounts: Iterable[int]) -> set[int]:
    """Lock the accounts until the transaction ends; return those that exist."""
    return {row["account_id"] for row in await db.fetch(_SQL["lock_accounts"], sorted(set(accounts)))}


async def insert_step_ups(db: Database, asked: Sequence[StepUp], now: datetime) -> None:
    """Record step-ups, each replacing its account's earlier one under the same rule."""
    await db.execute(
        _SQL["insert_step_ups"],
        *columns(asked, "account_id", "remedy_id", "code", "kind"),
        [msgspec.json.encode(one.what).decode() for one in asked],
        *columns(asked, "nonce", "device_id", "expires_at"),
        now,
        *columns(asked, "by_service"),
    )


async def load_step_ups(db: Database, accounts: Iterable[int], code: str, since: datetime) -> dict[int, list[StepUp]]:
    """Return the step-ups under rule `code` that each account requested since a time, the newest first."""
    step_ups: defaultdict[int, list[StepUp]] = defaultdict(list)
    for row in await db.fetch(_SQL["step_ups_of"], sorted(set(accounts)), code, since):
        step_ups[row["account_id"]].append(StepUp(**{**row, "what": tuple(row["what"])}))
    return dict(step_ups)


async def save_step_ups(db: Database, step_ups: Sequence[StepUp]) -> None:
    """Write back `wrong` and `used_at`, changed while the accounts were locked."""
    await db.execute(
        _SQL["save_step_ups"],
        *columns(step_ups, "account_id", "remedy_id", "wrong", "used_at"),
    )
