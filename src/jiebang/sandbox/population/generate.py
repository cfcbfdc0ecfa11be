"""`jiebang accounts generate`: people without end, in constant memory, the same for the same arguments everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.sandbox.population.business import write_bindings, write_enterprise, write_merchant, write_openplatform
from jiebang.sandbox.population.identity import write_identity
from jiebang.sandbox.population.people import Chunk
from jiebang.sandbox.population.render import Canvas, Loose, stamp
from jiebang.sandbox.population.security import write_gaming, write_security
from jiebang.sandbox.population.social import write_social
from jiebang.sandbox.population.wallet import write_wallet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

LAST_ACCOUNT: Final = (1 << 53) - 1024
"""The largest account made: the people that one knows have larger numbers, up to format.MAX_ID."""

CHUNK: Final = 2000
"""How many people are made at once: enough that the work of a list is shared, few enough for the cache."""


def generate_chunks(count: int, seed: int, *, first: int = 1, now: datetime) -> Iterator[bytes]:
    """Yield the lines of accounts `first` to `first + count - 1`, up to CHUNK of them in each piece.

    `now` is the moment that "ten days ago" counts from; the same count of seconds, seed and account give the same line
    whatever `count` and `first` are. Raises ValueError for accounts outside 1 to LAST_ACCOUNT, or `now` without a zone.
    """
    if first < 1 or count < 0 or first + count - 1 > LAST_ACCOUNT:
        message = f"accounts {first} to {first + count - 1} are not within 1 to {LAST_ACCOUNT}"
        raise ValueError(message)
    if now.tzinfo is None:
        message = "now must have a time zone"
        raise ValueError(message)
    for start in range(first, first + count, CHUNK):
        yield _lines(Chunk(start, min(CHUNK, first + count - start), seed, now))


def generate(count: int, seed: int, *, first: int = 1, now: datetime) -> Iterator[bytes]:
    """Yield the same lines one by one, each with its end of line."""
    for piece in generate_chunks(count, seed, first=first, now=now):
        yield from piece.splitlines(keepends=True)


def _lines(chunk: Chunk) -> bytes:
    canvas = Canvas(chunk.count)
    ids = Loose(b'{"account_id":%d,"created_at":"' % account for account in chunk.accounts.tolist())
    canvas.write(b"", ids, stamp(chunk.created), b'"')
    write_identity(canvas, chunk)
    write_wallet(canvas, chunk)
    write_security(canvas, chunk)
    write_social(canvas, chunk)
    write_openplatform(canvas, chunk)
    write_enterprise(canvas, chunk)
    write_merchant(canvas, chunk)
    write_gaming(canvas, chunk)
    write_bindings(canvas, chunk)
    canvas.write(b"}\n")
    return canvas.lines()
