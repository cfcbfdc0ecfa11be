"""The columns of tables as the migrations make them, read from their SQL: no database is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.store.postgres.migrate import Migration


def list_columns(migrations: Sequence[Migration]) -> dict[str, list[str]]:
    """Return the columns of each table that the migrations of an owner make, by table, in order."""
    found = dict[str, list[str]]()
    for script in migrations:
        for statement in sqlglot.parse(script.sql, read="postgres"):
            if isinstance(statement, exp.Create) and isinstance(statement.this, exp.Schema):
                columns = (each.name for each in statement.this.expressions if isinstance(each, exp.ColumnDef))
                found[statement.this.this.name] = list(columns)
            elif isinstance(statement, exp.Alter) and statement.this.name in found:
                found[statement.this.name] += [each.name for each in statement.find_all(exp.ColumnDef)]
    return found
