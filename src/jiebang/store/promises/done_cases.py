"""Cases that are done, as their promises are observed; and the notices that were promised with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Kind
from jiebang.store.postgres.named_sql import key_columns, load

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.promises", "done_cases.sql")
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


class DoneCase(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A case that is done. `plan`: the pack that it follows. `begun_at`: when it was opened.

    `remade`: a recovery made it again. When it was opened is lost then, and `begun_at` is long ago.
    """

    account_id: int
    case_no: int
    kind: Kind
    plan: str
    begun_at: datetime
    ended_at: datetime
    remade: bool = False

    @property
    def key(self) -> Key:
        """The case's key: (account_id, case_no)."""
        return (self.account_id, self.case_no)


class NoticeTimes(msgspec.Struct, frozen=True, gc=False):
    """A notice about a case. `queued_at`: None where there is none; `delivered_at`: None until then."""

    queued_at: datetime | None
    delivered_at: datetime | None


async def load_done(db: Database, accounts: Collection[int]) -> list[DoneCase]:
    """Return all cases of `accounts` that are done, in key order."""
    rows = await db.fetch(_SQL["done_of_accounts"], sorted(accounts))
    cases = []
    for account_id, case_no, kind, plan, created_at, ended_at, versions in rows:
        remade = not any(versions)  # only a recovery saves a case without the versions that its re-check read
        cases.append(
            DoneCase(
                account_id=account_id,
                case_no=case_no,
                kind=Kind(kind),
                plan=plan,
                begun_at=_LONG_AGO if remade else created_at,
                ended_at=ended_at,
                remade=remade,
            )
        )
    return cases


async def load_notices(
    db: Database, keys: Sequence[Key], templates: Collection[str]
) -> dict[tuple[int, int, str], NoticeTimes]:
    """Return the last notice of each template about each case, by account, number and template."""
    rows = await db.fetch(_SQL["notices"], *key_columns(keys), sorted(templates))
    return {
        (row["account_id"], row["case_no"], row["template"]): NoticeTimes(row["created_at"], row["delivered_at"])
        for row in rows
    }
