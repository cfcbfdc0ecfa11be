"""What the participants that are databases of ours share."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

SQL_SMALLINT: Final = (1 << 15) - 1
"""The largest number of type smallint."""
SQL_INTEGER: Final = (1 << 31) - 1
"""The largest number of type integer."""


def load_facts_sql(package: str) -> str:
    """Return the query of a participant's facts, `facts.sql` in its folder."""
    return files(package).joinpath("facts.sql").read_text(encoding="utf-8")
