"""The yearly quota of documents: slots that cases claim, keep or release, and refusals that start a cooling-off.

A slot is a row keyed by document, year and number, so that the primary key refuses a claim too many, however many are
made at once. Documents are identified by their blind index throughout.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.case import Case, Slot
from jiebang.store.postgres.named_sql import columns, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import asyncpg

    from jiebang.model.case import Key
    from jiebang.store.postgres.pool import Database, Pool

_SQL = load("jiebang.store.checks", "quota.sql")


class DocumentUse(msgspec.Struct, frozen=True):
    """A document, and the case for which its quota is read (0: none), whose own slot does not count."""

    document_index: bytes
    account_id: int
    case_no: int = 0


class QuotaUsage(msgspec.Struct, frozen=True):
    """How many slots of a year are taken, and when a submission beyond the quota was last refused."""

    slots: int
    refused_at: datetime | None


FIRST: Final = Slot(b"", 0, 0, 0, 0)
"""Where a walk over all slots begins: below every slot."""


async def read_usage(db: Database, uses: Sequence[DocumentUse], year: int) -> list[QuotaUsage]:
    """Return the quota usage of each use's document in `year`, in the order of `uses`."""
    rows = await db.fetch(
        _SQL["quota_used"],
        *columns(uses, "document_index", "account_id", "case_no"),
        year,
    )
    return [QuotaUsage(row["used"], row["refused_at"]) for row in rows]


async def claim(pool: Pool, asked: Iterable[tuple[Case, int]], year: int, now: datetime) -> tuple[set[Key], set[Key]]:
    """Claim a slot for each (case, how many slots its document may use in `year`). Return (held, full).

    A case that already holds a slot keeps it. A case in neither set has changed since it was read and got none. Retries
    while another claim was quicker and slots are left: at most as often as there are slots.
    """
    left = sorted(asked, key=lambda pair: pair[0].key)
    held, full = set[tuple[int, int]](), set[tuple[int, int]]()
    while left:
        # One transaction per round: no claim waits for another's slots while it holds some of an earlier round.
        async with pool.acquire() as connection, connection.transaction():
            locked = await connection.fetch(
                _SQL["lock_unmoved"],
                [case.account_id for case, _ in left],
                [case.case_no for case, _ in left],
                [case.revision for case, _ in left],
            )
            unmoved = {(row["account_id"], row["case_no"]) for row in locked}
            left = [(case, allowed) for case, allowed in left if case.key in unmoved]
            rows = await connection.fetch(
                _SQL["claim_slots"],
                [case.document_index for case, _ in left],
                [case.account_id for case, _ in left],
                [case.case_no for case, _ in left],
                [max(allowed, 0) for _, allowed in left],
                year,
                now,
            )
        answers = {(row["account_id"], row["case_no"]): row["mine"] for row in rows}
        held |= {key for key, mine in answers.items() if mine}
        full |= {case.key for case, _ in left if case.key not in answers}
        left = [(case, allowed) for case, allowed in left if answers.get(case.key) is False]
    return held, full


async def release(db: Database, cases: Iterable[Case]) -> None:
    """Release the slots that `cases` hold."""
    await db.execute(_SQL["release_slots"], *_document_columns(cases))


async def refuse(db: Database, uses: Sequence[DocumentUse], now: datetime) -> None:
    """Record that submissions were refused because their document's quota is used up."""
    await db.execute(
        _SQL["insert_refusals"], [use.document_index for use in uses], [use.account_id for use in uses], now
    )


async def load_page(db: Database, after: Slot, limit: int) -> list[Slot]:
    """Return the next `limit` slots after one, in key order."""
    rows = await db.fetch(_SQL["slot_page"], after.document_index, after.year, after.slot, limit)
    return [_build_slot(row) for row in rows]


async def load_of_cases(db: Database, cases: Iterable[Case | Slot]) -> list[Slot]:
    """Return the slots that `cases` hold; given slots, those that the same case still holds."""
    return [_build_slot(row) for row in await db.fetch(_SQL["slots_of_cases"], *_document_columns(cases))]


def _build_slot(row: asyncpg.Record) -> Slot:
    return Slot(row["document_index"], row["year"], row["slot"], row["account_id"], row["case_no"])


def _document_columns(cases: Iterable[Case | Slot]) -> tuple[list[bytes], list[int], list[int]]:
    """Return documents, accounts and case numbers of the cases that use a document, in key order."""
    using = sorted((case.account_id, case.case_no, case.document_index) for case in cases if case.document_index)
    return [key[2] for key in using], [key[0] for key in using], [key[1] for key in using]
