"""Made-up people: generated against raw JSON encoding of the same bytes, loaded against raw COPY of the same rows.

Generating: the same lines, decoded, are encoded again by msgspec (as the format's structs and as plain dicts and lists)
and by the standard library; the bar is against the fastest. Loading: one and the same embedded pair of servers, with
their product settings, emptied before each turn. Raw COPY writes the very bytes that loading ends up with into the very
tables, indexes included, a connection and a transaction a database; so it has no reading, checking, sealing or encoding
to do. The bar is against one COPY after the other, as `psql` does it. The row of all databases at once shows how far
loading is from the servers' own limit: they then have both cores, which loading must share with them.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bench.measure import Bar, Result, Row, rate, ratio, row, take_turns
from bench.world import start_servers
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.population.format import Person
from jiebang.sandbox.population.generate import generate_chunks
from jiebang.sandbox.population.load import load
from jiebang.sandbox.population.reading import read_lines, read_person
from jiebang.sandbox.population.tables import (
    ACCOUNT,
    ESCAPE,
    NULL,
    QUOTE,
    LoadKeys,
    Table,
    csv_of,
    encode_rows,
    tables_of,
)
from jiebang.store.postgres.embedded import ensure_databases, placement, wait_until_stopped
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, FileWrappingKey, KeyLocks

_PEOPLE = 10_000
SMOKE = {"size": 40}
_NOW = datetime(2026, 1, 15, tzinfo=UTC)
_SEED = 7
_SERVERS = sorted(set(placement(PARTICIPANTS).values()))
_PIECE = 1 << 18
_CSV: Any = {"format": "csv", "quote": QUOTE, "escape": ESCAPE, "null": NULL}
_LOCKS = KeyLocks(
    master=FileWrappingKey(MASTER, b"m" * 32, os.urandom), retention=FileWrappingKey(RETENTION, b"r" * 32, os.urandom)
)
_KEYS = LoadKeys(_LOCKS, b"d" * 32, b"p" * 32)
_EMPTY = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'schema_migration'
"""


def run(rounds: int, size: int | None) -> Result:
    """Measure; `size` is how many people."""
    people = size or _PEOPLE
    rows, bars = _generating(rounds, people)
    more_rows, more_bars = asyncio.run(_loading(rounds, people))
    return Result(rows + more_rows, bars + more_bars)


# --- Generating ------------------------------------------------------------------------------------------------------


def _generating(rounds: int, people: int) -> tuple[list[Row], list[Bar]]:
    lines = b"".join(generate_chunks(people, _SEED, now=_NOW)).splitlines()
    size = sum(map(len, lines)) + len(lines)
    structs = [msgspec.json.decode(line, type=Person) for line in lines]
    plain = [msgspec.json.decode(line) for line in lines]
    encode = msgspec.json.Encoder().encode
    if [encode(one) for one in structs] != lines or [encode(one) for one in plain] != lines:
        message = "encoding the decoded lines does not give the same bytes"
        raise RuntimeError(message)

    def generate() -> None:
        for _ in generate_chunks(people, _SEED, now=_NOW):
            pass

    def dumps() -> None:
        for one in plain:
            json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode()

    work = {
        "generate": generate,
        "encode_structs": lambda: [None for one in structs if not encode(one)],
        "encode_plain": lambda: [None for one in plain if not encode(one)],
        "encode_stdlib": dumps,
    }
    with _without_garbage():
        figures = take_turns(rounds, {name: lambda do=do: rate(size / 1e6, do) for name, do in work.items()})  # type: ignore[misc]
    fastest = max(("encode_structs", "encode_plain"), key=lambda name: sum(figures[name]))
    notes = {
        "generate": "jiebang accounts generate",
        "encode_structs": "msgspec, the format's structs",
        "encode_plain": "msgspec, dicts and lists",
        "encode_stdlib": "json.dumps",
    }
    rows = [row(name, "MB/s", figures[name], note) for name, note in notes.items()]
    value = ratio(figures["generate"], figures[fastest])
    return rows, [Bar(f"generate / {fastest}", value, at_least=0.3)]


@contextmanager
def _without_garbage() -> Iterator[None]:
    """Turn the garbage collector off: it would walk the inputs at the cost of the turn."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# --- Loading ---------------------------------------------------------------------------------------------------------


async def _loading(rounds: int, people: int) -> tuple[list[Row], list[Bar]]:
    text = b"".join(generate_chunks(people, _SEED, now=_NOW))
    payloads, count = _payloads(text)
    folder = await asyncio.to_thread(_folder)
    home = folder / "home"
    turns: dict[str, Callable[[], Awaitable[None]]] = {
        "load": lambda: _load(text, places),
        "raw_copy": lambda: _raw(payloads, places, at_once=False),
        "raw_copy_at_once": lambda: _raw(payloads, places, at_once=True),
    }
    figures: dict[str, list[float]] = {name: [] for name in turns}
    try:
        async with start_servers(home) as running:
            places = await ensure_databases(running, placement(PARTICIPANTS))
            await migrate_all(places, PARTICIPANTS)
            with _without_garbage():
                for number in range(-1, rounds):
                    for name in list(turns)[:: 1 if number % 2 else -1]:
                        await _empty_tables(places)
                        start = time.perf_counter()
                        await turns[name]()
                        if number >= 0:
                            figures[name].append(count / (time.perf_counter() - start))
    finally:
        await wait_until_stopped(home)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    notes = {
        "load": "jiebang accounts load",
        "raw_copy": "COPY of the same rows, one database after the other",
        "raw_copy_at_once": "COPY of the same rows, all databases at once",
    }
    rows = [row(name, "rows/s", figures[name], note) for name, note in notes.items()]
    return rows, [Bar("load / raw_copy", ratio(figures["load"], figures["raw_copy"]), at_least=0.6)]


def _folder() -> Path:
    """Make a folder that the database user can reach, which is not root."""
    folder = Path(tempfile.mkdtemp(prefix="jiebang-bench-"))
    folder.chmod(0o711)
    return folder


def _payloads(text: bytes) -> tuple[Mapping[Table, bytes], int]:
    """Return what loading copies, a table: the same rows, encoded."""
    parts: dict[Table, list[bytes]] = {}
    count = 0
    source, number = io.BytesIO(text), 1
    while (read := read_lines(source, number))[0]:
        number += len(read[0])
        found = (read_person(line, _NOW, _NOW.date()) for line in read[0])
        people = [person for person in found if isinstance(person, Person)]
        made = dict(tables_of(people, _KEYS, _NOW, bytes))
        made[ACCOUNT] = [(person.account_id, person.created_at) for person in people]
        for table, rows in made.items():
            if rows:
                parts.setdefault(table, []).append(encode_rows(rows))
                count += len(rows) * len(table.databases)
    return {table: bytes(csv_of(lines)) for table, lines in parts.items()}, count


async def _empty_tables(places: Mapping[str, str]) -> None:
    """Empty every table, and have both servers write out what is left of the turn before."""

    async def empty(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        tables = [record[0] for record in await connection.fetch(_EMPTY)]
        await connection.execute(f"TRUNCATE {', '.join(tables)}")
        await connection.close()

    async def settle(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("CHECKPOINT")
        await connection.close()

    await asyncio.gather(*map(empty, places.values()))
    await asyncio.gather(
        *(settle(places[next(name for name, at in placement(PARTICIPANTS).items() if at == one)]) for one in _SERVERS)
    )


async def _load(text: bytes, places: Mapping[str, str]) -> None:
    report = await load(io.BytesIO(text), places, _KEYS, now=_NOW)
    if not report.loaded:
        message = f"not loaded: {report.faults[:3]}"
        raise RuntimeError(message)


async def _raw(payloads: Mapping[Table, bytes], places: Mapping[str, str], *, at_once: bool) -> None:
    async def into(name: str) -> None:
        connection = await asyncpg.connect(places[name])
        async with connection.transaction():
            for table, payload in payloads.items():
                if name in table.databases:
                    columns = list(table.columns)
                    await connection.copy_to_table(
                        table.name, schema_name=table.schema, columns=columns, source=_pieces(payload), **_CSV
                    )
        await connection.close()

    if at_once:
        await asyncio.gather(*(into(name) for name in places))
        return
    for name in places:
        await into(name)


async def _pieces(payload: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(payload), _PIECE):
        yield payload[at : at + _PIECE]
