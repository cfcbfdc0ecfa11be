"""Personal data as declared: what the tables of a participant hold of people, for what, on which legal basis, how long.

Whatever is not declared is None, and stays open wherever it is told: nothing is made up for it.
"""

from __future__ import annotations

import msgspec

from jiebang.model.check import Text


class HeldData(msgspec.Struct, frozen=True, kw_only=True):
    """What some columns of a table hold. Without `columns`: all that no other entry of the table names.

    `basis`: law and article, in both languages. `retention`: how long it is kept, in words; or `retention_param`, the
    parameter of policy that says so. `sensitive`: in the sense of article 28 of the Personal Information Protection
    Law. `protection`: how it is protected where it lies.
    """

    owner: str
    table: str
    columns: tuple[str, ...] = ()
    what: Text
    purpose: Text | None = None
    basis: str | None = None
    retention: Text | None = None
    retention_param: str | None = None
    sensitive: bool | None = None
    protection: Text | None = None


class DataHandler(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for the processing, and what only they can say."""

    name: Text | None = None
    contact: str | None = None
    abroad: Text | None = None
    entrusted: Text | None = None
