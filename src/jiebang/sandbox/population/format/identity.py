"""A person's real name."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from msgspec import Meta

from jiebang.sandbox.population.format.fields import DocumentKind, Id, Instant, PopulationRecord, ShortText


class ChangeRecord(PopulationRecord):
    """A binding of a document in the past: the first ever, a new name, a renewed or another document."""

    change_id: Id
    at: Instant
    kind: Literal["bound", "renamed", "document_renewed", "document_swapped"]
    document_type: DocumentKind
    document_number: ShortText


class IdentityRecord(PopulationRecord):
    """The real name. `region`: six digits of a resident, ISO 3166 alpha-3 of anybody else.

    `birth_date` null: not known whole, nor given whole by the document, which says the year.
    """

    name: ShortText
    document_type: DocumentKind
    document_number: ShortText
    birth_date: date | None
    region: Annotated[str, Meta(min_length=3, max_length=6)]
    level: Annotated[int, Meta(ge=1, le=3)]
    changed_at: Instant
    changes: list[ChangeRecord] = []
