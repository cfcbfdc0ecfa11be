"""Writing JSON a column at a time: what a list's rows have in common is laid down once for the whole chunk.

A row is woven from parts: bytes that every row shares, matrices of fixed-width characters (times, digits), and
fragments chosen from tables that were rendered beforehand. Neighbouring shared and fixed parts become one block, so a row
costs a handful of fragments however many fields it has. The canvas then puts every fragment where its person's line
wants it, and joins once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jiebang.sandbox.population.chance import Flags, Ints, Words
    from jiebang.sandbox.population.people import Rows

Fixed = npt.NDArray[np.uint8]
"""Characters of fixed width: one row of bytes a row."""
Fragments = npt.NDArray[np.object_]
"""One bytes object a row."""
Part = bytes | Fixed | Fragments

DAY: Final = 86_400


def json_of(value: Any) -> bytes:
    """Return compact JSON, as the loader's own encoder writes it."""
    return msgspec.json.encode(value)


def pool(values: Iterable[bytes], before: bytes = b"", after: bytes = b"") -> Fragments:
    """Return a table of fragments to choose from, each with what always stands around it."""
    listed = [before + value + after for value in values]
    table = np.empty(len(listed), object)
    table[:] = listed
    return table


def texts(values: Iterable[str], before: bytes = b"", after: bytes = b"") -> Fragments:
    """Return a table of JSON strings."""
    return pool((json_of(value) for value in values), before, after)


def objects(rows: Iterable[dict[str, Any]], before: bytes = b"", after: bytes = b"") -> Fragments:
    """Return a table of runs of fields: `"a":1,"b":2`, without the braces."""
    return pool((json_of(row)[1:-1] for row in rows), before, after)


def weave(parts: Sequence[Part], count: int) -> list[Fragments]:
    """Return the columns of fragments that `parts` make for `count` rows, neighbours of fixed width as one."""
    columns = list[Fragments]()
    run = list[bytes | Fixed]()

    def close() -> None:
        if run:
            columns.append(_block(run, count))
            run.clear()

    for part in parts:
        if isinstance(part, bytes) or part.dtype != np.object_:
            run.append(part)
        else:
            close()
            columns.append(part)
    close()
    return columns


def _block(run: Sequence[bytes | Fixed], count: int) -> Fragments:
    shared = b"".join(part if isinstance(part, bytes) else bytes(part.shape[1]) for part in run)
    if all(isinstance(part, bytes) for part in run):
        column = np.empty(count, object)
        column.fill(shared)
        return column
    block = np.empty((count, len(shared)), np.uint8)
    block[:] = np.frombuffer(shared, np.uint8)
    at = 0
    for part in run:
        width = len(part) if isinstance(part, bytes) else part.shape[1]
        if not isinstance(part, bytes):
            block[:, at : at + width] = part
        at += width
    return block.view(f"S{len(shared)}").ravel().astype(object)


def either(flags: Flags, where_true: Sequence[Part], where_false: Sequence[Part]) -> Fragments:
    """Return for each row the one or the other, each woven for its own rows alone; each must weave to one fragment."""
    column = np.empty(len(flags), object)
    for chosen, parts in ((flags, where_true), (~flags, where_false)):
        at = np.flatnonzero(chosen)
        if len(at):
            (woven,) = weave([part if isinstance(part, bytes) else part[at] for part in parts], len(at))
            column[at] = woven
    return column


def rarely(count: int, usual: bytes, others: Mapping[int, bytes]) -> Fragments:
    """Return `usual` for everybody but the few in `others`."""
    column = np.empty(count, object)
    column.fill(usual)
    for at, fragment in others.items():
        column[at] = fragment
    return column


# --- Fixed-width characters ------------------------------------------------------------------------------------------

_DIGITS: Final = (np.arange(10_000)[:, None] // (1000, 100, 10, 1) % 10 + ord("0")).astype(np.uint8)
_HEX: Final = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), np.uint8).reshape(256, 2)
_CLOCK: Final = (
    (np.arange(DAY).astype("datetime64[s]").astype("S19").view(np.uint8).reshape(DAY, 19))[:, 10:].copy()
)
_CLOCK_Z: Final = np.concatenate([_CLOCK, np.full((DAY, 1), ord("Z"), np.uint8)], axis=1)


def digits(values: Ints, width: int) -> Fixed:
    """Return decimal digits, zero-padded to `width`."""
    out = np.empty((len(values), -(-width // 4) * 4), np.uint8)
    rest = values
    for at in range(out.shape[1] - 4, -1, -4):
        rest, low = np.divmod(rest, 10_000)
        out[:, at : at + 4] = _DIGITS[low]
    return out[:, out.shape[1] - width :]


def uuids(high: Words, low: Words) -> Fixed:
    """Return random (version 4) UUIDs of two words each."""
    raw = np.empty((len(high), 16), np.uint8)
    raw[:, :8] = high.astype(">u8").view(np.uint8).reshape(-1, 8)
    raw[:, 8:] = low.astype(">u8").view(np.uint8).reshape(-1, 8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    plain = _HEX[raw].reshape(-1, 32)
    out = np.full((len(high), 36), ord("-"), np.uint8)
    for start, end, to in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        out[:, to : to + end - start] = plain[:, start:end]
    return out


@lru_cache(maxsize=4)
def _days(first: int, count: int) -> Fixed:
    table = np.arange(first, first + count).astype("datetime64[D]").astype("S10")
    return table.view(np.uint8).reshape(count, 10)


_FIRST_DAY: Final = -36_525
_DAY_COUNT: Final = 4 * 36_525


def day(days: Ints) -> Fixed:
    """Return `YYYY-MM-DD` of days since 1970, from 1870 to 2269."""
    return _days(_FIRST_DAY, _DAY_COUNT)[days - _FIRST_DAY]


def stamp(seconds: Ints) -> Fixed:
    """Return `YYYY-MM-DDTHH:MM:SSZ` of seconds since 1970, UTC."""
    days, clock = np.divmod(seconds, DAY)
    return np.concatenate([day(days), _CLOCK_Z[clock]], axis=1)


# --- The canvas ------------------------------------------------------------------------------------------------------


class Canvas:
    """The lines of a chunk of people, from the parts that are written to it in the order of the format."""

    def __init__(self, people: int) -> None:
        """Begin empty lines for so many people."""
        self._people = people
        self._elements: list[tuple[list[Fragments], Ints | None]] = []
        self._open: Ints | None = None

    def write(self, text: bytes, *parts: Part) -> None:
        """Add `text` and parts, one row a person; an open list is closed before them."""
        first: Part = text
        if self._open is not None:
            first = pool([b"[]" + text, b"]" + text])[(self._open > 0).astype(np.int64)]
            self._open = None
        self._elements.append((weave((first, *parts), self._people), None))

    def rows(self, counts: Ints, parts: Sequence[Part]) -> None:
        """Add rows: `counts` for each person, `parts` over all of them in the order of the people."""
        total = int(counts.sum())
        if total:
            self._elements.append((weave(parts, total), counts))

    def list(self, text: bytes, rows: Rows, *parts: Part) -> None:
        """Add a list of objects after `text`: each row opens with its lead character and "{", which `parts` follow."""
        self.write(text)
        self.rows(rows.counts, (rows.lead, b"{", *parts))
        self._open = rows.counts

    def lines(self) -> bytes:
        """Return every line, joined."""
        per_person = np.zeros((len(self._elements), self._people), np.int64)
        for row, (columns, counts) in zip(per_person, self._elements, strict=True):
            row[:] = len(columns) if counts is None else len(columns) * counts
        total = per_person.sum(axis=0)
        starts = np.cumsum(total) - total
        flat = np.empty(int(total.sum()), object)
        for (columns, counts), taken in zip(self._elements, per_person, strict=True):
            at = starts if counts is None else _spread(starts, counts, len(columns))
            for column in columns:
                flat[at] = column
                at = at + 1
            starts = starts + taken
        return b"".join(flat.tolist())


def _spread(starts: Ints, counts: Ints, width: int) -> Ints:
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before * width, counts) + np.arange(int(counts.sum())) * width
