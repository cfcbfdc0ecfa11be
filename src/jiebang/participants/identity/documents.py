"""The documents bound to accounts, as the identity databases know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.identity.reclaimed import ReclaimedIdentityTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_BOUND: Final = """
SELECT a.account_id, coalesce(a.document_index, (
    SELECT c.document_index FROM identity.change c
    WHERE c.account_id = a.account_id ORDER BY c.at DESC, c.change_id DESC LIMIT 1
)) AS document_index
FROM identity.account a
WHERE a.account_id = ANY ($1::bigint[])
"""
_BROUGHT_IN: Final = """
SELECT c.document_index, count(*) AS changes
FROM identity.change c
WHERE c.document_index = ANY ($1::bytea[]) AND c.at >= $2 AND c.at < $3 AND c.case_no IS NULL
    AND (c.kind <> 'bound' OR EXISTS (
        SELECT FROM identity.change f WHERE f.account_id = c.account_id AND (f.at, f.change_id) < (c.at, c.change_id)))
GROUP BY c.document_index
"""


_EPOCHS: Final = """
SELECT a.account_id, a.epoch FROM identity.account a WHERE a.account_id = ANY ($1::bigint[]) AND a.state = 'active'
"""


@runtime_checkable
class DocumentReader(Protocol):
    """Knows the documents bound to accounts, by their blind index, which is never shown or logged."""

    async def bound(self, accounts: Iterable[int]) -> Mapping[int, bytes | None]:
        """Return the document bound to each account, or last bound; None: there never was one."""

    async def brought_in(self, documents: Iterable[bytes], since: datetime, until: datetime) -> Mapping[bytes, int]:
        """Count the changes from `since` to before `until` that bound each document; a document with none is absent."""

    async def read_epochs(self, accounts: Iterable[int]) -> Mapping[int, int]:
        """Return the epoch of each account's identity that is in force; an account without one is absent."""


class IdentityParticipant(DatabaseParticipant):
    """The identity database of one data centre."""

    @property
    def reclaimed(self) -> ReclaimedIdentityTable:
        """Its identities that were taken back."""
        return ReclaimedIdentityTable(self._pool)

    async def bound(self, accounts: Iterable[int]) -> Mapping[int, bytes | None]:
        """Return the document bound to each account, or last bound; None: there never was one."""
        rows = await self._pool.fetch(_BOUND, sorted(set(accounts)))
        return {row["account_id"]: row["document_index"] for row in rows}

    async def brought_in(self, documents: Iterable[bytes], since: datetime, until: datetime) -> Mapping[bytes, int]:
        """Count the changes from `since` to before `until` that bound each document; a document with none is absent.

        An account's first binding is no change; changes made by our own cases are counted by their slots instead.
        """
        rows = await self._pool.fetch(_BROUGHT_IN, sorted(set(documents)), since, until)
        return {row["document_index"]: row["changes"] for row in rows}

    async def read_epochs(self, accounts: Iterable[int]) -> Mapping[int, int]:
        """Return the epoch of each account's identity that is in force; an account without one is absent."""
        rows = await self._pool.fetch(_EPOCHS, sorted(set(accounts)))
        return {row["account_id"]: row["epoch"] for row in rows}
