"""What the participants that are databases of ours share."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

SQL_SMALLINT: Final = (1 << 15) - 1
"""The largest number of type smallint."""
SQL_INTEGER: Final = (1 << 31) - 1
"""The largest number of type integer."""
SQL_BIGINT: Final = (1 << 53) - 1
"""The largest number of type bigint that JSON carries exactly."""
LAST_SECOND: Final = 253_402_214_400
"""The last day that Python can read in any time zone, in seconds since 1970."""
CENTURY_DAYS: Final = 36_525
"""No effect lasts longer than a hundred years: a time that it makes can be read by Python and in JSON, whose years end
with 9999, long before PostgreSQL's do."""
CENTURY_HOURS: Final = 24 * CENTURY_DAYS
"""A hundred years, in hours."""
CENTURY_MINUTES: Final = 60 * CENTURY_HOURS
"""A hundred years, in minutes."""


def load_facts_sql(package: str) -> str:
    """Return the query of a participant's facts, `facts.sql` in its folder."""
    return files(package).joinpath("facts.sql").read_text(encoding="utf-8")


def load_limits_sql(package: str) -> str:
    """Return the query of the limits that a participant has put on accounts, `limits.sql` in its folder."""
    return files(package).joinpath("limits.sql").read_text(encoding="utf-8")
