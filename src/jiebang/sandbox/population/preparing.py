"""The CPU work of loading: reads, checks and encodes a run of lines, ready for COPY."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.sandbox.ledger import Binding
from jiebang.sandbox.population.checks import today_of
from jiebang.sandbox.population.reading import CHUNK_LINES, LineFault, PopulationLine, read_lines, read_person
from jiebang.sandbox.population.tables import LoadKeys, Table, count_doubts, csv_of, encode_rows, tables_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import BinaryIO

    from jiebang.sandbox.population.format import Person

_FIRST_LINES: Final = 250  # the databases wait for the first run: a short one, the next twice as long, and so on
_GROUP: Final = 16  # people turned into rows at once: few enough to stay in the cache of the processor


class PreparedRun(msgspec.Struct, gc=False):
    """A run of lines, ready to copy: `numbers` are the lines of its `accounts`, `payloads` CSV and its row count.

    `doubts`: rows with a number that departs from its standard, by the number's field.
    """

    lines: list[PopulationLine]
    size: int
    payloads: dict[Table, tuple[bytearray | bytes, int]] = {}
    accounts: list[int] = []
    created: list[datetime] = []
    numbers: list[int] = []
    faults: list[LineFault] = []
    bindings: dict[str, list[Binding]] = {}
    binding_count: int = 0
    doubts: Counter[str] = msgspec.field(default_factory=Counter)

    def without(self, accounts: set[int]) -> list[PopulationLine]:
        """Return the good lines but for those of some accounts."""
        pairs = zip(self.accounts, self.numbers, strict=True)
        kept = {number for account, number in pairs if account not in accounts}
        return [line for line in self.lines if line.number in kept]


class Preparer:
    """Reads, checks and encodes: everything that needs the processor and no database. One call at a time."""

    def __init__(self, source: BinaryIO, keys: LoadKeys, now: datetime, *, networks: Sequence[str] = ()) -> None:
        self._source, self._keys, self._now, self._networks = source, keys, now, networks
        self._today = today_of(now)
        self._next = 1
        self._limit = _FIRST_LINES

    def next(self) -> PreparedRun:
        """Read and prepare the next run; one without lines: the file has ended."""
        lines, size = read_lines(self._source, self._next, self._limit)
        self._next += len(lines)
        self._limit = min(2 * self._limit, CHUNK_LINES)
        return self.prepare(lines, size)

    def prepare(self, lines: list[PopulationLine], size: int) -> PreparedRun:
        """Check and encode lines, `size` bytes of them; bad ones are in the run's `faults`."""
        run = PreparedRun(lines, size)
        parts: dict[Table, list[bytes]] = {}
        counts: dict[Table, int] = {}
        for at in range(0, len(lines), _GROUP):
            people: list[Person] = []
            for line in lines[at : at + _GROUP]:
                person = read_person(line, self._now, self._today)
                if isinstance(person, list):
                    run.faults.extend(person)
                elif person is not None:
                    people.append(person)
                    run.numbers.append(line.number)
            made = tables_of(people, self._keys, self._now, os.urandom)
            run.doubts.update(count_doubts(made))
            for table, rows in made.items():
                if rows:
                    parts.setdefault(table, []).append(encode_rows(rows))
                    counts[table] = counts.get(table, 0) + len(rows)
            self._collect(people, run)
        run.payloads = {table: (csv_of(lines), counts[table]) for table, lines in parts.items()}
        return run

    def examine(self, lines: list[PopulationLine]) -> list[LineFault]:
        """Return what the tables would refuse of lines that pass all other checks."""
        found = (read_person(line, self._now, self._today, tables=True) for line in lines)
        return [fault for faults in found if isinstance(faults, list) for fault in faults]

    def _collect(self, people: Sequence[Person], run: PreparedRun) -> None:
        """Add the accounts of the platform and the bindings of the networks to the run."""
        run.accounts.extend([person.account_id for person in people])
        run.created.extend([person.created_at for person in people])
        run.binding_count += sum([len(person.bindings) for person in people])
        for name in self._networks:
            run.bindings.setdefault(name, []).extend(
                Binding(str(person.account_id), one.binding, one.kind, one.title)
                for person in people
                for one in person.bindings
                if one.network == name
            )
