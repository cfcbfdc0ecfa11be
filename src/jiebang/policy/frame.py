"""Facts as columns: all owners' answers about a batch of accounts, one row per account, ready for conditions.

Each owner has a boolean column that says whether it could be read for the account. In a row that was read, NULL means
absent: there is no such thing. Absent numbers are 0, absent booleans false, absent lists empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from jiebang.model.facts import PLATFORM, QUOTA, REQUEST, FactBatch, FactType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.model.origin import Origin
    from jiebang.model.participants import ParticipantRegistry

    Items = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]

DTYPES: Final[Mapping[FactType, pl.DataType]] = {
    FactType.INT: pl.Int64(),
    FactType.FEN: pl.Int64(),
    FactType.BOOL: pl.Boolean(),
    FactType.TEXT: pl.String(),
    FactType.TIME: pl.Datetime("us", "UTC"),
    FactType.DATE: pl.Date(),
}
ABSENT: Final[Mapping[FactType, Any]] = {FactType.INT: 0, FactType.FEN: 0, FactType.BOOL: False}
_NOTHING: Final[Sequence[Mapping[str, Any]]] = ()


def read_column(owner: str) -> str:
    """Return the name of the column that says whether an owner's facts were read."""
    return f"read:{owner}"


class OwnerFacts(msgspec.Struct, frozen=True, eq=False):
    """One owner's facts, in the order of the batch. `versions[i]`: the facts_version, 0 without a row, None unread."""

    frame: pl.DataFrame
    items: Items
    versions: Sequence[int | None]


class Facts(msgspec.Struct, frozen=True, eq=False):
    """All facts of a batch: row i is of `accounts[i]`. `versions`: by participant; `registry`: declares the facts."""

    accounts: Sequence[int]
    frame: pl.DataFrame
    items: Items
    versions: Mapping[str, Sequence[int | None]]
    registry: ParticipantRegistry


def line_up(batch: FactBatch, owner: str, accounts: Sequence[int], registry: ParticipantRegistry) -> OwnerFacts:
    """Put an owner's answer in the order of `accounts`; for an account without a row every fact is absent.

    Raises ValueError or TypeError (polars' errors derive from them) for an answer of the wrong shape: of another owner,
    with a missing column, columns of unequal length, a repeated account, or a value of the wrong type.
    """
    at = {account: row for row, account in enumerate(batch.accounts)}
    names = registry.owned[owner]
    lengths = {len(batch.versions), *(len(batch.columns[name]) for name in names if name in batch.columns)}
    if batch.owner != owner or lengths != {len(at)} or len(at) != len(batch.accounts):
        message = f"facts of {owner}: rows, versions and columns do not fit together"
        raise ValueError(message)
    missing = [name for name in names if name not in batch.columns]
    if missing:
        message = f"facts of {owner}: {missing} are missing"
        raise ValueError(message)
    rows = [at.get(account) for account in accounts]
    columns: list[pl.Series] = []
    items: dict[str, Sequence[Sequence[Mapping[str, Any]]]] = {}
    # Values are ordered before they become columns: for a batch, a polars query costs more than this loop.
    in_order = rows == list(range(len(at)))
    for name in names:
        values, kind = batch.columns[name], registry.facts[name].type
        if kind is FactType.ITEMS:
            items[name] = _order_lists(name, values, rows)
            continue
        placed = values if in_order else [None if row is None else values[row] for row in rows]
        if kind in ABSENT:
            absent = ABSENT[kind]
            placed = [absent if value is None else value for value in placed]
        columns.append(pl.Series(name, placed, dtype=DTYPES[kind], strict=True))
    columns.append(pl.Series(read_column(owner), [True], dtype=pl.Boolean).new_from_index(0, len(accounts)))
    versions = [0 if row is None else batch.versions[row] for row in rows]
    return OwnerFacts(pl.DataFrame(columns), items, versions)


def _order_lists(name: str, values: Sequence[Any], rows: Sequence[int | None]) -> list[Sequence[Mapping[str, Any]]]:
    whole = [_NOTHING if row is None or values[row] is None else values[row] for row in rows]
    for one in whole:
        if (
            one is not _NOTHING
            and one != []
            and not (isinstance(one, list) and all(isinstance(item, dict) for item in one))
        ):
            message = f"fact {name}: a list of objects is wanted"
            raise TypeError(message)
    return whole


def mark_unread(part: OwnerFacts, owner: str, read: Sequence[bool]) -> OwnerFacts:
    """Return `part` with the rows where `read` is false marked unread, for an owner that could not answer for all."""
    return msgspec.structs.replace(
        part, frame=part.frame.with_columns(pl.Series(read_column(owner), read, dtype=pl.Boolean))
    )


def join_rows(parts: Sequence[tuple[Sequence[int], OwnerFacts]], size: int) -> OwnerFacts:
    """Join one owner's parts of a batch of `size` rows, each with the rows that it answers.

    Together the parts answer each row once.
    """
    place = {row: at for at, row in enumerate(row for rows, _ in parts for row in rows)}
    order = [place[row] for row in range(size)]
    whole = pl.concat([part.frame for _, part in parts])[order]
    lists = {name: [one for _, part in parts for one in part.items[name]] for name in parts[0][1].items}
    versions = [version for _, part in parts for version in part.versions]
    return OwnerFacts(
        whole, {name: [values[at] for at in order] for name, values in lists.items()}, [versions[at] for at in order]
    )


def select_rows(facts: Facts, rows: slice) -> Facts:
    """Return the facts of some rows of a batch."""
    return Facts(
        facts.accounts[rows],
        facts.frame[rows],
        {name: lists[rows] for name, lists in facts.items.items()},
        {name: versions[rows] for name, versions in facts.versions.items()},
        facts.registry,
    )


def unread_part(owner: str, size: int, registry: ParticipantRegistry) -> OwnerFacts:
    """Return an owner's part where it could not be read."""
    columns = [
        pl.Series(name, [None], dtype=DTYPES[registry.facts[name].type]).new_from_index(0, size)
        for name in registry.owned[owner]
        if registry.facts[name].type is not FactType.ITEMS
    ]
    columns.append(pl.Series(read_column(owner), [False], dtype=pl.Boolean).new_from_index(0, size))
    items = {name: [_NOTHING] * size for name in registry.owned[owner] if registry.facts[name].type is FactType.ITEMS}
    return OwnerFacts(pl.DataFrame(columns), items, [None] * size)


def _join_copies(owner: str, parts: Sequence[OwnerFacts]) -> tuple[OwnerFacts, Sequence[bool]]:
    """Join the copies of one owner's facts: a row counts as read where all copies were read and are equal."""
    first = parts[0]
    same = first.frame[read_column(owner)].rename("same")
    for other in parts[1:]:
        if not first.frame.equals(other.frame):
            for name in first.frame.columns:
                same &= first.frame[name].eq_missing(other.frame[name])
            same &= other.frame[read_column(owner)]
    for name, lists in first.items.items():
        same &= pl.Series([all(part.items[name][row] == one for part in parts) for row, one in enumerate(lists)])
    frame = first.frame.with_columns(same.alias(read_column(owner)))
    return OwnerFacts(frame, first.items, first.versions), same.to_list()


def join_facts(
    accounts: Sequence[int],
    parts: Mapping[str, OwnerFacts],
    origins: Sequence[Origin],
    registry: ParticipantRegistry,
) -> Facts:
    """Join all owners' parts, by participant or PLATFORM; an owner without a part is unread.

    Where the copies of an owner's facts differ, its facts and versions count as unread, so that no Try relies on them.
    `origins[i]`: who makes the request for `accounts[i]`.
    """
    size = len(accounts)
    devices = pl.Series([one.device_fact for one in origins], dtype=pl.String)
    services = pl.Series([one.service for one in origins], dtype=pl.Boolean)
    frames = [pl.DataFrame({"request_device_id": devices, "request_by_service": services})]
    items: dict[str, Sequence[Sequence[Mapping[str, Any]]]] = {}
    versions: dict[str, Sequence[int | None]] = {}
    for owner in registry.owned:
        if owner == REQUEST:
            continue
        copies = _list_copies(owner, parts, size, registry)
        joined = next(iter(copies.values()))
        agree: Sequence[bool] = [True] * size
        if len(copies) > 1:
            joined, agree = _join_copies(owner, list(copies.values()))
        frames.append(joined.frame)
        items.update(joined.items)
        if owner not in (PLATFORM, QUOTA):
            for name, part in copies.items():
                versions[name] = [
                    version if agrees else None for version, agrees in zip(part.versions, agree, strict=True)
                ]
    return Facts(accounts, pl.concat(frames, how="horizontal"), items, versions, registry)


def _list_copies(
    owner: str, parts: Mapping[str, OwnerFacts], size: int, registry: ParticipantRegistry
) -> dict[str, OwnerFacts]:
    names = registry.copies(owner)
    return {name: parts[name] if name in parts else unread_part(owner, size, registry) for name in names}
