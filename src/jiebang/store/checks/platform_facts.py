"""What a check needs of the platform's own database: an account's live case and consents, and who is out of service."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from jiebang.store.postgres.named_sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiebang.store.postgres.pool import Database

_SQL = load("jiebang.store.checks", "platform_facts.sql")


class StandingConsent(msgspec.Struct, frozen=True):
    """A consent that was not taken back: rule, ids it covers (none: the whole), its case (None: any), time given."""

    code: str
    what: tuple[str, ...]
    case_no: int | None
    at: str


class PlatformFacts(msgspec.Struct, frozen=True):
    """What the platform knows of an account: the number of its live case, if it has one, and its standing consents.

    `out`: the participants out of service, each with the time since when (RFC 3339); the same for every account.
    """

    case_no: int | None
    consents: tuple[StandingConsent, ...] = ()
    out: Mapping[str, str] = MappingProxyType({})

    def agreed(self, case_no: int | None) -> list[dict[str, str | None]]:
        """Return the items of the fact `consents` for a check made for case `case_no` (None: for none yet)."""
        return [
            {"code": consent.code, "item": item, "at": consent.at}
            for consent in self.consents
            if consent.case_no in (None, case_no)
            for item in consent.what or (None,)
        ]


async def read(db: Database, accounts: Iterable[int]) -> dict[int, PlatformFacts]:
    """Return the platform's facts of those of `accounts` that exist, by account."""
    rows = await db.fetch(_SQL["read_accounts"], sorted(set(accounts)))
    out = msgspec.json.decode(rows[0]["out"], type=dict[str, str]) if rows and rows[0]["out"] else {}
    return {
        row["account_id"]: PlatformFacts(
            row["case_no"],
            msgspec.json.decode(row["consents"], type=tuple[StandingConsent, ...]) if row["consents"] else (),
            out,
        )
        for row in rows
    }
