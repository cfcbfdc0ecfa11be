"""The base of every record of a population file, and the types of their fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from jiebang.model.ids import MAX_ACCOUNT

MAX_ID: Final = MAX_ACCOUNT
"""The largest id, an account's or another, and the largest amount: what every JSON reader keeps exactly."""

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Fen = Annotated[int, Meta(ge=0, le=MAX_ID)]
PositiveFen = Annotated[int, Meta(ge=1, le=MAX_ID)]
SignedFen = Annotated[int, Meta(ge=-MAX_ID, le=MAX_ID)]
Instant = Annotated[datetime, Meta(tz=True)]
ShortText = Annotated[str, Meta(min_length=1, max_length=200)]
OptionalText = Annotated[str, Meta(max_length=200)]
LongText = Annotated[str, Meta(max_length=20_000)]
LONG_TEXTS: Final = frozenset({"body"})
"""The fields that are of type LongText."""
TextId = Annotated[str, Meta(min_length=1, max_length=64)]
DocumentKind = Literal[
    "resident_id",
    "residence_permit",
    "hk_macao_permit",
    "taiwan_permit",
    "foreign_permanent_residence",
    "passport",
]


class PopulationRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One JSON object of a file. Unknown fields are refused: a misspelt one would be lost in silence."""
