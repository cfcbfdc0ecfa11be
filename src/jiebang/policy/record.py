"""Decision records: the facts behind one answer, in the smallest form from which it can be replayed exactly.

A record keeps which owners could not be read, and each fact's value unless it is absent. Times keep their microseconds,
numbers are integers, lists are kept unchanged. The format is JSON, so that it can be read without this program once it
is decrypted; compressed, because texts repeat.
"""

from __future__ import annotations

import zlib
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from jiebang.model.case import Kind
from jiebang.model.check import CheckAnswer
from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError
from jiebang.model.facts import REQUEST, FactType
from jiebang.policy.difference import Difference, differences
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import ABSENT, DTYPES, Facts, read_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.facts import FactSpec
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.pack import Pack

_LIMIT: Final = 1 << 26
"""No record of ours is longer than this, decompressed."""


class Evidence(msgspec.Struct, frozen=True, eq=False):
    """An answer and the facts it was made from: `facts.accounts[row]` is its account."""

    answer: CheckAnswer
    facts: Facts
    row: int
    whole: bool = True
    """Whether consequences and alternatives were asked for too."""


class RecordContent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a record. `unread`: owners that could not be read; `facts`: by name; `versions`: by participant.

    `answer`: the answer as plain JSON values.
    """

    account: int
    kind: Kind
    at: datetime
    pack: str
    unread: tuple[str, ...]
    facts: dict[str, Any]
    versions: dict[str, int | None]
    answer: dict[str, Any]
    whole: bool = True


def encode_record(evidence: Evidence) -> bytes:
    """Encode one answer with its facts."""
    answer, facts, row = evidence.answer, evidence.facts, evidence.row
    values = facts.frame.row(row, named=True)
    unread = tuple(owner for owner in facts.registry.owned if owner != REQUEST and not values[read_column(owner)])
    kept: dict[str, Any] = {}
    for name, spec in facts.registry.facts.items():
        value = facts.items[name][row] if spec.type is FactType.ITEMS else values[name]
        if list(value) if spec.type is FactType.ITEMS else value != _absent_value(spec, unread):
            kept[name] = value
    record = RecordContent(
        account=answer.account_id,
        kind=answer.kind,
        at=answer.checked_at,
        pack=answer.pack,
        unread=unread,
        facts=kept,
        versions={name: of[row] for name, of in facts.versions.items()},
        answer=msgspec.to_builtins(answer),
        whole=evidence.whole,
    )
    return zlib.compress(msgspec.json.encode(record))


def decode_record(record: bytes) -> RecordContent:
    """Read what `encode_record` wrote. Raises ValueError for anything else."""
    reader = zlib.decompressobj()
    try:
        return decode(reader.decompress(record, _LIMIT), RecordContent)
    except (zlib.error, InvalidInputError) as wrong:
        message = f"not a record of a check: {wrong}"
        raise ValueError(message) from wrong


def facts_of(record: RecordContent, registry: ParticipantRegistry) -> Facts:
    """Return a record's facts as columns. Raises ValueError for a fact or owner that is no longer known."""
    unknown = (record.facts.keys() - registry.facts.keys()) | (set(record.unread) - registry.owned.keys())
    if unknown:
        message = f"facts that this version does not know: {sorted(unknown)}"
        raise ValueError(message)
    columns: list[pl.Series] = []
    items: dict[str, Sequence[Sequence[Mapping[str, Any]]]] = {}
    for owner, names in registry.owned.items():
        for name in names:
            spec = registry.facts[name]
            value, kind = record.facts.get(name, _absent_value(spec, record.unread)), spec.type
            if kind is FactType.ITEMS:
                items[name] = [value]
            else:
                columns.append(pl.Series(name, [_decode_value(value, kind)], dtype=DTYPES[kind], strict=True))
        if owner != REQUEST:
            columns.append(pl.Series(read_column(owner), [owner not in record.unread], dtype=pl.Boolean))
    versions = {name: [version] for name, version in record.versions.items()}
    return Facts([record.account], pl.DataFrame(columns), items, versions, registry)


def replay_record(record: RecordContent, pack: Pack) -> list[Difference]:
    """Evaluate a record's facts again; return how the answer differs from the one given (normally empty).

    Raises ValueError for facts that are no longer known.
    """
    (answer,) = evaluate(pack, facts_of(record, pack.registry), record.kind, record.at, whole=record.whole)
    return differences(record.answer, msgspec.json.decode(msgspec.json.encode(answer)))


def _absent_value(spec: FactSpec, unread: Sequence[str]) -> Any:
    """Return a fact's value where its owner was not read, or has no row for the account."""
    if spec.type is FactType.ITEMS:
        return []
    return None if spec.owner in unread else ABSENT.get(spec.type)


def _decode_value(value: Any, kind: FactType) -> Any:
    if kind is FactType.TIME and isinstance(value, str):
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if kind is FactType.DATE and isinstance(value, str) else value
