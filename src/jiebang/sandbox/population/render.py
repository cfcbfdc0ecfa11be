"""Writing JSON a column at a time: what the rows of a list have in common is laid down once for the whole chunk.

A row is woven from parts: bytes that every row shares, characters of fixed width (times, digits), and fragments chosen
from tables that were rendered beforehand. Neighbours of fixed width become one block. The canvas first adds up how long
everything is, then copies each column to where its rows want it, all fragments of one width in one step; so no row
and no field is ever an object of its own.
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

Fixed = npt.NDArray[np.void]
"""Characters of fixed width: one void item a row."""
Buffer = npt.NDArray[np.uint8]

DAY: Final = 86_400


def json_of(value: Any) -> bytes:
    """Return compact JSON, as the loader's own encoder writes it."""
    return msgspec.json.encode(value)


# --- Parts -----------------------------------------------------------------------------------------------------------


class Pool:
    """A table of fragments to choose from, kept by width so that all of one width are copied in one step."""

    def __init__(self, values: Iterable[bytes], before: bytes = b"", after: bytes = b"") -> None:
        """Take the fragments, and what always stands around each."""
        self.values = [before + value + after for value in values]
        self.lengths: Ints = np.fromiter(map(len, self.values), np.int64, len(self.values))
        widths, self.kinds = np.unique(self.lengths, return_inverse=True)
        self.place = np.zeros(len(self.values), np.int64)
        self.tables = list[Fixed]()
        for kind, width in enumerate(widths.tolist()):
            at = np.flatnonzero(self.kinds == kind)
            self.place[at] = np.arange(len(at))
            joined = b"".join(self.values[one] for one in at.tolist())
            self.tables.append(np.frombuffer(joined, f"V{width}") if width else np.empty(len(at), "V1"))
        self.kinds = self.kinds.astype(np.uint8 if len(widths) < 256 else np.uint16)  # noqa: PLR2004 - sorts fastest

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: Ints) -> Choice:
        """Choose a fragment for each row."""
        return Choice(self, chosen)


class Choice:
    """Fragments chosen from a pool, one a row."""

    def __init__(self, pool: Pool, chosen: Ints) -> None:
        """Take the pool and each row's choice."""
        self._pool, self._chosen = pool, chosen

    def take(self, rows: Ints) -> Choice:
        """Return the choices of some rows."""
        return Choice(self._pool, self._chosen[rows])

    def widths(self) -> Ints:
        """Return each row's width."""
        return self._pool.lengths[self._chosen]

    def put(self, out: Buffer, at: Ints) -> None:
        """Write each row's fragment at its place."""
        kinds = self._pool.kinds[self._chosen]
        order = np.argsort(kinds, kind="stable")
        ends = np.cumsum(np.bincount(kinds, minlength=len(self._pool.tables)))
        start = 0
        for table, end in zip(self._pool.tables, ends.tolist(), strict=True):
            if start < end:
                rows = order[start:end]
                _window(out, table.dtype)[at[rows]] = table[self._pool.place[self._chosen[rows]]]
            start = end


class Block:
    """Characters of fixed width, one run a row."""

    def __init__(self, run: Sequence[bytes | Fixed], count: int) -> None:
        """Lay neighbouring shared and fixed parts side by side."""
        self._count = count
        sizes = [len(part) if isinstance(part, bytes) else part.dtype.itemsize for part in run]
        self.width = sum(sizes)
        shared = b"".join(part if isinstance(part, bytes) else bytes(part.dtype.itemsize) for part in run)
        self._rows: Fixed = np.frombuffer(shared, f"V{self.width}")
        fixed = [(sum(sizes[:i]), part) for i, part in enumerate(run) if not isinstance(part, bytes)]
        if fixed:
            self._rows = np.repeat(self._rows, count)
            fields = self._rows.view(_layout(self.width, tuple((start, part.dtype.itemsize) for start, part in fixed)))
            for name, (_, part) in zip(fields.dtype.names or (), fixed, strict=True):
                fields[name] = part

    def widths(self) -> Ints:
        """Return each row's width."""
        return np.full(self._count, self.width)

    def put(self, out: Buffer, at: Ints) -> None:
        """Write each row's run at its place."""
        _window(out, self._rows.dtype)[at] = self._rows


class Either:
    """The one or the other for each row."""

    def __init__(self, flags: Flags, where_true: Sequence[Part], where_false: Sequence[Part]) -> None:
        """Weave each side for its own rows alone."""
        self._rows = [np.flatnonzero(flags), np.flatnonzero(~flags)]
        self._sides = [
            Woven([_take_rows(part, rows) for part in side], len(rows))
            for rows, side in zip(self._rows, (where_true, where_false), strict=True)
        ]

    def widths(self) -> Ints:
        """Return each row's width."""
        widths = np.empty(sum(map(len, self._rows)), np.int64)
        for rows, side in zip(self._rows, self._sides, strict=True):
            widths[rows] = side.widths()
        return widths

    def put(self, out: Buffer, at: Ints) -> None:
        """Write each row's side at its place."""
        for rows, side in zip(self._rows, self._sides, strict=True):
            side.put(out, at[rows])


class Loose:
    """Fragments given one by one."""

    def __init__(self, values: Iterable[bytes]) -> None:
        """Take one a row."""
        self._values = list(values)

    def widths(self) -> Ints:
        """Return each row's width."""
        return np.fromiter(map(len, self._values), np.int64, len(self._values))

    def put(self, out: Buffer, at: Ints) -> None:
        """Write each row's fragment at its place."""
        target = out.data
        for value, start in zip(self._values, at.tolist(), strict=True):
            target[start : start + len(value)] = value


Simple = bytes | Fixed | Choice
Part = Simple | Either | Loose


class Woven:
    """Parts side by side, `count` rows of them."""

    def __init__(self, parts: Sequence[Part], count: int) -> None:
        """Weave: neighbours of fixed width become one block."""
        self._parts = list[Choice | Block | Either | Loose]()
        run = list[bytes | Fixed]()
        for part in parts:
            if isinstance(part, bytes | np.ndarray):
                run.extend((part,) if len(part) else ())
                continue
            if run:
                self._parts.append(Block(run, count))
                run = []
            self._parts.append(part)
        if run:
            self._parts.append(Block(run, count))
        self._widths = [part.widths() for part in self._parts]

    def widths(self) -> Ints:
        """Return each row's width."""
        widths: Ints = np.sum(self._widths, axis=0, dtype=np.int64)
        return widths

    def put(self, out: Buffer, at: Ints) -> None:
        """Write each row at its place."""
        for part, widths in zip(self._parts, self._widths, strict=True):
            part.put(out, at)
            at = at + widths


def _take_rows(part: Part, rows: Ints) -> Part:
    if isinstance(part, Either | Loose):
        message = "sides are woven of simple parts"
        raise TypeError(message)
    if isinstance(part, bytes):
        return part
    return part.take(rows)


@lru_cache(maxsize=1024)
def _layout(width: int, fields: tuple[tuple[int, int], ...]) -> np.dtype[np.void]:
    starts = [start for start, _ in fields]
    formats = [f"V{size}" for _, size in fields]
    return np.dtype(
        {"names": [f"f{start}" for start in starts], "formats": formats, "offsets": starts, "itemsize": width}
    )


def _window(out: Buffer, kind: np.dtype[np.void]) -> Fixed:
    """Return a view of `out` whose item i is what starts at its byte i."""
    return np.ndarray((len(out) - kind.itemsize + 1,), kind, out.data, strides=(1,))


def texts(values: Iterable[str], before: bytes = b"", after: bytes = b"") -> Pool:
    """Return a table of JSON strings."""
    return Pool((json_of(value) for value in values), before, after)


def objects(rows: Iterable[Mapping[str, Any]], before: bytes = b"", after: bytes = b"") -> Pool:
    """Return a table of runs of fields: `"a":1,"b":2`, without the braces."""
    return Pool((json_of(row)[1:-1] for row in rows), before, after)


def rarely(count: int, usual: bytes, others: Mapping[int, bytes]) -> Choice:
    """Return `usual` for everybody but the few in `others`."""
    chosen = np.zeros(count, np.int64)
    chosen[list(others)] = np.arange(1, len(others) + 1)
    return Pool((usual, *others.values()))[chosen]


# --- Characters of fixed width ---------------------------------------------------------------------------------------


def _characters(matrix: npt.NDArray[Any]) -> Fixed:
    """Return the rows of a matrix of character codes."""
    return np.ascontiguousarray(matrix, np.uint8).view(f"V{matrix.shape[1]}").ravel()


_POWERS: Final = (1, 10, 100, 1000, 10_000)
_DIGITS: Final = [
    _characters(np.arange(_POWERS[width])[:, None] // _POWERS[:width][::-1] % 10 + ord("0")) for width in range(1, 5)
]
_HEX: Final = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), "V2")
_CLOCK: Final = _characters(
    np.arange(DAY).astype("datetime64[s]").astype("S20").view(np.uint8).reshape(DAY, 20)[:, 10:]
    + (np.arange(10) == 9) * ord("Z")  # noqa: PLR2004 - the twentieth character, which numpy leaves out
)
_FIRST_DAY: Final = -36_525
_DAY_COUNT: Final = 4 * 36_525
_DAYS: Final = _characters(
    np.arange(_FIRST_DAY, _FIRST_DAY + _DAY_COUNT).astype("datetime64[D]").astype("S10").view(np.uint8).reshape(-1, 10)
)
_UUID: Final = ((0, 8, 0), (8, 4, 9), (12, 4, 14), (16, 4, 19), (20, 12, 24))


def digits(values: Ints, width: int) -> Fixed:
    """Return decimal digits, zero-padded to `width`."""
    if width <= len(_DIGITS):
        return _DIGITS[width - 1][values]
    head, groups = width % 4 or 4, (width - 1) // 4
    out = np.empty(len(values), f"V{width}")
    starts = ((0, head), *((head + 4 * group, 4) for group in range(groups)))
    fields = out.view(_layout(width, starts))
    rest = values
    for start, size in reversed(starts):
        rest, low = np.divmod(rest, _POWERS[size])
        fields[f"f{start}"] = _DIGITS[size - 1][low]
    return out


def beside(parts: Sequence[Fixed]) -> Fixed:
    """Return fixed parts side by side as one."""
    count = len(parts[0])
    return _characters(np.concatenate([part.view(np.uint8).reshape(count, -1) for part in parts], axis=1))


def codes(fixed: Fixed) -> npt.NDArray[np.uint8]:
    """Return the character codes, one row a row."""
    return fixed.view(np.uint8).reshape(len(fixed), -1)


def characters(matrix: npt.NDArray[Any]) -> Fixed:
    """Return character codes, one row a row, as characters of fixed width."""
    return _characters(matrix)


def uuids(high: Words, low: Words) -> Fixed:
    """Return random (version 4) UUIDs of two words each."""
    raw = np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1, 16)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    plain = _HEX[raw.ravel()].view(_layout(32, tuple((start, size) for start, size, _ in _UUID)))
    out = np.repeat(np.frombuffer(b"-" * 36, "V36"), len(high))
    fields = out.view(_layout(36, tuple((to, size) for _, size, to in _UUID)))
    for start, _, to in _UUID:
        fields[f"f{to}"] = plain[f"f{start}"]
    return out


def day(days: Ints) -> Fixed:
    """Return `YYYY-MM-DD` of days since 1970, from 1870 to 2269."""
    return _DAYS[days - _FIRST_DAY]


def stamp(seconds: Ints) -> Fixed:
    """Return `YYYY-MM-DDTHH:MM:SSZ` of seconds since 1970, UTC."""
    days, clock = np.divmod(seconds, DAY)
    out = np.empty(len(seconds), "V20")
    fields = out.view(_layout(20, ((0, 10), (10, 10))))
    fields["f0"], fields["f10"] = _DAYS[days - _FIRST_DAY], _CLOCK[clock]
    return out


# --- The canvas ------------------------------------------------------------------------------------------------------


class Canvas:
    """The lines of a chunk of people, from the parts that are written to it in the order of the format."""

    def __init__(self, people: int) -> None:
        """Begin empty lines for so many people."""
        self._people = people
        self._elements: list[tuple[Woven, Ints | None]] = []
        self._loose: list[Part] = []
        self._open: Ints | None = None

    def write(self, text: bytes, *parts: Part) -> None:
        """Add `text` and parts, one row a person; an open list is closed before them."""
        first: Part = text
        if self._open is not None:
            first = Pool((b"[]" + text, b"]" + text))[(self._open > 0).astype(np.int64)]
            self._open = None
        self._loose.extend((first, *parts))

    def rows(self, counts: Ints, parts: Sequence[Part]) -> None:
        """Add rows: `counts` for each person, `parts` over all of them in the order of the people."""
        total = int(counts.sum())
        if total:
            self._settle()
            self._elements.append((Woven(parts, total), counts))

    def list(self, text: bytes, rows: Rows, *parts: Part) -> None:
        """Add a list of objects after `text`: each row opens with its lead character and "{", which `parts` follow."""
        self.write(text)
        self.rows(rows.counts, (rows.lead, b"{", *parts))
        self._open = rows.counts

    def lines(self) -> bytes:
        """Return every line, joined."""
        self._settle()
        widths = [woven.widths() for woven, _ in self._elements]
        lengths = np.stack(
            [
                width if counts is None else _sums(width, counts)
                for width, (_, counts) in zip(widths, self._elements, strict=True)
            ]
        )
        total = lengths.sum(axis=0)
        starts = np.cumsum(total) - total
        out = np.empty(int(total.sum()), np.uint8)
        for (woven, counts), width, taken in zip(self._elements, widths, lengths, strict=True):
            if counts is None:
                at = starts
            else:
                before = np.cumsum(width) - width
                at = before + np.repeat(starts - (np.cumsum(taken) - taken), counts)
            woven.put(out, at)
            starts = starts + taken
        return out.tobytes()

    def _settle(self) -> None:
        if self._loose:
            self._elements.append((Woven(self._loose, self._people), None))
            self._loose = []


def _sums(widths: Ints, counts: Ints) -> Ints:
    """Add up the widths of each person's rows."""
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)])
    ends = np.cumsum(counts)
    sums: Ints = running[ends] - running[ends - counts]
    return sums
