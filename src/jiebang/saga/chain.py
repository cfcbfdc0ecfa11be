r"""The hash chain of a case's timeline: changing, removing or inserting a row changes its head.

    genesis = SHA-256("jiebang-timeline-1\n<account_id>\n<case_no>")
    digest  = SHA-256("<revision>\n<at>\n<entries>")       of each row
    head    = SHA-256(head of the row before, else genesis || digest)

`at` is the row's time in UTC, always with six digits of a second and a `Z`; `entries` are its entries in the canonical
form of RFC 8785: no spaces, keys in order. The product computes the digest here. PostgreSQL computes the genesis of a
new case, whose number it assigns, and each head, from the head stored on the case's row (`store/cases/cases.sql`); a
test compares the two implementations.

The chain has no key: anyone who can write to the database can forge another. The seals guard against that
(`saga/seals.py`).
"""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from jiebang.model.case import ENDED
from jiebang.model.decoding import decode_any
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime


def canonical(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return entries in the form of RFC 8785, which is the same before and after a round trip through `jsonb`.

    They hold only strings, integers, booleans, null and times (as strings): a fraction has more than one form.
    """
    return msgspec.json.encode(entries, order="sorted").decode()


def time_text(at: datetime) -> str:
    """Return a time as it enters the chain and the seals: `2026-04-01T08:00:00.000000Z`."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def digest(revision: int, at: str, entries: str) -> bytes:
    """Return the digest of one row, from its time (as `time_text` formats it) and its canonical entries."""
    return sha256(f"{revision}\n{at}\n{entries}".encode()).digest()


def genesis(account_id: int, case_no: int) -> bytes:
    """Return what the chain of a case starts from."""
    return sha256(f"jiebang-timeline-1\n{account_id}\n{case_no}".encode()).digest()


def head(before: bytes, row: bytes) -> bytes:
    """Return the head after a row with the digest `row`, from the head before it."""
    return sha256(before + row).digest()


class ChainRow(msgspec.Struct, frozen=True, gc=False):
    """One row of a timeline as it stands in the database; `entries` as the text of any JSON form."""

    revision: int
    at: datetime
    entries: str
    head: bytes


class ChainHead(msgspec.Struct, frozen=True, gc=False):
    """What stands on the case's own row: its timeline must begin with its creation, and end with the rest."""

    account_id: int
    case_no: int
    revision: int
    state: str
    head: bytes
    created_at: datetime
    reason: str | None = None


class TimelineFault(StrEnum):
    """What can be wrong with the timeline of one case."""

    CHANGED = "timeline_entry_changed"  # the row, or the head of the row before, was changed
    MISSING = "timeline_entry_missing"
    CUT = "timeline_cut"  # the case's row is at a later revision than its timeline ends with, or an earlier one
    DIFFERS = "timeline_differs_from_case"  # the case's row has another state, reason, beginning or head
    ORPHANED = "timeline_without_case"


def find_faults(case: ChainHead, rows: Iterable[ChainRow]) -> Iterator[tuple[TimelineFault, int]]:
    """Yield each fault of a timeline with its revision. `rows` come in ascending order of revision.

    Each row is checked against the head stored in the row before, so that one changed row is one fault, not many.
    """
    before, expected = genesis(case.account_id, case.case_no), 1
    last: ChainRow | None = None
    state: Any = None
    reason: Any = None
    begun = True
    for row in rows:
        decoded = _decode(row.entries)
        begun = begun and (row.revision > 1 or row.at == case.created_at)
        if row.revision != expected:
            yield (TimelineFault.MISSING, expected)
        elif head(before, digest(row.revision, time_text(row.at), canonical(decoded))) != row.head:
            yield (TimelineFault.CHANGED, row.revision)
        for entry in decoded:
            if entry.get("what") == "state":
                state, reason = entry.get("state"), entry.get("reason")
        before, expected, last = row.head, row.revision + 1, row
    if last is None or last.revision != case.revision:
        yield (TimelineFault.CUT, expected)
    elif last.head != case.head or state != case.state or not begun or (case.state in ENDED and case.reason != reason):
        yield (TimelineFault.DIFFERS, last.revision)


def _decode(text: str) -> list[dict[str, Any]]:
    """Return the entries. Values that are not entries are left out: the digest then does not match the head."""
    try:
        decoded = decode_any(text)
    except InvalidInputError:
        return []
    return [entry for entry in decoded if isinstance(entry, dict)] if isinstance(decoded, list) else []
