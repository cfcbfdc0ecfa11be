"""Messages to everybody who is told: written with what caused them, delivered at least once, in order per addressee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from jiebang.model.case import bucket_of
from jiebang.model.notice import AddresseeKind, bucket_of_addressee
from jiebang.store.postgres.named_sql import columns, load

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.operations", "outbox.sql")


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to one addressee: the person of `account_id`, or an organisation, named by `addressee` in its kind.

    `template` names a text of the pack; `params` fill it and contain no code and nothing of a person. `delivered`,
    `dead`: it is settled, and only waits until the others are told (`spread`), which the message that a case is done
    causes.
    """

    account_id: int
    message_id: UUID
    case_no: int
    template: str
    params: Mapping[str, Any]
    created_at: datetime
    attempt: int = 0
    addressee_kind: AddresseeKind = AddresseeKind.PERSON
    addressee: str = ""
    delivered: bool = False
    spread: bool = False
    dead: bool = False

    @property
    def key(self) -> tuple[int, UUID]:
        """The message's key: (account_id, message_id). A receiver drops repeats by it."""
        return (self.account_id, self.message_id)

    @property
    def bucket(self) -> int:
        """The bucket whose worker delivers it: of the account, or of the organisation."""
        if self.addressee_kind is AddresseeKind.PERSON:
            return bucket_of(self.account_id)
        return bucket_of_addressee(self.addressee_kind, self.addressee)

    @property
    def lane(self) -> tuple[AddresseeKind, str]:
        """Whose messages it stands among: of one lane they are sent in order."""
        return (self.addressee_kind, self.addressee or str(self.account_id))


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message. `again_at`: when to try again; None: nothing is left to do."""

    key: tuple[int, UUID]
    delivered: bool = False
    spread: bool = False
    dead_code: str | None = None
    again_at: datetime | None = None


class DeadMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up: `dead_code` says why. `replayed_by`: who last queued it again, if anybody did."""

    account_id: int
    message_id: UUID
    case_no: int
    template: str
    addressee_kind: AddresseeKind
    addressee: str
    created_at: datetime
    attempt: int
    dead_at: datetime
    dead_code: str
    replayed_by: str | None
    replayed_at: datetime | None


async def insert(db: Database, messages: Sequence[OutboxMessage], now: datetime) -> None:
    """Queue `messages`, due at once. An existing message is left as it is."""
    ordered = sorted(messages, key=lambda message: message.key)
    await db.execute(
        _SQL["insert_messages"],
        *columns(ordered, "account_id", "message_id", "bucket", "case_no", "template"),
        [msgspec.json.encode(message.params).decode() for message in ordered],
        *columns(ordered, "addressee_kind", "addressee", "created_at"),
        now,
    )


async def load_due(db: Database, buckets: Sequence[int], now: datetime, limit: int) -> list[OutboxMessage]:
    """Return up to `limit` due messages of `buckets`, the oldest first; none before an older one of its addressee."""
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
            addressee_kind=AddresseeKind(row["addressee_kind"]),
            addressee=row["addressee"],
            delivered=row["delivered"],
            spread=row["spread"],
            dead=row["dead"],
        )
        for row in rows
    ]


async def settle(db: Database, settlements: Sequence[Settlement], now: datetime) -> None:
    """Record what became of messages, in one statement. One to be tried again has its attempt counted."""
    ordered = sorted(settlements, key=lambda one: one.key)
    await db.execute(
        _SQL["settle_messages"],
        [one.key[0] for one in ordered],
        [one.key[1] for one in ordered],
        *columns(ordered, "delivered", "spread", "dead_code", "again_at"),
        now,
    )


async def hold(db: Database, until: Mapping[tuple[AddresseeKind, str], datetime], since: datetime) -> None:
    """Put off all that waits for organisations, by kind and id, to the time given for each, in the order it has.

    `since`: a time about which the oldest of it was queued.
    """
    lanes = sorted(until)
    await db.execute(
        _SQL["hold_addressees"],
        [lane[0] for lane in lanes],
        [lane[1] for lane in lanes],
        [until[one] for one in lanes],
        since,
    )


async def load_dead(db: Database, limit: int) -> list[DeadMessage]:
    """Return up to `limit` messages that were given up, the oldest first."""
    rows = await db.fetch(_SQL["dead_messages"], limit)
    return [msgspec.convert(dict(row), DeadMessage, builtin_types=(datetime, UUID)) for row in rows]


async def count_dead(db: Database, most: int) -> int:
    """Count the messages that were given up, up to `most`."""
    count: int = await db.fetchval(_SQL["count_dead"], most)
    return count


async def replay(db: Database, ids: Sequence[UUID] | None, by: str, now: datetime, limit: int) -> list[UUID]:
    """Queue given-up messages again, due at once: those of `ids`, or any (None), up to `limit`; return which."""
    rows = await db.fetch(_SQL["replay_messages"], None if ids is None else sorted(ids), now, by, limit)
    return [row["message_id"] for row in rows]
