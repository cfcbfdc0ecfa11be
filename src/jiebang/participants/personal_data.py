"""Reads what participants declare of the personal data in their tables: `personal_data.yaml` in a participant's folder.

An installation's handler completes it by a file of the same form (`jiebang report pipl --declarations`): legal bases,
and periods, that only they can decide.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from jiebang.model.check import Text
from jiebang.model.personal_data import DataHandler, HeldData
from jiebang.policy.source import PackProblem, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiebang.model.participants import Declaration, ParticipantRegistry

_FILE: Final = "personal_data.yaml"
_Name = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,62}\Z")]
_Said = Annotated[str, Meta(max_length=2_000)]


class TextShape(msgspec.Struct, frozen=True):
    """A text in both languages."""

    zh: _Said
    en: _Said

    def text(self) -> Text:
        """Return it as the model has it."""
        return Text(self.zh, self.en)


class HeldDataShape(msgspec.Struct, frozen=True):
    """One entry; `model.personal_data.HeldData` says what the fields are. `participant`: in a handler's file alone."""

    table: _Name
    participant: _Name | None = None
    columns: tuple[_Name, ...] = ()
    what: TextShape | None = None
    purpose: TextShape | None = None
    basis: _Said | None = None
    retention: TextShape | None = None
    retention_param: _Name | None = None
    sensitive: bool | None = None
    protection: TextShape | None = None


class PersonalDataShape(msgspec.Struct, frozen=True):
    """A participant's file."""

    personal_data: tuple[HeldDataShape, ...]


class HandlerShape(msgspec.Struct, frozen=True):
    """A handler's file. `abroad`: transfers out of the country; `entrusted`: who processes for them, or receives."""

    name: TextShape | None = None
    contact: _Said | None = None
    abroad: TextShape | None = None
    entrusted: TextShape | None = None
    personal_data: tuple[HeldDataShape, ...] = ()


def read_declared(registry: ParticipantRegistry) -> list[HeldData]:
    """Return what all participants with tables declare. Raises ValueError for a file of ours that is wrong."""
    return [entry for declared in registry.declarations for entry in _read_of(declared)]


def _read_of(declared: Declaration) -> Iterable[HeldData]:
    path = files(declared.package) / _FILE if declared.databases else None
    if path is None or not path.is_file():
        return declared.personal_data
    source = Source(path.read_text("utf-8"), f"{declared.owner}/{_FILE}")
    shape = source.read(PersonalDataShape)
    if shape is None:
        raise ValueError("\n".join(map(str, source.problems)))
    return [build_entry(declared.owner, each) for each in shape.personal_data]


def build_entry(owner: str, shape: HeldDataShape) -> HeldData:
    """Return an entry as the model has it; without `what`, it is named by its table."""
    return HeldData(
        owner=owner,
        table=shape.table,
        columns=shape.columns,
        what=_text(shape.what) or Text(shape.table, shape.table),
        purpose=_text(shape.purpose),
        basis=shape.basis,
        retention=_text(shape.retention),
        retention_param=shape.retention_param,
        sensitive=shape.sensitive,
        protection=_text(shape.protection),
    )


def _text(shape: TextShape | None) -> Text | None:
    return None if shape is None else shape.text()


def complete(
    declared: Iterable[HeldData], text: str, file: str, owners: Iterable[str]
) -> tuple[DataHandler | None, list[HeldData], list[PackProblem]]:
    """Complete what participants declare by a handler's file: a field that it gives replaces the declared one.

    Returns the handler, the entries, and everything that is wrong with the file; then the handler is None.
    """
    source, known = Source(text, file), set(owners)
    shape = source.read(HandlerShape)
    found = {(entry.owner, entry.table, entry.columns): entry for entry in declared}
    for at, each in enumerate(shape.personal_data if shape is not None else ()):
        owner = each.participant or ""
        if owner not in known:
            told = f"没有参与方“{owner}”", f"there is no participant '{owner}'"
            source.problem(("personal_data", at), *told)
            continue
        entry = build_entry(owner, each)
        key = (owner, each.table, each.columns)
        before = found.get(key)
        given = {
            name: getattr(entry, name) for name in entry.__struct_fields__ if getattr(each, name, None) is not None
        }
        found[key] = entry if before is None else msgspec.structs.replace(before, **{**given, "columns": entry.columns})
    if shape is None or source.problems:
        return None, [], source.problems
    handler = DataHandler(
        name=_text(shape.name), contact=shape.contact, abroad=_text(shape.abroad), entrusted=_text(shape.entrusted)
    )
    return handler, list(found.values()), []
