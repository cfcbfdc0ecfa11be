"""Messages that were given up: list them, and send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.store.operations import outbox
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.store.operations.outbox import DeadMessage
    from jiebang.store.postgres.pool import Database


async def list_dead(pool: Database, limit: int) -> list[DeadMessage]:
    """Return up to `limit` messages that were given up, the longest ago first."""
    return await outbox.load_dead(pool, limit)


async def replay(
    pool: Database, ids: Sequence[str] | None, by: str, now: datetime, limit: int
) -> tuple[list[str], list[str]]:
    """Queue given-up messages again: those of `ids`, or any (None), the longest ago first, up to `limit`.

    Returns the ids that were queued, and those that name no such message. They go before whatever is queued later for
    their addressees, and count their tries anew; who replayed them is recorded. Raises InvalidInputError without a
    name, and for what is no message id.
    """
    require_text("by", by)
    wanted = None if ids is None else [_parse(one) for one in ids]
    done = [str(one) for one in await outbox.replay(pool, wanted, by, now, limit)]
    return sorted(done), sorted({str(one) for one in wanted or ()} - set(done))


def _parse(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        reason = Text("不是消息编号", "this is no message id")
        raise InvalidInputError(field="ID", reason=reason) from None
