"""Messages to people: written with what caused them, delivered at least once."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from jiebang.model.case import bucket_of
from jiebang.store.postgres.named_sql import columns, key_columns, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "outbox.sql")


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to one person. `template` names a text of the pack; `params` fill it and contain no code or name."""

    account_id: int
    message_id: UUID
    case_no: int
    template: str
    params: Mapping[str, Any]
    created_at: datetime
    attempt: int = 0

    @property
    def key(self) -> tuple[int, UUID]:
        """The message's key: (account_id, message_id). A receiver drops repeats by it."""
        return (self.account_id, self.message_id)


async def insert(db: Database, messages: Sequence[OutboxMessage], now: datetime) -> None:
    """Queue `messages`, due at once. An existing message is left as it is."""
    await db.execute(
        _SQL["insert_messages"],
        *columns(messages, "account_id", "message_id"),
        [bucket_of(message.account_id) for message in messages],
        *columns(messages, "case_no", "template"),
        [msgspec.json.encode(message.params).decode() for message in messages],
        now,
    )


async def load_due(db: Database, buckets: Sequence[int], now: datetime, limit: int) -> list[OutboxMessage]:
    """Return up to `limit` due messages of `buckets`, the oldest first."""
    rows = await db.fetch(_SQL["due_messages"], sorted(buckets), now, limit)
    return [
        OutboxMessage(
            account_id=row["account_id"],
            message_id=row["message_id"],
            case_no=row["case_no"],
            template=row["template"],
            params=msgspec.json.decode(row["params"]),
            created_at=row["created_at"],
            attempt=row["attempt"],
        )
        for row in rows
    ]


async def mark_delivered(db: Database, keys: Sequence[tuple[int, UUID]], now: datetime) -> None:
    """Mark messages as delivered."""
    await db.execute(_SQL["mark_delivered"], *key_columns(keys), now)


async def postpone(db: Database, due_at: Mapping[tuple[int, UUID], datetime]) -> None:
    """Postpone messages to the time given for each, and count the attempt."""
    keys = sorted(due_at)
    await db.execute(_SQL["postpone_messages"], *key_columns(keys), [due_at[key] for key in keys])
