"""Finds times out of range: such as a time zone would carry beyond what databases and programs can tell.

PostgreSQL would take most of them, and whoever reads the row later would fail.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jiebang.sandbox.population.format import Person

_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, 16, tzinfo=UTC)
"""The end of the year 9999 in Shanghai, the last that has a date there."""
_LAST_DAYS: Final = b"9999-12-3"
_FIRST_DAY: Final = b"0001-01-01"
_ESCAPE: Final = b"\\u00"
"""Any of the digits and hyphens may be escaped in JSON."""


def find_times_out_of_range(person: Person, text: bytes) -> Sequence[str]:
    """Return the path of every time before the year 1 in UTC, or after 9999 in Shanghai. `text`: the person's line.

    A time out of range is written with one of three days, no zone being a day from UTC: lines without them are not
    walked through, and looking for bytes costs a small part of that.
    """
    escaped = b"\\" in text and _ESCAPE in text
    return list(_walk(person, "")) if escaped or _LAST_DAYS in text or _FIRST_DAY in text else ()


def _walk(value: object, field: str) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _walk(getattr(value, name), f"{field}.{name}" if field else name)
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _walk(one, f"{field}[{at}]")
    elif isinstance(value, datetime) and not _EARLIEST <= value < _LATEST:
        yield field
